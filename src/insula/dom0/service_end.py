"""python3 -m insula.dom0.service_end CONNECTION NONCE DESCRIPTOR: one call of a service of dom0.

CONNECTION is the number of a descriptor whose other end is a qube's. The process ends with the
call. QREXEC_SERVICE_PATH and QUBES_RPC_CONFIG_PATH name the directories of services and of their
configurations.
"""

import os
import sys

from insula.protocol.command import ServiceCall, parse_descriptor
from insula.protocol.errors import ProtocolError
from insula.protocol.qrexec import EXIT_QREXEC_FAILED
from insula.qrexec.call import Call
from insula.qrexec.loop import Loop
from insula.qrexec.port import SocketPort
from insula.qrexec.programs import NotStartedError, Searches, resolve_directly


def main() -> None:
    """Serve one call."""
    connection, nonce, descriptor = int(sys.argv[1]), bytes.fromhex(sys.argv[2]), sys.argv[3]
    loop = Loop()
    port = SocketPort(loop)

    def over() -> None:
        loop.running = False

    call = Call(loop, port, nonce, over, keep_stderr=True)
    os.set_blocking(connection, False)
    os.set_inheritable(connection, False)
    port.use(connection)
    if call.greet(nonce):
        _start(call, descriptor)
    loop.run()


def _start(call: Call, descriptor: str) -> None:
    try:
        service = parse_descriptor(descriptor)
        call.start(resolve_directly(service, Searches.of_environment(), _target(service)))
    except NotStartedError as error:
        print(f"{descriptor}: {error}", file=sys.stderr)
        call.fail(error.code)
    except (ProtocolError, OSError, ValueError) as error:
        print(f"{descriptor}: {error}", file=sys.stderr)
        call.fail(EXIT_QREXEC_FAILED)


def _target(service: ServiceCall) -> dict[str, str]:
    """What the caller asked to reach, for a program (qrexec-wire.md section 9.3)."""
    _, _, kind, target = service.descriptor.split(" ", 3)
    of_kind = "QREXEC_REQUESTED_TARGET_KEYWORD" if kind == "keyword" else "QREXEC_REQUESTED_TARGET"
    return {"QREXEC_REQUESTED_TARGET_TYPE": kind, of_kind: target}


main()
