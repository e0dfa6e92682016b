"""A qube looks for updates and installs them; its apt-get is a script that says what apt does."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from insula.guest.updates import installing, looking
from insula.guest.updates.apt import Apt
from insula.protocol.updating import Package, Progress, parse_line

# What apt-get -s dist-upgrade says, before there is a file "done".
SIMULATED = """\
Reading package lists...
Inst base-files [12.4+deb12u11] (12.4+deb12u15 Debian:12.15/oldstable [amd64])
Inst libssl3 [3.0.15-1] (3.0.17-1 Debian:12/stable, Debian-Security:12 [amd64]) []
Inst libnew (1:2.0~rc1-1 Debian:12.15/oldstable [all])
Conf base-files (12.4+deb12u15 Debian:12.15/oldstable [amd64])
"""
PACKAGES = [
    Package("base-files", "12.4+deb12u11", "12.4+deb12u15"),
    Package("libssl3", "3.0.15-1", "3.0.17-1"),
    Package("libnew", None, "1:2.0~rc1-1"),
]
SCRIPT = """#!/bin/bash
echo "$*" >> {here}/asked
for word; do case $word in APT::Status-Fd=*) fd=${{word#*=}} ;; esac; done
say() {{ echo "$1" >&"$fd"; }}
case "$*" in
*"-s "*) [ -e {here}/done ] || cat {here}/simulated ;;
*update*)
    [ ! -e {here}/offline ] || {{ echo "E: no mirror" >&2; exit 100; }}
    say "dlstatus:1:50.0000:Retrieving file 1 of 2" ;;
*dist-upgrade*)
    say "dlstatus:1:100.0000:Retrieving file 1 of 1"
    say "pmstatus:dpkg-exec:0:Running dpkg"
    say "pmstatus:libssl3:50.0000:Unpacking libssl3 (amd64): a: b"
    say "what apt never says"
    touch {here}/done ;;
esac
"""


@pytest.fixture
def apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Apt]:
    monkeypatch.setattr(installing, "_INSTALLED", tmp_path / "none")
    (tmp_path / "simulated").write_text(SIMULATED)
    script = tmp_path / "apt-get"
    script.write_text(SCRIPT.format(here=tmp_path))
    script.chmod(0o755)
    with (tmp_path / "output").open("w") as output:
        yield Apt([str(script)], output=output)


def asked(tmp_path: Path) -> list[str]:
    """What apt-get was asked to do, but for the number of its pipe."""
    lines = (tmp_path / "asked").read_text().splitlines()
    return [re.sub(r"-q -o APT::Status-Fd=\d+ ", "", line) for line in lines]


def test_all_updates_are_installed_and_dom0_is_told(
    apt: Apt, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told: list[int] = []

    def tell(count: int) -> int:
        told.append(count)
        return 0

    assert installing.main(apt, tell) == 0
    said = [parse_line(line.encode()) for line in capsys.readouterr().out.splitlines()]
    assert [one for one in said if isinstance(one, Package)] == PACKAGES
    percents = [one.percent for one in said if isinstance(one, Progress)]
    assert percents == sorted(set(percents))
    assert percents == [10, 20, 25, 60, 80, 100]
    assert told == [0]
    assert asked(tmp_path) == [
        "update --error-on=any",
        "-s -o Debug::NoLocking=1 dist-upgrade -y",
        "-o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold dist-upgrade -y",
        "clean",
        "-s -o Debug::NoLocking=1 dist-upgrade -y",
    ]


def test_without_updates_nothing_is_installed(
    apt: Apt, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "done").touch()
    assert installing.main(apt, lambda _count: 0) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "progress 100"
    assert not any("force-confold" in line for line in asked(tmp_path))


def test_a_failure_of_the_package_manager_is_one_of_the_service(
    apt: Apt, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "offline").touch()
    assert installing.main(apt, lambda _count: 0) == 1
    assert "the updates were not installed: " in capsys.readouterr().err


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A qube without a way to any mirror."""
    for name, file in (("_FORGETFUL", "none"), ("_ROUTES", "route"), ("_PROXY", "proxy")):
        monkeypatch.setattr(looking, name, tmp_path / file)
    (tmp_path / "proxy").touch()
    (tmp_path / "route").write_text("Iface\tDestination\tGateway\neth0\t0A890005\t00000000\n")
    return tmp_path


def by_route(place: Path) -> None:
    with (place / "route").open("a") as routes:
        routes.write("eth0\t00000000\t0A890005\n")


def by_proxy(place: Path) -> None:
    (place / "proxy").write_text("Acquire::http::Proxy")


@pytest.mark.parametrize("way", [by_route, by_proxy])
def test_dom0_hears_whether_there_are_updates(
    apt: Apt, place: Path, way: Callable[[Path], None]
) -> None:
    told: list[int] = []

    def tell(count: int) -> int:
        told.append(count)
        return 0

    assert looking.main(apt, tell) == 0
    assert told == []
    way(place)
    assert looking.main(apt, tell) == 0
    assert told == [3]
    (place / "done").touch()
    assert looking.main(apt, tell) == 0
    assert told == [3, 0]


def test_what_will_be_forgotten_is_not_looked_for(apt: Apt, place: Path) -> None:
    by_route(place)
    (place / "none").touch()
    assert looking.main(apt, lambda _count: 7) == 0


def test_who_could_not_look_tells_nothing(apt: Apt, place: Path) -> None:
    by_route(place)
    (place / "offline").touch()
    assert looking.main(apt, lambda _count: 0) == 1


def test_dom0_is_told_by_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = tmp_path / "client"
    client.write_text(f'#!/bin/sh\necho "$*" >> {tmp_path}/said\ncat >> {tmp_path}/said\n')
    client.chmod(0o755)
    monkeypatch.setenv("QREXEC_CLIENT_VM", str(client))
    assert looking.notify(12) == 0
    assert looking.notify(0) == 0
    line = "-- dom0 qubes.NotifyUpdates\n"
    assert (tmp_path / "said").read_text() == f"{line}1\n{line}0\n"
