"""qvm-create and qvm-remove."""

import io
import sys
from pathlib import Path

import pytest

from insula.tools import qvm_clone, qvm_create, qvm_remove
from tests.unit.tools.conftest import Run
from tests.unit.tools.fake_daemon import NONE, FakeDaemon, FakeQube, RefusedError, answer


@pytest.mark.parametrize(
    ("words", "method", "sent"),
    [
        (["-l", "blue"], "Create.AppVM", ("", "name=new label=blue")),
        (["--label", "red", "-t", "debian"], "Create.AppVM", ("debian", "name=new label=red")),
        (["--disp"], "Create.DispVM", ("", "name=new label=red")),
        (["--disp", "-l", "black"], "Create.DispVM", ("", "name=new label=black")),
        (["-C", "TemplateVM", "-l", "red"], "Create.TemplateVM", ("", "name=new label=red")),
        (["--standalone", "-l", "red"], "Create.StandaloneVM", ("", "name=new label=red")),
        (["-l", "red", "-P", "a"], "CreateInPool.AppVM", ("", "name=new label=red pool=a")),
        (
            ["-l", "red", "-p", "root=a", "--pool", "private=b"],
            "CreateInPool.AppVM", ("", "name=new label=red pool:root=a pool:private=b"),
        ),
    ],
)  # fmt: skip
def test_what_is_asked_for(
    daemon: FakeDaemon, run: Run, words: list[str], method: str, sent: tuple[str, str]
) -> None:
    done = run(qvm_create.main, *words, "new")
    assert (done.code, done.out, done.err) == (0, "", "")
    assert daemon.asked(f"admin.vm.{method}") == [("dom0", sent[0], sent[1].encode())]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["-l", "red"], "name"),
        (["new"], "red, orange, yellow, green, gray, blue, purple, black"),
        (["new", "-l", "mauve"], "red, orange, yellow, green, gray, blue, purple, black"),
        (["new", "-l", "red", "-C", "NoVM"], "NoVM"),
        (["new", "-l", "red", "-p", "root"], "VOLUME=POOL"),
        (["new", "-l", "red", "-p", "root=a", "-P", "b"], "-P"),
        (["new", "-l", "red", "--prop", "memory"], "NAME=VALUE"),
        (["new", "-l", "red", "--disp", "--standalone"], "not allowed"),
        (["new", "-C", "DispVM"], "give a label"),
        (["new", "-l", "red", "-r", "/etc/passwd"], "its template's"),
        (["new", "--disp", "-R", "/etc/passwd"], "its template's"),
        (["new", "-l", "red", "--standalone", "-r", "/no/image"], "/no/image"),
        (["new", "-l", "red", "--standalone", "-r", "/etc"], "/etc"),
        (["new", "-l", "red", "--standalone", "-r", "a", "-R", "b"], "not allowed"),
        (["new", "-l", "red", "-p", "root=a", "-p", "root=b"], "one pool"),
    ],
)
def test_what_cannot_be_meant_creates_nothing(
    daemon: FakeDaemon, run: Run, words: list[str], text: str
) -> None:
    done = run(qvm_create.main, *words)
    assert done.code == 2
    assert text in done.err
    assert list(daemon.qubes) == ["dom0"]


def test_without_its_template_a_standalone_qube_cannot_be_created(
    daemon: FakeDaemon, run: Run
) -> None:
    done = run(qvm_create.main, "-l", "red", "--standalone", "-t", "none", "new")
    assert done.code == 1
    assert done.err.startswith("qvm-create: error: no such qube: 'none'\n")
    assert list(daemon.qubes) == ["dom0"]


def test_properties_are_set_after_creation(daemon: FakeDaemon, run: Run) -> None:
    words = ["--property", "netvm=none", "new", "-l", "red"]
    assert run(qvm_create.main, *words).code == 0
    assert daemon.asked("admin.vm.property.Set") == [("new", "netvm", b"")]


def test_a_property_that_fails_leaves_the_qube_and_is_told(daemon: FakeDaemon, run: Run) -> None:
    words = ["--prop", "none=1", "--prop", "netvm=x", "new", "-l", "red"]
    done = run(qvm_create.main, *words)
    assert done.code == 2
    assert "new was created, but not its property none: no property 'none'" in done.err
    assert ("new", "netvm", b"x") in daemon.asked("admin.vm.property.Set")


@pytest.mark.parametrize("name", ["a b", "a\nb", "ä", "a=b", "a label=red"])
def test_a_name_that_would_break_the_request_is_told(
    daemon: FakeDaemon, run: Run, name: str
) -> None:
    daemon.add(FakeQube("work"))
    for words in ([qvm_create.main, "-l", "red"], [qvm_clone.main, "work"]):
        main, *options = words
        done = run(main, *options, "--", name)
        assert (done.code, set(daemon.qubes)) == (1, {"dom0", "work"})
        assert "cannot be the name of a qube\nA name is letters" in done.err


def test_a_refused_creation(daemon: FakeDaemon, run: Run) -> None:
    refusal = RefusedError("QubesValueError", "there is a qube new")
    daemon.refusals["admin.vm.Create.AppVM", "dom0"] = refusal
    done = run(qvm_create.main, "new", "-l", "red")
    assert (done.code, done.err) == (1, "qvm-create: error: there is a qube new\n")


@pytest.mark.parametrize(("option", "kept"), [("-r", True), ("--root-move-from", False)])
def test_a_root_volume_is_imported(
    *, daemon: FakeDaemon, run: Run, tmp_path: Path, option: str, kept: bool
) -> None:
    image = tmp_path / "root.img"
    content = b"begin" + bytes(3 << 20) + b"end"
    image.write_bytes(content)
    done = run(qvm_create.main, "--standalone", "-l", "red", option, str(image), "new")
    assert (done.code, done.out, done.err) == (0, "", "")
    assert daemon.imports == {"new:root": content}
    assert image.exists() == kept


def test_a_root_volume_that_is_refused_leaves_the_qube_and_the_image(
    daemon: FakeDaemon, run: Run, tmp_path: Path
) -> None:
    image = tmp_path / "root.img"
    image.write_bytes(b"x")
    refusal = RefusedError("QubesException", "too large")
    daemon.refusals["internal.vm.volume.ImportBegin", "new"] = refusal
    words = ["-C", "TemplateVM", "-l", "red", "--prop", "none=1", "-R", str(image), "new"]
    done = run(qvm_create.main, *words)
    assert (done.code, image.exists(), "new" in daemon.qubes) == (3, True, True)
    assert "new was created, but not its root volume imported: too large" in done.err


def test_a_standalone_qube_of_a_template_is_its_copy_without_private_volume(
    daemon: FakeDaemon, run: Run
) -> None:
    kept = {"pool": "varlibqubes", "save_on_stop": "True"}
    template = daemon.add(FakeQube("debian", "TemplateVM", features={"os": "Linux"}))
    template.properties["label"] = answer("black", "label")
    template.volumes = {"root": kept, "private": kept}
    template.content = {"root": "R", "private": "P"}
    words = ["--standalone", "-t", "debian", "-l", "red", "-P", "fast", "new"]
    assert run(qvm_create.main, *words).code == 0
    new = daemon.qubes["new"]
    assert (new.klass, new.content, new.features) == (
        "StandaloneVM", {"root": "R"}, {"os": "Linux"},
    )  # fmt: skip
    assert daemon.asked("admin.vm.CreateInPool.StandaloneVM") == [
        ("dom0", "", b"name=new label=red pool=fast")
    ]


@pytest.mark.usefixtures("daemon")
def test_classes_are_listed(run: Run) -> None:
    done = run(qvm_create.main, "--help-classes")
    assert done.out == "AdminVM\nAppVM\nDispVM\nStandaloneVM\nTemplateVM\n"


@pytest.fixture
def says(monkeypatch: pytest.MonkeyPatch, daemon: FakeDaemon) -> pytest.MonkeyPatch:
    """Two qubes to remove, and nobody at the keyboard yet."""
    daemon.add(FakeQube("a"))
    daemon.add(FakeQube("b"))
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    return monkeypatch


@pytest.mark.parametrize("said", ["", "n\n", "\n", "yes\n"])
def test_removal_is_asked_for_and_only_y_is_a_yes(
    daemon: FakeDaemon, run: Run, says: pytest.MonkeyPatch, said: str
) -> None:
    says.setattr(sys, "stdin", io.StringIO(said))
    done = run(qvm_remove.main, "a", "b")
    assert done.code == 1
    assert "\n  a\n  b\n" in done.out
    assert "[y/N]" in done.out
    assert set(daemon.qubes) == {"dom0", "a", "b"}


@pytest.mark.parametrize("said", ["y\n", "Y\n"])
def test_a_yes_removes(daemon: FakeDaemon, run: Run, says: pytest.MonkeyPatch, said: str) -> None:
    says.setattr(sys, "stdin", io.StringIO(said))
    assert run(qvm_remove.main, "a").code == 0
    assert set(daemon.qubes) == {"dom0", "b"}


@pytest.mark.usefixtures("says")
def test_force_does_not_ask(daemon: FakeDaemon, run: Run) -> None:
    done = run(qvm_remove.main, "-f", "--all")
    assert (done.code, done.out) == (0, "")
    assert set(daemon.qubes) == {"dom0"}


@pytest.mark.parametrize(
    ("said", "left"),
    [
        ("y\ny\n", {"a", "b"}),
        ("IKNOWWHATIAMDOING\nn\n", {"a", "b"}),
        ("IKNOWWHATIAMDOING\ny\n", set()),
    ],
)
def test_removing_everything_takes_more_than_a_yes(
    daemon: FakeDaemon, run: Run, says: pytest.MonkeyPatch, said: str, left: set[str]
) -> None:
    says.setattr(sys, "stdin", io.StringIO(said))
    assert run(qvm_remove.main, "--all").code == (1 if left else 0)
    assert set(daemon.qubes) == {"dom0", *left}


@pytest.mark.usefixtures("says")
def test_dom0_stays(daemon: FakeDaemon, run: Run) -> None:
    done = run(qvm_remove.main, "-f", "a", "dom0")
    assert (done.code, done.err) == (1, "qvm-remove: error: dom0 cannot be removed\n")
    assert "a" in daemon.qubes


@pytest.mark.usefixtures("says")
def test_what_keeps_a_qube_is_named(daemon: FakeDaemon, run: Run) -> None:
    daemon.system["default_template"] = answer("a", "vm", default=True)
    daemon.qubes["b"].properties |= {
        "template": answer("a", "vm"),
        "default_dispvm": answer("a", "vm", default=True),
        "netvm": NONE,
        "ip": answer("a"),
    }
    daemon.qubes["a"].properties["template"] = answer("a", "vm")
    daemon.refusals["admin.vm.Remove", "a"] = RefusedError("QubesVMInUseError", "a is in use")
    done = run(qvm_remove.main, "-f", "a", "b")
    assert done.code == 1
    assert done.err.splitlines() == [
        " - global property default_template",
        " - template for b",
        "qvm-remove: error: a is in use",
    ]
    assert "b" in daemon.qubes
