"""The services policy.* of dom0: the Admin API's answer as plain output (qrexec-policy.md 12).

They are started under their own names, with the file's name as argument.
"""

import os
import sys

from insula.dom0 import qubesd

_MOST = 16 << 20  # bytes
_EXIT_REFUSED, _EXIT_FAILED = 1, 2


def main() -> int:
    """Serve one call."""
    service, _, argument = os.environ.get("QREXEC_SERVICE_FULL_NAME", "").partition("+")
    payload = sys.stdin.buffer.read(_MOST)
    try:
        answer = qubesd.call(service, "dom0", payload, argument=argument, most=_MOST)
    except qubesd.QubesdError as error:
        kind = error.kind or "PolicyAdminProtocolException"
        sys.stderr.write(f"{kind} {error.message or 'The call was refused'}")
        return _EXIT_REFUSED if kind.startswith("PolicyAdmin") else _EXIT_FAILED
    sys.stdout.buffer.write(answer)
    return 0


if __name__ == "__main__":
    sys.exit(main())
