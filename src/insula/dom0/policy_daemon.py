"""qrexec-policy-daemon: judges calls for qrexec daemons (qrexec-wire.md sections 11.1 to 11.5)."""

import argparse
import grp
import logging
import os
import re
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from insula.client import instance
from insula.client.policy_reading import DEFAULT_LEGACY, places_of
from insula.dom0.evaluating import Evaluator, agent_socket, system_info
from insula.protocol.command import parse_descriptor
from insula.protocol.errors import ProtocolError, ReportableError
from insula.protocol.policy.loading import Places
from insula.protocol.policy.rules import ALLOW
from insula.protocol.policy.wire import MAX_QUESTION, Question
from insula.qrexec.policy_store import PolicyStore

_BACKLOG = 64
_TIMEOUT = 10.0  # seconds to say what is asked
_LONGEST_PAIR = 96  # bytes
_LONGEST_HEADER = 66_000
_GROUP = "qubes"
_SOURCE = re.compile(rb"[A-Za-z0-9@_.-]{1,31}")
_TARGET = re.compile(rb"[A-Za-z0-9@_.-]{1,63}")

log = logging.getLogger("qrexec-policy-daemon")


def main(words: Sequence[str] | None = None) -> int:
    """Serve until ended."""
    parser = argparse.ArgumentParser(
        prog="qrexec-policy-daemon", description="Say what becomes of calls."
    )
    parser.add_argument("--policy-path", metavar="DIR", type=Path, action="append")
    for option in ("--socket-path", "--eval-socket-path", "--gui-socket-path"):
        parser.add_argument(option, metavar="PATH", type=Path)
    given = parser.parse_args(words)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(name)s: %(message)s")
    _take_group()
    try:
        run = instance.run()
        store = PolicyStore(_places(given.policy_path))
        store.policy  # noqa: B018 - to fail now where there is none
        evaluator = Evaluator(store, agent_socket(run))
        sockets: list[tuple[Path, Callable[[socket.socket], None]]] = [
            (given.socket_path or run / "policy.sock", lambda one: answer(one, evaluator)),
            (
                given.eval_socket_path or run / "policy.EvalSimple",
                lambda one: evaluate(one, evaluator, gui=False),
            ),
            (
                given.gui_socket_path or run / "policy.EvalGUI",
                lambda one: evaluate(one, evaluator, gui=True),
            ),
        ]
        threads = [_serve(path, handle) for path, handle in sockets]
    except (OSError, ReportableError) as error:
        print(f"qrexec-policy-daemon: {error}", file=sys.stderr)
        return 1
    for thread in threads:
        thread.join()
    return 0


def _take_group() -> None:
    """Let those who may ask do so, where that is what a group is for."""
    if os.geteuid() == 0:
        with suppress(KeyError):
            os.setgid(grp.getgrnam(_GROUP).gr_gid)


def _places(directories: list[Path] | None) -> Places:
    if not directories:
        return places_of(None)
    return Places(tuple(str(one.absolute()) for one in directories), DEFAULT_LEGACY)


def _serve(path: Path, handle: Callable[[socket.socket], None]) -> threading.Thread:
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    path.chmod(0o660)
    listener.listen(_BACKLOG)

    def serve() -> None:
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=_handle, args=(connection, handle), daemon=True).start()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    return thread


def _handle(connection: socket.socket, handle: Callable[[socket.socket], None]) -> None:
    with connection:
        connection.settimeout(_TIMEOUT)
        try:
            handle(connection)
        except (OSError, ProtocolError) as error:
            log.warning("%s", error)
        except Exception:
            log.exception("a question was not answered")


def answer(connection: socket.socket, evaluator: Evaluator) -> None:
    """Answer the question of a qrexec daemon; nothing to what is none."""
    received = b""
    while not (received.startswith(b"\n") or b"\n\n" in received):
        data = connection.recv(MAX_QUESTION)
        received += data
        if len(received) > MAX_QUESTION:
            raise ProtocolError("a question that is too long")
        if not data:
            break
    lines = evaluator.judge(Question.decode(received.partition(b"\n\n")[0]))
    connection.sendall("\n".join(lines).encode("ascii"))


def evaluate(connection: socket.socket, evaluator: Evaluator, *, gui: bool) -> None:
    """Answer whether a call would be allowed, the service being our argument (section 11.4)."""
    header, caller, pair = _evaluated(connection)
    source, separator, target = pair.partition(b"\0")
    if not separator or not _SOURCE.fullmatch(source) or not _TARGET.fullmatch(target):
        return
    if gui and not _are_shown_by(caller, source.decode(), target.decode()):
        return
    question = Question(
        source=source.decode(),
        target=target.decode(),
        called=header,
        assume_yes=True,
        just_evaluate=True,
    )
    allowed = f"result={ALLOW}" in evaluator.judge(question)
    connection.sendall(f"result={'allow' if allowed else 'deny'}\n".encode())


def _evaluated(connection: socket.socket) -> tuple[str, str, bytes]:
    """The service asked about, who asks, and the pair asked about."""
    received = b""
    while data := connection.recv(_LONGEST_HEADER):
        received += data
        if len(received) > _LONGEST_HEADER:
            raise ProtocolError("a question that is too long")
    descriptor, _, pair = received.partition(b"\0")
    call = parse_descriptor(descriptor.decode("ascii", "replace"))
    if not call.argument or call.argument.startswith("+") or len(pair) > _LONGEST_PAIR:
        raise ProtocolError("no service is asked about")
    return call.argument, call.source, pair


def _are_shown_by(caller: str, source: str, target: str) -> bool:
    """Whether both qubes are shown by the one that asks."""
    system, _ = system_info()
    tag = f"guivm-{caller}"
    found = [system.find(name) for name in (source, target)]
    return all(one is not None and tag in one.tags for one in found)


if __name__ == "__main__":
    sys.exit(main())
