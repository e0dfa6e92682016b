"""The service qubes.SshAgent: another qube's ssh uses this qube's keys, and never has them."""

import os
import socket
import subprocess
import sys
from pathlib import Path

from insula.guest.services.between import join
from insula.protocol.ssh_agent import FAILURE, may_ask, take_message

_SOCKET = Path("/run/qubes/ssh-agent.sock")
_TIMEOUT = 20.0  # seconds


def main() -> int:
    """Serve one call; its exit code."""
    path = Path(os.environ.get("SSH_AUTH_SOCK") or _SOCKET)
    with socket.socket(socket.AF_UNIX) as agent:
        try:
            _connect(agent, path)
        except (OSError, subprocess.SubprocessError) as error:
            print(f"no SSH agent here: {error}", file=sys.stderr)
            return 1
        return join(agent, _requests, _everything)


def _connect(agent: socket.socket, path: Path) -> None:
    """Connect with the agent of this qube; the first call starts it, with the keys at hand."""
    try:
        agent.connect(str(path))
    except (FileNotFoundError, ConnectionRefusedError):
        path.unlink(missing_ok=True)
        _run("ssh-agent", "-a", str(path))
        # Keys with passphrases are added by the person, with ssh-add, when they are needed.
        _run("ssh-add", "-q", check=False, SSH_AUTH_SOCK=str(path), SSH_ASKPASS_REQUIRE="never")
        agent.connect(str(path))


def _run(*words: str, check: bool = True, **variables: str) -> None:
    subprocess.run(
        words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        env={**os.environ, **variables},
        timeout=_TIMEOUT,
        check=check,
    )


def _requests(untrusted: bytearray) -> tuple[bytes, bytes]:
    passed, reply = b"", b""
    while (message := take_message(untrusted)) is not None:
        if may_ask(message):
            passed += message
        else:
            reply += FAILURE
    return passed, reply


def _everything(answered: bytearray) -> tuple[bytes, bytes]:
    passed = bytes(answered)
    answered.clear()
    return passed, b""


if __name__ == "__main__":
    sys.exit(main())
