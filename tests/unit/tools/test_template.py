"""qvm-template: what is shown, what is asked of the update qube, and what becomes of packages.

The update qube's services and rpm's programs are scripts; a package here is three lines: what rpm
says of it, whether it is signed, and its content.
"""

import io
import json
import os
import sys
from pathlib import Path

import pytest

from insula.tools import qvm_template
from tests.unit.tools import fake_agent
from tests.unit.tools.conftest import Done, Run
from tests.unit.tools.fake_daemon import NONE, FakeDaemon, FakeQube, answer

REPOSITORY = "[itl]\nname=Templates\ngpgkey=file://{keys}/itl\n[other]\nname=More\nenabled=0\n"
DESCRIPTION = "First line\nsecond line"
HEADER = "qubes-template-{}\x1f0\x1f{}\x1f1\x1f1735787040\x1fGPL\x1fhttps://x\x1fA {}\x1f{}"


def record(name: str, version: str, description: str = DESCRIPTION, size: int = 7) -> str:
    fields = [
        f"qubes-template-{name}", "0", version, "1", "itl", str(size), "2025-01-02 03:04", "GPL",
        "https://x", f"A {name}", description,
    ]  # fmt: skip
    return "|".join(fields) + "|\n"


def package(name: str, version: str, *, signed: bool = True) -> str:
    header = HEADER.format(name, version, name, "Text")
    return f"{header}\n{'signed' if signed else 'unsigned'}\n{name}\n"


def script(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o700)


class Setting:
    """The update qube, repositories and programs of a test."""

    def __init__(self, daemon: FakeDaemon, folder: Path) -> None:
        self.daemon = daemon
        self.folder = folder
        (folder / "itl").write_text("key")
        (folder / "own").write_text("key")
        (folder / "a.repo").write_text(REPOSITORY.format(keys=folder))
        self.offer("")

    def offer(self, *records: str) -> None:
        (self.folder / "answer").write_text("".join(records))

    def packages(self, *files: tuple[str, str]) -> None:
        """What can be downloaded, by name and version; offered, too."""
        offered = []
        for name, version in files:
            content = package(name, version)
            (self.folder / f"qubes-template-{name}-0:{version}-1").write_text(content)
            offered.append(record(name, version, size=len(content)))
        self.offer(*offered)

    @property
    def asked(self) -> list[str]:
        """Lines that the update qube was sent, up to the repositories."""
        path = self.folder / "asked"
        return path.read_text().split("\n---\n")[0].splitlines() if path.exists() else []

    def install(self, name: str, version: str = "1", **features: str) -> FakeQube:
        fields = {
            "name": name, "epoch": "0", "version": version, "release": "1", "reponame": "itl",
            "buildtime": "2025-01-01 00:00:00", "installtime": "2025-02-01 00:00:00",
            "license": "GPL", "url": "u", "summary": "S", "description": "one|two",
        } | features  # fmt: skip
        marks = {f"template-{key}": value for key, value in fields.items()}
        volumes = {"root": {"usage": str(3 << 30)}}
        qube = FakeQube(name, "TemplateVM", features=marks, volumes=volumes)
        qube.properties = {"installed_by_rpm": answer("False", "bool"), "netvm": NONE}
        return self.daemon.add(qube)


@pytest.fixture
def here(daemon: FakeDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Setting:
    daemon.add(FakeQube("updater", state="Running"))
    daemon.system["updatevm"] = answer("updater", "vm")
    folder = tmp_path
    search = f"cat > {folder}/asked; cat {folder}/answer"
    spec = "sed -n 's/^qubes-template-/&/p;/^---$/q'"
    download = f'cat > {folder}/asked; cat "{folder}/$({spec} < {folder}/asked | head -n 1)"'
    monkeypatch.setitem(fake_agent.SERVICES, "qubes.TemplateSearch", ["sh", "-c", search])
    monkeypatch.setitem(fake_agent.SERVICES, "qubes.TemplateDownload", ["sh", "-c", download])
    programs = folder / "bin"
    programs.mkdir()
    script(
        programs / "rpmkeys",
        f'echo "$@" >> {folder}/keys\nfor last; do :; done\n'
        'case " $* " in *" --import "*) exit 0;; esac\n'
        'grep -qx signed "$last" && echo "$last: digests signatures OK" && exit 0\n'
        'echo "$last: digests SIGNATURES NOT OK"; exit 1',
    )
    script(programs / "rpm", 'for last; do :; done; head -n 1 "$last" | tr -d "\\n"')
    script(programs / "rpm2cpio", 'sed -n 3p "$1"')
    script(
        programs / "cpio",
        'read name; d="var/lib/qubes/vm-templates/$name"\n'
        'mkdir -p "$d"; echo "$name" > "$d/root.img"',
    )
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    return Setting(daemon, folder)


@pytest.fixture
def template(run: Run, here: Setting) -> "Template":
    return Template(run, here)


class Template:
    """The command with the test's repositories."""

    def __init__(self, run: Run, here: Setting) -> None:
        self._run, self._here = run, here

    def __call__(self, *words: str) -> Done:
        files = ["--repo-files", f"{self._here.folder}/*.repo"]
        return self._run(qvm_template.main, *files, *words)


def test_templates_are_listed_under_headings(template: Template, here: Setting) -> None:
    here.offer(record("fedora-42", "4.2"), record("fedora-42", "4.10"), record("debian", "2"))
    here.install("debian")
    here.install("my-own", reponame="@commandline")
    here.install("not-managed").features["template-name"] = "other"
    done = template("list")
    assert done.code == 0
    assert done.out == (
        "Installed Templates\n"
        "debian     0:1-1     itl\n"
        "my-own     0:1-1     @commandline\n"
        "Available Templates\n"
        "debian     0:2-1     itl\n"
        "fedora-42  0:4.10-1  itl\n"
    )
    assert here.asked == ["--releasever=4.3", "qubes-template-*"]
    assert (here.folder / "asked").read_text().endswith(REPOSITORY.format(keys=here.folder))


@pytest.mark.parametrize(
    ("words", "lines"),
    [
        (["--installed"], ["installed|debian|0:1-1|itl", "installed|own|0:1-1|itl"]),
        (["--installed", "o*"], ["installed|own|0:1-1|itl"]),
        (["--available"], ["available|debian|0:3-1|itl"]),
        (["--upgrades", "--all-versions"], [f"upgradable|debian|0:{one}-1|itl" for one in (2, 3)]),
        (["--extras"], ["extra|own|0:1-1|itl"]),
        (["--upgrades"], ["upgradable|debian|0:3-1|itl"]),
        (["--extras", "--upgrades"], ["extra|own|0:1-1|itl", "upgradable|debian|0:3-1|itl"]),
        (["debian-2"], ["available|debian|0:2-1|itl"]),
    ],
)  # fmt: skip
def test_what_is_listed_can_be_chosen(
    template: Template, here: Setting, words: list[str], lines: list[str]
) -> None:
    here.offer(record("debian", "2"), record("debian", "3"))
    here.install("debian")
    here.install("own")
    done = template("list", "--machine-readable", *words)
    assert (done.code, done.out.splitlines()) == (0, lines)
    if words[0] == "--installed":
        assert here.asked == []


def test_everything_is_told(template: Template, here: Setting) -> None:
    here.offer(record("fedora", "4.2", size=3 << 20))
    here.install("debian")
    assert template("info").out == (
        "Installed Templates\n"
        "Name          :  debian\n"
        "Epoch         :  0\n"
        "Version       :  1\n"
        "Release       :  1\n"
        "Size          :  3.0 GiB\n"
        "Repository    :  itl\n"
        "Buildtime     :  2025-01-01 00:00:00\n"
        "Install time  :  2025-02-01 00:00:00\n"
        "URL           :  u\n"
        "License       :  GPL\n"
        "Summary       :  S\n"
        "Description   :  one\n"
        "              :  two\n"
        "                 \n"
        "Available Templates\n"
        "Name         :  fedora\n"
        "Epoch        :  0\n"
        "Version      :  4.2\n"
        "Release      :  1\n"
        "Size         :  3.0 MiB\n"
        "Repository   :  itl\n"
        "Buildtime    :  2025-01-02 03:04:00\n"
        "URL          :  https://x\n"
        "License      :  GPL\n"
        "Summary      :  A fedora\n"
        "Description  :  First line\n"
        "             :  second line\n"
        "                \n"
    )
    assert template("info", "--machine-readable", "fedora").out == (
        "available|fedora|0|4.2|1|itl|3145728|2025-01-02 03:04:00||GPL|https://x|A fedora|"
        "First line|second line\n"
    )


def test_programs_can_read_it(template: Template, here: Setting) -> None:
    here.offer(record("fedora", "4.2"))
    here.install("debian")
    assert json.loads(template("list", "--machine-readable-json").out) == {
        "installed": [{"name": "debian", "evr": "0:1-1", "reponame": "itl"}],
        "available": [{"name": "fedora", "evr": "0:4.2-1", "reponame": "itl"}],
    }
    (fedora,) = json.loads(template("info", "--machine-readable-json", "fedora").out)["available"]
    assert fedora == {
        "name": "fedora", "epoch": "0", "version": "4.2", "release": "1", "reponame": "itl",
        "size": "7", "buildtime": "2025-01-02 03:04:00", "installtime": "", "license": "GPL",
        "url": "https://x", "summary": "A fedora", "description": DESCRIPTION,
    }  # fmt: skip


@pytest.mark.parametrize("words", [["list", "none"], ["info", "--installed"], ["install", "none"]])
def test_nothing_is_a_usage_error(template: Template, here: Setting, words: list[str]) -> None:
    here.offer(record("fedora", "4.2"))
    assert template(*words).code == 2


def test_options_reach_the_update_qube_in_their_order(template: Template, here: Setting) -> None:
    here.offer(record("fedora", "4.2"))
    words = ["--enablerepo", "a", "--disablerepo=b", "list", "--refresh", "--repoid", "c"]
    assert template(*words, "--releasever", "5", "--updatevm", "updater").code == 0
    assert here.asked == [
        "--enablerepo=a", "--disablerepo=b", "--repoid=c", "--refresh", "--releasever=5",
        "qubes-template-*",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("answered", "text"),
    [
        ("x|y|\n", "answers what it should not"),
        (record("a\x1b", "1"), "answers what it should not"),
    ],
)
def test_an_answer_that_is_not_as_it_should_be(
    template: Template, here: Setting, answered: str, text: str
) -> None:
    here.offer(answered)
    done = template("list")
    assert done.code == 1
    assert done.err.startswith(f"ERROR: updater {text}")


def test_an_update_qube_that_fails(
    template: Template, here: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(fake_agent.SERVICES, "qubes.TemplateSearch", ["false"])
    done = template("list", "--available")
    assert (done.code, done.err) == (
        1,
        "ERROR: qubes.TemplateSearch in updater failed (status 1)\n",
    )
    here.daemon.system["updatevm"] = NONE
    done = template("list")
    assert (done.code, "--updatevm" in done.err) == (1, True)


@pytest.mark.parametrize(
    ("words", "out"),
    [
        (["fedora"], "=== Name & Summary Exactly Matched: fedora ===\nfedora : A fedora\n"
                     "=== Name & Summary Matched: fedora ===\nfedora-xfce : A fedora-xfce\n"),
        (["A", "DEB"], "=== Name & Summary Matched: A, DEB ===\ndebian : A debian\n"),
        (["second"], ""),
        (["--all", "second", "none"], "=== Description Matched: second, none ===\n"
                                      "debian : A debian\n"),
    ],
)  # fmt: skip
def test_words_are_searched_for(
    template: Template, here: Setting, words: list[str], out: str
) -> None:
    here.offer(
        record("fedora", "1", "x"), record("fedora-xfce", "1", "x"), record("debian", "1"),
    )  # fmt: skip
    done = template("search", *words)
    assert (done.code, done.out) == (0, out)


@pytest.mark.parametrize(
    ("words", "out"),
    [
        ([], "itl  Templates  enabled\n"),
        (["--all"], "itl    Templates  enabled\nother  More       disabled\n"),
        (["--disabled"], "other  More  disabled\n"),
        (["--enablerepo=other", "other"], "other  More  enabled\n"),
        (["--all", "none"], ""),
        (["--all", "Mo*", "none"], "other  More  disabled\n"),
    ],
)
def test_repositories_are_listed(template: Template, words: list[str], out: str) -> None:
    done = template("repolist", *words)
    assert (done.code, done.out) == (0, out)


def test_a_package_becomes_a_template(template: Template, here: Setting) -> None:
    here.packages(("fedora", "4.2"), ("fedora", "4.10"))
    done = template("install", "--skip-start", "--pool", "fast", "fedora")
    assert (done.code, done.out) == (0, "")
    fedora = here.daemon.qubes["fedora"]
    assert fedora.features == {
        "template-name": "fedora", "template-epoch": "0", "template-version": "4.10",
        "template-release": "1", "template-reponame": "itl",
        "template-buildtime": "2025-01-02 03:04:00",
        "template-installtime": fedora.features["template-installtime"],
        "template-license": "GPL", "template-url": "https://x", "template-summary": "A fedora",
        "template-description": "First line|second line",
    }  # fmt: skip
    assert here.daemon.imports == {"fedora:root": b"fedora\n"}
    assert here.daemon.asked("admin.vm.CreateInPool.TemplateVM") == [
        ("dom0", "", b"name=fedora label=black pool=fast")
    ]
    assert fedora.properties["installed_by_rpm"].value == "False"
    assert list((here.folder / "cache" / "qvm-template").iterdir()) == []
    assert f"--import {here.folder}/itl" in (here.folder / "keys").read_text()
    done = template("install", "fedora")
    assert (done.code, "fedora is installed already" in done.err) == (0, True)


def test_packages_are_kept_on_request(template: Template, here: Setting) -> None:
    here.packages(("fedora", "4.2"))
    assert template("install", "--skip-start", "fedora", "--keep-cache").code == 0
    cache = here.folder / "cache" / "qvm-template"
    assert [path.name for path in cache.iterdir()] == ["qubes-template-fedora-0:4.2-1.rpm"]
    assert template("clean").code == 0
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        ("unsigned", "is not signed"), ("short", "sent 1 bytes"), ("long", "sent more of"),
        ("other", "is fedora 0:9-1, not fedora 0:4.2-1"),
    ],
)  # fmt: skip
def test_a_package_that_is_not_as_it_should_be_is_thrown_away(
    template: Template, here: Setting, spoil: str, text: str
) -> None:
    here.packages(("fedora", "4.2"))
    path = here.folder / "qubes-template-fedora-0:4.2-1"
    spoiled = {
        "unsigned": package("fedora", "4.2", signed=False), "short": "x",
        "long": path.read_text() + "x" * 100_000, "other": package("fedora", "9"),
    }[spoil]  # fmt: skip
    path.write_text(spoiled)
    if spoil in ("unsigned", "other"):
        here.offer(record("fedora", "4.2", size=len(spoiled)))
    done = template("install", "--skip-start", "--nogpgcheck", "--retries", "2", "fedora")
    assert (done.code, "fedora" in here.daemon.qubes) == (1, False)
    assert text in done.err.splitlines()[-1]
    assert list((here.folder / "cache" / "qvm-template").iterdir()) == []


def test_without_rpms_programs_no_package_is_trusted(
    template: Template, here: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    here.packages(("fedora", "4.2"))
    bare = here.folder / "bare"
    bare.mkdir()
    for name in ("sh", "cat", "sed", "head"):
        (bare / name).symlink_to(f"/bin/{name}")
    monkeypatch.setenv("PATH", str(bare))
    done = template("install", "fedora")
    assert (done.code, "fedora" in here.daemon.qubes) == (1, False)
    assert done.err.splitlines()[-2:] == [
        "ERROR: rpmkeys is not installed; without it no package is trusted",
        "Install it with: apt-get install rpm rpm2cpio cpio",
    ]


def test_a_file_of_this_host_is_installed(template: Template, here: Setting) -> None:
    path = here.folder / "x.rpm"
    path.write_text(package("mine", "1"))
    words = ["install", "--skip-start", str(path)]
    assert template(*words).code == 1  # there is no default key
    assert template("--keyring", str(here.folder / "own"), *words).code == 0
    assert here.daemon.qubes["mine"].features["template-reponame"] == "@commandline"
    assert path.exists()
    path.write_text(package("unsigned", "1", signed=False))
    assert template("--keyring", str(here.folder / "own"), *words).code == 1
    assert template("install", "--skip-start", "--nogpgcheck", str(path)).code == 0
    assert "unsigned" in here.daemon.qubes
    path.write_text("no package")
    assert template("install", "--nogpgcheck", str(path)).code == 1
    assert template("install", str(here.folder / "none.rpm")).code == 1


@pytest.mark.parametrize(
    ("command", "version"), [("upgrade", "4"), ("downgrade", "2"), ("reinstall", "3")]
)
def test_versions_are_changed_after_asking(
    *,
    template: Template,
    here: Setting,
    command: str,
    version: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here.packages(("fedora", "1"), ("fedora", "2"), ("fedora", "3"), ("fedora", "4"))
    here.install("fedora", "3")
    monkeypatch.setattr(sys, "stdin", io.StringIO("n\n"))
    done = template(command, "--skip-start", "fedora")
    assert (done.code, here.daemon.imports) == (1, {})
    assert "[y/N]" in done.out
    assert done.err == "ERROR: nothing was changed\n"
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    assert template(command, "--skip-start", "fed*").code == 0
    assert here.daemon.qubes["fedora"].features["template-version"] == version
    assert here.daemon.asked("admin.vm.volume.Clear") == [("fedora", "private", b"")]


def test_without_another_version_nothing_is_changed(template: Template, here: Setting) -> None:
    here.packages(("fedora", "3"))
    here.install("fedora", "3")
    for command, text in (("upgrade", "version above"), ("downgrade", "version below")):
        done = template(command, "--yes", "fedora")
        assert (done.code, f"there is no {text} 0:3-1" in done.err) == (0, True)
    assert template("reinstall", "--yes", "none").code == 2
    assert here.daemon.imports == {}


def test_packages_are_downloaded(template: Template, here: Setting) -> None:
    here.packages(("fedora", "4.2"), ("debian", "1"))
    folder = here.folder / "got"
    done = template("download", "--downloaddir", str(folder), "*")
    assert done.code == 0
    assert sorted(path.name for path in folder.iterdir()) == [
        "qubes-template-debian-0:1-1.rpm", "qubes-template-fedora-0:4.2-1.rpm",
    ]  # fmt: skip
    assert "is there already" in template("download", "--downloaddir", str(folder), "debian").err


def test_templates_are_removed_after_asking(
    template: Template, here: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    here.install("fedora")
    here.daemon.add(FakeQube("own", "TemplateVM"))
    for name in ("own", "none"):
        assert template("remove", "--yes", name).code == 2
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n"))
    assert template("remove", "fedora").code == 1
    assert "fedora" in here.daemon.qubes
    assert template("remove", "--yes", "fedora").code == 0
    assert "fedora" not in here.daemon.qubes


def test_who_uses_a_template_can_get_a_dummy(template: Template, here: Setting) -> None:
    here.install("fedora")
    here.daemon.add(FakeQube("dummy"))
    here.daemon.add(FakeQube("work", properties={"template": answer("fedora", "vm")}))
    here.daemon.system["default_template"] = answer("fedora", "vm")
    assert template("remove", "--disassoc", "--yes", "fedora").code == 0
    assert here.daemon.qubes["dummy-1"].features == {"template-dummy": "1"}
    assert here.daemon.qubes["work"].properties["template"] == answer("dummy-1", "vm")
    assert here.daemon.system["default_template"].value == ""
    here.install("debian")
    here.daemon.qubes["work"].properties["template"] = answer("debian", "vm")
    assert template("remove", "--disassoc", "--yes", "debian").code == 0
    assert here.daemon.qubes["work"].properties["template"] == answer("dummy-1", "vm")


@pytest.mark.parametrize(("said", "left"), [("y\ny\ny\n", False), ("y\ny\nn\n", True), ("", True)])
def test_purging_takes_all_that_is_made_of_it(
    *, template: Template, here: Setting, monkeypatch: pytest.MonkeyPatch, said: str, left: bool
) -> None:
    here.install("fedora")
    here.daemon.add(
        FakeQube("mould", state="Running", properties={"template": answer("fedora", "vm")})
    )
    here.daemon.add(FakeQube("disp", "DispVM", properties={"template": answer("mould", "vm")}))
    here.daemon.add(
        FakeQube("disp1", "DispVM", "Running", properties={"template": answer("mould", "vm")})
    )
    here.daemon.on_halted = lambda name: here.daemon.qubes.pop(name) if name == "disp1" else None
    here.daemon.add(FakeQube("other", properties={"default_dispvm": answer("mould", "vm")}))
    monkeypatch.setattr(sys, "stdin", io.StringIO(said))
    done = template("purge", "fedora")
    assert done.code == (1 if left else 0)
    assert ({"fedora", "mould", "disp"} <= set(here.daemon.qubes)) == left
    assert "  fedora\n  mould\n  disp\n  disp1\n" in done.out
    if not left:
        removed = [name for name, _, _ in here.daemon.asked("admin.vm.Remove")]
        assert removed == ["disp", "mould", "fedora"]
        assert here.daemon.qubes["other"].properties["default_dispvm"].value == ""


def test_only_one_works_at_a_time(template: Template, here: Setting, instance: Path) -> None:
    assert here
    lock = qvm_template._alone()
    with lock:
        done = template("clean")
        assert (done.code, done.err) == (1, "ERROR: another qvm-template is at work\n")
        here.offer(record("fedora", "1"))
        assert template("list").code == 0
    assert template("clean").code == 0
    assert (instance / "qvm-template.lock").exists()


def test_what_rpm_installed_is_taken_over_by_root(
    template: Template, here: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert template("migrate-from-rpmdb").code == 1
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    found = HEADER.format("old", "1", "old", "Text") + "\x1e" + HEADER.format("gone", "1", "x", "")
    (here.folder / "database").write_text(found + "\x1e")
    said = f'case $1 in -qa) cat {here.folder}/database;; *) echo "$@" >> {here.folder}/done;; esac'
    script(here.folder / "bin" / "rpm", said)
    qube = FakeQube("old", "TemplateVM", properties={"installed_by_rpm": answer("True", "bool")})
    here.daemon.add(qube)
    assert template("migrate-from-rpmdb").code == 0
    assert qube.features["template-name"] == "old"
    assert qube.properties["installed_by_rpm"].value == "False"
    assert (here.folder / "done").read_text() == "-e --justdb qubes-template-old\n"
