"""The service qubes.Gpg2: another qube's gpg uses this qube's keys, and never has them."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable

from insula.guest.services.between import join
from insula.protocol.errors import ProtocolError
from insula.protocol.gpg_agent import MAX_LINE, Filter, Verdict

_TIMEOUT = 20.0  # seconds


def main() -> int:
    """Serve one call; its exit code."""
    asked = Filter(os.environ.get("QREXEC_REMOTE_DOMAIN", "?"))
    with socket.socket(socket.AF_UNIX) as agent:
        try:
            _gpgconf("--launch", "gpg-agent")
            agent.connect(_gpgconf("--list-dirs", "agent-extra-socket"))
        except (OSError, subprocess.SubprocessError) as error:
            print(f"no gpg-agent here: {error}", file=sys.stderr)
            return 1
        return join(
            agent,
            lambda untrusted: _lines(untrusted, asked.from_client),
            lambda answered: _lines(answered, asked.from_agent),
        )


def _gpgconf(*words: str) -> str:
    done = subprocess.run(
        ("gpgconf", *words), capture_output=True, text=True, timeout=_TIMEOUT, check=True
    )
    return done.stdout.strip()


def _lines(received: bytearray, look: Callable[[bytes], Verdict]) -> tuple[bytes, bytes]:
    passed, reply = b"", b""
    while (end := received.find(b"\n") + 1) > 0:
        verdict = look(bytes(received[:end]))
        del received[:end]
        passed += verdict.forward or b""
        reply += verdict.reply or b""
    if len(received) > MAX_LINE:
        raise ProtocolError("a line that does not end")
    return passed, reply


if __name__ == "__main__":
    sys.exit(main())
