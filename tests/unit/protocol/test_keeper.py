"""Records of the keeper: what is encoded comes back; anything else is refused."""

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from insula.protocol import keeper
from insula.protocol.errors import ProtocolError
from insula.protocol.keeper import Facts, HeldDescriptor, JailKind, JailSpec, Operation, Request

WORDS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)
NAMES = st.text("abc/é 🖥-", min_size=1, max_size=keeper.MAX_NAME).filter(str.isprintable)
NUMBERS = st.integers(0, 2**31 - 1)
JAILS = st.builds(
    JailSpec,
    kind=st.sampled_from(JailKind),
    program=st.lists(WORDS, max_size=8).map(tuple),
    descriptors=st.lists(NUMBERS, max_size=8).map(tuple),
    environment=st.dictionaries(WORDS, WORDS, max_size=4),
    uid=st.none() | NUMBERS,
    kvm=st.booleans(),
    read_only=st.lists(st.tuples(WORDS, WORDS), max_size=3).map(tuple),
    address_space=st.none() | st.integers(1, 2**63 - 1),
    nice=st.integers(0, 19),
)
HELD = st.builds(
    HeldDescriptor, number=NUMBERS, what=WORDS, inside=st.booleans(), reopens=st.booleans()
)
FACTS = st.builds(
    Facts,
    uids=st.lists(NUMBERS).map(tuple),
    gids=st.lists(NUMBERS).map(tuple),
    no_new_privs=st.booleans(),
    seccomp=NUMBERS,
    seccomp_filters=NUMBERS,
    capabilities=NUMBERS,
    bounding=NUMBERS,
    namespaces=st.lists(WORDS).map(tuple),
    descriptors=st.lists(HELD).map(tuple),
    root_entries=st.lists(WORDS).map(tuple),
    mounts=st.lists(st.tuples(WORDS, st.booleans())).map(tuple),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
SPAWN: dict[str, Any] = {
    "id": 1,
    "op": "spawn",
    "name": "q",
    "jail": JailSpec(kind=JailKind.MACHINE, program=("/bin/true",)).to_json(),
}


def sent(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields).encode()


@given(JAILS, NAMES, st.integers(0, 2**63 - 1))
def test_a_spawn_comes_back(jail: JailSpec, name: str, number: int) -> None:
    record = keeper.encode({"id": number, "op": "spawn", "name": name, "jail": jail.to_json()})
    assert Request.decode(record) == Request(
        number=number, operation=Operation.SPAWN, name=name, jail=jail
    )


@given(FACTS)
def test_facts_come_back(facts: Facts) -> None:
    assert Facts.from_json(keeper.decode(keeper.encode(facts.to_json()))) == facts


@given(NAMES, WORDS)
def test_names_and_pages_come_back(name: str, prefix: str) -> None:
    asked = Request.decode(sent({"id": 0, "op": "names", "prefix": prefix, "after": name}))
    assert asked == Request(number=0, operation=Operation.NAMES, prefix=prefix, after=name)
    for operation in ("verify", "kill", "forget", "hold", "take", "drop", "log"):
        assert Request.decode(sent({"id": 0, "op": operation, "name": name})).name == name


@given(st.binary(max_size=300))
def test_any_bytes_are_a_request_or_refused(untrusted: bytes) -> None:
    with suppress(ProtocolError):
        Request.decode(untrusted)


@given(st.sampled_from([*Operation, "other"]), st.dictionaries(WORDS, JSON), JSON, JSON, JSON)
def test_any_fields_are_a_request_or_refused(
    operation: str, fields: dict[str, Any], number: object, name: object, jail: object
) -> None:
    record = sent({**fields, "op": operation, "id": number, "name": name, "jail": jail})
    with suppress(ProtocolError):
        request = Request.decode(record)
        assert type(request.number) is int
        assert len(request.name) <= keeper.MAX_NAME


@given(st.sampled_from(sorted(SPAWN["jail"])), JSON)
def test_any_field_of_a_jail_is_right_or_refused(field: str, value: object) -> None:
    record = sent({**SPAWN, "jail": {**SPAWN["jail"], field: value}})
    with suppress(ProtocolError):
        request = Request.decode(record)
        assert request.jail is not None
        assert JailSpec.from_json(json.loads(json.dumps(request.jail.to_json()))) == request.jail


@pytest.mark.parametrize(
    "change",
    [
        {"program": "/bin/true"},
        {"program": ["/bin/true", "a\0b"]},
        {"program": ["/bin/true", "\ud800"]},
        {"descriptors": [True]},
        {"descriptors": [-1]},
        {"uid": 2**32},
        {"uid": "0"},
        {"kvm": 1},
        {"kind": "host"},
        {"read_only": [["/etc"]]},
        {"environment": {"A": 1}},
        {"address_space": 0},
        {"nice": -20},
        {"another": 1},
    ],
)
def test_a_jail_is_taken_as_it_should_be_or_not_at_all(change: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError):
        Request.decode(sent({**SPAWN, "jail": {**SPAWN["jail"], **change}}))


@pytest.mark.parametrize("name", ["", "a\nb", "a\0", "x" * (keeper.MAX_NAME + 1), None, 7, ["q"]])
def test_a_name_is_a_printable_word_of_some_length(name: object) -> None:
    with pytest.raises(ProtocolError):
        Request.decode(sent({"id": 1, "op": "kill", "name": name}))


@pytest.mark.parametrize("number", [None, -1, 2**63, 1.0, True, "1", float("nan")])
def test_a_request_has_a_number(number: object) -> None:
    with pytest.raises(ProtocolError):
        Request.decode(sent({"id": number, "op": "hello"}))


@pytest.mark.parametrize("record", [b"", b"[]", b"7", b"{", b"\xff", b"[" * 60_000, b"1" * 60_000])
def test_what_is_no_object_is_refused(record: bytes) -> None:
    with pytest.raises(ProtocolError):
        keeper.decode(record)


def test_a_record_over_the_limit_is_not_made() -> None:
    with pytest.raises(ProtocolError):
        keeper.encode({"text": "x" * keeper.MAX_RECORD})
