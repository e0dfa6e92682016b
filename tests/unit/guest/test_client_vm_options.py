"""What qrexec-client-vm is told (qrexec-wire.md section 14.1)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from insula.guest.client_vm_options import UsageError, parse


def test_options_end_at_the_first_word_that_is_none() -> None:
    options = parse(["-tT", "-pfirst", "--source-qube=far", "$dispvm", "a.B+x", "prog", "-t"])
    assert options is not None
    assert (options.target, options.service, list(options.program)) == (
        "@dispvm",
        "a.B+x",
        ["prog", "-t"],
    )
    assert (options.prefix_data, options.source) == (b"first", "far")
    assert (options.filter_stdout, options.filter_stderr) == (True, True)


def test_the_last_of_opposite_options_holds() -> None:
    options = parse(["-t", "--no-filter-escape-chars-stdout", "--", "a", "b"])
    assert options is not None
    assert not options.filter_stdout


@pytest.mark.parametrize("size", ["0", "65536", "0x10000", "010", "2147483647"])
def test_sizes_are_as_in_c(size: str) -> None:
    assert parse(["--buffer-size", size, "a", "b"]) is not None


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["a"],
        ["--buffer-size=-1", "a", "b"],
        ["--buffer-size=2147483648", "a", "b"],
        ["--buffer-size=x", "a", "b"],
        ["--buffer-size"],
        ["--help=x", "a", "b"],
        ["-x", "a", "b"],
        ["--unknown", "a", "b"],
        ["-p", "1", "-p", "2", "a", "b"],
        ["-s", "1", "--source-qube", "2", "a", "b"],
        ["--use-stdin-socket", "a", "b", "prog"],
        ["--buffer-size=1_000", "a", "b"],
        ["a", "b" * 65_000],
    ],
)
def test_what_is_not_as_it_should_be_is_a_usage_error(words: list[str]) -> None:
    with pytest.raises(UsageError):
        parse(words)


@pytest.mark.parametrize("words", [["-h"], ["--help"], ["-th", "a"]])
def test_help_needs_no_more(words: list[str]) -> None:
    assert parse(words) is None


@given(st.lists(st.text(max_size=8), max_size=6))
def test_any_words_are_read_or_refused(words: list[str]) -> None:
    try:
        parse(words)
    except UsageError:
        return
