"""What a build takes over from the machine's apt."""

import pytest

from insula.template import apt
from insula.template.sources import Source

DUMP = """\
APT "";
APT::Architecture "amd64";
Acquire "";
Acquire::http "";
Acquire::http::Proxy "proxy:3142";
Acquire::HTTPS::CaInfo "/etc/ssl/own.pem";
Acquire::Check-Valid-Until "false";
Acquire::Languages "none";
DPkg::Post-Invoke:: "/usr/bin/something";
"""


def test_only_the_way_to_an_archive_is_taken_over() -> None:
    assert apt.transport_lines(DUMP) == [
        'Acquire::http::Proxy "proxy:3142";',
        'Acquire::HTTPS::CaInfo "/etc/ssl/own.pem";',
        'Acquire::Check-Valid-Until "false";',
    ]


def test_a_machine_without_the_release_is_told_what_to_add(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    elsewhere = Source(("mirror:/debian",), ("bookworm-security",), ("main",))
    monkeypatch.setattr(apt, "_all_sources", lambda: iter([elsewhere]))
    with pytest.raises(apt.NoDebianSourceError, match="bookworm") as caught:
        apt.machine_sources("bookworm")
    assert caught.value.hint is not None
    assert "sources.list.d" in caught.value.hint


def test_this_machines_apt_can_be_asked() -> None:
    assert all(line.endswith('";') for line in apt.machine_transport())
    assert all(source.uris for source in apt._all_sources())
