"""qvm-volume, over a daemon of the test's own."""

import json
import os
from io import StringIO
from pathlib import Path

import pytest

from insula.tools import qvm_volume
from tests.unit.tools.conftest import Run
from tests.unit.tools.fake_daemon import FakeDaemon, FakeQube, RefusedError

INFO = {
    "pool": "varlibqubes", "vid": "work/private", "size": "2147483648", "usage": "1024",
    "rw": "True", "source": "", "path": "/x", "save_on_stop": "True", "snap_on_start": "False",
    "revisions_to_keep": "-1", "ephemeral": "False",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _qubes(daemon: FakeDaemon) -> None:
    daemon.add(FakeQube("work", volumes={"private": INFO}, revisions=["1", "2"]))
    daemon.add(FakeQube("vault", volumes={"root": INFO | {"pool": "other", "vid": "r"}}))


@pytest.mark.parametrize("words", [[], ["list"], ["ls"], ["work", "vault"], ["--all"]])
def test_volumes_are_listed(run: Run, words: list[str]) -> None:
    assert run(qvm_volume.main, *words).out == (
        "POOL:VOLUME               VMNAME  VOLUME_NAME  REVERT_POSSIBLE\n"
        "other:r                   vault   root         No\n"
        "varlibqubes:work/private  work    private      Yes\n"
    )


def test_the_list_can_be_of_one_pool(run: Run) -> None:
    assert "vault" not in run(qvm_volume.main, "list", "-p", "varlibqubes").out
    done = run(qvm_volume.main, "-p", "none")
    assert (done.code, done.out) == (0, "")


def test_one_volume_is_shown(run: Run) -> None:
    assert run(qvm_volume.main, "info", "work:private").out.splitlines() == [
        "pool               varlibqubes",
        "vid                work/private",
        "rw                 True",
        "source             ",
        "save_on_stop       True",
        "snap_on_start      False",
        "size               2147483648",
        "usage              1024",
        "revisions_to_keep  -1 (no snapshots: the volume is used in place)",
        "ephemeral          False",
        "Available revisions (for revert):",
        "  1",
        "  2",
    ]
    assert run(qvm_volume.main, "i", "vault:root").out.endswith(" none\n")


@pytest.mark.parametrize(("name", "out"), [("size", "2147483648\n"), ("revisions", "1\n2\n")])
def test_one_property_of_a_volume(run: Run, name: str, out: str) -> None:
    assert run(qvm_volume.main, "info", "work:private", name).out == out


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["work"], 2), ([":private"], 2), (["work:"], 2), (["a:b:c"], 2), ([], 2),
        (["none:private"], 1), (["work:root"], 1), (["work:private", "colour"], 1),
    ],
)  # fmt: skip
def test_what_there_is_not(run: Run, words: list[str], code: int) -> None:
    done = run(qvm_volume.main, "info", *words)
    assert done.code == code
    assert done.err.startswith("Error: " if code == 1 else "usage: ")


def test_a_size_is_set(run: Run, daemon: FakeDaemon) -> None:
    for word in ("resize", "extend"):
        assert run(qvm_volume.main, word, "work:private", "4GiB").code == 0
    done = run(qvm_volume.main, "resize", "work:private", "1GiB")
    assert (done.code, done.out) == (1, "")
    assert "--force" in done.err
    assert run(qvm_volume.main, "resize", "--force", "work:private", "1k").code == 0
    asked = daemon.asked("admin.vm.volume.Resize")
    assert asked == [("work", "private", b"4294967296")] * 2 + [("work", "private", b"1000")]
    assert run(qvm_volume.main, "resize", "work:private", "large").code == 2


@pytest.mark.parametrize("word", ["revert", "rv", "r"])
def test_the_newest_revision_is_gone_back_to(run: Run, daemon: FakeDaemon, word: str) -> None:
    assert run(qvm_volume.main, word, "work:private").code == 0
    assert run(qvm_volume.main, word, "work:private", "1").code == 0
    assert [one[2] for one in daemon.asked("admin.vm.volume.Revert")] == [b"2", b"1"]
    assert run(qvm_volume.main, word, "work:private", "7").code == 1
    assert run(qvm_volume.main, word, "vault:root").code == 1


@pytest.mark.parametrize("word", ["config", "c", "set", "s"])
def test_properties_of_a_volume_are_set(run: Run, daemon: FakeDaemon, word: str) -> None:
    for name, value in (("rw", "no"), ("revisions_to_keep", "-1"), ("ephemeral", "True")):
        assert run(qvm_volume.main, word, "work:private", name, value).code == 0
        asked = daemon.asked(f"admin.vm.volume.Set.{name}")
        assert asked == [("work", "private", value.encode())]
    done = run(qvm_volume.main, word, "work:private", "size", "1")
    assert (done.code, done.err.startswith("Error: ")) == (1, True)


@pytest.mark.parametrize(("answer", "cleared"), [("y\n", 1), ("n\n", 0), ("", 0)])
def test_what_is_lost_is_asked_for(
    run: Run, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch, answer: str, cleared: int
) -> None:
    monkeypatch.setattr("sys.stdin", StringIO(answer))
    done = run(qvm_volume.main, "clear", "work:private")
    assert (done.code, "[y/N]" in done.out) == (0, True)
    assert len(daemon.asked("admin.vm.volume.Clear")) == cleared
    assert run(qvm_volume.main, "clear", "-f", "work:private").code == 0
    assert len(daemon.asked("admin.vm.volume.Clear")) == cleared + 1


def test_a_volume_gets_the_content_of_another(run: Run, daemon: FakeDaemon) -> None:
    daemon.qubes["vault"].content["root"] = "token"
    assert run(qvm_volume.main, "clone", "--force", "vault:root", "work:private").code == 0
    assert daemon.asked("admin.vm.volume.CloneTo") == [("work", "private", b"token")]


@pytest.mark.parametrize(
    ("options", "size"),
    [([], b"5"), (["--size", "5"], b"5"), (["--size=0.5k"], None), (["--no-resize"], b"")],
)
def test_a_file_is_imported(
    run: Run, daemon: FakeDaemon, tmp_path: Path, options: list[str], size: bytes | None
) -> None:
    path = tmp_path / "image"
    path.write_bytes(b"\0" * 8 if size == b"" else b"hello")
    done = run(qvm_volume.main, "import", *options, "work:private", str(path))
    if size is None:
        assert done.code == 2
        return
    assert (done.code, done.err) == (0, "")
    assert daemon.asked("internal.vm.volume.ImportBegin") == [("work", "private", size)]
    assert daemon.imports == {"work:private": path.read_bytes()}


def test_standard_input_is_imported(
    run: Run, daemon: FakeDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "image").write_bytes(b"hello")
    with (tmp_path / "image").open() as file:
        monkeypatch.setattr("sys.stdin", file)
        assert run(qvm_volume.main, "import", "work:private", "-").code == 0
    assert daemon.imports == {"work:private": b"hello"}
    reading, writing = os.pipe()
    os.write(writing, b"hello")
    os.close(writing)
    with os.fdopen(reading) as pipe:
        monkeypatch.setattr("sys.stdin", pipe)
        assert run(qvm_volume.main, "import", "work:private", "-").code == 2
        assert run(qvm_volume.main, "import", "--size", "5", "work:private", "-").code == 0


def test_an_import_that_goes_wrong_is_told(run: Run, daemon: FakeDaemon, tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(b"hello")
    for options in (["--size", "4"], ["--size", "6"], ["--no-resize"]):
        done = run(qvm_volume.main, "import", *options, "work:private", str(path))
        assert (done.code, done.err.startswith("Error: ")) == (1, True)
        assert isinstance(daemon.imports["work:private"], str)
    assert run(qvm_volume.main, "import", "work:private", str(tmp_path / "none")).code == 1
    assert run(qvm_volume.main, "import", "--size", "4", "--no-resize", "a:b", "-").code == 2


def test_what_the_daemon_refuses_is_told(run: Run, daemon: FakeDaemon) -> None:
    daemon.refusals["admin.vm.volume.Revert", "work"] = RefusedError(
        "StoragePoolException", "it is being written"
    )
    done = run(qvm_volume.main, "revert", "work:private")
    assert (done.code, done.err) == (1, "Error: it is being written\n")


def test_volumes_are_for_programs_to_read(run: Run) -> None:
    listed = json.loads(run(qvm_volume.main, "list", "--json", "work").out)
    assert listed[0]["pool:volume"] == "varlibqubes:work/private"
    shown = json.loads(run(qvm_volume.main, "info", "--json", "work:private").out)
    assert (shown["size"], shown["revisions"]) == ("2147483648", ["1", "2"])
