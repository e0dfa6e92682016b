"""qvm-pool and its legacy form, over a daemon of the test's own."""

import json
from collections.abc import Callable

import pytest

from insula.tools import qvm_pool
from tests.unit.tools.conftest import Run
from tests.unit.tools.fake_daemon import FakeDaemon, RefusedError

DRIVERS = "file-reflink revisions_to_keep dir_path\nfile dir_path\n"
INFO = {
    "varlibqubes": "dir_path=/home\ndriver=file-reflink\nname=varlibqubes\nsize=10\nusage=3\n",
    "linux-kernel": "dir_path=/kernels\ndriver=linux-kernel\nname=linux-kernel\n"
    "included_in=varlibqubes\n",
}


@pytest.fixture(autouse=True)
def _pools(daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    before: Callable[..., str] = daemon._answer

    def answer(request: object, payload: str) -> str:
        method, argument = getattr(request, "method"), getattr(request, "argument")  # noqa: B009
        if not method.startswith("admin.pool."):
            return before(request, payload)
        match method.removeprefix("admin.pool."):
            case "List":
                return "".join(f"{name}\n" for name in INFO)
            case "ListDrivers":
                return DRIVERS
            case "Info":
                return INFO[argument]
            case _ if argument == "refused":
                raise RefusedError("QubesPoolInUseError", "the pool is in use")
        return ""

    monkeypatch.setattr(daemon, "_answer", answer)


@pytest.mark.parametrize("words", [[], ["list"], ["l"], ["ls"], ["-l"], ["--list"]])
def test_pools_are_listed(run: Run, words: list[str]) -> None:
    done = run(qvm_pool.main, *words)
    assert (done.code, done.out) == (
        0,
        "NAME          DRIVER\nlinux-kernel  linux-kernel\nvarlibqubes   file-reflink\n",
    )


@pytest.mark.parametrize("words", [["drivers"], ["d"], ["--help-drivers"]])
def test_drivers_are_listed(run: Run, words: list[str]) -> None:
    assert run(qvm_pool.main, *words).out == (
        "DRIVER        OPTIONS\nfile          dir_path\nfile-reflink  dir_path, revisions_to_keep\n"
    )


@pytest.mark.parametrize("words", [["info"], ["i"], ["-i"], ["--info"], ["-q", "-i"]])
def test_one_pool_is_shown_its_name_first(run: Run, words: list[str]) -> None:
    done = run(qvm_pool.main, *words, "linux-kernel")
    assert done.out.splitlines() == [
        "name         linux-kernel",
        "dir_path     /kernels",
        "driver       linux-kernel",
        "included_in  varlibqubes",
    ]
    assert run(qvm_pool.main, *words, "nothing").code == 2


def test_programs_read_json(run: Run) -> None:
    assert json.loads(run(qvm_pool.main, "list", "--json").out)[0]["name"] == "linux-kernel"
    assert json.loads(run(qvm_pool.main, "info", "--json", "varlibqubes").out)["size"] == "10"
    assert json.loads(run(qvm_pool.main, "drivers", "--json").out)["file"] == ["dir_path"]


@pytest.mark.parametrize(
    "words",
    [
        ["add", "big", "file", "-o", "dir_path=/a=b", "--option", "revisions_to_keep=0"],
        ["a", "big", "file", "--option=dir_path=/a=b", "-o", "revisions_to_keep=0"],
        ["--add", "big", "file", "-o", "dir_path=/a=b,revisions_to_keep=0"],
        ["-a", "big", "file", "-o", "dir_path=/a=b", "-o", "revisions_to_keep=0"],
    ],
)
def test_a_pool_is_added(run: Run, daemon: FakeDaemon, words: list[str]) -> None:
    assert run(qvm_pool.main, *words).code == 0
    assert daemon.asked("admin.pool.Add") == [
        ("dom0", "file", b"name=big\ndir_path=/a=b\nrevisions_to_keep=0\n")
    ]


def test_settings_are_set_and_the_other_refusals_told(run: Run, daemon: FakeDaemon) -> None:
    options = ["-o", "colour=red", "-o", "revisions_to_keep=-1", "-o", "ephemeral_volatile=no"]
    done = run(qvm_pool.main, "set", "varlibqubes", *options)
    assert (done.code, done.err.count("qvm-pool: error: ")) == (1, 1)
    assert "colour" in done.err
    assert daemon.asked("admin.pool.Set.revisions_to_keep") == [("dom0", "varlibqubes", b"-1")]
    assert daemon.asked("admin.pool.Set.ephemeral_volatile") == [("dom0", "varlibqubes", b"no")]
    assert run(qvm_pool.main, "s", "varlibqubes").code == 2


@pytest.mark.parametrize("word", ["remove", "r", "rm"])
def test_each_pool_is_removed_that_can_be(run: Run, daemon: FakeDaemon, word: str) -> None:
    done = run(qvm_pool.main, word, "refused", "big")
    assert (done.code, done.err) == (1, "qvm-pool: error: the pool is in use\n")
    assert [one[1] for one in daemon.asked("admin.pool.Remove")] == ["refused", "big"]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["add", "big"], 2),
        (["add", "big", "file", "-o", "dir_path"], 2),
        (["add", "refused", "refused"], 1),
        (["set", "refused", "-o", "revisions_to_keep=1"], 1),
        (["remove"], 2),
        (["nothing"], 2),
    ],
)
def test_what_goes_wrong(run: Run, words: list[str], code: int) -> None:
    done = run(qvm_pool.main, *words)
    assert done.code == code
    assert "qvm-pool" in done.err


@pytest.mark.parametrize(
    "words",
    [
        ["-r", "refused"],
        ["--remove=refused"],
        ["-s", "refused", "-o", "revisions_to_keep=1"],
        ["-s", "varlibqubes", "-o", "colour=red"],
        ["-a", "big", "refused"],
        ["-a", "big", "file", "-o", "dir_path"],
        ["-l", "-r", "big"],
        [],
    ],
)
def test_refusals_are_usage_errors_in_the_legacy_form(run: Run, words: list[str]) -> None:
    done = run(qvm_pool.legacy, *words)
    assert done.code == 2
    assert done.err.startswith("usage: qvm-pool-legacy")


@pytest.mark.parametrize(
    "words",
    [
        ["-o", "dir_path=/a,revisions_to_keep=2", "-a", "info", "file"],
        ["-v", "--add", "info", "file", "-o", "dir_path=/a,revisions_to_keep=2"],
        ["-q", "-o", "dir_path=/a", "-o", "revisions_to_keep=2", "--add", "info", "file"],
    ],
)
def test_the_legacy_form_is_known_by_its_options_wherever_they_are(
    run: Run, daemon: FakeDaemon, words: list[str]
) -> None:
    assert run(qvm_pool.main, *words).code == 0
    payload = b"name=info\ndir_path=/a\nrevisions_to_keep=2\n"
    assert daemon.asked("admin.pool.Add") == [("dom0", "file", payload)]


def test_an_action_may_have_what_options_of_the_legacy_form_look_like(
    run: Run, daemon: FakeDaemon
) -> None:
    assert run(qvm_pool.main, "remove", "--", "-l").code == 0
    assert daemon.asked("admin.pool.Remove") == [("dom0", "-l", b"")]


def test_the_legacy_form_does_the_same(run: Run, daemon: FakeDaemon) -> None:
    assert run(qvm_pool.legacy, "-l").out == run(qvm_pool.main).out
    assert run(qvm_pool.legacy, "-r", "big").code == 0
    assert run(qvm_pool.legacy, "-s", "varlibqubes", "-o", "revisions_to_keep=2").code == 0
    assert daemon.asked("admin.pool.Set.revisions_to_keep") == [("dom0", "varlibqubes", b"2")]
