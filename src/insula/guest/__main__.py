"""python3 -m insula.guest: the agent of the qube it runs in.

INSULA_PORTS_DIR: a directory in which to listen for sockets that stand for a qube's ports.
INSULA_NO_SYSTEM: be a mere process; seed, mount and set up nothing, read no profile.
INSULA_PARKED: stand for a clone, whose agent was parked before it was cloned.
"""

import os
import resource
from pathlib import Path

from insula.guest.agent import CONTROL_PORT, DATA_PORT, Agent, Ports
from insula.guest.ports import SocketPorts, VirtioPorts
from insula.protocol.control import AgentState
from insula.qrexec.loop import Loop

_DESCRIPTORS = 8192  # each program that waits for its call to be connected has one
FIRST_DATA_PORT, LAST_DATA_PORT = 3, 30


def main() -> None:
    """Serve until the qube ends."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(_DESCRIPTORS, most), most))
    loop = Loop()
    ports: Ports
    if directory := os.environ.get("INSULA_PORTS_DIR"):
        names = [DATA_PORT.format(n) for n in range(FIRST_DATA_PORT, LAST_DATA_PORT + 1)]
        ports = SocketPorts(loop, Path(directory), [*names, CONTROL_PORT])
    else:
        ports = VirtioPorts(loop)
    Agent(
        loop,
        ports,
        system="INSULA_NO_SYSTEM" not in os.environ,
        state=AgentState.PARKED if "INSULA_PARKED" in os.environ else AgentState.WAITING,
    )
    loop.run()


main()
