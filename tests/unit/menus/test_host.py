"""The host's menu: which qubes and applications it shows, how, and that it follows."""

import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from insula.client.app import App
from insula.menus import host
from insula.menus.host import Place
from insula.menus.keeping import forget_gone, main, refresh
from insula.menus.pictures import Picture
from insula.menus.store import Kept, Store
from insula.protocol.menus import Application
from tests.unit.menus.conftest import properties
from tests.unit.tools.fake_daemon import FakeDaemon

OWN = ["all-qubes"]


def shown(menu: Path) -> list[str]:
    names = (path.name for path in (menu / "applications").glob("insula-*.desktop"))
    return sorted(name.removeprefix("insula-").removesuffix(".desktop") for name in names)


def entry(menu: Path, name: str) -> ConfigParser:
    parser = ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read(menu / "applications" / f"insula-{name}.desktop")
    return parser


def test_every_qube_shows_what_its_template_told(
    system: FakeDaemon, store: Store, menu: Path
) -> None:
    assert refresh() > 0
    names = ["debian", "mould", "my_dwork", "named", "net"]
    assert shown(menu) == sorted([f"{n}-{a}" for n in names for a in ("files", "xterm")] + OWN)
    assert refresh() == 0
    assert system.asked("admin.vm.Start") == []
    assert store.of("my-work") == Kept()


@pytest.mark.usefixtures("system", "store")
def test_an_entry_says_whose_it_is_and_starts_no_command_of_the_qube(
    menu: Path, instance: Path
) -> None:
    refresh()
    fields = entry(menu, "my_dwork-xterm")["Desktop Entry"]
    words = fields.pop("Exec").split()
    assert words[:3] == ["env", f"INSULA_HOME={instance}/home", f"INSULA_RUN={instance}"]
    assert words[4:] == ["-q", "-a", "--service", "--", "my-work", "qubes.StartApp+xterm"]
    assert Path(words[3]).name == "qvm-run"
    icon = Path(fields.pop("Icon"))
    assert "#73d216" in icon.read_text()
    assert fields.pop("X-Qubes-DispvmExec").split()[4:] == (
        ["-q", "-a", "--service", "--dispvm=mould", "--", "qubes.StartApp+xterm"]
    )
    assert dict(fields) == {
        "Version": "1.0",
        "Type": "Application",
        "Terminal": "false",
        "X-Qubes-VmName": "my-work",
        "X-Qubes-AppName": "xterm",
        "Name": "my-work: XTerm",
        "StartupWMClass": "my-work:XTerm",
        "Categories": "System;TerminalEmulator;X-Qubes-VM;",
        "Actions": "other;",
    }
    assert entry(menu, "my_dwork-xterm")["Desktop Action other"]["Name"] == "In a new disposable"
    assert "Desktop Action other" not in entry(menu, "net-xterm")


def test_each_qube_is_a_menu_of_its_own(system: FakeDaemon, store: Store, menu: Path) -> None:
    system.qubes["net"].features["menu-items"] = ""
    refresh()
    tree = ElementTree.parse(menu / "menus" / "applications-merged" / "insula.menu").getroot()
    menus = {str(one.findtext("Name")): one for one in tree.findall("Menu")}
    assert sorted(menus) == [f"insula-{n}" for n in ("debian", "mould", "my-work", "named")]
    files = [one.text for one in menus["insula-my-work"].iter("Filename")]
    assert files == ["insula-my_dwork-files.desktop", "insula-my_dwork-xterm.desktop"]
    directory = menus["insula-my-work"].findtext("Directory")
    text = (menu / "desktop-directories" / str(directory)).read_text()
    assert "Name=my-work\n" in text
    assert store.qubes() == ["debian"]


@pytest.mark.parametrize(
    ("qube", "feature", "value", "without"),
    [
        ("my-work", "menu-items", "xterm.desktop", ["my_dwork-files"]),
        ("my-work", "menu-items", "", ["my_dwork-files", "my_dwork-xterm"]),
        ("my-work", "internal", "1", ["my_dwork-files", "my_dwork-xterm"]),
        ("debian", "netvm-menu-items", "files.desktop", ["net-xterm"]),
        ("debian", "menu-items", "xterm.desktop", ["debian-files"]),
    ],
)
def test_features_choose(
    *, system: FakeDaemon, store: Store, menu: Path, qube: str, feature: str, value: str,
    without: list[str],
) -> None:  # fmt: skip
    refresh()
    before = shown(menu)
    system.qubes[qube].features[feature] = value
    refresh()
    assert sorted(set(before) - set(shown(menu))) == without
    assert store.of("debian").told


def test_what_is_the_default_is_the_templates_choice(
    system: FakeDaemon, store: Store, menu: Path
) -> None:
    system.qubes["debian"].features["default-menu-items"] = "files.desktop"
    system.qubes["my-work"].features["menu-items"] = "xterm.desktop"
    refresh(store=store)
    assert shown(menu) == sorted(
        (
            *(*OWN, "debian-files", "debian-xterm", "mould-files", "my_dwork-xterm", "net-files"),
            *("named-files", "named-xterm"),  # of mould, which chooses nothing
        )
    )


def test_a_qube_may_be_started_in_disposables_as_a_rule(
    system: FakeDaemon, store: Store, menu: Path
) -> None:
    system.qubes["mould"].features["appmenus-dispvm"] = "1"
    refresh(store=store)
    fields = entry(menu, "mould-xterm")["Desktop Entry"]
    assert fields["Exec"].endswith("--dispvm=mould -- qubes.StartApp+xterm")
    assert fields["X-Qubes-DispvmExec"].endswith("-- mould qubes.StartApp+xterm")


def test_the_menu_follows_labels_and_ends(system: FakeDaemon, store: Store, menu: Path) -> None:
    refresh()
    before = entry(menu, "net-xterm")["Desktop Entry"]["Icon"]
    system.qubes["net"].properties |= properties("green", template="debian", network=True)
    del system.qubes["my-work"]
    refresh()
    assert entry(menu, "net-xterm")["Desktop Entry"]["Icon"] != before
    assert not any(name.startswith("my_dwork") for name in shown(menu))
    (menu / "applications" / "other.desktop").touch()
    for name in list(system.qubes):
        if name != "dom0":
            del system.qubes[name]
    assert main([]) == 0
    assert shown(menu) == OWN
    assert (menu / "applications" / "other.desktop").exists()
    assert not list((menu / "desktop-directories").iterdir())
    assert store.qubes() == []


def test_a_picture_has_the_colour_of_each_qube(
    system: FakeDaemon, store: Store, menu: Path
) -> None:
    store.keep_picture("debian", "files", Picture(1, 1, bytes((128, 128, 128, 255))))
    refresh()
    icons = {
        name: entry(menu, f"{name}-files")["Desktop Entry"]["Icon"] for name in ("net", "my_dwork")
    }
    assert icons["net"] != icons["my_dwork"]
    assert all(Path(icon).read_bytes().startswith(b"\x89PNG") for icon in icons.values())
    assert entry(menu, "mould-files")["Desktop Entry"]["Icon"] == icons["net"]
    store.keep("debian", Kept({}, told=True))
    assert store.picture("debian", "files") is None
    assert system.qubes["debian"].state == "Halted"


def test_two_qubes_never_have_one_name() -> None:
    names = ["a-b", "a_b", "a_db", "a.b", "a_d", "a-", "a"]
    assert len({host.file_part(name) for name in names}) == len(names)
    assert not any("-" in host.file_part(name) for name in names)


def test_only_an_instance_at_its_usual_place_has_the_persons_menu(
    instance: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("INSULA_MENU", raising=False)
    assert Place.usual() is None
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setenv("INSULA_HOME", str(tmp_path / "insula"))
    place = Place.usual()
    assert place is not None
    assert place.entries == tmp_path / "applications"
    assert host.command("work", "x")[0].endswith("qvm-run")
    monkeypatch.setenv("INSULA_MENU", "")
    assert Place.usual() is None
    assert instance.is_dir()


def test_what_is_kept_comes_back_and_goes_with_its_qube(system: FakeDaemon, store: Store) -> None:
    store.keep("gone", Kept({"x": Application("x", "X", comment="c", categories=("Game",))}))
    assert Store(store._root).of("gone").applications["x"].categories == ("Game",)
    store.copy("gone", "copy")
    assert store.of("copy") == store.of("gone")
    forget_gone(App(), store)
    assert store.qubes() == ["debian"]
    (store._root / "debian" / "applications.json").write_text('{"applications": [{"id": 1}]}')
    assert store.of("debian") == Kept()
    assert "debian" in system.qubes


def test_a_template_that_never_told_is_asked_once_it_runs(
    system: FakeDaemon, store: Store, menu: Path, instance: Path
) -> None:
    store.keep("debian", Kept({}))
    system.qubes["debian"].state = "Running"
    (instance / "applications").write_text("new.desktop:Name=New\nnew.desktop:Icon=folder\n")
    (instance / "folder").write_bytes(b"1 1\n" + bytes((128, 128, 128, 255)))
    with store.only_changer("debian"):
        assert main(["debian"]) == 0
    assert system.calls == []
    assert main(["debian"]) == 0
    assert "debian-new" in shown(menu)
    assert store.picture("debian", "new") == Picture(1, 1, bytes((128, 128, 128, 255)))
    calls = len(system.calls)
    assert main(["debian", "my-work"]) == 0
    assert len(system.calls) == calls


def test_without_a_daemon_it_says_so(instance: Path, menu: Path) -> None:
    words = [sys.executable, "-m", "insula.menus.keeping"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert done.stderr.startswith("the menu: ")
    assert instance.is_dir()
    assert not menu.exists()
