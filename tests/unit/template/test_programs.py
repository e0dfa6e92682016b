"""Running the programs of a build."""

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from insula.template import programs
from insula.template.programs import (
    NoRangesError,
    ProgramFailedError,
    ProgramMissingError,
    as_root,
    require_root,
    run,
)

DEADLINE = 30_000  # milliseconds


def test_each_line_is_heard_with_both_streams_in_order() -> None:
    lines: list[str] = []
    run(["sh", "-c", "echo one; echo two >&2; echo three"], heard=lines.append)
    assert lines == ["one", "two", "three"]


def test_a_failure_tells_the_status_and_the_last_lines_only() -> None:
    with pytest.raises(ProgramFailedError, match=r"sh failed \(status 3\)") as caught:
        run(["sh", "-c", "seq 1 100; exit 3"])
    assert caught.value.output.splitlines() == [str(number) for number in range(86, 101)]


@pytest.mark.parametrize("wrap", [list, as_root])
def test_a_missing_program_is_named(wrap: object) -> None:
    assert callable(wrap)
    with pytest.raises(ProgramMissingError, match="no-such-program is not installed"):
        run(wrap(["no-such-program", "--version"]))


def test_a_program_runs_as_root_of_its_namespace(tmp_path: Path) -> None:
    lines: list[str] = []
    run(as_root(["sh", "-c", f"id -u; echo $$; touch {tmp_path}/made"]), heard=lines.append)
    assert lines == ["0", "1"]
    assert (tmp_path / "made").stat().st_uid == os.geteuid()


def test_a_namespace_that_cannot_be_made_is_told_before_a_build(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    unshare = tmp_path / "unshare"
    unshare.write_text("#!/bin/sh\necho no line matching user >&2\nexit 1\n")
    unshare.chmod(0o755)
    require_root()
    monkeypatch.setattr(programs, "_PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(NoRangesError, match="no line matching user") as caught:
        require_root()
    assert "insula doctor" in (caught.value.hint or "")


def test_a_listener_that_raises_ends_the_program() -> None:
    def interrupted(line: str) -> None:
        raise KeyboardInterrupt(line)

    with pytest.raises(KeyboardInterrupt, match="ready"):
        run(as_root(["sh", "-c", "echo ready; sleep 1000"]), heard=interrupted)


def test_nothing_outlives_a_builder_that_is_killed(tmp_path: Path) -> None:
    """What still runs holds the write end of the pipe, so that its end says that nothing does."""
    script = (
        "import sys; from insula.template.programs import as_root, run\n"
        "run(as_root(['sh', '-c', 'echo ready; exec sleep 1000']),"
        " heard=lambda line: print(line, flush=True), keep=(int(sys.argv[1]),))"
    )
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    builder = subprocess.Popen(
        [sys.executable, "-c", script, str(writer)],
        stdout=subprocess.PIPE,
        pass_fds=(writer,),
        cwd=tmp_path,
    )
    os.close(writer)
    with builder:
        assert builder.stdout is not None
        assert builder.stdout.readline() == b"ready\n"
        builder.send_signal(signal.SIGKILL)
    poll = select.poll()
    poll.register(reader, select.POLLIN)
    assert poll.poll(DEADLINE)
    assert os.read(reader, 1) == b""
    os.close(reader)
