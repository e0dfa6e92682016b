"""The services by which qubes tell of themselves, qubes.NotifyUpdates and its kin: no output.

Whether it was taken is the exit status (admin-api.md section 4.14).
"""

import os
import sys

from insula.dom0 import qubesd

_SOCKET = "qubesd.misc.sock"
_WITH_PAYLOAD = "qubes.NotifyUpdates"
_MOST = 1024  # bytes


def main() -> int:
    """Serve one call."""
    service, _, _ = os.environ.get("QREXEC_SERVICE_FULL_NAME", "").partition("+")
    source = os.environ.get("QREXEC_REMOTE_DOMAIN", "")
    payload = sys.stdin.buffer.read(_MOST) if service == _WITH_PAYLOAD else b""
    place = qubesd.usual_socket().with_name(_SOCKET)
    try:
        qubesd.call(service, "dom0", payload, source=source, socket_path=place)
    except qubesd.QubesdError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
