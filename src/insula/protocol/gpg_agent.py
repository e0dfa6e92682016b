"""What gpg in another qube may ask of a gpg-agent: to sign and decrypt, nothing else.

Source of the format: the Assuan protocol and the commands of GnuPG 2's agent, from its manual.
"""

import re
from dataclasses import dataclass
from urllib.parse import quote_plus

from insula.protocol.errors import ProtocolError

MAX_LINE = 1002  # bytes, with the line's end
OK = b"OK\n"
UNKNOWN = b"ERR 67109139 Unknown IPC command <GPG Agent>\n"
BAD_PARAMETER = b"ERR 67109144 IPC parameter error <GPG Agent>\n"
_GRIP = rb"[0-9A-Fa-f]{40}"
# What each command may have behind it; the rest of the agent's commands do not exist here.
_ALLOWED = {
    b"NOP": rb"",
    b"RESET": rb"",
    b"BYE": rb"",
    b"GETINFO": rb"version|cmd_has_option [A-Z_]{1,32} [a-z-]{1,32}",
    b"HAVEKEY": rb"%b(?: %b)*|--list(?:=[0-9]{1,4})?" % (_GRIP, _GRIP),
    b"KEYINFO": _GRIP,
    b"READKEY": rb"(?:-- )?%b" % _GRIP,
    b"SIGKEY": _GRIP,
    b"SETKEY": _GRIP,
    b"SETHASH": rb"(?:[0-9]{1,3}|--hash=[a-z0-9]{1,12}) [0-9A-Fa-f]{2,128}",
    b"PKSIGN": rb"",
    b"PKDECRYPT": rb"",
}
# Left out: a description, which would be the asking qube's words in the other's dialogs; a nonce,
# which can name a passphrase that was once given; the display, the terminal and the language.
_CACHE_NONCE = re.compile(rb"(?:-- )?[0-9A-Fa-f]{0,64}")
_INQUIRED = b"INQUIRE CIPHERTEXT"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a line: it is passed on as forward, or answered with reply; or neither."""

    forward: bytes | None = None
    reply: bytes | None = None


class Filter:
    """One connection's state. asking: the qube that asks, as the person is to be told."""

    def __init__(self, asking: str) -> None:
        words = f"The qube {asking} wants to use this key."
        self._description = b"SETKEYDESC " + quote_plus(words).encode() + b"\n"
        self._inquired = False

    def from_client(self, untrusted_line: bytes) -> Verdict:
        """What to do with a client's line, its line feed included.

        Raises:
            ProtocolError: that cannot be a line of this conversation.
        """
        text = untrusted_line.removesuffix(b"\n").removesuffix(b"\r")
        if len(untrusted_line) > MAX_LINE or not untrusted_line.endswith(b"\n") or b"\0" in text:
            raise ProtocolError("not a line")
        return self._data(text) if self._inquired else self._command(text)

    def _command(self, text: bytes) -> Verdict:
        command, _, rest = text.partition(b" ")
        rest = rest.strip()
        if not text or text.startswith(b"#"):
            return Verdict()  # Nothing is said.
        if command == b"OPTION":
            return Verdict(reply=OK)
        if command == b"SETKEYDESC":
            return Verdict(forward=self._description)
        if command in (b"PKSIGN", b"PKDECRYPT") and _CACHE_NONCE.fullmatch(rest):
            rest = b""
        pattern = _ALLOWED.get(command)
        if pattern is None or re.fullmatch(pattern, rest) is None:
            return Verdict(reply=UNKNOWN if pattern is None else BAD_PARAMETER)
        return Verdict(forward=command + (b" " + rest if rest else b"") + b"\n")

    def _data(self, text: bytes) -> Verdict:
        """What answers an inquiry."""
        if text in (b"END", b"CAN"):
            self._inquired = False
        elif not text.startswith(b"D "):
            raise ProtocolError("not an answer to the agent's inquiry")
        return Verdict(forward=text + b"\n")

    def from_agent(self, line: bytes) -> Verdict:
        """What to do with a line of the agent: inquiries that the client cannot answer end here."""
        if line.startswith(b"INQUIRE "):
            if line.rstrip() != _INQUIRED:
                return Verdict(reply=b"CAN\n")
            self._inquired = True
        return Verdict(forward=line)
