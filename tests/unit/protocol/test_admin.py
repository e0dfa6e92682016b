"""The Admin API's bytes: what is encoded comes back, and anything else is refused."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from insula.protocol import admin
from insula.protocol.admin import AdminRequest, Event, ListedQube, PropertyAnswer, Refusal
from insula.protocol.errors import ProtocolError

WORD = st.from_regex(r"[A-Za-z0-9_.-]{1,20}", fullmatch=True)
ARGUMENT = st.from_regex(r"[A-Za-z0-9_.+-]{0,20}", fullmatch=True)
TEXT = st.text(st.characters(exclude_characters="\0", codec="utf-8"))
ASCII = st.text(st.characters(min_codepoint=1, max_codepoint=126))
EVENTS = st.builds(Event, ASCII, ASCII, st.dictionaries(ASCII.filter(bool), ASCII, max_size=4))
ANSWERS = st.builds(
    PropertyAnswer,
    st.booleans(),
    st.sampled_from(sorted(admin.PROPERTY_TYPES)),
    st.text(st.characters(min_codepoint=1, max_codepoint=126)),
)


@given(WORD, ARGUMENT, WORD, WORD, st.binary())
def test_a_request_comes_back(
    method: str, argument: str, source: str, destination: str, payload: bytes
) -> None:
    encoded = admin.encode_request(method, argument, destination, payload, source=source)
    request = AdminRequest(method, argument, source, destination)
    assert admin.split_request(encoded) == (request, payload)


def test_a_request_is_framed_as_a_qubes_client_sends_it() -> None:
    sent = admin.encode_request("admin.vm.property.Set", "netvm", "work", b"sys-net")
    assert sent == b"admin.vm.property.Set+netvm dom0 name work\0sys-net"


@pytest.mark.parametrize(
    ("header", "request_"),
    [
        (b"admin.vm.List dom0 name dom0", AdminRequest("admin.vm.List", "", "dom0", "dom0")),
        (b"admin.vm.List+ x name y", AdminRequest("admin.vm.List", "", "x", "y")),
        (b"a+b+c x name y z", AdminRequest("a", "b+c", "x", "y z")),
        (b"a x keyword adminvm", AdminRequest("a", "", "x", "dom0")),
    ],
)
def test_headers_are_read(header: bytes, request_: AdminRequest) -> None:
    assert admin.parse_request(header) == request_


@pytest.mark.parametrize(
    "header",
    [b"", b"a b name", b"a b  name c", b"a b keyword dom0", b"a b uuid c", b"\xff b name c"],
)
def test_other_headers_are_refused(header: bytes) -> None:
    with pytest.raises(ProtocolError):
        admin.parse_request(header)


def test_a_request_has_its_limit_both_ways() -> None:
    header = len(b"m+ dom0 name dom0\0")
    largest = admin.encode_request("m", "", "dom0", bytes(admin.MAX_REQUEST - header))
    assert len(admin.split_request(largest)[1]) == admin.MAX_REQUEST - header
    with pytest.raises(ProtocolError):
        admin.split_request(largest + b"x")
    with pytest.raises(ProtocolError):
        admin.encode_request("m", "", "dom0", bytes(admin.MAX_REQUEST - header + 1))


@pytest.mark.parametrize("field", ["a b", "a\0", "ä"])
def test_a_field_that_would_break_the_header_is_not_sent(field: str) -> None:
    with pytest.raises(ProtocolError):
        admin.encode_request("m", "", field)
    with pytest.raises(ProtocolError):
        admin.encode_request("m", field, "dom0")


@given(st.binary())
def test_any_request_is_read_or_refused(untrusted: bytes) -> None:
    with suppress(ProtocolError):
        admin.split_request(untrusted)


@given(st.binary())
def test_content_comes_back(content: bytes) -> None:
    assert admin.decode_answer(admin.ok(content)) == content


@given(WORD, TEXT)
def test_an_exception_comes_back_with_its_percent_signs(kind: str, message: str) -> None:
    assert admin.decode_answer(admin.exception(kind, message)) == Refusal(kind, message)


def test_an_exceptions_further_fields_go_into_its_message() -> None:
    sent = b"2\0QubesException\0\0%s is not %s\0work\0halted\0"
    assert admin.decode_answer(sent) == Refusal("QubesException", "work is not halted")
    assert admin.decode_answer(b"2\0E\0\0%d\0x\0") == Refusal("E", "%d")


def test_no_answer_is_told_from_a_bad_one() -> None:
    assert admin.decode_answer(b"") is None
    for bad in (b"0", b"1\0", b"3\0x", b"2\0E\0", b"x"):
        with pytest.raises(ProtocolError):
            admin.decode_answer(bad)


@given(st.binary())
def test_any_answer_is_read_or_refused(untrusted: bytes) -> None:
    with suppress(ProtocolError):
        admin.decode_answer(untrusted)


@given(st.lists(EVENTS, max_size=5), st.lists(st.integers(1, 40), min_size=1))
def test_events_survive_any_split(events: list[Event], cuts: list[int]) -> None:
    stream = b"".join(admin.event(*event) for event in events)
    received, taken, at, turn = bytearray(), [], 0, 0
    while at < len(stream):
        size = cuts[turn % len(cuts)]
        received += stream[at : at + size]
        at, turn = at + size, turn + 1
        while (record := admin.take_event(received)) is not None:
            taken.append(record)
    assert taken == events
    assert not received


def test_a_stream_may_end_in_an_exception() -> None:
    received = bytearray(admin.event("", "connection-established"))
    received += admin.exception("QubesVMNotRunningError", "work is 100% halted")
    assert admin.take_event(received) == Event("", "connection-established", {})
    assert admin.take_event(received) == Refusal("QubesVMNotRunningError", "work is 100% halted")


@given(st.binary())
def test_any_stream_gives_records_or_a_refusal(untrusted: bytes) -> None:
    received = bytearray(untrusted)
    with suppress(ProtocolError):
        while admin.take_event(received) is not None:
            pass


def test_a_record_without_an_end_is_given_up() -> None:
    with pytest.raises(ProtocolError):
        admin.take_event(bytearray(b"1\0" + b"x" * admin.MAX_EVENT))


@given(ANSWERS)
def test_a_propertys_answer_comes_back(answer: PropertyAnswer) -> None:
    assert admin.parse_property_answer(admin.property_answer(answer)) == answer


def test_an_unset_property_keeps_its_space() -> None:
    answer = PropertyAnswer(True, "int", "")
    assert admin.property_answer(answer) == "default=True type=int "
    assert admin.parse_property_answer("default=True type=int ") == answer


@given(st.dictionaries(WORD, ANSWERS, max_size=5))
def test_all_properties_come_back(answers: dict[str, PropertyAnswer]) -> None:
    assert admin.parse_property_lines(admin.property_lines(answers.items())) == answers


def test_get_all_escapes_backslashes_first() -> None:
    line = admin.property_lines([("kernelopts", PropertyAnswer(False, "str", "a\\n\nb"))])
    assert line == "kernelopts default=False type=str a\\\\n\\nb\n"


@given(st.text())
def test_any_property_text_is_read_or_refused(untrusted: str) -> None:
    with suppress(ProtocolError):
        admin.parse_property_lines(untrusted)
    with suppress(ProtocolError):
        admin.parse_default_answer(untrusted)


def test_a_default_comes_back_and_may_be_missing() -> None:
    answer = admin.parse_default_answer(admin.default_answer("vm", "sys net"))
    assert answer == PropertyAnswer(True, "vm", "sys net")
    assert admin.parse_default_answer("") is None


@given(st.lists(st.builds(ListedQube, WORD, WORD, WORD, WORD)))
def test_listed_qubes_come_back(qubes: list[ListedQube]) -> None:
    assert admin.parse_listed_qubes("".join(map(admin.listed_qube_line, qubes))) == qubes


@given(st.text())
def test_any_list_of_qubes_is_read_or_refused(untrusted: str) -> None:
    with suppress(ProtocolError):
        admin.parse_listed_qubes(untrusted)


def test_pairs_are_read_and_keep_equals_signs_in_values() -> None:
    assert admin.parse_pairs("mem=1 opts=a=b ", " ") == {"mem": "1", "opts": "a=b"}
