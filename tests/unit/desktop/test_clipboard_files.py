"""The global clipboard's files: what they hold after each key, for whoever else reads them."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from insula.desktop.clipboard import Clipboard, amount
from insula.protocol.errors import ProtocolError
from insula.protocol.viewing import OUTCOMES, Record, encode, take

VERSION = 0x00010007
PASTE = Record({"op": "paste", "time": 200, "window": 7, "limit": 64_000, "version": VERSION})


def answer(outcome: str, text: bytes = b"", *, at: int = 100, size: int | None = None) -> Record:
    return Record(
        {
            "op": "copied", "outcome": outcome, "time": at, "limit": 64_000, "version": VERSION,
            "size": len(text) if size is None else size, "paste_key": "Ctrl-Shift-v",
        },
        text,
    )  # fmt: skip


@pytest.fixture
def clipboard(tmp_path: Path) -> Clipboard:
    return Clipboard(tmp_path, lambda _source, target: target == "vault")


def content(directory: Path) -> dict[str, bytes]:
    endings = ("", ".source", ".xevent")
    return {ending: (directory / f"qubes-clipboard.bin{ending}").read_bytes() for ending in endings}


def test_metadata_as_specified_to_the_byte(clipboard: Clipboard, tmp_path: Path) -> None:
    clipboard.copied("work", answer("copied", b"secret"))
    assert content(tmp_path) == {"": b"secret", ".source": b"work", ".xevent": b"100\n"}
    assert (tmp_path / "qubes-clipboard.bin").stat().st_mode & 0o777 == 0o660
    metadata = (tmp_path / "qubes-clipboard.bin.metadata").read_bytes()
    assert metadata == (
        b'{\n"vmname":"work",\n"xevent_timestamp":100,\n"successful":1,\n"copy_action":1,\n'
        b'"paste_action":0,\n"malformed_request":0,\n"oversized_request":0,\n"cleared":0,\n'
        b'"qrexec_clipboard":0,\n"sent_size":6,\n"buffer_size":64000,\n'
        b'"protocol_version_xside":65544,\n"protocol_version_vmside":65543\n}\n'
    )


@pytest.mark.parametrize(
    ("outcome", "facts", "kept"),
    [
        ("empty", {"successful", "cleared"}, b""),
        ("oversized", {"oversized_request", "cleared"}, b""),
        ("malformed", {"malformed_request"}, b"before"),
    ],
)
def test_what_is_no_text_is_told_by_the_metadata(
    clipboard: Clipboard, tmp_path: Path, outcome: str, facts: set[str], kept: bytes
) -> None:
    clipboard.copied("work", answer("copied", b"before", at=90))
    assert clipboard.copied("work", answer(outcome, size=99_999))
    metadata = json.loads((tmp_path / "qubes-clipboard.bin.metadata").read_bytes())
    flags = {name for name, value in metadata.items() if value == 1}
    assert flags == facts | {"copy_action"}
    assert content(tmp_path)[""] == kept


def test_a_paste_wipes_and_says_so(clipboard: Clipboard, tmp_path: Path) -> None:
    clipboard.copied("work", answer("copied", b"secret"))
    assert clipboard.paste("untrusted", PASTE)[0] is None
    assert clipboard.paste("work", PASTE)[0] is None
    assert clipboard.paste("vault", PASTE)[0] == b"secret"
    assert content(tmp_path) == {"": b"", ".source": b"", ".xevent": b"100\n"}
    metadata = json.loads((tmp_path / "qubes-clipboard.bin.metadata").read_bytes())
    assert metadata["vmname"] == "vault"
    flags = {name for name, value in metadata.items() if value == 1}
    assert flags == {"successful", "paste_action", "cleared"}
    assert clipboard.paste("vault", PASTE) == (None, None)


def test_nobody_pastes_into_the_qube_that_copied_whatever_the_policy(tmp_path: Path) -> None:
    clipboard = Clipboard(tmp_path, lambda *_: True)
    clipboard.copied("work", answer("copied", b"secret"))
    assert clipboard.paste("work", PASTE)[0] is None


def test_text_of_the_host_is_pasted_like_a_qubes(clipboard: Clipboard, tmp_path: Path) -> None:
    clipboard.copied("work", answer("copied", b"before", at=999))
    clipboard.put("dom0", b"of the host")
    metadata = json.loads((tmp_path / "qubes-clipboard.bin.metadata").read_bytes())
    assert (metadata["vmname"], metadata["sent_size"], metadata["copy_action"]) == ("dom0", 11, 1)
    assert clipboard.paste("untrusted", PASTE)[0] is None
    assert clipboard.paste("vault", PASTE)[0] == b"of the host"
    clipboard.put("dom0", b"regretted")
    clipboard.clear()
    assert clipboard.paste("vault", PASTE) == (None, None)
    assert content(tmp_path)[""] == b""


@pytest.mark.parametrize(
    ("first", "second", "taken"),
    [
        (100, 101, True),
        (100, 100, False),
        (100, 99, False),
        (2**32 - 5, 3, True),
        (3, 2**32 - 5, False),
    ],
)
def test_only_a_later_key_counts(
    clipboard: Clipboard, tmp_path: Path, first: int, second: int, taken: bool
) -> None:
    clipboard.copied("work", answer("copied", b"first", at=first))
    clipboard.copied("work", answer("copied", b"second", at=second))
    assert content(tmp_path)[""] == (b"second" if taken else b"first")
    later = Record({**PASTE.fields, "time": first})
    assert taken or clipboard.paste("vault", later)[0] is None


@given(
    fields=st.dictionaries(
        st.sampled_from(["op", "outcome", "time", "size", "limit", "version", "paste_key"]),
        st.one_of(st.none(), st.booleans(), st.integers(-1, 2**32), st.text(max_size=5),
                  st.sampled_from(OUTCOMES), st.lists(st.integers())),
    ),
    raw=st.binary(max_size=9),
)  # fmt: skip
def test_whatever_a_viewer_says_is_taken_or_refused(
    tmp_path_factory: pytest.TempPathFactory, fields: dict[str, object], raw: bytes
) -> None:
    clipboard = Clipboard(tmp_path_factory.getbasetemp(), lambda *_: True)
    for act in (clipboard.copied, clipboard.paste):
        try:
            act("work", Record(fields, raw))
        except ProtocolError:
            continue


@given(untrusted=st.binary(max_size=60))
def test_any_bytes_are_a_record_or_refused(untrusted: bytes) -> None:
    received = bytearray(untrusted)
    try:
        record = take(received)
    except ProtocolError:
        return
    assert record is None or take(bytearray(encode(record))) == record


@pytest.mark.parametrize("fields", [{"op": "x" * 5000}, {}])
def test_records_have_a_limit(fields: dict[str, object]) -> None:
    with pytest.raises(ProtocolError):
        encode(Record(fields, b"" if fields else bytes(256_001)))


def test_sizes_in_words() -> None:
    assert [amount(size) for size in (0, 1, 1023, 2048)] == [
        "0 bytes", "1 byte", "1023 bytes", "2048 bytes (2.0 KiB)",
    ]  # fmt: skip
