"""What a daemon asks the policy daemon, and the answer (qrexec-wire.md sections 11.1 and 11.2)."""

import re
from dataclasses import dataclass

from insula.protocol.errors import ProtocolError
from insula.protocol.policy.answer import Answer
from insula.protocol.policy.rules import ALLOW, DENY

MAX_ANSWER = 4095  # bytes
MAX_QUESTION = 131_072
_REQUIRED = ("source", "intended_target", "service_and_arg")
_TRUTH = ("assume_yes_for_ask", "just_evaluate")
_KEYS = frozenset((*_REQUIRED, *_TRUTH, "requested_source"))
_BOOLEANS = {"yes": True, "no": False}
_UUID_TARGET = re.compile(r"uuid:[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A call to be judged. requested_source: None where it is not told, as by older agents."""

    source: str
    target: str
    called: str
    requested_source: str | None = None
    assume_yes: bool = False
    just_evaluate: bool = False

    def encode(self) -> bytes:
        """The lines that a daemon sends."""
        lines = [f"source={self.source}"]
        if self.requested_source is not None:
            lines.append(f"requested_source={self.requested_source}")
        lines += [f"intended_target={self.target}", f"service_and_arg={self.called}"]
        return "".join(f"{line}\n" for line in (*lines, "")).encode("ascii")

    @classmethod
    def decode(cls, untrusted: bytes) -> "Question":
        """Read the lines, without the empty one that ends them.

        Raises:
            ProtocolError: they are not as they should be.
        """
        found = _pairs(untrusted.removesuffix(b"\n"))
        if not set(found) <= _KEYS:
            raise ProtocolError("an unknown key")
        if any(key not in found for key in _REQUIRED):
            raise ProtocolError("a key is missing")
        truths = {}
        for key in _TRUTH:
            if found.get(key, "no") not in _BOOLEANS:
                raise ProtocolError(f"{key} is yes or no")
            truths[key] = _BOOLEANS[found.get(key, "no")]
        return cls(
            source=found["source"],
            target=found["intended_target"],
            called=found["service_and_arg"],
            requested_source=found.get("requested_source"),
            assume_yes=truths["assume_yes_for_ask"],
            just_evaluate=truths["just_evaluate"],
        )


def parse_answer(untrusted: bytes) -> Answer | None:
    """How a call is to be carried out; None where it is denied.

    Raises:
        ProtocolError: it is no answer.
    """
    if len(untrusted) > MAX_ANSWER or b"\0" in untrusted:
        raise ProtocolError("no answer")
    found = _pairs(untrusted.removesuffix(b"\n"))
    needed = ("user", "target", "requested_target", "autostart")
    match found.get("result"):
        case str(result) if result == DENY:
            if any(key in found for key in needed):
                raise ProtocolError("a denial that says how to carry it out")
            return None
        case str(result) if result == ALLOW:
            pass
        case other:
            raise ProtocolError(f"a result of {other!r}")
    if any(key not in found for key in needed):
        raise ProtocolError("a key is missing")
    if found["autostart"] not in ("True", "False"):
        raise ProtocolError("autostart is True or False")
    return Answer(
        user=found["user"],
        target=found["target"],
        uuid=found.get("target_uuid"),
        autostart=found["autostart"] == "True",
        requested=found["requested_target"],
        service=found.get("service"),
        source=found.get("policy_source"),
    )


def is_new_name(text: str) -> bool:
    """Whether a text is the uuid: form that a new disposable's name may have."""
    return _UUID_TARGET.fullmatch(text) is not None


def _pairs(untrusted: bytes) -> dict[str, str]:
    """Lines of key=value, no key twice."""
    found: dict[str, str] = {}
    try:
        text = untrusted.decode("ascii")
    except UnicodeDecodeError:
        raise ProtocolError("not ASCII") from None
    for line in text.split("\n"):
        key, equals, value = line.partition("=")
        if not equals or key in found:
            raise ProtocolError(f"not key=value, once: {line!r}")
        found[key] = value
    return found
