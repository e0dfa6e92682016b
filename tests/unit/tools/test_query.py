"""qubesd-query: a request as it stands, and its answer."""

import io
import sys
from types import SimpleNamespace

import pytest

from insula.tools import qubesd_query
from tests.unit.tools.conftest import Run
from tests.unit.tools.fake_daemon import FakeDaemon, FakeQube


@pytest.fixture
def say(monkeypatch: pytest.MonkeyPatch) -> io.BytesIO:
    """What standard input holds."""
    given = io.BytesIO()
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=given, fileno=lambda: 0))
    return given


def _give(given: io.BytesIO, data: bytes) -> None:
    given.write(data)
    given.seek(0)


def test_the_answer_is_printed_as_it_is(daemon: FakeDaemon, run: Run) -> None:
    daemon.add(FakeQube("work", tags={"x"}))
    done = run(qubesd_query.main, "-e", "dom0", "admin.vm.tag.List", "work")
    assert (done.code, done.out) == (0, "0\0x\n")
    done = run(qubesd_query.main, "-e", "--null", "dom0", "admin.vm.tag.Get", "work", "x")
    assert done.out == "0\x001\0"


def test_the_payload_comes_from_standard_input(
    daemon: FakeDaemon, run: Run, say: io.BytesIO
) -> None:
    daemon.add(FakeQube("work"))
    _give(say, b"some\nthing\0more")
    done = run(qubesd_query.main, "dom0", "admin.vm.feature.Set", "work", "x")
    assert done.code == 0
    assert daemon.asked("admin.vm.feature.Set") == [("work", "x", b"some\nthing\0more")]


@pytest.mark.parametrize(
    ("method", "argument", "code"),
    [
        ("admin.vm.tag.List", "", 0),
        ("admin.vm.feature.Get", "none", 2),
        ("admin.vm.Kill", "", 1),
    ],
)
def test_the_kind_of_answer_is_told(
    daemon: FakeDaemon, run: Run, method: str, argument: str, code: int
) -> None:
    daemon.add(FakeQube("work"))
    daemon.silent.add(("admin.vm.Kill", "work"))
    done = run(qubesd_query.main, "-e", "--fail", "dom0", method, "work", argument)
    assert done.code == code


@pytest.mark.parametrize(
    ("options", "payload"),
    [
        ((), b"x" * 65_537),
        (("--max-bytes", "3"), b"four"),
        (("--single-line",), b"two\nlines"),
        (("--single-line",), b"caf\xc3\xa9"),
        (("--single-line",), b"x" * 1025),
        (("--single-line", "--max-bytes", "3"), b"four"),
    ],
)
def test_payloads_that_are_not_sent(
    daemon: FakeDaemon, run: Run, say: io.BytesIO, options: tuple[str, ...], payload: bytes
) -> None:
    daemon.add(FakeQube("work"))
    _give(say, payload)
    done = run(qubesd_query.main, *options, "dom0", "admin.vm.feature.Set", "work", "x")
    assert done.code == 1
    assert done.err.startswith("qubesd-query: error: ")
    assert not daemon.asked("admin.vm.feature.Set")


def test_one_line_goes_without_its_end(daemon: FakeDaemon, run: Run, say: io.BytesIO) -> None:
    daemon.add(FakeQube("work"))
    _give(say, b"a line\n")
    words = ("--single-line", "dom0", "admin.vm.feature.Set", "work", "x")
    assert run(qubesd_query.main, *words).code == 0
    assert daemon.asked("admin.vm.feature.Set") == [("work", "x", b"a line")]


def test_options_that_contradict_each_other(run: Run) -> None:
    words = ("-e", "--fail", "--null", "dom0", "admin.vm.List", "dom0")
    assert run(qubesd_query.main, *words).code == 2


def test_nobody_who_answers(run: Run) -> None:
    done = run(qubesd_query.main, "-e", "-c", "/nowhere.sock", "dom0", "admin.vm.List", "dom0")
    assert done.code == 1
    assert "/nowhere.sock cannot be reached" in done.err
    assert "insula up" in done.err
