"""What passes between another qube's gpg or ssh and the agents that hold the keys."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from insula.protocol.errors import ProtocolError
from insula.protocol.gpg_agent import BAD_PARAMETER, MAX_LINE, OK, UNKNOWN, Filter, Verdict
from insula.protocol.ssh_agent import MAX_MESSAGE, may_ask, take_message

GRIP = b"0123456789ABCDEF0123456789ABCDEF01234567"
CHANGING = (1, 3, 4, 5, 7, 8, 9, 17, 18, 19, 20, 21, 22, 23, 25, 26, 27, 0, 255)


@pytest.mark.parametrize(
    "line",
    [
        b"NOP",
        b"RESET",
        b"GETINFO version",
        b"HAVEKEY " + GRIP,
        b"HAVEKEY " + GRIP + b" " + GRIP,
        b"HAVEKEY --list=1000",
        b"KEYINFO " + GRIP,
        b"READKEY -- " + GRIP,
        b"SIGKEY " + GRIP,
        b"SETKEY " + GRIP,
        b"SETHASH 8 " + 32 * b"AB",
        b"SETHASH --hash=sha256 " + 32 * b"ab",
        b"PKSIGN",
        b"PKDECRYPT",
        b"BYE",
    ],
)
def test_what_signs_and_decrypts_passes(line: bytes) -> None:
    assert Filter("work").from_client(line + b"\n") == Verdict(forward=line + b"\n")


@pytest.mark.parametrize(
    "line",
    [
        b"GENKEY",
        b"EXPORT_KEY " + GRIP,
        b"IMPORT_KEY",
        b"DELETE_KEY " + GRIP,
        b"PASSWD " + GRIP,
        b"PRESET_PASSPHRASE " + GRIP + b" -1",
        b"GET_PASSPHRASE X X X X",
        b"CLEAR_PASSPHRASE x",
        b"KEYWRAP_KEY --export",
        b"SCD SERIALNO",
        b"KILLAGENT",
        b"RELOADAGENT",
        b"LEARN",
        b"UPDATESTARTUPTTY",
        b"GET_CONFIRMATION hello",
        b"pksign",
        b"END",
    ],
)
def test_all_else_does_not_exist(line: bytes) -> None:
    assert Filter("work").from_client(line + b"\n") == Verdict(reply=UNKNOWN)


@pytest.mark.parametrize(
    "line",
    [
        b"HAVEKEY short",
        b"KEYINFO --list",
        b"GETINFO pid",
        b"SETHASH 8",
        b"SIGKEY " + GRIP + b" x",
        b"PKSIGN --x",
    ],
)
def test_parameters_are_held_to_their_form(line: bytes) -> None:
    assert Filter("work").from_client(line + b"\n") == Verdict(reply=BAD_PARAMETER)


def test_the_asking_qube_chooses_neither_words_nor_display() -> None:
    asked = Filter("work")
    described = asked.from_client(b"SETKEYDESC Your+bank+asks\n")
    assert described.forward == b"SETKEYDESC The+qube+work+wants+to+use+this+key.\n"
    for option in (b"display=:7", b"putenv=GPG_TTY=/dev/x", b"pinentry-mode=loopback"):
        assert asked.from_client(b"OPTION " + option + b"\n") == Verdict(reply=OK)
    assert asked.from_client(b"PKSIGN -- 0A1B\n") == Verdict(forward=b"PKSIGN\n")


def test_data_passes_only_where_the_agent_asked_for_it() -> None:
    asked = Filter("work")
    assert asked.from_client(b"D data\n") == Verdict(reply=UNKNOWN)
    assert asked.from_agent(b"INQUIRE CIPHERTEXT\n") == Verdict(forward=b"INQUIRE CIPHERTEXT\n")
    assert asked.from_client(b"D data\n") == Verdict(forward=b"D data\n")
    with pytest.raises(ProtocolError):
        asked.from_client(b"KILLAGENT\n")
    assert asked.from_client(b"END\n") == Verdict(forward=b"END\n")
    assert asked.from_client(b"D data\n") == Verdict(reply=UNKNOWN)


def test_what_the_agent_asks_of_its_own_qube_is_not_answered_by_another() -> None:
    asked = Filter("work")
    assert asked.from_agent(b"INQUIRE PINENTRY_LAUNCHED 1\n") == Verdict(reply=b"CAN\n")
    assert asked.from_client(b"D 1\n") == Verdict(reply=UNKNOWN)


@given(line=st.binary(max_size=MAX_LINE + 10))
def test_nothing_but_known_commands_reaches_the_agent(line: bytes) -> None:
    asked = Filter("work")
    try:
        verdict = asked.from_client(line)
    except ProtocolError:
        return
    if verdict.forward is not None:
        assert verdict.forward.count(b"\n") == 1
        assert verdict.forward.split(b" ")[0].strip() in (
            *(b"NOP", b"RESET", b"BYE", b"GETINFO", b"HAVEKEY", b"KEYINFO", b"READKEY", b"SIGKEY"),
            *(b"SETKEY", b"SETHASH", b"PKSIGN", b"PKDECRYPT", b"SETKEYDESC"),
        )


def ssh_message(kind: int, body: bytes = b"") -> bytes:
    return struct.pack(">IB", 1 + len(body), kind) + body


def test_keys_are_listed_and_sign() -> None:
    assert may_ask(ssh_message(11))
    assert may_ask(ssh_message(13, b"x"))


@pytest.mark.parametrize("kind", CHANGING)
def test_nothing_changes_an_ssh_agent(kind: int) -> None:
    assert not may_ask(ssh_message(kind, b"x"))


def test_ssh_messages_come_in_any_pieces() -> None:
    whole, received, found = ssh_message(11) + ssh_message(13, 300 * b"x"), bytearray(), []
    for at in range(len(whole)):
        received += whole[at : at + 1]
        if (message := take_message(received)) is not None:
            found.append(message)
    assert found == [ssh_message(11), ssh_message(13, 300 * b"x")]
    assert not received


@pytest.mark.parametrize("length", [0, MAX_MESSAGE + 1, 0xFFFFFFFF])
def test_an_ssh_message_of_no_acceptable_size_is_refused(length: int) -> None:
    with pytest.raises(ProtocolError):
        take_message(bytearray(struct.pack(">I", length)))
