"""What the person's session is asked about calls: nothing is shown that is not clean."""

from insula.protocol.errors import ProtocolError
from insula.protocol.policy_agent import Ask, Notify, Suspicious, Tell, chosen, parse_request
from tests.fuzz.spelling import spelled

_ASK = b'{"source":"a","service":"b.C","argument":"+","targets":["t"],"icons":{"a":"i"}'
_NOTIFY = b'{"resolution":"deny","source":"a","service":"b.C","argument":"+x","target":"t"'
_WORDS = (
    b'{"text":"a"', b'{"qube":"a"',
    _ASK, _NOTIFY, b"}", b',"source":', b',"service":', b',"argument":', b',"targets":[', b"]",
    b',"icons":{', b',"default_target":', b',"resolution":', b',"target":', b'"', b'"@dispvm:a"',
    b"[" * 9999, b"null", b'"\\u00e4"', b"{",
)  # fmt: skip
_SHOWN = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789@_-.:+")
_HEADERS = (
    b"policy.Ask dom0\0", b"policy.Notify dom0 name dom0\0", b"insula.Tell dom0\0",
    b"insula.Suspicious dom0\0",
)  # fmt: skip


def fuzz(data: bytes) -> None:
    """One input: a whole request, its body spelled in words, and an answer."""
    body = spelled(data, _WORDS)
    for request in (data, *(header + body for header in _HEADERS)):
        try:
            parsed = parse_request(request)
        except ProtocolError:
            continue
        assert all(_SHOWN.issuperset(text) for text in _texts(parsed))
    target = chosen(data)
    assert not target or data.startswith(b"allow:")


def _texts(parsed: Ask | Notify | Tell | Suspicious) -> list[str]:
    if isinstance(parsed, Tell):
        assert parsed.text.isascii()
        assert parsed.text.isprintable()
        return []
    if isinstance(parsed, Suspicious):
        return [parsed.qube]
    texts = [parsed.source, parsed.service, parsed.argument]
    if isinstance(parsed, Notify):
        return [*texts, parsed.target, parsed.resolution]
    return [*texts, *parsed.targets, parsed.default_target, *parsed.icons, *parsed.icons.values()]
