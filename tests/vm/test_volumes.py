"""Volumes changed by the commands a person uses, as the qube sees them."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.vm.instance import Instance

MIB = 1 << 20
BOOT_TIMEOUT = 300.0
_ROOT_SIZE = "df -BM --output=size / | tail -1"


@pytest.fixture
def app(instance: Instance) -> Iterator[str]:
    """An app qube, removed afterwards."""
    name = "vol"
    instance.say("qvm-create", "--label", "green", name)
    yield name
    instance.command("qvm-kill", name)
    instance.remove(name)


def _room(instance: Instance, app: str) -> int:
    """MiB of the file system with the qube's own files."""
    return int(
        instance.say("qvm-run", "-p", app, "df -BM --output=size /rw | tail -1").strip("M\n ")
    )


def _run(instance: Instance, app: str, command: str) -> str:
    return instance.say("qvm-run", "-p", app, command)


def _image(path: Path, content: Path, size: int) -> Path:
    """An ext4 file system of size MiB with what lies in a directory."""
    subprocess.run(
        ["/sbin/mke2fs", "-q", "-t", "ext4", "-d", content, path, f"{size}M"],
        check=True,
        timeout=60,
    )
    return path


def test_a_running_qubes_private_volume_grows(instance: Instance, app: str) -> None:
    instance.say("qvm-start", app)
    before = _room(instance, app)
    _run(instance, app, "echo kept > note")
    instance.say("qvm-volume", "resize", f"{app}:private", "5GiB")
    after = _room(instance, app)
    assert before < 2048
    assert after > 4600
    assert _run(instance, app, "cat note; dd if=/dev/zero of=big bs=1M count=8 2>&1 | tail -1")
    instance.say("qvm-shutdown", "--wait", app)
    assert _run(instance, app, "cat note") == "kept\n"
    assert _room(instance, app) == after
    print(f"\n/rw grew from {before} to {after} MiB")


def test_a_private_volume_goes_back_to_its_last_state(instance: Instance, app: str) -> None:
    for word in ("first", "second"):
        _run(instance, app, f"echo {word} > note; sync")
        instance.say("qvm-shutdown", "--wait", app)
    assert instance.say("qvm-volume", "info", f"{app}:private", "revisions").count("\n") == 1
    instance.say("qvm-volume", "revert", f"{app}:private")
    assert _run(instance, app, "cat note") == "first\n"
    refused = instance.command("qvm-volume", "revert", f"{app}:private")
    assert refused.returncode == 1
    instance.say("qvm-shutdown", "--wait", app)


def test_a_root_grows_at_the_next_start_and_while_its_qube_runs(instance: Instance) -> None:
    instance.say("qvm-clone", "--class", "StandaloneVM", "debian-12", "alone")
    try:
        instance.say("qvm-volume", "resize", "alone:root", "12GiB")
        said = instance.say("qvm-run", "-p", "alone", _ROOT_SIZE, timeout=BOOT_TIMEOUT)
        assert int(said.strip("M\n ")) > 11_000
        instance.say("qvm-volume", "resize", "alone:root", "14GiB")
        assert int(_run(instance, "alone", _ROOT_SIZE).strip("M\n ")) > 13_000
    finally:
        instance.command("qvm-kill", "alone")
        instance.remove("alone")


def test_a_file_system_is_imported(instance: Instance, app: str, tmp_path: Path) -> None:
    content = tmp_path / "content"
    (content / "home" / "user").mkdir(parents=True)
    (content / "home" / "user" / "brought").write_text("from outside\n")
    image = _image(tmp_path / "private.img", content, 300)
    instance.say("qvm-volume", "import", f"{app}:private", str(image))
    assert instance.say("qvm-volume", "info", f"{app}:private", "size") == f"{300 * MIB}\n"
    assert _run(instance, app, "cat /rw/home/user/brought") == "from outside\n"
    assert _room(instance, app) < 300
    instance.say("qvm-shutdown", "--wait", app)
    short = instance.command(
        "qvm-volume", "import", "--size", str(400 * MIB), f"{app}:private", str(image)
    )
    assert short.returncode == 1
    assert _run(instance, app, "cat /rw/home/user/brought") == "from outside\n"


def test_a_qube_lives_in_another_pool(instance: Instance, tmp_path: Path) -> None:
    place = tmp_path / "pool"
    instance.say("qvm-pool", "add", "other", "file-reflink", "-o", f"dir_path={place}")
    instance.say("qvm-create", "--label", "green", "-P", "other", "away")
    try:
        _run(instance, "away", "echo kept > note")
        instance.say("qvm-shutdown", "--wait", "away")
        assert _run(instance, "away", "cat note") == "kept\n"
        assert instance.say("qvm-volume", "info", "away:private", "pool") == "other\n"
        used = instance.command("qvm-pool", "remove", "other")
        assert used.returncode == 1
    finally:
        instance.command("qvm-kill", "away")
        instance.remove("away")
    instance.say("qvm-pool", "remove", "other")
    assert [*place.iterdir()] == []
