"""Asking a person which qube is to get a device (devices.md section 3)."""

import asyncio
import json
import logging
from pathlib import Path

from insula.daemon.model.properties.qubes import value_of
from insula.daemon.model.qube import Qube
from insula.daemon.model.system import System
from insula.protocol.devices import DeviceInfo, category, interfaces_of

SOCKET_NAME = "device-agent.GUI"
ASK_TIMEOUT = 300.0  # seconds that a person has
MAX_ANSWER = 128  # bytes
_ALLOW = "allow:"

log = logging.getLogger(__name__)


class DeviceAgent:
    """The program in the person's session that puts the question, by its socket."""

    def __init__(self, system: System, run: Path) -> None:
        self._system, self._path = system, run / SOCKET_NAME

    async def __call__(self, device: DeviceInfo, targets: list[Qube]) -> str | None:
        """The name of one of targets; None where the answer is no, or there is none."""
        try:
            async with asyncio.timeout(ASK_TIMEOUT):
                untrusted = await exchange(self._path, question(self._system, device, targets))
        except (OSError, TimeoutError) as error:
            device_name = str(device.name)
            log.warning("nobody answers", extra={"device": device_name, "why": str(error)})
            return None
        answer = untrusted.decode("ascii", "replace").strip()
        name = answer.removeprefix(_ALLOW)
        allowed = answer.startswith(_ALLOW) and any(name == target.name for target in targets)
        return name if allowed else None


async def exchange(path: Path, asked: bytes) -> bytes:
    """What a program of the person's session answers, at most MAX_ANSWER bytes of it.

    Raises:
        OSError: it is not there.
    """
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        writer.write(asked)
        await writer.drain()
        writer.write_eof()
        answer = b""
        while len(answer) < MAX_ANSWER and (more := await reader.read(MAX_ANSWER)):
            answer += more
        return answer
    finally:
        writer.close()


def question(system: System, device: DeviceInfo, targets: list[Qube]) -> bytes:
    """What the agent is asked."""
    described = device.described or {}
    words = [described.get(key, "") for key in ("vendor", "product", "name", "serial")]
    kind = category(interfaces_of(device.interfaces)[0])
    asked: dict[str, object] = {
        "source": device.backend,
        "device_name": f"{kind}: {' '.join(filter(None, words))}".removesuffix(": "),
        "argument": device.port,
        "targets": [qube.name for qube in targets],
        "icons": {
            qube.name: str(value_of(system, qube, "icon"))
            for qube in (system.named(device.backend), *targets)
        },
    }
    if len(targets) == 1:
        asked["default_target"] = targets[0].name
    return json.dumps(asked).encode()
