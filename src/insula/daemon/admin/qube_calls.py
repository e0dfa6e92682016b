"""The way of calls that qubes ask for: policy, person, and what they reach, put together."""

from contextlib import AsyncExitStack
from pathlib import Path

from insula.daemon.admin.calls import Api
from insula.daemon.admin.service_links import link_services
from insula.daemon.lifecycle.carrying_out import CarryingOut
from insula.daemon.lifecycle.deciding import Deciding
from insula.daemon.lifecycle.passing import Passing
from insula.daemon.lifecycle.policy_agent import PolicyAgent
from insula.daemon.lifecycle.routing import Routing
from insula.daemon.lifecycle.world import World
from insula.daemon.policy.administration import PolicyAdministration
from insula.daemon.policy.defaults import put_in_place
from insula.daemon.rpc.host_services import HostServices
from insula.qrexec.policy_store import LEGACY, PERMANENT, PolicyStore


def deciding(
    world: World, home: Path, undo: AsyncExitStack
) -> tuple[Deciding, PolicyAdministration]:
    """What decides about calls of qubes, and the way to change the policy by which it does.

    A new instance is given a policy.
    """
    put_in_place(home / PERMANENT)
    agent = PolicyAgent(world.system, world.run)
    undo.push_async_callback(agent.close)
    decide = Deciding(world.system, PolicyStore.of_instance(home, world.run), agent)
    return decide, PolicyAdministration(home / PERMANENT, str(home / LEGACY))


def route(decide: Deciding, api: Api, home: Path, undo: AsyncExitStack) -> None:
    """Have the calls of running qubes decided and carried out."""
    services = (home / "qubes-rpc", link_services(api.world.run))
    host = HostServices(services, (home / "rpc-config",), api.world.run)
    undo.callback(host.close)
    passing = Passing(api.world, api.power, api.administration, api.preloading)
    carry_out = CarryingOut(api.world, api.power, passing, host)
    undo.push_async_callback(carry_out.close)
    routing = Routing(decide, carry_out)
    undo.push_async_callback(routing.close)
    api.power.watchers.append(routing.watch)
