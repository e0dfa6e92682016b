"""Run one qube's viewer: `python -m insula.viewer` with its options.

--x-fd N: a connection to the X server, not used yet. --channel-fd N: a connection to the qube's
window port. --pixels-fd N: the qube's pixel region, sealed against shrinking. --config JSON: see
`config.parse`. --channel-kind plain, optional: the window port is one session from its first
byte on, as a vchan is. --session-fd N, optional: a socket to the person's session, see
`protocol/viewing.py`. --gate-fd N, optional: a socket; a byte is sent when all is loaded, and
nothing is done before a byte comes back, so that whoever started us can look at our jail first.
INSULA_X_AUTHORITY: name and data of the X server's access control as NAME:HEX, or absent.

Exit codes: 0 the qube ended the channel; 1 the qube broke the protocol; 2 the X server or what we
were given cannot be used.
"""

import os
import socket
import sys

from insula.protocol.errors import ProtocolError
from insula.protocol.gui.handshake import VersionError
from insula.protocol.viewing import OLD_AGENT, OLD_DOM0, PROTOCOL
from insula.viewer.channel import ChannelClosedError
from insula.viewer.config import parse
from insula.viewer.desktop import Desktop, DesktopError
from insula.viewer.region import Region
from insula.viewer.restraint import Log
from insula.viewer.session_link import SessionLink
from insula.viewer.viewer import Viewer
from insula.viewer.xlib import xcffib

_OPTIONS = ("--x-fd", "--channel-fd", "--pixels-fd", "--config")


def main(arguments: list[str]) -> int:
    """Show the qube's windows until something ends it; returns the exit code."""
    log = Log("?")
    link = SessionLink(None)
    try:
        given = dict(zip(arguments[::2], arguments[1::2], strict=True))
        descriptors = [int(given[option]) for option in _OPTIONS[:3]]
        config = parse(given["--config"])
        log = Log(config.name)
        if "--gate-fd" in given:
            _pass_gate(int(given["--gate-fd"]))
        authority = os.environ.get("INSULA_X_AUTHORITY")
        desktop = Desktop(descriptors[0], _authority(authority))
        channel = socket.socket(fileno=descriptors[1])
        plain = given.get("--channel-kind") == "plain"
        if "--session-fd" in given:
            link = SessionLink(socket.socket(fileno=int(given["--session-fd"])))
        Viewer(desktop, channel, Region(descriptors[2]), config, log, link=link, plain=plain).run()
    except ChannelClosedError as error:
        log.write(f"ended: {error}")
        return 0
    except ProtocolError as error:
        log.write(f"ended, the qube broke the window protocol: {error}")
        kind = PROTOCOL
        if isinstance(error, VersionError):
            kind = OLD_DOM0 if error.newer else OLD_AGENT
        link.say("notice", kind=kind)
        return 1
    except (DesktopError, xcffib.XcffibException, OSError, ValueError, KeyError) as error:
        log.write(f"ended: {error!r}")
    return 2


def _pass_gate(descriptor: int) -> None:
    """Wait to be let in.

    Raises:
        OSError: we were turned away.
    """
    with socket.socket(fileno=descriptor) as gate:
        gate.sendall(b"\0")
        if not gate.recv(1):
            raise ConnectionAbortedError("not let in")


def _authority(text: str | None) -> tuple[bytes, bytes] | None:
    if not text:
        return None
    name, _, data = text.partition(":")
    return name.encode("ascii"), bytes.fromhex(data)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
