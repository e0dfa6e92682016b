"""insula: up, down, status, unit."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from insula.tools import insula, unit
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


@pytest.mark.parametrize("variable", ["INSULA_RUN", "INSULA_HOME"])
@pytest.mark.parametrize("place", ["/proc/none/of/ours", "/dev/null"])
def test_a_place_that_cannot_be_made_is_named_with_its_variable(
    instance: Path, run: Run, monkeypatch: pytest.MonkeyPatch, variable: str, place: str
) -> None:
    monkeypatch.setenv(variable, place)
    done = run(insula.main, "up")
    assert (done.code, f"{place} cannot be made" in done.err) == (1, True)
    assert f"Set {variable} to" in done.err
    assert not (instance / "keeper.sock").exists()


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


def test_text_of_the_host_goes_to_the_clipboard_between_qubes(instance: Path) -> None:
    def clipboard(text: bytes, *words: str) -> "subprocess.CompletedProcess[bytes]":
        command = [*INSULA, "clipboard", *words]
        return subprocess.run(command, input=text, capture_output=True, timeout=60, check=False)

    done = clipboard("żółw".encode())
    assert (done.returncode, done.stdout[:7]) == (0, b"7 bytes"), done.stderr
    assert (instance / "qubes-clipboard.bin").read_bytes() == "żółw".encode()
    assert (instance / "qubes-clipboard.bin.source").read_bytes() == b"dom0"
    assert clipboard(b"", "--clear").returncode == 0
    assert (instance / "qubes-clipboard.bin").read_bytes() == b""
    assert clipboard(b"").returncode == 1
    assert clipboard(bytes(256_001)).returncode == 1
