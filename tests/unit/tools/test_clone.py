"""qvm-clone: what a copy has of its source, where it lies, and what is left when it fails."""

import pytest

from insula.tools import qvm_clone
from tests.unit.tools.conftest import Run
from tests.unit.tools.fake_daemon import FakeDaemon, FakeQube, RefusedError, answer

DEVICE = "sys-usb+2-1:1234:abcd::u080650"
ASSIGNMENT = (
    "device_id='1234:abcd::u080650' port_id='2-1' devclass='block' backend_domain='sys-usb' "
    "mode='required' frontend_domain='work' _read-only='yes'"
)


@pytest.fixture(autouse=True)
def work(daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch) -> FakeQube:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    daemon.system |= {
        "default_pool": answer("varlibqubes", default=True),
        "default_pool_private": answer("varlibqubes", default=True),
    }
    kept = {"pool": "varlibqubes", "save_on_stop": "True"}
    return daemon.add(
        FakeQube(
            "work",
            state="Running",
            properties={
                "label": answer("blue", "label"),
                "template": answer("debian", "vm"),
                "netvm": answer("sys-firewall", "vm"),
                "memory": answer("500", "int"),
                "maxmem": answer("4000", "int"),
                "qid": answer("7", "int"),
                "vcpus": answer("2", "int", default=True),
            },
            features={"gui": "", "preload-dispvm": "disp1", "preload-dispvm-max": "2"},
            tags={"mine", "created-by-dom0"},
            notes="ä",
            firewall="action=drop\n",
            devices={DEVICE: ASSIGNMENT, "sys-usb+*:*": "mode='ask-to-attach'"},
            volumes={
                "root": {"pool": "varlibqubes", "save_on_stop": "False"},
                "private": kept,
                "volatile": {"pool": "varlibqubes", "save_on_stop": "False"},
            },
            content={"private": "P"},
        )
    )


def test_a_copy_is_like_its_source(daemon: FakeDaemon, run: Run) -> None:
    done = run(qvm_clone.main, "work", "copy")
    assert (done.code, done.out, done.err) == (0, "", "")
    assert daemon.asked("admin.vm.Create.AppVM") == [("dom0", "debian", b"name=copy label=blue")]
    copy = daemon.qubes["copy"]
    assert sorted(daemon.asked("admin.vm.property.Set")) == [
        ("copy", "memory", b"500"),
        ("copy", "netvm", b"sys-firewall"),
    ]
    assert copy.tags == {"mine"}
    assert copy.features == {"gui": "", "preload-dispvm-max": "2"}
    assert (copy.notes, copy.firewall, copy.content) == ("ä", "action=drop\n", {"private": "P"})
    assert copy.devices == {
        "sys-usb+2-1+1234+abcd++u080650": ASSIGNMENT.replace(" frontend_domain='work'", ""),
        "sys-usb+_+_": "mode='ask-to-attach'",
    }


@pytest.mark.parametrize(
    ("words", "method", "sent"),
    [
        (["-P", "fast"], "CreateInPool.AppVM", "name=copy label=blue pool=fast"),
        (
            ["-p", "private=a", "--pool", "root=b"], "CreateInPool.AppVM",
            "name=copy label=blue pool:private=a pool:root=b",
        ),
        (["--class", "DispVM"], "Create.DispVM", "name=copy label=blue"),
        (["-C", "StandaloneVM"], "Create.StandaloneVM", "name=copy label=blue"),
    ],
)  # fmt: skip
def test_class_and_pools_can_be_chosen(
    daemon: FakeDaemon, run: Run, words: list[str], method: str, sent: str
) -> None:
    assert run(qvm_clone.main, *words, "work", "copy").code == 0
    template = "" if "StandaloneVM" in words else "debian"
    assert daemon.asked(f"admin.vm.{method}") == [("dom0", template, sent.encode())]


def test_volumes_stay_in_the_pool_of_the_source(
    daemon: FakeDaemon, run: Run, work: FakeQube
) -> None:
    work.volumes["private"]["pool"] = "slow"
    assert run(qvm_clone.main, "work", "copy").code == 0
    sent = b"name=copy label=blue pool:private=slow"
    assert daemon.asked("admin.vm.CreateInPool.AppVM") == [("dom0", "debian", sent)]


@pytest.mark.parametrize("method", ["property.Set", "volume.CloneTo", "device.block.Assign"])
def test_a_copy_that_fails_is_removed(daemon: FakeDaemon, run: Run, method: str) -> None:
    daemon.refusals[f"admin.vm.{method}", "copy"] = RefusedError("QubesException", "not so")
    done = run(qvm_clone.main, "work", "copy")
    assert (done.code, done.err) == (1, "qvm-clone: error: not so\n")
    assert set(daemon.qubes) == {"dom0", "work"}


def test_settings_that_fail_can_be_told_instead(daemon: FakeDaemon, run: Run) -> None:
    daemon.refusals["admin.vm.tag.Set", "copy"] = RefusedError("QubesException", "no tag")
    done = run(qvm_clone.main, "--ignore-errors", "work", "copy")
    assert (done.code, done.err) == (0, "copy: no tag\n")
    assert daemon.qubes["copy"].content == {"private": "P"}
    daemon.qubes.pop("copy")
    # One that fails keeps none of the others from being tried.
    daemon.refusals["admin.vm.property.Set", "copy"] = RefusedError("QubesException", "not so")
    daemon.silent.add(("admin.vm.notes.Get", "work"))
    done = run(qvm_clone.main, "--ignore-errors", "work", "copy")
    assert (done.code, done.err.splitlines()[:3]) == (0, ["copy: not so"] * 2 + ["copy: no tag"])
    assert "copy: admin.vm.notes.Get: the daemon gave no answer" in done.err
    assert daemon.qubes["copy"].firewall == "action=drop\n"
    daemon.qubes.pop("copy")
    daemon.refusals["admin.vm.volume.CloneTo", "copy"] = RefusedError("QubesException", "full")
    assert run(qvm_clone.main, "--ignore-errors", "work", "copy").code == 1


@pytest.mark.parametrize(
    "words",
    [
        ["work"],
        ["none", "copy"],
        ["-P", "a", "-p", "root=b", "work", "c"],
        ["-p", "x", "work", "c"],
    ],
)
def test_what_cannot_be_meant(daemon: FakeDaemon, run: Run, words: list[str]) -> None:
    assert run(qvm_clone.main, *words).code == 2
    assert set(daemon.qubes) == {"dom0", "work"}


def test_menus_are_copied_where_there_is_a_program_for_it(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("bin")
    program = folder / "qvm-appmenus"
    program.write_text(f'#!/bin/sh\necho "$@" > {folder}/asked\n')
    program.chmod(0o700)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    assert run(qvm_clone.main, "work", "copy").code == 0
    assert (folder / "asked").read_text() == "--init --update --source work copy\n"
