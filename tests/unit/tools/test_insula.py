"""insula: up, down, status, unit; and what doctor finds."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from insula.tools import doctor, insula, unit
from insula.tools.doctor import Finding
from tests.unit.tools.conftest import Run
from tests.unit.tools.fake_daemon import FakeDaemon

INSULA = [sys.executable, "-m", "insula.tools.insula"]
STATUS = {
    "engine": "QEMU with KVM",
    "warning": None,
    "home": "/h",
    "run": "/r",
    "snapshots": 2,
    "building": 1,
    "running": [{"name": "work", "private": 95 << 20, "shared": 200 << 20}],
}


@pytest.fixture
def real(instance: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An instance whose daemon is the real one, with the engine that is none; ended afterwards."""
    monkeypatch.setenv("INSULA_ENGINE", "memory")
    yield instance
    done = command("down", "--kill")
    assert done.returncode == 0, done.stderr


def command(*words: str) -> "subprocess.CompletedProcess[str]":
    """insula as a process: a daemon that it starts is then nobody's child."""
    return subprocess.run(
        [*INSULA, *words], capture_output=True, text=True, timeout=120, check=False
    )


def daemon_pid() -> int:
    return int(json.loads(command("status", "--json").stdout)["pid"])


def test_status_is_shown(daemon: FakeDaemon, run: Run) -> None:
    daemon.local["status"] = lambda _fields: STATUS | {"warning": "no boundary"}
    assert run(insula.main, "status").out.splitlines() == [
        "engine     QEMU with KVM",
        "warning    no boundary",
        "home       /h",
        "sockets    /r",
        "snapshots  2 made, 1 being made",
        "qubes      1 running",
        "           work: 95 MiB of its own, 200 MiB shared",
    ]
    assert json.loads(run(insula.main, "status", "--json").out)["snapshots"] == 2


def test_without_a_daemon_status_says_how_to_start_one(run: Run) -> None:
    done = run(insula.main, "status")
    assert (done.code, done.err.splitlines()[1]) == (1, "Start it with: insula up")


def test_up_starts_a_daemon_and_down_ends_it(real: Path) -> None:
    first, second = command("up"), command("up")
    assert (first.returncode, first.stdout) == (0, "insula is up\n")
    assert (second.returncode, second.stdout) == (0, "insula was up already\n")
    assert "isolates nothing" in first.stderr
    assert command("down").stdout == "insula is down\n"
    assert command("down").stdout == "insula was not up\n"
    assert not (real / "keeper.sock").exists()


def test_two_at_once_start_one_daemon(real: Path) -> None:
    both = [subprocess.Popen([*INSULA, "up"], stdout=subprocess.PIPE) for _ in range(2)]
    said = sorted(one.communicate(timeout=120)[0] for one in both)
    assert said == [b"insula is up\n", b"insula was up already\n"]
    assert (real / "qubesd.sock").exists()


def test_down_ends_an_instance_whose_daemon_was_killed(real: Path) -> None:
    assert command("up").returncode == 0
    os.kill(daemon_pid(), signal.SIGKILL)
    done = command("down")
    assert (done.returncode, done.stdout, done.stderr) == (0, "insula is down\n", "")
    assert not (real / "keeper.sock").exists()


@pytest.mark.usefixtures("real")
def test_a_daemon_that_cannot_start_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setenv("INSULA_ENGINE", "none")
        done = command("up")
    assert done.returncode == 1
    assert "the daemon ended with status 1; it said:" in done.stderr
    assert "INSULA_ENGINE is kvm, tcg or memory" in done.stderr
    assert done.stderr.splitlines()[-1].endswith("/log/insulad.log")


def test_a_supervisor_gets_the_daemon_itself(real: Path) -> None:
    with subprocess.Popen([*INSULA, "up", "--foreground"]) as process:
        poll_until_up(process)
        assert daemon_pid() == process.pid
        done = command("up", "--foreground")
        assert (done.returncode, "a daemon runs already" in done.stderr) == (1, True)
        assert command("down").returncode == 0
        assert process.wait(60) == 0
    assert not (real / "qubesd.sock").exists()


def poll_until_up(process: "subprocess.Popen[bytes]") -> None:
    """Wait until status is answered, or the process that is to answer it has ended."""
    while command("status").returncode:
        assert process.poll() is None


def test_sockets_are_not_made_where_others_reach_them(instance: Path, run: Run) -> None:
    instance.chmod(0o755)
    done = run(insula.main, "up")
    assert done.code == 1
    assert f"chmod 700 {instance}" in done.err


def test_a_path_too_long_for_sockets_is_told(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSULA_RUN", "/tmp/" + "x" * 100)
    done = run(insula.main, "status")
    assert done.code == 1
    assert "Set INSULA_RUN to a path of at most" in done.err


@pytest.mark.parametrize("name", ["keeper.sock.lock", "home/insulad.lock"])
def test_down_waits_until_nothing_of_the_instance_is_left(
    daemon: FakeDaemon, instance: Path, name: str
) -> None:
    daemon.local["stop"] = lambda _fields: {}
    (instance / "home").mkdir()
    with (instance / name).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with subprocess.Popen([*INSULA, "down"], stdout=subprocess.PIPE) as down:
            with pytest.raises(subprocess.TimeoutExpired):
                down.wait(0.5)
            fcntl.flock(lock, fcntl.LOCK_UN)
            assert down.communicate(timeout=60)[0] == b"insula is down\n"


def test_the_unit_is_printed_for_this_command(run: Run) -> None:
    text = run(insula.main, "unit").out
    command = Path(sys.executable).parent / "insula"
    assert f"ExecStart={command} up --foreground\n" in text
    assert f"ExecStop={command} down\n" in text
    assert "KillMode=process\n" in text


def test_a_path_is_quoted_for_systemd() -> None:
    text = unit.unit_text(Path('/a b/50%/$x/"q"/insula'))
    assert 'ExecStart="/a b/50%%/$$x/\\"q\\"/insula" up --foreground\n' in text


def test_the_unit_is_put_in_its_place(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", "/none")
    done = run(insula.main, "unit", "--install")
    assert "systemctl --user enable --now insula\n" in done.out
    assert (tmp_path / "systemd/user/insula.service").read_text() == run(insula.main, "unit").out


def test_systemd_takes_the_unit(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "insula.service"
    text = run(insula.main, "unit").out
    path.write_text(text.replace(str(unit.own_command()), shutil.which("true") or ""))
    verify = ["systemd-analyze", "--user", "verify", str(path)]
    done = subprocess.run(verify, capture_output=True, text=True, timeout=60, check=False)
    assert "insula.service" not in done.stderr


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
    monkeypatch.setattr(doctor, "examine", lambda: findings)
    assert run(insula.main, "doctor").code == code
    told = json.loads(run(insula.main, "doctor", "--json").out)
    assert [one["subject"] for one in told] == [finding.subject for finding in findings]


def test_doctor_shows_lines_to_run_below_what_is_lacking(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [Finding("swap", "lack", "plain", ("sudo swapoff x",)), Finding("xen", "ok", "no")]
    monkeypatch.setattr(doctor, "examine", lambda: found)
    assert run(insula.main, "doctor").out == (
        "lack     swap  plain\n               sudo swapoff x\nok       xen   no\n"
    )


def test_a_look_that_fails_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Finding:
        raise OSError("no /proc here")

    monkeypatch.setattr(doctor, "CHECKS", (broken, lambda: Finding("b", "ok", "")))
    first, second = doctor.examine()
    assert (first.subject, first.level) == ("broken", "warning")
    assert "no /proc here" in first.text
    assert second.subject == "b"


def test_missing_programs_are_named_with_their_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "PROGRAMS", {"no-such-program": "its-package", "sh": "dash"})
    found = doctor.programs()
    assert (found.level, found.text) == ("lack", "not installed: no-such-program")
    assert found.fix == ("sudo apt-get install --no-install-recommends its-package",)


def test_a_display_is_asked_and_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    assert doctor.display().level == "warning"
    monkeypatch.setenv("DISPLAY", ":7654321")
    assert doctor.display().level == "lack"
    monkeypatch.setenv("DISPLAY", "elsewhere:0")
    assert doctor.display().level == "lack"


@pytest.mark.parametrize(("free", "level"), [(11 << 30, "lack"), (13 << 30, "ok")])
def test_room_on_the_disk(monkeypatch: pytest.MonkeyPatch, free: int, level: str) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=free))
    monkeypatch.setenv("INSULA_HOME", "/no/such/place/yet")
    found = doctor.disk()
    assert found.level == level
    assert bool(found.fix) == (level == "lack")


@pytest.mark.parametrize(
    ("lines", "level"),
    [
        ("", "ok"),
        ("/dev/zram0 partition 1 0 -2\n", "ok"),
        ("/dev/no-such-disk partition 1 0 -2\n", "lack"),
    ],
)
def test_swap_has_to_be_encrypted(monkeypatch: pytest.MonkeyPatch, lines: str, level: str) -> None:
    real = Path.read_text

    def read(path: Path) -> str:
        return f"Filename Type Size\n{lines}" if path == Path("/proc/swaps") else real(path)

    monkeypatch.setattr(Path, "read_text", read)
    found = doctor.swap()
    assert found.level == level
    assert found.fix == (("sudo swapoff /dev/no-such-disk",) if level == "lack" else ())


def test_only_one_start_at_a_time(real: Path) -> None:
    with (real / "up.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with subprocess.Popen([*INSULA, "up"], stdout=subprocess.PIPE) as waiting:
            with pytest.raises(subprocess.TimeoutExpired):
                waiting.wait(0.5)
            assert not (real / "qubesd.sock").exists()
            fcntl.flock(lock, fcntl.LOCK_UN)
            assert waiting.wait(120) == 0
    assert command("status").returncode == 0
