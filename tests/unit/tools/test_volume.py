"""qvm-volume list and info."""

import pytest

from insula.tools import qvm_volume
from tests.unit.tools.conftest import Run
from tests.unit.tools.fake_daemon import FakeDaemon, FakeQube

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
