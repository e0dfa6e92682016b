"""A call of the Admin API, and what a method says of the calls it takes."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

from insula.daemon.admin.permissions import Allows, nothing_allowed
from insula.daemon.lifecycle.administration import Administration
from insula.daemon.lifecycle.consoles import Consoles
from insula.daemon.lifecycle.devices import Devices
from insula.daemon.lifecycle.firewall import Firewall
from insula.daemon.lifecycle.pools import Pools
from insula.daemon.lifecycle.power import Power
from insula.daemon.lifecycle.preloading import Preloading
from insula.daemon.lifecycle.sleeping import Sleeping
from insula.daemon.lifecycle.volumes import Volumes
from insula.daemon.lifecycle.world import World
from insula.daemon.model.errors import RefusedSilentlyError
from insula.daemon.model.qube import Qube
from insula.daemon.policy.administration import PolicyAdministration


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    """What methods act on."""

    world: World
    power: Power
    administration: Administration
    volumes: Volumes
    pools: Pools
    sleeping: Sleeping
    preloading: Preloading
    firewall: Firewall
    devices: Devices
    consoles: Consoles
    policy: PolicyAdministration
    allows: Allows = nothing_allowed


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A call whose source and destination are known qubes."""

    api: Api
    method: str
    argument: str
    source: Qube
    destination: Qube
    untrusted_payload: bytes

    def payload_text(self) -> str:
        """The payload as ASCII text.

        Raises:
            RefusedSilentlyError: it is something else.
        """
        try:
            return self.untrusted_payload.decode("ascii")
        except UnicodeDecodeError:
            raise RefusedSilentlyError("the payload is not ASCII") from None


Run = Callable[[Call], Awaitable[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """What is accepted. argument, payload: whether it takes one.

    destination: whom it may be sent to; machine: a qube that is a virtual machine of ours.
    """

    run: Run
    destination: Literal["any", "dom0", "not dom0", "machine"] = "any"
    argument: bool = False
    payload: bool = False

    def check(self, call: Call) -> None:
        """Refuse a call that is not of the method's form.

        Raises:
            RefusedSilentlyError: it is not.
        """
        to_dom0 = call.destination is call.api.world.system.dom0
        if (
            (self.destination == "dom0" and not to_dom0)
            or (self.destination == "not dom0" and to_dom0)
            or (self.destination == "machine" and not call.destination.klass.is_machine)
        ):
            raise RefusedSilentlyError("not for that destination")
        if call.argument and not self.argument:
            raise RefusedSilentlyError("no argument is expected")
        if call.untrusted_payload and not self.payload:
            raise RefusedSilentlyError("no payload is expected")
