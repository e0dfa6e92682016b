"""Room on a file system."""

from pathlib import Path

import pytest

from insula.template.space import NoSpaceError, free_space, ran_out, require_space


def test_what_is_free_may_be_asked_for(tmp_path: Path) -> None:
    assert free_space(tmp_path) > 0
    require_space(tmp_path, 1)


def test_the_error_names_the_directory_what_is_needed_and_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(NoSpaceError) as caught:
        require_space(tmp_path, 2**60)
    assert str(tmp_path) in str(caught.value)
    assert "needs 1073741824.0 GiB" in str(caught.value)
    assert caught.value.hint is not None
    assert "INSULA_HOME" in caught.value.hint


def test_lack_of_space_is_known_by_what_the_program_said(tmp_path: Path) -> None:
    assert ran_out(tmp_path, "tar: write: No space left on device")
    assert not ran_out(tmp_path, "E: unable to locate package")
