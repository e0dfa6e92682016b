"""The floor: what a clone costs when nothing but the inevitable is done for it.

The same machine, jail, encrypted overlays, snapshot and guest as a disposable of the daemon's, but
a plain script, which keeps nothing, asks nobody and sets nothing up in the guest: it starts QEMU,
restores the state, seeds the agent and runs one command as the user.
"""

import json
import os
import signal
import socket
import sqlite3
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from insula.daemon.engine.interface import FIRST_DATA_PORT, Kernel, MachineSpec, Shape
from insula.daemon.engine.qemu import images
from insula.daemon.engine.qemu.arguments import Accelerator, Descriptors, OpenLayer, Sources
from insula.daemon.engine.qemu.arguments import arguments as qemu_arguments
from insula.daemon.lifecycle.goldens import Golden
from insula.daemon.model.machine import Disk, Layer
from insula.daemon.model.qube import Qube, QubeClass
from insula.daemon.model.volume import PRIVATE_SIZE, VOLATILE_SIZE, Volume
from insula.daemon.rpc.calls import FIRST_QREXEC_PORT
from insula.daemon.storage.attaching import attach, close, open_disk
from insula.daemon.storage.places import Places
from insula.daemon.storage.plan import Plan
from insula.keeper.spawn import SpawnError, Spawning, spawn
from insula.protocol import qrexec
from insula.protocol.control import Attach, ControlType, Seed, Seeded
from insula.protocol.frames import frame, take_raw_frame
from insula.protocol.keeper import JailKind, JailSpec
from insula.protocol.qrexec import ExecParameters, MessageType
from insula.protocol.resync import CONTROL_PREFIX, NONCE_SIZE, MarkerFinder

UID = 700_900_000
RAW_PORT = 30  # which no call of a bare machine gets
DEADLINE = 60.0
# `sh -c "echo hello"` as the agent runs programs: without a login shell around it.
ECHO = "QUBESRPC qubes.VMExec+sh+--c+echo-20hello dom0"
_NO_KERNEL = Kernel(image=Path("/"), initrd=Path("/"), options="")


@dataclass(slots=True)
class Floor:
    """What is there before a clone is asked for: a template's root, a snapshot, its memory."""

    places: Places
    root: Volume
    golden: Golden
    memory: int
    accelerator: Accelerator
    agent: Path

    @classmethod
    def of(cls, home: Path, run: Path, template: str, key: str) -> "Floor":
        """A snapshot of an instance's template."""
        qube = stored(home / "insula.db", template)
        (place,) = (home / "golden").glob(f"{key}-*")
        golden = Golden(key, place)
        verdict = json.loads((run / "accelerator.json").read_text())
        return cls(
            places=Places(home),
            root=qube.volumes["root"],
            golden=golden,
            memory=images.load_sealed(golden.directory / "ram"),
            accelerator=Accelerator(**verdict["accelerator"]),
            agent=home / "agent.img",
        )

    def once(self, scratch: Path, command: str = ECHO) -> float:
        """Seconds from nothing to a program's exit code; the machine is gone afterwards."""
        begun = time.monotonic()
        with self.machine(scratch) as machine:
            code, output = machine.run(command)
            taken = time.monotonic() - begun
        if code != 0:
            raise RuntimeError(f"{command!r} ended with {code}: {output!r}")
        return taken

    @contextmanager
    def machine(self, scratch: Path) -> Iterator["BareMachine"]:
        """A clone for the length of the block."""
        with ExitStack() as undo:
            yield BareMachine(self, scratch, undo)


class BareMachine:
    """One clone, made by hand.

    free_before_seed: how many processes besides the agent could run before it had its seed.
    """

    def __init__(self, floor: Floor, scratch: Path, undo: ExitStack) -> None:
        self._undo = undo
        self._scratch = scratch
        self.free_before_seed = -1
        self._ports = iter(range(FIRST_DATA_PORT, RAW_PORT))
        qmp, control = self._listen("qmp"), self._listen("control")
        jail, given = self._jail(floor, qmp, control)
        spawning = spawn(jail, given)
        undo.callback(_end, spawning)
        self.qmp = Qmp(self._connect("qmp", undo))
        self._restore(floor.golden.directory / "state")
        self._control = self._connect("control", undo)
        self._seed()

    def run(self, command: str, user: str = "user") -> tuple[int, bytes]:
        """Run a command to its end; its exit code and output."""
        connection, nonce = self._call(command, user)
        return _read_call(connection, MarkerFinder(nonce))

    def begin(self, command: str, user: str = "user") -> None:
        """Run a command whose end nobody waits for."""
        self._call(command, user)

    def join(self, port: int) -> socket.socket:
        """The host's end of a raw data port."""
        near, far = socket.socketpair()
        self._undo.enter_context(near)
        near.settimeout(DEADLINE)
        name = f"data{port}"
        backend = {"addr": {"type": "fd", "data": {"str": name}}, "server": False}
        with far:
            self.qmp.give(far.fileno(), name)
            self.qmp.ask(
                "chardev-change", id=f"c{port}", backend={"type": "socket", "data": backend}
            )
        return near

    def _call(self, command: str, user: str) -> tuple[socket.socket, bytes]:
        port = next(self._ports)
        near, nonce = self.join(port), os.urandom(NONCE_SIZE)
        body = ExecParameters(0, FIRST_QREXEC_PORT + port, f"{user}:nogui:{command}").encode()
        attach_message = Attach(0, FIRST_QREXEC_PORT + port, port, nonce).encode()
        self._control.sendall(attach_message + frame(MessageType.EXEC_CMDLINE, body))
        near.sendall(nonce + qrexec.hello() + frame(MessageType.DATA_STDIN))
        return near, nonce

    def _jail(self, floor: Floor, qmp: int, control: int) -> tuple[JailSpec, list[int]]:
        owner, shape = uuid4(), Shape()
        spec = MachineSpec(
            name="floor",
            uid=UID,
            run=self._scratch,
            disks=self._disks(floor, owner),
            kernel=_NO_KERNEL,
            shape=shape,
            golden=floor.golden.directory,
        )
        pixels = images.blank("pixels", shape.pixels, images.SIZE_SEALS)
        self._undo.callback(os.close, pixels)
        sources = Sources(
            qmp=qmp,
            control=control,
            gui=self._listen("gui"),
            pixels=pixels,
            memory=floor.memory,
            kernel=None,
            initrd=None,
        )
        descriptors = Descriptors()
        disks = tuple((disk, tuple(map(self._open, disk.layers))) for disk in spec.disks)
        argv = qemu_arguments(spec, floor.accelerator, sources, disks, descriptors)
        jail = JailSpec(
            kind=JailKind.MACHINE,
            program=tuple(argv),
            descriptors=descriptors.numbers,
            uid=UID if os.geteuid() == 0 else None,
            kvm=floor.accelerator.name == "kvm",
        )
        return jail, descriptors.given

    def _disks(self, floor: Floor, owner: UUID) -> tuple[Disk, ...]:
        root = Volume(owner=owner, name="root", size=floor.root.size, snap_on_start=True)
        plans = (
            Plan(volume=root, source=floor.root, extra=(floor.golden.layer,)),
            Plan(volume=Volume(owner=owner, name="private", size=PRIVATE_SIZE)),
            Plan(volume=Volume(owner=owner, name="volatile", size=VOLATILE_SIZE)),
        )
        size = floor.agent.stat().st_size
        agent = Disk("agent", (Layer(floor.agent, "raw"),), True, size)
        disks = (*attach(floor.places, plans), open_disk(agent))
        self._undo.callback(close, disks)
        return disks

    def _open(self, layer: Layer) -> OpenLayer:
        key = None
        if layer.key is not None:
            key = os.memfd_create("key", os.MFD_CLOEXEC)
            self._undo.callback(os.close, key)
            os.write(key, layer.key)
            os.lseek(key, 0, os.SEEK_SET)
        assert layer.fd is not None
        return OpenLayer(descriptor=layer.fd, key=key)

    def _restore(self, path: Path) -> None:
        capabilities = [{"capability": "x-ignore-shared", "state": True}]
        self.qmp.ask("migrate-set-capabilities", capabilities=capabilities)
        state = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self.qmp.give(state, "state")
        finally:
            os.close(state)
        self.qmp.ask("migrate-incoming", uri="fd:state")
        deadline = time.monotonic() + DEADLINE
        while self.qmp.ask("query-status")["status"] == "inmigrate":
            if time.monotonic() > deadline:
                raise TimeoutError("the state was not restored")
        self.qmp.ask("cont")

    def _seed(self) -> None:
        nonce = os.urandom(NONCE_SIZE)
        self._control.sendall(CONTROL_PREFIX + nonce)
        self._control.sendall(Seed(time.time_ns(), os.urandom(64)).encode())
        finder, received = MarkerFinder(CONTROL_PREFIX + nonce), bytearray()
        while True:
            received += finder.feed(_some(self._control))
            while (raw := take_raw_frame(received, 65_536)) is not None:
                if raw.type == ControlType.SEEDED:
                    self.free_before_seed = Seeded.decode(raw.body).others
                    return

    def _listen(self, name: str) -> int:
        path = self._scratch / f"{name}.sock"
        path.unlink(missing_ok=True)
        listener = self._undo.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(str(path))
        listener.listen(2)
        return listener.fileno()

    def _connect(self, name: str, undo: ExitStack) -> socket.socket:
        connection = undo.enter_context(socket.socket(socket.AF_UNIX))
        connection.settimeout(DEADLINE)
        connection.connect(str(self._scratch / f"{name}.sock"))
        return connection


class Qmp:
    """A monitor, one command after the other."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._received = bytearray()
        self._line()
        self.ask("qmp_capabilities")

    def ask(self, command: str, **arguments: Any) -> Any:
        """Run a command; its answer."""
        request = {"execute": command, "arguments": arguments}
        self._connection.sendall(json.dumps(request).encode())
        return self._answer()

    def give(self, descriptor: int, name: str) -> None:
        """Pass a descriptor under a name."""
        request = {"execute": "getfd", "arguments": {"fdname": name}}
        socket.send_fds(self._connection, [json.dumps(request).encode()], [descriptor])
        self._answer()

    def _answer(self) -> Any:
        while True:
            line = self._line()
            if "error" in line:
                raise RuntimeError(line["error"])
            if "return" in line:
                return line["return"]

    def _line(self) -> dict[str, Any]:
        while b"\n" not in self._received:
            self._received += _some(self._connection)
        line, _, rest = bytes(self._received).partition(b"\n")
        self._received[:] = rest
        loaded: dict[str, Any] = json.loads(line)
        return loaded


def _some(connection: socket.socket) -> bytes:
    data = connection.recv(65_536)
    if not data:
        raise EOFError("the machine ended")
    return data


def _read_call(connection: socket.socket, finder: MarkerFinder) -> tuple[int, bytes]:
    received, output = bytearray(), b""
    while True:
        received += finder.feed(_some(connection))
        while (raw := take_raw_frame(received, 65_536)) is not None:
            if raw.type == MessageType.DATA_EXIT_CODE:
                return int.from_bytes(raw.body, "little", signed=True), output
            if raw.type == MessageType.DATA_STDOUT:
                output += raw.body


def _end(spawning: Spawning) -> None:
    """End both layers of the jail and wait for them."""
    with suppress(BlockingIOError, SpawnError):  # The machine may be gone already.
        spawning.read_info()
    spawning.kill()
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(spawning.outer_fd, signal.SIGKILL)
    os.waitpid(spawning.outer, 0)
    os.close(spawning.output)
    spawning.close()


def stored(database: Path, name: str) -> Qube:
    """A template as an instance's store has it."""
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
        for (document,) in connection.execute("SELECT document FROM qube"):
            qube = Qube.from_json(json.loads(document))
            if qube.name == name and qube.klass is QubeClass.TEMPLATE:
                return qube
    raise KeyError(name)
