"""Commands against a whole instance in the test's process: what they ask for is what it answers."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from insula.tools import (
    insula,
    qvm_check,
    qvm_clone,
    qvm_create,
    qvm_device,
    qvm_features,
    qvm_firewall,
    qvm_ls,
    qvm_notes,
    qvm_prefs,
    qvm_remove,
    qvm_template_postprocess,
)
from insula.tools.ls_columns import FORMATS
from tests.serving import TEMPLATE, Instance, serving
from tests.unit.tools.conftest import Done, Main

Do = Callable[..., "asyncio.Future[Done]"]


@pytest_asyncio.fixture
async def whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Instance]:
    async with serving(tmp_path / "home") as instance:
        await instance.template()
        monkeypatch.setenv("INSULA_RUN", str(instance.run))
        yield instance


@pytest.fixture
def do(whole: Instance, capfd: pytest.CaptureFixture[str]) -> Do:
    assert whole

    async def do_it(main: Main, *words: str) -> Done:
        def run() -> int:
            try:
                return main(list(words))
            except SystemExit as ended:
                return int(ended.code or 0)

        code = await asyncio.to_thread(run)
        captured = capfd.readouterr()
        return Done(code, captured.out, captured.err)

    return lambda main, *words: asyncio.ensure_future(do_it(main, *words))


async def test_a_qube_is_made_looked_at_changed_and_removed(do: Do) -> None:
    words = ["-l", "green", "--prop", "memory=512", "--prop", "autostart=yes", "work"]
    assert await do(qvm_create.main, *words) == Done(0, "", "")
    assert (
        await do(qvm_ls.main, "--raw-data", "-O", "name,state,class,label,memory", "work")
    ).out == ("work|Halted|AppVM|green|-\n")
    assert (await do(qvm_prefs.main, "work", "memory")).out == "512\n"
    assert (await do(qvm_prefs.main, "--hide-default", "work", "maxmem")).out == ""
    assert (await do(qvm_prefs.main, "work", "netvm", "none")).code == 0
    assert (await do(qvm_prefs.main, "work", "label", "mauve")).code == 1
    assert (await do(qvm_prefs.main, "work", "no-such")).code == 2
    assert (await do(qvm_features.features, "work", "os", "Linux")).code == 0
    assert "created-by-dom0\n" in (await do(qvm_features.tags, "work")).out
    assert (await do(qvm_notes.main, "work", "--set", "grün")).code == 0
    assert (await do(qvm_notes.main, "work", "--append", "rot")).code == 0
    assert (await do(qvm_notes.main, "work", "-p")).out == "grün\nrot\n"
    assert (await do(qvm_check.main, "-q", "--running", "work")).code == 1
    assert (await do(qvm_remove.main, "-f", "work")) == Done(0, "", "")
    assert (await do(qvm_check.main, "-q", "work")).code == 1


async def test_every_property_can_be_read_and_explained(do: Do) -> None:
    for qube in ("dom0", TEMPLATE):
        listed = await do(qvm_prefs.main, qube)
        assert (listed.code, listed.err) == (0, "")
        as_json = json.loads((await do(qvm_prefs.main, "--json", qube)).out)
        assert [line.split()[0] for line in listed.out.splitlines()] == sorted(as_json)
    assert (await do(qvm_prefs.system)).code == 0
    explained = await do(qvm_prefs.main, "--help-properties")
    assert "autostart: " in explained.out


@pytest.mark.parametrize("form", [*FORMATS])
async def test_every_format_is_listed(do: Do, form: str) -> None:
    done = await do(qvm_ls.main, "--format", form)
    heading, *rows = done.out.splitlines()
    assert (done.code, done.err, heading.split()) == (0, "", [*FORMATS[form]])
    assert [row.split()[0] for row in rows] == ["dom0", TEMPLATE]


async def test_a_copy_is_like_its_source(do: Do) -> None:
    assert (await do(qvm_create.main, "-l", "blue", "--prop", "vcpus=3", "work")).code == 0
    assert (await do(qvm_features.features, "work", "gui", "")).code == 0
    assert (await do(qvm_notes.main, "work", "--set", "a note")).code == 0
    assert await do(qvm_clone.main, "work", "copy") == Done(0, "", "")
    copy = json.loads((await do(qvm_prefs.main, "--json", "--hide-default", "copy")).out)
    assert copy["vcpus"]["value"] == 3
    assert copy["label"]["value"] == "blue"
    assert (await do(qvm_notes.main, "copy", "-p")).out == "a note\n"
    assert (await do(qvm_features.features, "copy", "gui")).out == "\n"
    refused = await do(qvm_clone.main, "work", "copy")
    assert refused.code == 1
    assert (await do(qvm_check.main, "-q", "copy")).code == 0


async def test_a_standalone_qube_is_made_of_a_template_or_an_image(
    do: Do, tmp_path: Path, whole: Instance
) -> None:
    words = ["--standalone", "-l", "red", "-t", TEMPLATE, "own"]
    assert await do(qvm_create.main, *words) == Done(0, "", "")
    size = await whole.ok("admin.vm.volume.Info", TEMPLATE, "root")
    assert (await whole.ok("admin.vm.volume.Info", "own", "root")).split()[2] == size.split()[2]
    image = tmp_path / "image"
    image.write_bytes(b"x" * (1 << 20))
    words = ["--standalone", "-l", "red", "-R", str(image), "other"]
    assert await do(qvm_create.main, *words) == Done(0, "", "")
    assert not image.exists()
    assert "size=1048576\n" in await whole.ok("admin.vm.volume.Info", "other", "root")


async def test_a_template_is_made_of_a_package(do: Do, whole: Instance, tmp_path: Path) -> None:
    for _ in range(2):
        unpacked = tmp_path / "unpacked"
        unpacked.mkdir()
        (unpacked / "root.img").write_bytes(b"x" * (1 << 20))
        (unpacked / "template.conf").write_text("gui=1\nkernel=\n")
        words = ["--really", "--skip-start", "--no-installed-by-rpm", "post-install", "made"]
        assert await do(qvm_template_postprocess.main, *words, str(unpacked)) == Done(0, "", "")
    assert "size=1048576\n" in await whole.ok("admin.vm.volume.Info", "made", "root")
    assert await whole.ok("admin.vm.feature.Get", "made", "gui") == "1"
    words = ["--really", "pre-remove", "made", str(tmp_path)]
    assert (await do(qvm_template_postprocess.main, *words)).code == 0
    assert "made" not in {qube.name for qube in whole.system.qubes.values()}


async def test_rules_and_devices_are_kept(do: Do) -> None:
    assert (await do(qvm_create.main, "-l", "red", "work")).code == 0
    assert (await do(qvm_firewall.main, "work", "add", "drop", "10.0.0.0/8", "tcp", "80")).code == 0
    assert (await do(qvm_firewall.main, "--raw", "work")).out == (
        "action=accept\naction=drop proto=tcp dst4=10.0.0.0/8 dstports=80-80\n"
    )
    assert (await do(qvm_firewall.main, "work", "del", "--rule-no", "0")).code == 0
    words = ["assign", "--port", "work", f"{TEMPLATE}:2-3"]
    assert await do(qvm_device.usb, *words) == Done(0, "", "")
    listed = await do(qvm_device.usb, "list", "-s", "work")
    assert listed.out == f"{TEMPLATE}:2-3  any device  *work (auto-attach)\n"
    assert await do(qvm_clone.main, "work", "copy") == Done(0, "", "")
    assert "*copy (auto-attach)" in (await do(qvm_device.usb, "list", "-s", "copy")).out
    assert "10.0.0.0/8" in (await do(qvm_firewall.main, "copy")).out
    assert await do(qvm_device.usb, "unassign", "work") == Done(0, "", "")
    assert (await do(qvm_device.usb, "list", "-s", "work")).out == ""
    assert (await do(qvm_device.main, "tape", "list")).code == 2


async def test_what_is_in_use_stays_and_is_named(do: Do) -> None:
    assert (await do(qvm_create.main, "-l", "red", "work")).code == 0
    done = await do(qvm_remove.main, "-f", TEMPLATE)
    assert done.code == 1
    first, second, *_ = done.err.splitlines()
    assert {first, second} == {" - global property default_template", " - template for work"}


async def test_a_policy_is_explained_for_the_running_system(do: Do, tmp_path: Path) -> None:
    assert (await do(qvm_create.main, "-l", "red", "work")).code == 0
    (tmp_path / "30-user.policy").write_text(f"acme.Ping * work @anyvm allow target={TEMPLATE}\n")
    words = ["--policy-dir", str(tmp_path), "acme.Ping", "work", "@default"]
    done = await do(insula.main, "policy", "explain", *words)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"allow: it goes to {TEMPLATE} as the default user\n")
