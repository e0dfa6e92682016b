"""The scripts of admin.vm.volume.Import and ImportWithSize, over a daemon of the test's own."""

import sys
from collections.abc import Callable
from io import BytesIO, TextIOWrapper

import pytest

from insula.protocol import admin
from insula.protocol.admin import Refusal
from insula.tools import volume_import
from insula.tools.volume_import import SOURCE, TARGET
from tests.unit.tools.conftest import Main, Run
from tests.unit.tools.fake_daemon import FakeDaemon, FakeQube, RefusedError

Fed = Callable[[bytes], None]
BEGIN, END = "internal.vm.volume.ImportBegin", "internal.vm.volume.ImportEnd"
BOTH = [(volume_import.own_size, b""), (volume_import.with_size, b"8\n")]


@pytest.fixture(autouse=True)
def _qubes(daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    daemon.add(FakeQube("work"))
    monkeypatch.setenv(SOURCE, "mgmt")
    monkeypatch.setenv(TARGET, "work")


@pytest.fixture
def fed(monkeypatch: pytest.MonkeyPatch) -> Fed:
    """Give a command its standard input."""
    return lambda data: monkeypatch.setattr(sys, "stdin", TextIOWrapper(BytesIO(data)))


@pytest.mark.parametrize(("main", "size"), BOTH)
def test_data_comes_into_the_volume(
    run: Run, daemon: FakeDaemon, fed: Fed, main: Main, size: bytes
) -> None:
    fed(size + b"12345678")
    done = run(main, "private")
    assert (done.code, done.out, done.err) == (0, "0\0", "")
    assert daemon.imports == {"work:private": b"12345678"}
    assert [(request.source, payload) for request, payload in daemon.requests] == [
        ("mgmt", size.strip()),
        ("mgmt", b"ok"),
    ]


@pytest.mark.parametrize(
    ("main", "data"),
    [(main, size + data) for main, size in BOTH for data in (b"1234567", b"123456789", b"")],
)
def test_too_little_and_too_much_data_is_told(
    run: Run, daemon: FakeDaemon, fed: Fed, main: Main, data: bytes
) -> None:
    fed(data)
    done = run(main, "private")
    answer = admin.decode_answer(done.out.encode())
    assert isinstance(answer, Refusal)
    assert (done.code, answer.kind) == (0, "QubesException")
    ((_, _, verdict),) = daemon.asked(END)
    assert verdict.startswith(b"fail\n")


@pytest.mark.parametrize(("main", "size"), BOTH)
def test_a_refused_beginning_is_passed_on(
    run: Run, daemon: FakeDaemon, fed: Fed, main: Main, size: bytes
) -> None:
    daemon.refusals[BEGIN, "work"] = RefusedError("QubesVMNotHaltedError", "it runs")
    fed(size + b"12345678")
    done = run(main, "private")
    assert (done.code, done.out) == (1, "2\0QubesVMNotHaltedError\0\0it runs\0")
    assert daemon.asked(END) == []


def test_a_silent_refusal_is_passed_on(run: Run, daemon: FakeDaemon, fed: Fed) -> None:
    daemon.silent.add((BEGIN, "work"))
    fed(b"12345678")
    done = run(volume_import.own_size, "nothing")
    assert (done.code, done.out) == (1, "")


@pytest.mark.parametrize(
    "data", [b"", b"8", b"\n", b"1" * 21 + b"\n", b"8\0\n", b"\xc3\xa9\n", b"\t8\n"]
)
def test_the_first_line_has_to_be_a_size(
    run: Run, daemon: FakeDaemon, fed: Fed, data: bytes
) -> None:
    fed(data)
    done = run(volume_import.with_size, "private")
    assert (done.code, done.out) == (1, "")
    assert daemon.requests == []


def test_the_daemon_reads_the_size(run: Run, daemon: FakeDaemon, fed: Fed) -> None:
    daemon.silent.add((BEGIN, "work"))
    fed(b"1" * 20 + b"\nx")
    assert run(volume_import.with_size, "private").code == 1
    assert daemon.asked(BEGIN) == [("work", "private", b"1" * 20)]


@pytest.mark.parametrize("missing", [SOURCE, TARGET])
def test_both_ends_have_to_be_known(
    run: Run, monkeypatch: pytest.MonkeyPatch, fed: Fed, missing: str
) -> None:
    monkeypatch.delenv(missing)
    fed(b"")
    assert run(volume_import.own_size, "private").code == 2
