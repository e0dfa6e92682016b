"""A system with a template, qubes, and what they have told."""

from pathlib import Path

import pytest

from insula.menus.store import Kept, Store
from insula.protocol.admin import PropertyAnswer
from insula.protocol.menus import Application
from tests.unit.tools.conftest import daemon, instance, run
from tests.unit.tools.fake_daemon import FakeDaemon, FakeQube, answer

__all__ = ["daemon", "instance", "menu", "run", "store", "system"]
XTERM = Application(
    "xterm", "XTerm", categories=("System", "TerminalEmulator"), window_class="XTerm"
)
FILES = Application("files", "Files", icon="folder")


def properties(
    label: str,
    *,
    template: str = "",
    default_dispvm: str = "",
    network: bool = False,
    mould: bool = False,
    auto_cleanup: bool | None = None,
) -> dict[str, PropertyAnswer]:
    found = {
        "label": answer(label, "label"),
        "default_dispvm": answer(default_dispvm, "vm"),
        "provides_network": answer(network, "bool"),
    }
    if template:
        found["template"] = answer(template, "vm")
        found["template_for_dispvms"] = answer(mould, "bool")
    if auto_cleanup is not None:
        found["auto_cleanup"] = answer(auto_cleanup, "bool")
    return found


@pytest.fixture
def system(daemon: FakeDaemon) -> FakeDaemon:
    """debian with work, which has disposables of mould, and net."""
    for name, klass, held in (
        ("debian", "TemplateVM", properties("black")),
        ("mould", "AppVM", properties("red", template="debian", mould=True)),
        ("my-work", "AppVM", properties("green", template="debian", default_dispvm="mould")),
        ("net", "AppVM", properties("red", template="debian", network=True)),
        ("disp7", "DispVM", properties("red", template="mould", auto_cleanup=True)),
        ("named", "DispVM", properties("red", template="mould", auto_cleanup=False)),
    ):
        daemon.add(FakeQube(name, klass, properties=held))
    return daemon


@pytest.fixture
def store(instance: Path) -> Store:
    """What the template told."""
    kept = Store(instance / "home" / "menus")
    kept.keep("debian", Kept({"xterm": XTERM, "files": FILES}, told=True))
    return kept


@pytest.fixture
def menu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the host's menu lies."""
    monkeypatch.setenv("INSULA_MENU", str(tmp_path / "menu"))
    return tmp_path / "menu"
