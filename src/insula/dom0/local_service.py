"""A service or command of dom0 itself, for a call that came over the socket vchan."""

from collections.abc import Callable

from insula.protocol.command import ServiceCall, parse_descriptor, words_of
from insula.protocol.qrexec import EXIT_NOT_FOUND, EXIT_QREXEC_FAILED
from insula.qrexec.call import Call
from insula.qrexec.conversation import Conversation
from insula.qrexec.one_call import serve_channel, start_or_fail
from insula.qrexec.programs import Program, Searches, resolve_directly

_WORDS_WITH_TARGET = 4


def serve(
    domain: int, port_number: int, descriptor: str, timeout: float | None, *, configured: bool
) -> int:
    """Connect to the caller's channel and serve it; the exit status of this process.

    descriptor: as in qrexec-wire.md section 8, after QUBESRPC. configured: whether files of the
    service's configuration apply.
    """
    code = serve_channel(
        domain,
        port_number,
        lambda call: start(call, descriptor, configured=configured),
        timeout=timeout,
        keep_stderr=True,
        greets_first=False,
    )
    return EXIT_QREXEC_FAILED if code else 0


def start(
    call: Call,
    descriptor: str,
    *,
    configured: bool = True,
    confine: Callable[[Program], Program] = lambda program: program,
) -> None:
    """Start what a descriptor names; a call whose service cannot be started is told so.

    confine: says what is left to a program.
    """

    def prepared() -> Program | Conversation:
        found = prepare(descriptor, configured=configured)
        return confine(found) if isinstance(found, Program) else found

    start_or_fail(call, prepared, EXIT_NOT_FOUND)


def prepare(descriptor: str, *, configured: bool = True) -> Program | Conversation:
    """Find out what a descriptor names.

    Raises:
        NotStartedError, ProtocolError: it names nothing that can be started.
    """
    service = parse_descriptor(descriptor)
    searches = Searches.of_environment()
    return resolve_directly(service, searches, target_of(service), configured=configured)


def target_of(service: ServiceCall) -> dict[str, str]:
    """What the caller asked to reach, for a program (qrexec-wire.md section 9.3)."""
    words = words_of(service.descriptor)
    if len(words) != _WORDS_WITH_TARGET:
        return {}
    kind, target = words[2:]
    of_kind = "QREXEC_REQUESTED_TARGET_KEYWORD" if kind == "keyword" else "QREXEC_REQUESTED_TARGET"
    return {"QREXEC_REQUESTED_TARGET_TYPE": kind, of_kind: target}
