"""The byte vectors of gui.md section 19."""

import pytest

from insula.protocol.errors import ProtocolError
from insula.protocol.gui import handshake
from insula.protocol.gui.messages import (
    Button,
    ClipboardData,
    ClipboardRequest,
    Configure,
    Create,
    Crossing,
    Cursor,
    Destroy,
    Dock,
    Focus,
    KeymapNotify,
    KeyPress,
    Map,
    Message,
    Motion,
    ShmImage,
    WindowClass,
    WindowDump,
    WindowDumpAck,
    WindowFlags,
    WindowHints,
    WindowName,
    encode,
)
from insula.protocol.gui.stream import take_from_agent, take_from_viewer

WINDOW = 0x200007

FROM_AGENT: dict[int, tuple[Message, str]] = {
    4: (
        Create(WINDOW, 100, 80, 800, 600, 0x176, 0),
        "820000000700200018000000640000005000000020030000580200007601000000000000",
    ),
    5: (
        Create(0x200009, -5, -10, 200, 300, 0x176, 1),
        "820000000900200018000000fbfffffff6ffffffc80000002c0100007601000001000000",
    ),
    6: (Map(0x200009, WINDOW, 0), "8400000009002000080000000700200000000000"),
    7: (
        Configure(WINDOW, 10, 20, 1024, 768, 0),
        "8600000007002000140000000a00000014000000000400000003000000000000",
    ),
    8: (
        WindowDump(WINDOW, 40, 40, 32, (0x1234, 0x1235)),
        "930000000700200018000000000000002800000028000000200000003412000035120000",
    ),
    10: (
        ShmImage(WINDOW, 0, 0, 800, 600),
        "88000000070020001000000000000000000000002003000058020000",
    ),
    11: (
        WindowName(WINDOW, b"Terminal".ljust(128, b"\0")),
        "8d00000007002000800000005465726d696e616c" + "00" * 120,
    ),
    12: (
        WindowClass(WINDOW, b"XTerm".ljust(64, b"\0"), b"xterm".ljust(64, b"\0")),
        "920000000700200080000000" + "585465726d" + "00" * 59 + "787465726d" + "00" * 59,
    ),
    13: (
        WindowHints(WINDOW, 0x150, 100, 50, 0, 0, 9, 18, 4, 4),
        "90000000070020002400000050010000640000003200000000000000000000000900000012000000"
        "0400000004000000",
    ),
    14: (WindowFlags(WINDOW, 1, 0), "9100000007002000080000000100000000000000"),
    16: (Dock(WINDOW), "8f0000000700200000000000"),
    17: (Cursor(WINDOW, 0x198), "94000000070020000400000098010000"),
    25: (
        ClipboardData(WINDOW, "héllo".encode()),
        "8c000000070020000600000068c3a96c6c6f",
    ),
    27: (Destroy(WINDOW), "830000000700200000000000"),
}

FROM_VIEWER: dict[int, tuple[Message, str]] = {
    7: FROM_AGENT[7],
    9: (WindowDumpAck(WINDOW), "950000000700200000000000"),
    15: (WindowFlags(WINDOW, 4, 2), "9100000007002000080000000400000002000000"),
    18: (
        KeyPress(WINDOW, 2, 15, 25, 1, 38),
        "7c0000000700200014000000020000000f000000190000000100000026000000",
    ),
    19: (
        Button(WINDOW, 4, 15, 25, 0, 4),
        "7d0000000700200014000000040000000f000000190000000000000004000000",
    ),
    20: (
        Motion(WINDOW, 300, 200, 0x100, 0),
        "7e00000007002000100000002c010000c80000000001000000000000",
    ),
    21: (
        Crossing(WINDOW, 8, -1, 40, 0, 0, 3, 0),
        "7f000000070020001c00000008000000ffffffff2800000000000000000000000300000000000000",
    ),
    22: (Focus(WINDOW, 9, 0, 3), "80000000070020000c000000090000000000000003000000"),
    23: (
        KeymapNotify(0, bytes.fromhex("0000000020") + bytes.fromhex("0004") + bytes(25)),
        "8e000000000000002000000000000000200004" + "00" * 25,
    ),
    24: (ClipboardRequest(WINDOW), "8b0000000700200000000000"),
    27: (Destroy(WINDOW), "830000000700200000000000"),
}


@pytest.mark.parametrize("number", FROM_AGENT)
def test_an_agents_message_has_the_specified_bytes(number: int) -> None:
    message, text = FROM_AGENT[number]
    assert encode(message).hex() == text
    received = bytearray.fromhex(text)
    taken = take_from_agent(received, handshake.MINOR)
    assert (type(taken), taken) == (type(message), message)
    assert not received


@pytest.mark.parametrize("number", FROM_VIEWER)
def test_a_viewers_message_has_the_specified_bytes(number: int) -> None:
    message, text = FROM_VIEWER[number]
    assert encode(message).hex() == text
    received = bytearray.fromhex(text)
    taken = take_from_viewer(received)
    assert (type(taken), taken) == (type(message), message)
    assert not received


def test_the_agent_opens_with_version_1_8() -> None:  # vector 1
    assert handshake.agent_opening().hex() == "08000100"


def test_the_viewer_answers_with_version_and_screen() -> None:  # vector 2
    minor = handshake.effective_minor(bytes.fromhex("08000100"))
    answer = handshake.viewer_answer(minor, 1920, 1080, 24)
    assert answer.hex() == "08000100800700003804000018000000a51f0000"
    assert handshake.agent_accepts(answer) == (8, handshake.Screen(1920, 1080, 24, 8101))


def test_an_agent_before_1_4_gets_no_version_word() -> None:  # vector 3
    minor = handshake.effective_minor(bytes.fromhex("03000100"))
    answer = handshake.viewer_answer(minor, 1366, 768, 24)
    assert answer.hex() == "58050000000300001800000009100000"


@pytest.mark.parametrize(("width", "sent"), [(1366, 1368), (1920, 1920), (1, 8)])  # vector 35
def test_the_screens_width_is_sent_as_a_multiple_of_8(width: int, sent: int) -> None:
    answer = handshake.viewer_answer(8, width, 10, 24)
    assert handshake.agent_accepts(answer)[1].width == sent


def test_mfn_dumps_are_refused() -> None:  # vector 26
    text = (
        "87000000070020002000000000000000140000001400000018000000400000000100000000000000debc0a00"
    )
    with pytest.raises(ProtocolError, match="not an agent's"):
        take_from_agent(bytearray.fromhex(text), handshake.MINOR)


def test_another_major_version_is_refused() -> None:
    with pytest.raises(ProtocolError, match="version 2"):
        handshake.effective_minor(bytes.fromhex("08000200"))


@pytest.mark.parametrize("word", ["03000100", "09000100", "08000200"])
def test_the_agent_refuses_versions_it_does_not_speak(word: str) -> None:
    with pytest.raises(ProtocolError, match="viewer of version"):
        handshake.agent_accepts(bytes.fromhex(word) + bytes(16))
