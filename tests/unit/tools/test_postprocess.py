"""qvm-template-postprocess: a template from each form of image, its settings, and its end."""

import io
import os
import tarfile
from pathlib import Path

import pytest

from insula.tools import qvm_template_postprocess as postprocess
from tests.unit.tools.conftest import Done, Run
from tests.unit.tools.fake_daemon import FakeDaemon, FakeQube, RefusedError, answer

IMAGE = b"begin" + bytes(70_000) + b"end"


@pytest.fixture
def unpacked(tmp_path: Path) -> Path:
    folder = tmp_path / "unpacked"
    folder.mkdir()
    (folder / "root.img").write_bytes(IMAGE)
    return folder


def archive() -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as made:
        member = tarfile.TarInfo("root.img")
        member.size = len(IMAGE)
        made.addfile(member, io.BytesIO(IMAGE))
    return content.getvalue()


def install(run: Run, folder: Path, *words: str) -> Done:
    options = ["--really", "--skip-start", *words]
    return run(postprocess.main, *options, "post-install", "debian", str(folder))


def test_a_template_is_made_of_an_image(daemon: FakeDaemon, run: Run, unpacked: Path) -> None:
    done = install(run, unpacked)
    assert (done.code, done.out, done.err) == (0, "", "")
    assert daemon.asked("admin.vm.Create.TemplateVM") == [("dom0", "", b"name=debian label=black")]
    assert daemon.imports == {"debian:root": IMAGE}
    assert daemon.qubes["debian"].properties["installed_by_rpm"].value == "True"
    assert not unpacked.exists()


@pytest.mark.parametrize("parts", [1, 3])
def test_the_image_can_be_an_archive_or_its_parts(
    daemon: FakeDaemon, run: Run, unpacked: Path, parts: int
) -> None:
    (unpacked / "root.img").unlink()
    content = archive()
    if parts == 1:
        (unpacked / "root.img.tar").write_bytes(content)
    else:
        each = len(content) // parts + 1
        for number in range(parts):
            piece = content[number * each : (number + 1) * each]
            (unpacked / f"root.img.part.{number:02}").write_bytes(piece)
    assert install(run, unpacked, "--keep-source").code == 0
    assert daemon.imports == {"debian:root": IMAGE}
    assert unpacked.exists()


def test_the_parts_can_be_in_the_package(
    *, daemon: FakeDaemon, run: Run, unpacked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (unpacked / "root.img").unlink()
    (tmp_path / "package").write_bytes(archive())
    (unpacked / "template.rpm").symlink_to(tmp_path / "package")
    for name, script in (("rpm2cpio", 'exec cat "$1"'), ("cpio", "exec cat")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o700)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert install(run, unpacked).code == 0
    assert daemon.imports == {"debian:root": IMAGE}


@pytest.mark.parametrize("content", [None, b"", b"no archive" * 100])
def test_without_an_image_nothing_is_made(
    daemon: FakeDaemon, run: Run, unpacked: Path, content: bytes | None
) -> None:
    (unpacked / "root.img").unlink()
    if content is not None:
        (unpacked / "root.img.tar").write_bytes(content)
    done = install(run, unpacked)
    assert (done.code, "debian" in daemon.qubes, unpacked.exists()) == (1, False, True)


def test_a_template_that_is_there_is_used_again(
    daemon: FakeDaemon, run: Run, unpacked: Path
) -> None:
    properties = {"installed_by_rpm": answer("True", "bool")}
    daemon.add(FakeQube("debian", "TemplateVM", properties=properties))
    assert install(run, unpacked, "--no-installed-by-rpm").code == 0
    assert daemon.asked("admin.vm.volume.Clear") == [("debian", "private", b"")]
    assert daemon.qubes["debian"].properties["installed_by_rpm"].value == "False"
    daemon.add(FakeQube("debian", "AppVM"))
    unpacked.mkdir()
    (unpacked / "root.img").write_bytes(IMAGE)
    assert install(run, unpacked).code == 1


def test_menus_and_settings_are_taken_over(daemon: FakeDaemon, run: Run, unpacked: Path) -> None:
    (unpacked / "vm-whitelisted-appmenus.list").write_text("a.desktop\nb.desktop\n")
    (unpacked / "whitelisted-appmenus.list").write_text("c.desktop\n")
    (unpacked / "netvm-whitelisted-appmenus.list").write_text("\n")
    lines = [
        "# a comment", "gui=1", "qrexec=0", "net.fake-ip=10.0.0.1", "net.fake-netmask=a b",
        "virt-mode=pv", "kernel=", "root=evil", "no equals sign",
    ]  # fmt: skip
    (unpacked / "template.conf").write_text("\n".join(lines))
    done = install(run, unpacked, "--pool", "fast")
    assert done.code == 0
    debian = daemon.qubes["debian"]
    assert debian.features == {
        "default-menu-items": "a.desktop b.desktop", "menu-items": "c.desktop",
        "netvm-menu-items": "", "gui": "1", "net.fake-ip": "10.0.0.1",
    }  # fmt: skip
    assert debian.properties["kernel"] == answer("")
    assert debian.properties["virt_mode"].value == "pvh"
    assert [line.split("'")[0] for line in done.err.splitlines()] == [
        f"debian: template.conf: {name}="
        for name in ("qrexec", "net.fake-netmask", "virt-mode", "root")
    ]
    assert daemon.asked("admin.vm.CreateInPool.TemplateVM") == [
        ("dom0", "", b"name=debian label=black pool=fast")
    ]


def test_mode_pv_has_to_be_allowed(daemon: FakeDaemon, run: Run, unpacked: Path) -> None:
    (unpacked / "template.conf").write_text("virt-mode=pv\n")
    assert install(run, unpacked, "--allow-pv").code == 0
    assert daemon.qubes["debian"].properties["virt_mode"] == answer("pv")


def test_its_first_start_is_without_a_network(daemon: FakeDaemon, run: Run, unpacked: Path) -> None:
    done = run(postprocess.main, "--really", "post-install", "debian", str(unpacked))
    assert (done.code, done.err) == (0, "debian: qubes.PostInstall ended with status 127\n")
    assert [call["service"] for call in daemon.calls] == ["qubes.PostInstall"]
    assert ("debian", "netvm", b"") in daemon.asked("admin.vm.property.Set")
    assert daemon.asked("admin.vm.property.Reset") == [("debian", "netvm", b"")]
    assert daemon.qubes["debian"].features == {"qrexec": "1"}
    assert daemon.qubes["debian"].state == "Halted"


def test_one_that_does_not_shut_down_is_killed(
    daemon: FakeDaemon, run: Run, unpacked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postprocess, "_SHUTDOWN_TIMEOUT", 0.01)
    daemon.add(FakeQube("debian", "TemplateVM", properties={}, stubborn=True))
    for name in ("netvm", "installed_by_rpm"):
        daemon.qubes["debian"].properties[name] = answer("")
    assert run(postprocess.main, "--really", "post-install", "debian", str(unpacked)).code == 0
    assert daemon.asked("admin.vm.Kill") == [("debian", "", b"")]


def test_removal_is_refused_while_it_is_used(daemon: FakeDaemon, run: Run, tmp_path: Path) -> None:
    words = ["--really", "pre-remove", "debian", str(tmp_path)]
    assert run(postprocess.main, *words).code == 2
    daemon.add(FakeQube("debian", "TemplateVM", properties={"installed_by_rpm": answer("True")}))
    daemon.add(FakeQube("work", properties={"template": answer("debian", "vm")}))
    done = run(postprocess.main, *words)
    assert (done.code, done.err.splitlines()[0]) == (1, " - template for work")
    del daemon.qubes["work"]
    assert run(postprocess.main, *words).code == 0
    assert "debian" not in daemon.qubes


def test_it_is_no_tool_for_people(daemon: FakeDaemon, run: Run, unpacked: Path) -> None:
    assert run(postprocess.main, "post-install", "debian", str(unpacked)).code == 2
    assert set(daemon.qubes) == {"dom0"}


def test_in_a_chroot_it_only_says_what_to_run(
    run: Run, unpacked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postprocess, "_in_chroot", lambda: True)
    done = install(run, unpacked)
    assert (done.code, unpacked.exists()) == (0, True)
    assert "Run it later: qvm-template-postprocess" in done.out


def test_an_import_that_fails_keeps_the_package(
    daemon: FakeDaemon, run: Run, unpacked: Path
) -> None:
    refusal = RefusedError("QubesException", "full")
    daemon.refusals["internal.vm.volume.ImportBegin", "debian"] = refusal
    done = install(run, unpacked)
    assert (done.code, unpacked.exists()) == (1, True)
    assert done.err == "qvm-template-postprocess: error: full\n"
