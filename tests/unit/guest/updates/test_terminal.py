"""What a person sees of an update: a terminal's script, with programs that only say their names."""

import os
import subprocess
from pathlib import Path

import pytest

import insula.guest

SCRIPT = Path(insula.guest.__path__[0], "files", "lib", "qubes-install-updates")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for name in ("apt-get", "systemctl", "qubes-update-check"):
        path = tmp_path / name
        path.write_text(
            f'#!/bin/sh\necho {name} "$@" >> {tmp_path}/done\ntest ! -e {tmp_path}/$1\n'
        )
        path.chmod(0o755)
    text = SCRIPT.read_text()
    for where in ("/usr/lib/qubes/", "/run/qubes/"):
        assert where in text
        text = text.replace(where, f"{tmp_path}/")
    (tmp_path / "script").write_text(text)
    return tmp_path


def run(place: Path, answer: str) -> tuple[int, list[str]]:
    done = subprocess.run(
        ["sh", str(place / "script")],
        input=f"{answer}\n",
        text=True,
        env={**os.environ, "PATH": f"{place}:{os.environ['PATH']}"},
        timeout=30,
        check=False,
    )
    return done.returncode, (place / "done").read_text().splitlines()


UPDATED = ["apt-get update", "apt-get dist-upgrade", "apt-get clean", "qubes-update-check"]


def test_a_template_is_shut_down_unless_somebody_says_no(place: Path) -> None:
    (place / "this-is-templatevm").touch()
    assert run(place, "") == (0, [*UPDATED, "systemctl poweroff"])
    (place / "done").unlink()
    assert run(place, "no") == (0, UPDATED)


def test_other_qubes_go_on(place: Path) -> None:
    assert run(place, "") == (0, UPDATED)


def test_a_failure_is_not_hidden_by_what_follows(place: Path) -> None:
    (place / "dist-upgrade").touch()
    code, done = run(place, "")
    assert code == 1
    assert done == ["apt-get update", "apt-get dist-upgrade", "qubes-update-check"]
