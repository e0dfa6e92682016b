"""A service or command of dom0 itself, for a call that came over the socket vchan."""

import sys

from insula.protocol.command import ServiceCall, parse_descriptor
from insula.protocol.errors import ProtocolError
from insula.protocol.qrexec import EXIT_QREXEC_FAILED
from insula.qrexec.call import Call
from insula.qrexec.one_call import serve_channel
from insula.qrexec.programs import NotStartedError, Searches, resolve_directly

_WORDS_WITH_TARGET = 4


def serve(domain: int, port_number: int, descriptor: str, timeout: float | None) -> int:
    """Connect to the caller's channel and serve it; the exit status of this process.

    descriptor: as in qrexec-wire.md section 8, after QUBESRPC.
    """
    code = serve_channel(
        domain, port_number, lambda call: start(call, descriptor), timeout=timeout, keep_stderr=True
    )
    return EXIT_QREXEC_FAILED if code else 0


def start(call: Call, descriptor: str) -> None:
    """Start what a descriptor names; a call whose service cannot be started is told so."""
    try:
        service = parse_descriptor(descriptor)
        call.start(resolve_directly(service, Searches.of_environment(), target_of(service)))
    except NotStartedError as error:
        print(f"{descriptor}: {error}", file=sys.stderr)
        call.fail(error.code)
    except (ProtocolError, OSError, ValueError) as error:
        print(f"{descriptor}: {error}", file=sys.stderr)
        call.fail(EXIT_QREXEC_FAILED)


def target_of(service: ServiceCall) -> dict[str, str]:
    """What the caller asked to reach, for a program (qrexec-wire.md section 9.3)."""
    words = service.descriptor.split()
    if len(words) != _WORDS_WITH_TARGET:
        return {}
    kind, target = words[2:]
    of_kind = "QREXEC_REQUESTED_TARGET_KEYWORD" if kind == "keyword" else "QREXEC_REQUESTED_TARGET"
    return {"QREXEC_REQUESTED_TARGET_TYPE": kind, of_kind: target}
