"""What local programs ask for beside the Admin API (protocol/local.py)."""

import asyncio
import re
from collections.abc import Callable
from pathlib import Path

from insula.daemon.admin.calls import Api
from insula.daemon.admin.local import Answer, Handler, Request
from insula.daemon.admin.methods.domains import default_dispvm
from insula.daemon.lifecycle.passing import Passing
from insula.daemon.lifecycle.running import run_directory
from insula.daemon.lifecycle.snapshots import Snapshots
from insula.daemon.lifecycle.status import status
from insula.daemon.lifecycle.templates import BuiltRoot, Templates
from insula.daemon.lifecycle.viewer_options import viewer_options
from insula.daemon.lifecycle.viewers import Viewers
from insula.daemon.lifecycle.world import viewer_uid
from insula.daemon.model.errors import NotRunningError
from insula.daemon.model.qube import Qube
from insula.protocol.errors import ProtocolError
from insula.protocol.local import CallRequest
from insula.protocol.qrexec import MessageType

_DISPOSABLE = "@dispvm"
WouldAllow = Callable[[str, str, str], bool]  # service, source, target
_RECIPE = re.compile(r"[0-9a-f]{8,128}", re.ASCII)


# A caller that is gone before its answer needs neither its disposable nor its connection.
FOR_CALLER = frozenset(("call",))


class LocalCalls:
    """Handlers of the local socket; on_stop is called when the daemon is to end."""

    def __init__(
        self,
        api: Api,
        templates: Templates,
        snapshots: Snapshots,
        viewers: Viewers,
        would_allow: WouldAllow,
    ) -> None:
        self._api = api
        self._passing = Passing(api.world, api.power, api.administration, api.preloading)
        self._templates = templates
        self._snapshots = snapshots
        self._viewers = viewers
        self._would_allow = would_allow
        self.stopping = asyncio.Event()

    def handlers(self) -> dict[str, Handler]:
        """By operation."""
        return {
            "call": self.call,
            "window": self.window,
            "evaluate": self.evaluate,
            "status": self.status,
            "template": self.template,
            "golden": self.golden,
            "stop": self.stop,
        }

    async def call(self, request: Request) -> Answer:
        """Run something in a qube; the caller gets its end of the data connection."""
        wanted = CallRequest.from_json(request.fields)
        qube = await self._target(wanted, request)
        running = await self._api.power.ready(qube, autostart=wanted.autostart)
        kind = MessageType.JUST_EXEC if wanted.detached else MessageType.EXEC_CMDLINE
        connection = await running.calls.open(kind, wanted.text())
        request.on_done.callback(running.calls.caller_over, connection)
        return Answer(
            {
                "qube": qube.name,
                "domain": connection.domain,
                "port": connection.port,
                "nonce": connection.nonce.hex(),
            },
            [connection.end],
        )

    async def window(self, request: Request) -> Answer:
        """Show a qube's windows on an X server, to which the caller gives a connection."""
        system = self._api.world.system
        qube = system.named(_text(request, "qube"))
        if len(request.descriptors) not in (1, 2):
            raise ProtocolError("a window needs one connection to an X server")
        port = run_directory(self._api.world.run, qube.uuid) / "gui.sock"
        if qube.halted or not port.exists():
            raise NotRunningError(qube.name)
        label = system.label(qube.label)
        viewer = await self._viewers.open(
            uuid=qube.uuid,
            name=qube.name,
            label=(label.index, label.rgb),
            uid=viewer_uid(qube.qid),
            options=viewer_options(qube.features, system.dom0.features),
            display=request.descriptors[0],
            session=request.descriptors[1] if len(request.descriptors) > 1 else None,
            authorization=_authorization(request),
        )
        return Answer({"pid": viewer.pid}, [viewer.pidfd])

    async def evaluate(self, request: Request) -> Answer:
        """Say whether the policy allows a call between two qubes that there are."""
        system = self._api.world.system
        source, target = (system.named(_text(request, end)).name for end in ("source", "target"))
        service = _text(request, "service")
        return Answer({"allowed": self._would_allow(service, source, target)})

    async def status(self, _request: Request) -> Answer:
        """How the instance is."""
        return Answer(await status(self._api.world, await self._viewers.pids()))

    async def template(self, request: Request) -> Answer:
        """Register what a builder made."""
        recipe = _text(request, "recipe")
        if _RECIPE.fullmatch(recipe) is None:
            raise ProtocolError(f"not a recipe's hash: {recipe!r}")
        template = await self._templates.register(
            BuiltRoot(
                name=_text(request, "name"),
                root=Path(_text(request, "root")),
                kernel=Path(_text(request, "kernel")),
                initrd=Path(_text(request, "initrd")),
                recipe=recipe,
            )
        )
        return Answer({"revision": template.volumes["root"].number})

    async def golden(self, request: Request) -> Answer:
        """Make the snapshots of a template, or of a qube, if they are not there."""
        qube = self._api.world.system.named(_text(request, "qube"))
        return Answer({"key": await self._snapshots.ensure(qube)})

    async def stop(self, request: Request) -> Answer:
        """End all qubes; the daemon ends once this is answered."""
        await self._api.power.end_all(kill=request.fields.get("kill") is True)
        request.on_done.callback(self.stopping.set)
        return Answer({})

    async def _target(self, wanted: CallRequest, request: Request) -> Qube:
        system = self._api.world.system
        if not wanted.target.startswith(_DISPOSABLE):
            return system.named(wanted.target)
        name = wanted.target.removeprefix(_DISPOSABLE).removeprefix(":")
        template = system.named(name) if name else default_dispvm(system, system.dom0)
        qube = await self._passing.take(template, system.dom0)
        request.on_done.push_async_callback(self._passing.end, qube)
        return qube


def _text(request: Request, name: str) -> str:
    found = request.fields.get(name)
    if not isinstance(found, str) or not found:
        raise ProtocolError(f"a request without {name}")
    return found


def _authorization(request: Request) -> tuple[bytes, bytes]:
    """Name and data of the X server's access control, as hexadecimal digits.

    Raises:
        ProtocolError: they are something else.
    """
    found = request.fields.get("authorization")
    try:
        name, data = (bytes.fromhex(one) for one in found or ())
    except (TypeError, ValueError):
        raise ProtocolError("a window needs an authorization, if an empty one") from None
    return name, data
