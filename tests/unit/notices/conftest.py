"""Two message buses, a qube's and the host's, with a service on the host's that writes down."""

import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from insula.desktop import bus as session_bus
from insula.protocol.dbus import Kind, Message
from insula.protocol.errors import ProtocolError
from insula.qrexec.bus import Bus
from tests.unit.menus.conftest import properties
from tests.unit.tools.conftest import daemon, instance
from tests.unit.tools.fake_daemon import FakeDaemon, FakeQube

__all__ = ["daemon", "guest_bus", "host", "instance", "qube"]
NAME, PATH = "org.freedesktop.Notifications", "/org/freedesktop/Notifications"
TIMEOUT = 20.0  # seconds
_CONFIG = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>session</type><listen>unix:path={path}/bus</listen><auth>EXTERNAL</auth>
<servicedir>{path}/services</servicedir>
<policy context="default"><allow send_destination="*"/>
<allow eavesdrop="true"/><allow own="*"/></policy>
</busconfig>
"""


_CONFINED = """
import runpy
from insula.dom0.confining import service_confinement
service_confinement()()
runpy.run_module("insula.dom0.notifications", run_name="__main__")
"""


@contextmanager
def message_bus(path: Path) -> Iterator[str]:
    """A bus of its own; yields its address."""
    (path / "services").mkdir(parents=True)
    (path / "config").write_text(_CONFIG.format(path=path))
    words = ["dbus-daemon", f"--config-file={path}/config", "--nofork", "--print-address"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


@dataclass
class Host:
    """The host's notification service. told: what it was asked to show or to close, in order."""

    bus: Bus
    told: "queue.Queue[tuple[str, tuple[Any, ...]]]" = field(default_factory=queue.Queue)
    refuses: bool = False
    _last: int = 100

    def serve(self) -> None:
        """Until the bus is gone."""
        with suppress(OSError, ProtocolError):
            while True:
                for message in self.bus.read():
                    if message.kind == Kind.CALL:
                        self._answer(message)

    def _answer(self, message: Message) -> None:
        if self.refuses:
            self.bus.send(message.refusal("org.freedesktop.DBus.Error.Failed"))
        elif message.member == "Notify":
            if not message.body[1]:
                self._last += 1
            self.bus.send(message.answer("u", message.body[1] or self._last))
        else:
            self.bus.send(message.answer())
            self.signal("NotificationClosed", "uu", message.body[0], 3)
        self.told.put((message.member, message.body))

    def signal(self, member: str, signature: str, *body: Any) -> None:
        """Tell all who listen."""
        self.bus.send(
            Message(kind=Kind.SIGNAL, path=PATH, interface=NAME, member=member,
                    signature=signature, body=body)
        )  # fmt: skip


@pytest.fixture
def host(instance: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    """The session's bus, with what shows notices there."""
    with message_bus(instance / "host") as address:
        monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", address)
        served = Host(Bus(address))
        served.bus.socket.settimeout(None)
        served.bus.call("Hello")
        served.bus.call("RequestName", "su", NAME, 4)
        thread = threading.Thread(target=served.serve, daemon=True)
        thread.start()
        with session_bus.told(instance):
            yield served
    thread.join(TIMEOUT)
    served.bus.close()


@pytest.fixture
def qube(daemon: FakeDaemon) -> FakeQube:
    """A qube with the green label."""
    return daemon.add(FakeQube("work", properties=properties("green", template="")))


@pytest.fixture
def guest_bus(instance: Path) -> Iterator[str]:
    """The bus of a qube, which starts the service of ours; calls go to dom0's process at once."""
    client = instance / "client"
    client.write_text(
        f'#!/bin/sh\n[ "$*" = "-- @default qubes.Notifications" ] || exit 1\n'
        f"export QREXEC_REMOTE_DOMAIN=work\n"
        f"exec {sys.executable} -P -s -c '{_CONFINED}' 2>>{instance}/errors\n"
    )
    client.chmod(0o700)
    with message_bus(instance / "guest") as address:
        script = "import sys; from insula.guest.notifications import main; sys.exit(main())"
        (instance / "guest" / "services" / "notifications.service").write_text(
            f"[D-BUS Service]\nName={NAME}\nExec=/usr/bin/env QREXEC_CLIENT_VM={client} "
            f"INSULA_RUN={instance} INSULA_HOME={os.environ['INSULA_HOME']} "
            f'{sys.executable} -c "{script}"\n'
        )
        yield address
