"""insula doctor: what it finds, and lines to run that are exact."""

import grp
import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from insula.tools import insula
from insula.tools.doctor import (
    engines,
    namespaces,
    programs,
    report,
    resources,
    session,
    swap,
    uplinks,
)
from insula.tools.doctor.finding import Finding, sudo, user_name
from tests.unit.tools.conftest import Run

BROKEN = ("sh", "-c", "echo it is forbidden >&2; false")


@pytest.mark.parametrize(
    ("findings", "code"),
    [
        ([Finding("a", "ok", "fine")], 0),
        ([Finding("a", "warning", "slow")], 0),
        ([Finding("a", "ok", "fine"), Finding("longer", "lack", "none", ("do", "that"))], 1),
    ],
)
def test_doctor_fails_only_for_a_lack(
    run: Run, monkeypatch: pytest.MonkeyPatch, findings: list[Finding], code: int
) -> None:
    monkeypatch.setattr(report, "examine", lambda: findings)
    assert run(insula.main, "doctor").code == code
    told = json.loads(run(insula.main, "doctor", "--json").out)
    assert [one["subject"] for one in told] == [finding.subject for finding in findings]


def test_doctor_shows_lines_to_run_below_what_is_lacking(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [Finding("swap", "lack", "plain", ("sudo swapoff x",)), Finding("xen", "ok", "no")]
    monkeypatch.setattr(report, "examine", lambda: found)
    assert run(insula.main, "doctor").out == (
        "lack     swap  plain\n               sudo swapoff x\nok       xen   no\n"
    )


def test_a_look_that_fails_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Finding:
        raise OSError("no /proc here")

    monkeypatch.setattr(report, "CHECKS", (broken, lambda: Finding("b", "ok", "")))
    first, second = report.examine()
    assert (first.subject, first.level) == ("broken", "warning")
    assert "no /proc here" in first.text
    assert second.subject == "b"


def test_missing_programs_are_named_with_their_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "PROGRAMS", {"no-such-program": "its-package", "sh": "dash"})
    found = programs.programs()
    assert (found.level, found.text) == ("lack", "not installed: no-such-program")
    assert found.fix == (f"{sudo()}apt-get install --no-install-recommends its-package",)


def test_a_display_is_asked_and_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    assert session.display().level == "warning"
    monkeypatch.setenv("DISPLAY", ":7654321")
    assert session.display().level == "lack"
    monkeypatch.setenv("DISPLAY", "localhost:54321")
    assert session.display().level == "lack"


@pytest.mark.parametrize(("free", "level"), [(11 << 30, "lack"), (13 << 30, "ok")])
def test_room_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, level: str
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=free))
    monkeypatch.setenv("INSULA_HOME", str(tmp_path / "not" / "yet"))
    found = resources.disk()
    assert found.level == level
    assert bool(found.fix) == (level == "lack")


def crypt(blocks: Path, number: int, uuid: str, *below: int) -> None:
    """A block device 0:NUMBER of sysfs, made of others."""
    device = blocks / f"0:{number}"
    (device / "dm").mkdir(parents=True)
    (device / "dm" / "uuid").write_text(uuid)
    (device / "slaves").mkdir()
    for one in below:
        (device / "slaves" / str(one)).symlink_to(blocks / f"0:{one}")


@pytest.mark.parametrize(
    ("uuids", "level"),
    [
        ({0: "CRYPT-LUKS2-x"}, "ok"),
        ({0: "LVM-y", 1: "CRYPT-LUKS2-x"}, "ok"),
        ({0: "LVM-y", 1: "LVM-z"}, "lack"),
        ({0: "LVM-y"}, "lack"),
    ],
)
def test_a_swap_file_is_as_secret_as_what_it_lies_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uuids: dict[int, str], level: str
) -> None:
    place = tmp_path / "a swap's file"
    place.touch()
    listed = str(place).replace(" ", "\\040")
    (tmp_path / "swaps").write_text(f"Filename Type Size\n{listed} file 1 0 -2\n")
    (tmp_path / "fstab").write_text("#/old none swap sw 0 0\n/dev/x / ext4 defaults 0 1\n")
    monkeypatch.setattr(swap, "SWAPS", tmp_path / "swaps")
    monkeypatch.setattr(swap, "FSTAB", tmp_path / "fstab")
    monkeypatch.setattr(swap, "BLOCKS", tmp_path / "blocks")
    for number, uuid in uuids.items():
        crypt(tmp_path / "blocks", number, uuid, *(one for one in uuids if one == number + 1))
    device = place.stat().st_dev
    name = f"{os.major(device)}:{os.minor(device)}"
    (tmp_path / "blocks" / name).symlink_to(tmp_path / "blocks" / "0:0")
    found = swap.swap()
    assert found.level == level
    quoted = "'" + str(place).replace("'", "'\\''") + "'"
    assert found.fix == ((f"{sudo()}swapoff {quoted}",) if level == "lack" else ())


def test_swap_is_left_off_for_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "swaps").write_text("Filename Type Size\n/dev/no-such-disk partition 1 0 -2\n")
    (tmp_path / "fstab").write_text("UUID=1 none swap sw 0 0\nUUID=2 / ext4 rw 0 1\n")
    monkeypatch.setattr(swap, "SWAPS", tmp_path / "swaps")
    monkeypatch.setattr(swap, "FSTAB", tmp_path / "fstab")
    off, for_good = swap.swap().fix
    assert off == f"{sudo()}swapoff /dev/no-such-disk"
    assert os.waitstatus_to_exitcode(os.system(for_good.removeprefix("sudo "))) == 0
    assert capfd.readouterr().err == ""
    text = (tmp_path / "fstab").read_text()
    assert text == "#UUID=1 none swap sw 0 0\nUUID=2 / ext4 rw 0 1\n"
    assert swap.swap().fix == (off,)


def test_no_swap_is_fine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "swaps").write_text("Filename Type Size\n")
    monkeypatch.setattr(swap, "SWAPS", tmp_path / "swaps")
    assert (swap.swap().level, swap.swap().fix) == ("ok", ())


@pytest.fixture
def ordinary(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines as for somebody who is not root."""
    monkeypatch.setattr(os, "geteuid", lambda: 4711)


@pytest.fixture
def ranges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Files of ranges, where making namespaces with them fails."""
    paths = {kind: tmp_path / f"sub{kind}" for kind in ("uid", "gid")}
    monkeypatch.setattr(namespaces, "RANGES", paths)
    monkeypatch.setattr(namespaces, "_RANGE", BROKEN)
    return paths


@pytest.mark.usefixtures("ordinary")
def test_a_missing_range_is_one_that_nobody_has(ranges: dict[str, Path]) -> None:
    ranges["uid"].write_text("other:100000:65536\n# a comment\nthird:300000:10\n")
    name = user_name()
    found = namespaces.subordinate_ids()
    words = "--add-subuids 300010-365545 --add-subgids 300010-365545"
    assert (found.level, found.fix) == ("lack", (f"sudo usermod {words} {name}",))
    ranges["uid"].write_text(f"{name}:100000:65536\n")
    fix = f"sudo usermod --add-subgids 165536-231071 {name}"
    assert namespaces.subordinate_ids().fix == (fix,)


@pytest.mark.usefixtures("ordinary")
def test_ranges_that_cannot_be_used_are_a_lack(ranges: dict[str, Path]) -> None:
    for path in ranges.values():
        path.write_text(f"{user_name()}:100000:65536\n")
    found = namespaces.subordinate_ids()
    assert (found.level, "it is forbidden" in found.text) == ("lack", True)


@pytest.mark.usefixtures("ordinary")
@pytest.mark.parametrize(
    ("settings", "lines"),
    [
        ({"kernel/unprivileged_userns_clone": "0"}, "kernel.unprivileged_userns_clone = 1"),
        ({"kernel/unprivileged_userns_clone": "1"}, ""),
        ({"user/max_user_namespaces": "0"}, "user.max_user_namespaces = 15000"),
        (
            {
                "kernel/apparmor_restrict_unprivileged_userns": "1",
                "user/max_user_namespaces": "0",
            },
            "kernel.apparmor_restrict_unprivileged_userns = 0\\nuser.max_user_namespaces = 15000",
        ),
    ],
)
def test_settings_that_forbid_jails_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], lines: str
) -> None:
    for name, value in settings.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"{value}\n")
    monkeypatch.setattr(namespaces, "SETTINGS", tmp_path)
    monkeypatch.setattr(namespaces, "_JAIL", BROKEN)
    found = namespaces.user_namespaces()
    assert (found.level, found.text) == ("lack", "it is forbidden")
    file = "/etc/sysctl.d/60-insula.conf"
    fix = (f"printf '{lines}\\n' | sudo tee {file}", f"sudo sysctl -p {file}") if lines else ()
    assert found.fix == fix


class Device:
    """A /dev/kvm of some group and mode, which this user cannot open."""

    def __init__(self, gid: int, mode: int) -> None:
        self._found = SimpleNamespace(st_gid=gid, st_mode=mode)

    def stat(self) -> SimpleNamespace:
        return self._found

    def __fspath__(self) -> str:
        return "/no/such/kvm"

    __str__ = __fspath__


@pytest.mark.usefixtures("ordinary")
@pytest.mark.parametrize(
    ("device", "exists", "lines"),
    [
        (Device(77, 0o660), True, ["sudo usermod --append --groups machines NAME"]),
        (
            Device(0, 0o600),
            False,
            [
                "sudo groupadd --system kvm",
                "sudo chgrp kvm /no/such/kvm",
                "sudo chmod 660 /no/such/kvm",
                "sudo usermod --append --groups kvm NAME",
            ],
        ),
    ],
)
def test_kvm_is_opened_by_its_group(
    monkeypatch: pytest.MonkeyPatch, device: Device, exists: bool, lines: list[str]
) -> None:
    def by_name(name: str) -> SimpleNamespace:
        if not exists:
            raise KeyError(name)
        return SimpleNamespace(gr_gid=77, gr_name=name)

    monkeypatch.setattr(engines, "DEVICE", device)
    monkeypatch.setattr(grp, "getgrgid", lambda _gid: SimpleNamespace(gr_name="machines"))
    monkeypatch.setattr(grp, "getgrnam", by_name)
    wanted = [line.replace("NAME", user_name()) for line in lines]
    assert engines._to_open() == (*wanted, "# then log out and in again")


def test_a_place_for_sockets_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSULA_RUN", str(tmp_path / "new"))
    assert session.sockets().level == "ok"
    monkeypatch.setenv("INSULA_RUN", "/dev/null/run")
    assert session.sockets().level == "lack"
    monkeypatch.delenv("INSULA_RUN")
    monkeypatch.setenv("XDG_RUNTIME_DIR", f"/run/user/{os.getuid()}")
    monkeypatch.setattr(session, "can_be_made", lambda _path: False)
    monkeypatch.setattr(session, "runs_systemd", lambda: True)
    assert session.sockets().fix == (f"{sudo()}loginctl enable-linger {user_name()}",)
    monkeypatch.setattr(session, "runs_systemd", lambda: False)
    assert session.sockets().fix[0].endswith(f" /run/user/{os.getuid()}")


def test_a_home_that_cannot_be_made_is_a_lack(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSULA_HOME", "/dev/null/home")
    assert (resources.disk().level, "cannot be made" in resources.disk().text) == ("lack", True)


@pytest.mark.parametrize(
    ("four", "six", "level"),
    [
        ("eth0 00000000 0102A8C0 0003 0 0 100 00000000 0 0 0", "", "ok"),
        ("eth0 0002A8C0 00000000 0001 0 0 100 00FFFFFF 0 0 0", "", "warning"),
        ("", f"{'0' * 32} 00 {'0' * 32} 00 {'0' * 32} ffffffff 1 0 00200200 lo", "warning"),
        ("", f"{'0' * 32} 00 {'0' * 32} 00 {'f' * 32} 00000400 1 0 00000003 eth0", "ok"),
    ],
)
def test_a_way_out_needs_a_route(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, four: str, six: str, level: str
) -> None:
    (tmp_path / "four").write_text(f"Iface Destination Gateway ...\n{four}\n".replace("\n\n", "\n"))
    (tmp_path / "six").write_text(six and f"{six}\n")
    monkeypatch.setattr(uplinks, "ROUTES", tmp_path / "four")
    monkeypatch.setattr(uplinks, "ROUTES6", tmp_path / "six")
    monkeypatch.setattr(uplinks, "TUN", tmp_path / "four")
    monkeypatch.setattr(uplinks, "_complaint", lambda: None)
    assert uplinks.uplink().level == level


def test_what_a_way_out_lacks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uplinks, "TUN", tmp_path / "none")
    assert uplinks.uplink().fix == (f"{sudo()}modprobe tun",)
    monkeypatch.setenv("PATH", str(tmp_path))
    found = uplinks.uplink()
    assert found.level == "lack"
    assert "apt-get install" in found.fix[0]
