"""qubes-vm-update on a whole instance, whose qubes have a service that says what an update says."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from insula.client import App
from insula.protocol.updating import SERVICE
from insula.tools import qubes_vm_update
from tests.live import Live, live
from tests.serving import TEMPLATE, user
from tests.unit.tools.conftest import Done

Update = Callable[..., Done]
UPDATED = """\
echo progress 10; echo package libssl3 3.0.15-1 3.0.17-1
echo package libnew - 2.0; echo progress 100; echo "Get:1 mirror" >&2
"""


@pytest.fixture
def services(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("QREXEC_SERVICE_PATH", str(tmp_path))
    return tmp_path


def says(services: Path, script: str) -> None:
    service = services / SERVICE
    service.write_text(f"#!/bin/sh\n{script}\n")
    service.chmod(0o755)


@pytest.fixture
def app(services: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[App]:
    says(services, UPDATED)
    with live(tmp_path / "home") as served:
        assert isinstance(served, Live)
        monkeypatch.setenv("INSULA_RUN", str(served.instance.run))
        monkeypatch.setenv("INSULA_HOME", str(served.instance.home))
        app = App()
        app.domains[TEMPLATE].default_user = user()
        yield app


@pytest.fixture
def update(app: App, capfd: pytest.CaptureFixture[str]) -> Update:
    assert app

    def run(*words: str) -> Done:
        try:
            code = qubes_vm_update.main(list(words))
        except SystemExit as ended:
            code = int(ended.code or 0)
        captured = capfd.readouterr()
        return Done(code, captured.out, captured.err)

    return run


def test_a_template_is_started_updated_and_shut_down(app: App, update: Update) -> None:
    before = app.domains[TEMPLATE].volumes.named("root").revisions
    done = update("--targets", TEMPLATE)
    assert (done.code, done.out) == (0, f"{TEMPLATE}: 2 packages updated\n")
    phases = [f"{TEMPLATE}: {phase}" for phase in ("starting", "updating", "shutting down")]
    assert done.err.splitlines()[:3] == phases
    assert app.domains[TEMPLATE].is_halted()
    assert app.domains[TEMPLATE].volumes.named("root").revisions != before


def test_what_was_installed_is_told_to_programs(update: Update) -> None:
    done = update("--all", "--json", "--quiet", "--no-snapshot")
    assert json.loads(done.out) == [
        {
            "qube": TEMPLATE,
            "status": "updated",
            "packages": [
                {"name": "libssl3", "old": "3.0.15-1", "new": "3.0.17-1"},
                {"name": "libnew", "old": None, "new": "2.0"},
            ],
            "error": None,
            "still_runs": False,
        }
    ]
    assert (done.code, done.err) == (0, "")


def test_one_that_runs_is_left_running(app: App, update: Update) -> None:
    app.domains[TEMPLATE].start()
    done = update("--targets", TEMPLATE)
    assert done.code == 0
    assert "once it has been shut down" in done.out
    assert app.domains[TEMPLATE].is_running()


def test_qubes_that_have_the_former_root_are_named(app: App, update: Update) -> None:
    work = app.add_new_qube("AppVM", "work", "blue")
    app.add_new_qube("AppVM", "idle", "blue")
    work.start()
    done = update("--targets", TEMPLATE)
    assert done.out.splitlines()[1] == "Restart these to have the updates in them: work"


def test_no_updates_are_no_failure_but_may_be_signalled(services: Path, update: Update) -> None:
    says(services, "echo progress 100")
    done = update("--targets", TEMPLATE)
    assert (done.code, done.out) == (0, f"{TEMPLATE}: no updates\n")
    assert update("--targets", TEMPLATE, "--signal-no-updates").code == 100


def test_a_failure_is_told_with_what_was_said_last(
    app: App, services: Path, update: Update
) -> None:
    says(services, r"printf 'E: no \033[2J mirror\n' >&2; exit 3")
    done = update("--targets", TEMPLATE)
    assert done.code == 1
    assert done.out == f"{TEMPLATE}: failed: the update failed (status 3)\nE: no _[2J mirror\n"
    assert app.domains[TEMPLATE].is_halted()


@pytest.mark.parametrize(
    "script", ["echo all your base", "head -c 100000 /dev/zero", UPDATED + "echo"]
)
def test_a_qube_that_says_something_else_is_not_believed(
    services: Path, update: Update, script: str
) -> None:
    says(services, script)
    done = update("--targets", TEMPLATE)
    assert done.code == 1
    assert f"{TEMPLATE} says what it should not: " in done.out


def test_one_without_the_service_is_told(app: App, services: Path, update: Update) -> None:
    (services / SERVICE).unlink()
    done = update("--targets", TEMPLATE)
    assert done.code == 1
    assert f"it has no {SERVICE}" in done.out
    assert app.domains[TEMPLATE].is_halted()


def listed(update: Update, *words: str) -> list[str]:
    done = update("--dry-run", "--json", *words)
    assert done.code == 0, done.err
    names: list[str] = json.loads(done.out)
    return names


def test_qubes_are_chosen_by_kind_and_by_what_is_known_of_them(app: App, update: Update) -> None:
    app.add_new_qube("AppVM", "work", "blue")
    own = app.add_new_qube("StandaloneVM", "own", "blue")
    template = app.domains[TEMPLATE]
    assert listed(update) == ["own", TEMPLATE]
    now = time.strftime("%Y-%m-%d %H:%M:%S")
    for qube in (own, template):
        qube.features["last-updates-check"] = now
    assert listed(update) == []
    assert listed(update, "--all") == ["own", TEMPLATE]
    assert listed(update, "--all", "--skip", "own") == [TEMPLATE]
    assert listed(update, "--templates") == [TEMPLATE]
    assert listed(update, "--standalones") == ["own"]
    assert listed(update, "--targets", f"own,{TEMPLATE}") == ["own", TEMPLATE]
    own.features["updates-available"] = "1"
    assert listed(update) == ["own"]
    assert listed(update, "--all", "--update-if-available") == ["own"]
    template.features["last-updates-check"] = "2020-01-01 00:00:00"
    assert listed(update, "--all", "--update-if-stale", "30") == [TEMPLATE]
    template.features["skip-update"] = "1"
    assert listed(update, "--all") == ["own"]
    assert listed(update, "--targets", TEMPLATE) == [TEMPLATE]


def test_names_that_cannot_be_updated_are_refused(app: App, update: Update) -> None:
    app.add_new_qube("AppVM", "work", "blue")
    for words in (("--targets", "none"), ("--skip", "none"), ("--targets", "work")):
        assert update(*words).code == 2
    assert update("--max-concurrency", "0").code == 2
