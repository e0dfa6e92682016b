"""What is left to the processes that serve a qube's call to dom0."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

# Run by the end of a call that has settled, or by one that has not: what it still can do.
_TRIES = """
import ctypes, fcntl, json, mmap, os, resource, select, signal, socket, subprocess, sys, time
from insula.dom0 import confining
near, far = socket.socketpair()
listener = socket.socket(socket.AF_UNIX)
listener.bind("\\0" + os.urandom(8).hex())
listener.listen()
unconnected = socket.socket(socket.AF_UNIX)
readable, writable = os.pipe()
child = subprocess.Popen(["sleep", "0.1"])
poll = select.epoll()
libc = ctypes.CDLL(None, use_errno=True)
libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
anonymous = mmap.mmap(-1, 4096)
address = ctypes.addressof(ctypes.c_char.from_buffer(anonymous))
target = os.getpid()

def called(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), "refused")

tries = {
    "write": lambda: os.write(writable, b"x"),
    "read": lambda: os.read(readable, 1),
    "send": lambda: os.write(near.fileno(), b"x"),
    "receive": lambda: os.read(far.fileno(), 1),
    "half-close": lambda: near.shutdown(socket.SHUT_WR),
    "poll": lambda: (poll.register(readable), poll.poll(0)),
    "memory": lambda: bytearray(8 << 20),
    "sleep": lambda: time.sleep(0.001),
    "wait": child.wait,
    "dup": lambda: os.close(os.dup(readable)),
    "non-blocking": lambda: os.set_blocking(readable, False),
    "open": lambda: open("/dev/null").close(),
    "create": lambda: os.open("made", os.O_CREAT | os.O_WRONLY),
    "list": lambda: os.listdir("/"),
    "stat": lambda: os.stat("/"),
    "link": lambda: os.symlink("a", "b"),
    "socket": lambda: socket.socket(socket.AF_UNIX).close(),
    "connect": lambda: unconnected.connect(listener.getsockname()),
    "pass descriptors": lambda: socket.send_fds(far, [b"x"], [0]),
    "fork": lambda: os.fork() or os._exit(0),
    "run": lambda: subprocess.run(["true"], check=True),
    "become": lambda: os.execv("/bin/true", ["true"]),
    "signal": lambda: os.kill(target, 0),
    "limit": lambda: resource.prlimit(target, resource.RLIMIT_CORE, (0, 0)),
    "code": lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC).close(),
    "make code": lambda: called(libc.mprotect(address, 4096, 5)),
    "own signals by descriptor": lambda: fcntl.fcntl(near, 8, target),
    "shared memory": lambda: os.close(os.memfd_create("x")),
    "watch": lambda: called(libc.inotify_init1(0)),
    "namespace": lambda: called(libc.unshare(0x10000000)),
    "ring": lambda: called(libc.syscall(425, 8, ctypes.create_string_buffer(512))),
}
if "settled" in sys.argv:
    confining.prepare()
    confining.settle()
found = {}
for name, attempt in tries.items():
    if name == "become" and "settled" not in sys.argv:
        continue
    try:
        attempt()
        found[name] = True
    except OSError:
        found[name] = False
os.write(1, json.dumps(found).encode())
os._exit(0)
"""
_LEFT = {
    "write",
    "read",
    "send",
    "receive",
    "half-close",
    "poll",
    "memory",
    "sleep",
    "wait",
    "dup",
    "non-blocking",
}


def tried(place: Path, *words: str) -> dict[str, bool]:
    done = subprocess.run(
        [sys.executable, "-c", _TRIES, *words],
        cwd=place,
        stdout=subprocess.PIPE,
        timeout=60,
        check=True,
    )
    found: dict[str, bool] = json.loads(done.stdout)
    return found


def test_who_has_settled_keeps_what_is_open_and_nothing_more(tmp_path: Path) -> None:
    assert {name for name, done in tried(tmp_path, "settled").items() if done} == _LEFT
    assert not list(tmp_path.iterdir())


def test_the_test_could_fail(tmp_path: Path) -> None:
    free = tried(tmp_path)
    # A host may refuse these two to anybody.
    assert {name for name, done in free.items() if not done} <= {"namespace", "ring"}


# Calls a service as the daemon does, which is secluded, and prints what the service says.
_CALL = """
import asyncio, os, socket, sys
from pathlib import Path
from insula.daemon.rpc.host_services import HostServices
from insula.daemon.seclusion import seclude
from insula.protocol.frames import frame, take_raw_frame
from insula.protocol.qrexec import hello
NONCE = bytes(16)
place, descriptor, *kept_open = sys.argv[1:]

async def main():
    over = asyncio.Event()
    near, far = socket.socketpair()
    services = HostServices(
        (Path(place, "qubes-rpc-of-person"), Path(place, "qubes-rpc")), (), Path(place)
    )
    services.run(descriptor, far, NONCE, over.set)
    far.close()
    reader, writer = await asyncio.open_unix_connection(sock=near)
    writer.write(NONCE + hello())
    if not kept_open:
        writer.write(frame(0x190))
    received = bytearray((await reader.readexactly(16)) and b"")
    while True:
        while (raw := take_raw_frame(received, 65_536)) is not None:
            if raw.type == 0x191:
                os.write(1, raw.body)
                if kept_open:
                    return
            if raw.type == 0x193:
                writer.close()
                async with asyncio.timeout(20):
                    await over.wait()
                services.close()
                sys.exit(raw.body[0])
        data = await reader.read(65_536)
        if not data:
            sys.exit(99)
        received += data

seclude()
asyncio.run(asyncio.wait_for(main(), 50))
"""


def say(place: Path, service: str, *words: str) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(
        [sys.executable, "-c", _CALL, str(place), f"{service} work name dom0", *words],
        stdout=subprocess.PIPE,
        timeout=60,
        check=False,
    )


def add(place: Path, directory: str, name: str, program: str) -> None:
    path = place / directory / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(program)
    path.chmod(0o700)


_FACTS = f"""#!/bin/sh
exec {sys.executable} -c '
import json, os, resource, socket, subprocess
def made(family):
    try:
        socket.socket(family, socket.SOCK_DGRAM).close()
        return True
    except OSError:
        return False
def run():
    try:
        return subprocess.run(["true"]).returncode == 0
    except OSError:
        return False
def status(pid):
    lines = open(f"/proc/{{pid}}/status").read().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    limits = open(f"/proc/{{pid}}/limits").read().splitlines()
    return {{
        "no_new_privs": fields["NoNewPrivs"].strip(),
        "seccomp": fields["Seccomp"].strip(),
        "limits": {{line[:26].strip(): line[26:47].strip() for line in limits}},
        "oom": open(f"/proc/{{pid}}/oom_score_adj").read().strip(),
    }}
print(json.dumps({{
    "inet": made(socket.AF_INET), "inet6": made(socket.AF_INET6), "vsock": made(socket.AF_VSOCK),
    "unix": made(socket.AF_UNIX), "run": run(),
    "own": status("self"), "end": status(os.getppid()),
}}), flush=True)
'
"""


def facts(place: Path, directory: str) -> Any:
    add(place, directory, "test.Facts", _FACTS)
    done = say(place, "test.Facts")
    assert done.returncode == 0
    return json.loads(done.stdout)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for name in ("qubes-rpc", "qubes-rpc-of-person"):
        (tmp_path / name).mkdir()
    return tmp_path


@pytest.mark.parametrize("directory", ["qubes-rpc", "qubes-rpc-of-person"])
def test_a_service_has_no_network_no_privileges_and_leaves_no_core(
    place: Path, directory: str
) -> None:
    found = facts(place, directory)
    assert not any(found[family] for family in ("inet", "inet6", "vsock"))
    assert found["unix"]
    for process in (found["own"], found["end"]):
        assert (process["no_new_privs"], process["seccomp"]) == ("1", "2")
        assert process["limits"]["Max core file size"] == "0"
        assert int(process["oom"]) >= 500


def test_ours_start_nothing_and_have_limits_those_of_the_person_may_be_anything(
    place: Path,
) -> None:
    ours, persons = facts(place, "qubes-rpc"), facts(place, "qubes-rpc-of-person")
    assert (ours["run"], persons["run"]) == (False, True)
    assert ours["own"]["limits"]["Max address space"] == str(1 << 30)
    assert ours["own"]["limits"]["Max open files"] == "256"
    assert persons["own"]["limits"]["Max address space"] != str(1 << 30)


def test_the_end_that_reads_what_the_qube_sends_has_settled(place: Path) -> None:
    """The service waits for input: by then the end has what it needs, and no more."""
    program = _FACTS.replace("import json", "import sys, time; sys.stdin.read(); import json")
    add(place, "qubes-rpc", "test.Facts", program)
    limits = json.loads(say(place, "test.Facts").stdout)["end"]["limits"]
    assert limits["Max address space"] == str(512 << 20)
    assert limits["Max open files"] == "64"
    assert limits["Max processes"] == "0"
    assert limits["Max file size"] == "0"


def test_a_service_that_is_not_there_is_said_not_to_be(place: Path) -> None:
    assert say(place, "test.Nothing").returncode == 127


def test_a_script_of_the_person_is_run_as_before(place: Path) -> None:
    add(place, "qubes-rpc-of-person", "test.Say", "#!/bin/sh\ncat | (cat; echo $1) | tr a-z A-Z\n")
    done = say(place, "test.Say+what")
    assert (done.returncode, done.stdout) == (0, b"WHAT\n")
