"""From a recipe to a registered template: only what has changed is done again."""

from pathlib import Path

import pytest

from insula.client.errors import DaemonNotRunningError
from insula.protocol.errors import ReportableError
from insula.template import __main__ as command
from insula.template import registering
from insula.template.applications import told_by
from insula.template.build import BuiltTemplate
from insula.template.progress import Progress
from insula.template.recipe import Recipe
from insula.template.registering import provide
from tests.unit.tools.conftest import daemon, instance
from tests.unit.tools.fake_daemon import FakeDaemon, FakeQube, RefusedError, answer

__all__ = ["daemon", "instance"]
RECIPE = Recipe(name="small", suite="x", packages=(), before=(), files=(), setup="")


class Asked:
    """What was built, what the daemon was asked for, and which phases were told of."""

    def __init__(self, fake: FakeDaemon) -> None:
        self.built: list[Path] = []
        self.asked: list[tuple[str, dict[str, object]]] = []
        self.phases: list[str] = []
        fake.local["template"] = lambda fields: self._answer("template", fields, {"revision": 1})
        fake.local["golden"] = lambda fields: self._answer("golden", fields, {"key": "k"})

    def _answer(
        self, op: str, fields: dict[str, object], answer: dict[str, object]
    ) -> dict[str, object]:
        self.asked.append((op, fields))
        return answer

    def build(self, recipe: Recipe, cache: Path, _progress: Progress) -> BuiltTemplate:
        self.built.append(cache)
        root, kernel, initrd = (cache / name for name in ("root", "kernel", "initrd"))
        return BuiltTemplate(root, kernel, initrd, recipe.hash)

    def tell(self, phase: str, _fraction: float | None) -> None:
        self.phases.append(phase)


@pytest.fixture
def asked(daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch) -> Asked:
    asked = Asked(daemon)
    monkeypatch.setattr(registering, "build", asked.build)
    monkeypatch.setattr(command, "build", asked.build)
    monkeypatch.setattr(command, "find_recipe", lambda _name: RECIPE)
    return asked


def files(cache: Path) -> dict[str, object]:
    paths = {name: str(cache / name) for name in ("root", "kernel", "initrd")}
    return {"name": "small", "recipe": RECIPE.hash, **paths}


def test_a_new_template_is_built_registered_and_has_its_snapshot(
    asked: Asked, tmp_path: Path
) -> None:
    assert provide(RECIPE, tmp_path, asked.tell, snapshot=True)
    assert asked.asked == [("template", files(tmp_path)), ("golden", {"qube": "small"})]
    assert asked.phases == ["registering", "snapshot"]


@pytest.mark.parametrize(("recipe", "changed"), [("another", True), (RECIPE.hash, False)])
def test_it_is_built_again_only_when_its_recipe_changed(
    asked: Asked, daemon: FakeDaemon, tmp_path: Path, recipe: str, changed: bool
) -> None:
    daemon.add(FakeQube("small", "TemplateVM", features={"template-recipe": recipe}))
    assert provide(RECIPE, tmp_path, asked.tell, snapshot=True) is changed
    assert len(asked.built) == changed
    assert [op for op, _ in asked.asked] == ["template"] * changed + ["golden"]


def test_a_template_of_that_name_without_a_recipe_is_built(
    asked: Asked, daemon: FakeDaemon, tmp_path: Path
) -> None:
    daemon.add(FakeQube("small", "TemplateVM"))
    assert provide(RECIPE, tmp_path, asked.tell, snapshot=False)
    assert [op for op, _ in asked.asked] == ["template"]


def test_a_refusal_is_passed_on(asked: Asked, daemon: FakeDaemon, tmp_path: Path) -> None:
    def refuse(_fields: object) -> dict[str, object]:
        raise RefusedError("QubesVMNotHaltedError", "small runs")

    daemon.local["template"] = refuse
    with pytest.raises(ReportableError, match="small runs"):
        provide(RECIPE, tmp_path, asked.tell, snapshot=True)
    assert not asked.asked


@pytest.mark.usefixtures("instance")
def test_without_a_daemon_nothing_is_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def build(*_arguments: object) -> None:
        raise AssertionError

    monkeypatch.setattr(registering, "build", build)
    with pytest.raises(DaemonNotRunningError):
        provide(RECIPE, tmp_path, lambda _phase, _fraction: None, snapshot=True)


def test_the_command_uses_the_cache_of_the_instance(
    asked: Asked,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("INSULA_CACHE", str(tmp_path))
    assert command.main(["build", "small", "--no-snapshot"]) == 0
    assert asked.built == [tmp_path]
    assert [op for op, _ in asked.asked] == ["template"]
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("template small is ready\n", "registering\n")


def test_the_command_can_leave_the_daemon_alone(
    asked: Asked, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["build", "small", "--only-cache", "--cache", str(tmp_path)]) == 0
    assert not asked.asked
    assert f"root={tmp_path}/root\n" in capsys.readouterr().out


def test_the_command_tells_what_failed(
    asked: Asked, tmp_path: Path, daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]
) -> None:
    del daemon.local["golden"]

    def refuse(_fields: object) -> dict[str, object]:
        raise RefusedError("QubesException", "it does not boot\nSee its console.")

    daemon.local["golden"] = refuse
    assert command.main(["build", "small", "--cache", str(tmp_path)]) == 1
    assert capsys.readouterr().err.endswith("error: it does not boot\nSee its console.\n")
    assert asked.built


@pytest.mark.usefixtures("asked")
def test_what_is_in_a_template_is_in_menus_before_it_ever_ran(
    daemon: FakeDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    menu = tmp_path / "menu"
    monkeypatch.setenv("INSULA_MENU", str(menu))
    root = tmp_path / "root" / "usr" / "share" / "applications"
    (root / "sub").mkdir(parents=True)
    (root / "sub" / "a.desktop").write_text("[Desktop Entry]\nName=A\nExec=a\n")
    (root / "out.desktop").symlink_to(root / "sub" / "a.desktop")
    (tmp_path / "applications").write_text(told_by(tmp_path / "root"))
    daemon.add(FakeQube("small", "TemplateVM", properties={"label": answer("black", "label")}))
    provide(RECIPE, tmp_path, lambda _phase, _part: None, snapshot=False)
    shown = [path.name for path in (menu / "applications").iterdir()]
    assert sorted(shown) == ["insula-all-qubes.desktop", "insula-small-sub-a.desktop"]
