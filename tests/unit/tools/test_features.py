"""qvm-features, qvm-service, qvm-tags."""

import json

import pytest

from insula.tools.qvm_features import features, service, tags
from tests.unit.tools.conftest import Main, Run
from tests.unit.tools.fake_daemon import FakeDaemon, FakeQube, RefusedError


@pytest.fixture
def qube(daemon: FakeDaemon) -> FakeQube:
    marks = {"os": "Linux", "gui": "", "service.cups": "1", "service.crond": ""}
    return daemon.add(FakeQube("work", features=marks, tags={"b", "a"}))


def test_features_are_listed_and_shown(run: Run, qube: FakeQube) -> None:
    assert run(features, qube.name).out == (
        "gui            \nos             Linux\nservice.crond  \nservice.cups   1\n"
    )
    done = run(features, "work", "os")
    assert (done.code, done.out) == (0, "Linux\n")
    assert run(features, "work", "gui").out == "\n"
    done = run(features, "work", "none")
    assert (done.code, done.out, done.err) == (1, "", "")


def test_features_are_set_and_unset(run: Run, qube: FakeQube) -> None:
    assert run(features, "work", "os", "").code == 0
    assert qube.features["os"] == ""
    for option in ("--unset", "--default", "--delete", "-D"):
        assert run(features, option, "work", "os").code == 0
        assert "os" not in qube.features
    assert run(features, "--unset", "work").code == 2
    assert run(features, "--unset", "work", "os", "x").code == 2


def test_services_are_listed_and_shown(run: Run, qube: FakeQube) -> None:
    assert run(service, qube.name).out == "crond  off\ncups   on\n"
    assert run(service, "-l", "work").out == "crond  off\ncups   on\n"
    assert run(service, "work", "cups").out == "on\n"
    assert run(service, "work", "crond").out == "off\n"
    done = run(service, "work", "none")
    assert (done.code, done.out) == (1, "")


@pytest.mark.parametrize(
    ("words", "value"),
    [
        (["work", "x", "on"], "1"), (["work", "x", "TRUE"], "1"), (["-e", "work", "x"], "1"),
        (["work", "x", "off"], ""), (["work", "x", "0"], ""), (["-d", "work", "x"], ""),
    ],
)  # fmt: skip
def test_services_are_set(run: Run, qube: FakeQube, words: list[str], value: str) -> None:
    assert run(service, *words).code == 0
    assert qube.features["service.x"] == value
    assert run(service, "-D", "work", "x").code == 0
    assert "service.x" not in qube.features


def test_a_service_is_on_or_off(run: Run, qube: FakeQube) -> None:
    done = run(service, qube.name, "x", "maybe")
    assert (done.code, "service.x" in qube.features) == (1, False)
    assert run(service, "-e", "work").code == 2
    assert run(service, "-e", "work", "x", "on").code == 2


def test_tags_are_listed_and_looked_for(run: Run, qube: FakeQube) -> None:
    assert run(tags, qube.name).out == "a\nb\n"
    assert run(tags, "work", "ls").out == "a\nb\n"
    done = run(tags, "work", "list", "a")
    assert (done.code, done.out) == (0, "a\n")
    done = run(tags, "work", "l", "c")
    assert (done.code, done.out) == (1, "")


def test_tags_are_added_and_deleted(run: Run, qube: FakeQube) -> None:
    assert run(tags, "work", "add", "c", "d").code == 0
    assert qube.tags == {"a", "b", "c", "d"}
    assert run(tags, "work", "del", "c").code == 0
    assert run(tags, "work", "unset", "c").code == 0
    assert qube.tags == {"a", "b", "d"}


@pytest.mark.parametrize("words", [["add"], ["del"], ["del", "a", "b"], ["list", "a", "b"], ["x"]])
def test_tags_that_cannot_be_meant_are_usage_errors(
    run: Run, qube: FakeQube, words: list[str]
) -> None:
    assert run(tags, qube.name, *words).code == 2


def test_a_qube_without_tags_is_no_failure(run: Run, qube: FakeQube) -> None:
    qube.tags.clear()
    done = run(tags, "work")
    assert (done.code, done.out) == (0, "")


def test_all_of_them_can_be_read_by_programs(run: Run, qube: FakeQube) -> None:
    def answer(*words: str) -> tuple[int, object]:
        main = {"f": features, "s": service, "t": tags}[words[0]]
        done = run(main, "--json", qube.name, *words[1:])
        return done.code, json.loads(done.out)

    assert answer("f") == (0, qube.features)
    assert answer("f", "gui") == (0, "")
    assert answer("f", "none") == (1, None)
    assert answer("s") == (0, {"crond": False, "cups": True})
    assert answer("s", "crond") == (0, False)
    assert answer("s", "none") == (1, None)
    assert answer("t") == (0, ["a", "b"])
    assert answer("t", "list", "c") == (1, [])


@pytest.mark.parametrize("main", [features, service, tags])
def test_what_is_forbidden_is_a_failure(daemon: FakeDaemon, run: Run, main: Main) -> None:
    daemon.add(FakeQube("vault"))
    kind = "tag" if main is tags else "feature"
    refusal = RefusedError("QubesValueError", "not that one")
    daemon.refusals[f"admin.vm.{kind}.Set", "vault"] = refusal
    done = run(
        main, "vault", *(["add"] if main is tags else []), "x", *(["1"] * (main is not tags))
    )
    assert done.code == 1
    assert done.err.endswith(": error: not that one\n")
