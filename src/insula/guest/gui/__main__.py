"""Run the window agent: `python3 -m insula.guest.gui`.

Tells systemd (NOTIFY_SOCKET) when it serves: no snapshot is to be made of a half started one.
Environment, for tests: INSULA_GUI_SOCKET, a unix socket to listen on in place of the virtio port;
INSULA_GUI_CHANNEL=plain, for each connection to that to be a session from its first byte on;
INSULA_PIXELS, a file in place of the pixel region; INSULA_GUI_RUN in place of /run/qubes;
INSULA_SERVICES in place of /run/qubes-service.
"""

import os
import select
import sys
from collections.abc import Callable
from pathlib import Path

from insula.guest import systemd
from insula.guest.gui.agent import Agent, write_status
from insula.guest.gui.channel import Channel, Listener, Port
from insula.guest.gui.display import Display
from insula.guest.gui.region import Region
from insula.guest.gui.xlib import xcffib

_PORT = "/dev/virtio-ports/org.insula.gui"


def main() -> int:
    """Serve viewers until the X server ends; returns the exit code."""
    path = os.environ.get("INSULA_GUI_SOCKET")
    plain = os.environ.get("INSULA_GUI_CHANNEL") == "plain"
    return serve(
        lambda poller: Port(poller, _PORT) if path is None else Listener(poller, path, plain=plain),
        lambda: Region.open(os.environ.get("INSULA_PIXELS")),
    )


def serve(
    make_channel: Callable[[select.epoll], Channel], open_region: Callable[[], Region]
) -> int:
    """Serve on a channel until the X server ends; returns the exit code."""
    run_directory = Path(os.environ.get("INSULA_GUI_RUN", "/run/qubes"))
    run_directory.mkdir(parents=True, exist_ok=True)
    services = Path(os.environ.get("INSULA_SERVICES", "/run/qubes-service"))
    write_status(run_directory, "starting")
    try:
        region = open_region()
        agent = Agent(Display(), region, make_channel, run_directory, services)
        systemd.tell("READY=1")
        agent.run()
    except (OSError, xcffib.XcffibException) as error:
        print(f"window agent ended: {error}", file=sys.stderr)
        return 1
    finally:
        (run_directory / "gui-agent.status").unlink(missing_ok=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
