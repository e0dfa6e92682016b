"""Pools over the Admin API (admin-api.md sections 4.6 and 9.4)."""

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from insula.daemon.model.errors import RefusedSilentlyError
from insula.daemon.model.pool_options import parse_pool
from insula.daemon.model.qube import QubeClass
from insula.daemon.storage import files, upkeep
from insula.daemon.store import store
from insula.protocol.admin import parse_pairs
from insula.protocol.errors import ReportableError
from tests.serving import TEMPLATE, Instance, serving

REFUSED = "QubesException"
DRIVER_REFUSED = "StoragePoolException"


async def _add(instance: Instance, place: Path, name: str = "big", **options: object) -> None:
    fields = {"name": name, "dir_path": place, **options}
    text = "".join(f"{key}={value}\n" for key, value in fields.items())
    await instance.ok("admin.pool.Add", argument="file-reflink", payload=text.encode())


async def _info(instance: Instance, name: str = "big") -> dict[str, str]:
    return parse_pairs(await instance.ok("admin.pool.Info", argument=name))


async def _pool_of(instance: Instance, qube: str, volume: str) -> str:
    return parse_pairs(await instance.ok("admin.vm.volume.Info", qube, volume))["pool"]


async def test_every_instance_has_two_pools(instance: Instance) -> None:
    assert await instance.ok("admin.pool.List") == "varlibqubes\nlinux-kernel\n"
    drivers = dict(
        line.split(" ", 1) for line in (await instance.ok("admin.pool.ListDrivers")).splitlines()
    )
    assert drivers == {
        "file": "revisions_to_keep dir_path ephemeral_volatile",
        "file-reflink": "revisions_to_keep dir_path setup_check ephemeral_volatile",
        "linux-kernel": "dir_path",
    }


async def test_what_a_pool_tells_of_itself(instance: Instance) -> None:
    text = await instance.ok("admin.pool.Info", argument="varlibqubes")
    assert [line.partition("=")[0] for line in text.splitlines()] == [
        *("dir_path", "driver", "ephemeral_volatile", "name", "revisions_to_keep", "setup_check"),
        *("size", "usage"),
    ]
    found = parse_pairs(text)
    assert (found["driver"], found["name"]) == ("file-reflink", "varlibqubes")
    assert (found["dir_path"], found["revisions_to_keep"]) == (str(instance.home), "1")
    assert 0 < int(found["usage"]) <= int(found["size"])
    kernels = await _info(instance, "linux-kernel")
    assert [*kernels][:3] == ["dir_path", "driver", "name"]
    assert kernels["included_in"] == "varlibqubes"
    details = parse_pairs(await instance.ok("admin.pool.UsageDetails", argument="varlibqubes"))
    assert [*details] == ["data_size", "data_usage"]
    assert 0 < int(details["data_usage"]) <= int(details["data_size"])


async def test_the_volumes_of_a_pool(instance: Instance) -> None:
    listed = (await instance.ok("admin.pool.volume.List", argument="varlibqubes")).splitlines()
    assert sorted(listed) == sorted(
        [f"appvms/work/{name}" for name in ("root", "private", "volatile")]
        + [f"vm-templates/{TEMPLATE}/{name}" for name in ("root", "private", "volatile")]
    )
    (kernel,) = (await instance.ok("admin.pool.volume.List", argument="linux-kernel")).splitlines()
    assert kernel == await _kernel(instance)


async def _kernel(instance: Instance) -> str:
    answer = await instance.ok("admin.property.Get", "dom0", "default_kernel")
    return answer.rpartition(" ")[2]


async def test_a_pool_is_added_and_kept(tmp_path: Path) -> None:
    place = tmp_path / "elsewhere" / "big"
    async with serving(tmp_path / "home") as instance:
        await _add(instance, place, revisions_to_keep=3, ephemeral_volatile="no")
        assert ("pool-add", {"pool": "big"}) in [(one.name, one.fields) for one in instance.told]
        before = await _info(instance)
    assert before["dir_path"] == str(place)
    assert (before["revisions_to_keep"], before["ephemeral_volatile"]) == ("3", "False")
    async with serving(tmp_path / "home") as instance:
        after = await _info(instance)
        await instance.template()
        await instance.qube("work")
        await instance.ok("admin.property.Set", "dom0", "default_pool_private", b"big")
        await instance.qube("play")
    same = ("dir_path", "driver", "name", "revisions_to_keep", "ephemeral_volatile", "setup_check")
    assert [after[key] for key in same] == [before[key] for key in same]


@pytest.mark.parametrize(
    ("driver", "text", "refusal"),
    [
        ("lvm_thin", "name=a\nvolume_group=g\nthin_pool=t\n", REFUSED),
        ("zfs", "name=a\ncontainer=c\n", REFUSED),
        ("callback", "name=a\nconf_id=c\n", REFUSED),
        ("nothing", "name=a\ndir_path=/x\n", REFUSED),
        ("", "name=a\ndir_path=/x\n", REFUSED),
        ("file", "name=a\n", REFUSED),
        ("file", "name=a\ndir_path=DIR\ncolour=red\n", REFUSED),
        ("file", "name=a\ndir_path=DIR\nsetup_check=yes\n", REFUSED),
        ("linux-kernel", "name=a\ndir_path=DIR\nrevisions_to_keep=1\n", REFUSED),
        ("file", "name=a\ndir_path=DIR\nrevisions_to_keep=2\n", "QubesValueError"),
        ("file-reflink", "name=a\ndir_path=DIR\nrevisions_to_keep=-2\n", "QubesValueError"),
        ("file-reflink", "name=a\ndir_path=DIR\nephemeral_volatile=often\n", "QubesValueError"),
        ("file-reflink", "name=a\ndir_path=relative\n", "QubesValueError"),
        ("file-reflink", "name=a\ndir_path=/x/../y\n", "QubesValueError"),
        ("file-reflink", "name=a\ndir_path=FILE/below\n", DRIVER_REFUSED),
        ("file-reflink", "name=a\ndir_path=HOME\n", DRIVER_REFUSED),
        ("file-reflink", "name=a\ndir_path=HOME/volumes/x\n", DRIVER_REFUSED),
        ("file-reflink", "dir_path=DIR\n", None),
        ("file-reflink", "", None),
        ("file-reflink", "name=a\nname=b\ndir_path=DIR\n", None),
        ("file-reflink", "name=a\ndir_path\n", None),
        ("file-reflink", "name=a\n\ndir_path=DIR\n", None),
        ("file-reflink", "name=a b\ndir_path=DIR\n", None),
        ("file-reflink", "name=\ndir_path=DIR\n", None),
        ("file-reflink", "name=varlibqubes\ndir_path=DIR\n", None),
        ("file-reflink", "name=é\ndir_path=DIR\n", None),
    ],
)
async def test_pools_that_cannot_be(
    instance: Instance, tmp_path: Path, driver: str, text: str, refusal: str | None
) -> None:
    (tmp_path / "file").write_text("")
    for word, path in (
        ("DIR", tmp_path / "d"),
        ("FILE", tmp_path / "file"),
        ("HOME", instance.home),
    ):
        text = text.replace(word, str(path))
    payload = text.encode()
    assert await instance.refused("admin.pool.Add", argument=driver, payload=payload) == refusal
    assert await instance.ok("admin.pool.List") == "varlibqubes\nlinux-kernel\n"
    assert "pool-add" not in instance.names()


@given(text=st.text(alphabet=st.characters(max_codepoint=127), max_size=80), driver=st.text())
def test_any_options_make_a_pool_or_a_refusal(text: str, driver: str) -> None:
    for kind in (driver, "file", "linux-kernel"):
        try:
            pool = parse_pool(kind, f"name=a\ndir_path=/x\n{text}", (), "mark")
        except (ReportableError, RefusedSilentlyError):
            continue
        assert (pool.name, pool.directory) == ("a", "/x")


@pytest.mark.parametrize(
    "method",
    ["Info", "UsageDetails", "volume.List", "Remove", "Set.revisions_to_keep"],
)
async def test_there_is_no_such_pool(instance: Instance, method: str) -> None:
    payload = b"1" if method.startswith("Set") else b""
    for name in ("nothing", ""):
        refusal = await instance.refused(f"admin.pool.{method}", argument=name, payload=payload)
        assert refusal is None
    refusal = await instance.refused(f"admin.pool.{method}", "work", "varlibqubes", payload)
    assert refusal is None


async def test_new_volumes_lie_in_the_pools_that_properties_name(
    instance: Instance, tmp_path: Path
) -> None:
    await _add(instance, tmp_path / "big", revisions_to_keep=4)
    await instance.ok("admin.property.Set", "dom0", "default_pool_private", b"big")
    play = await instance.qube("play")
    assert await _pool_of(instance, "play", "private") == "big"
    assert await _pool_of(instance, "play", "root") == "varlibqubes"
    assert await _pool_of(instance, "play", "volatile") == "varlibqubes"
    assert await _pool_of(instance, "work", "private") == "varlibqubes"
    assert (play.volumes["private"].revisions_to_keep, play.volumes["root"].pool) == (
        4,
        "varlibqubes",
    )
    listed = await instance.ok("admin.pool.volume.List", argument="big")
    assert listed == "appvms/play/private\n"
    await instance.ok("admin.property.Set", "dom0", "default_pool", b"big")
    await instance.qube("more")
    assert await _pool_of(instance, "more", "volatile") == "big"


async def test_a_qube_runs_from_a_pool_and_leaves_nothing_in_it(
    instance: Instance, tmp_path: Path
) -> None:
    await _add(instance, tmp_path / "big")
    text = b"name=play label=red pool=big"
    await instance.ok("admin.vm.CreateInPool.AppVM", "dom0", TEMPLATE, text)
    play = instance.system.named("play")
    assert [await _pool_of(instance, "play", name) for name in play.volumes] == [
        "varlibqubes", "big", "big",
    ]  # fmt: skip
    await instance.power.start(play)
    await instance.power.kill(play)
    (layer,) = (tmp_path / "big" / "volumes" / str(play.uuid) / "private").iterdir()
    assert layer.name == play.volumes["private"].layers[0]
    await instance.ok("admin.vm.Remove", "play")
    assert [*(tmp_path / "big" / "volumes").iterdir()] == []
    await instance.ok("admin.pool.Remove", argument="big")


async def test_pools_of_single_volumes(instance: Instance, tmp_path: Path) -> None:
    await _add(instance, tmp_path / "big")
    create = ("admin.vm.CreateInPool.AppVM", "dom0", TEMPLATE)
    await instance.ok(*create, b"name=play label=red pool:private=big pool:kernel=linux-kernel")
    assert await _pool_of(instance, "play", "private") == "big"
    assert await _pool_of(instance, "play", "volatile") == "varlibqubes"
    for text, refusal in (
        (b"name=a label=red pool:root=big", REFUSED),
        (b"name=a label=red pool:private=none", REFUSED),
        (b"name=a label=red pool:private=linux-kernel", REFUSED),
        (b"name=a label=red pool:kernel=big", REFUSED),
        (b"name=a label=red pool:more=big", None),
        (b"name=a label=red pool=big pool:private=big", None),
        (b"name=a label=red pool=big pool=big", None),
    ):
        assert await instance.refused(*create, text) == refusal, text


async def test_a_disposable_lies_where_its_template_does(
    instance: Instance, tmp_path: Path
) -> None:
    await _add(instance, tmp_path / "big")
    await instance.ok("admin.property.Set", "dom0", "default_pool", b"big")
    mould = await instance.disposables()
    await instance.ok("admin.property.Reset", "dom0", "default_pool")
    await instance.ok("admin.vm.volume.Set.ephemeral", "mould", "volatile", b"no")
    name = await instance.ok("admin.vm.CreateDisposable", "mould")
    found = instance.system.named(name).volumes
    assert [found[one].pool for one in ("root", "private", "volatile")] == [
        "varlibqubes", "big", "big",
    ]  # fmt: skip
    assert found["volatile"].ephemeral is False
    assert mould.volumes["private"].pool == "big"


async def test_a_clone_goes_from_pool_to_pool(instance: Instance, tmp_path: Path) -> None:
    await _add(instance, tmp_path / "big")
    work = instance.system.named("work")
    await instance.power.start(work)
    await instance.power.kill(work)
    await instance.ok("admin.vm.CreateInPool.AppVM", "dom0", TEMPLATE,
                      b"name=play label=red pool=big")  # fmt: skip
    token = await instance.ok("admin.vm.volume.CloneFrom", "work", "private")
    await instance.ok("admin.vm.volume.CloneTo", "play", "private", token.encode())
    assert await _pool_of(instance, "play", "private") == "big"
    play = instance.system.named("play")
    (layer,) = (tmp_path / "big" / "volumes" / str(play.uuid) / "private").iterdir()
    assert layer.stat().st_size > 0
    await instance.power.start(play)


async def test_a_clone_that_finds_no_room_leaves_nothing(
    instance: Instance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _add(instance, tmp_path / "big")
    work = instance.system.named("work")
    for _ in range(2):
        await instance.power.start(work)
        await instance.power.kill(work)
    assert len(work.volumes["private"].layers) == 2
    await instance.ok("admin.vm.CreateInPool.AppVM", "dom0", TEMPLATE,
                      b"name=play label=red pool=big")  # fmt: skip
    play = instance.system.named("play")
    before, copied = play.volumes["private"], []

    def full(source: int, target: int) -> None:
        copied.append((source, target))
        if len(copied) == 2:
            raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(upkeep, "_linked", lambda *_given: False)
    monkeypatch.setattr(files, "copy", full)
    token = await instance.ok("admin.vm.volume.CloneFrom", "work", "private")
    clone = ("admin.vm.volume.CloneTo", "play", "private", token.encode())
    assert await instance.refused(*clone) == REFUSED
    assert play.volumes["private"] == before
    assert [*(tmp_path / "big" / "volumes" / str(play.uuid) / "private").iterdir()] == []


async def test_a_used_pool_stays(instance: Instance, tmp_path: Path) -> None:
    await _add(instance, tmp_path / "big")
    remove = ("admin.pool.Remove", "dom0", "big")
    await instance.ok("admin.property.Set", "dom0", "default_pool_root", b"big")
    assert await instance.refused(*remove) == "QubesPoolInUseError"
    await instance.ok("admin.property.Reset", "dom0", "default_pool_root")
    await instance.ok("admin.vm.CreateInPool.AppVM", "dom0", TEMPLATE,
                      b"name=play label=red pool:volatile=big")  # fmt: skip
    assert await instance.refused(*remove) == "QubesPoolInUseError"
    for name in ("varlibqubes", "linux-kernel"):
        refusal = await instance.refused("admin.pool.Remove", argument=name)
        assert refusal == "QubesPoolInUseError"
    await instance.ok("admin.vm.Remove", "play")
    (tmp_path / "big" / "mine").write_text("kept")
    instance.told.clear()
    await instance.ok(*remove)
    assert [(one.name, one.fields) for one in instance.told] == [
        ("pool-pre-delete", {"pool": "big"}),
        ("pool-delete", {"pool": "big"}),
    ]
    assert [path.name for path in (tmp_path / "big").iterdir()] == ["mine"]
    assert "big" not in await instance.ok("admin.pool.List")
    await _add(instance, tmp_path / "big")


async def test_settings_of_a_pool_are_for_volumes_made_later(
    instance: Instance, tmp_path: Path
) -> None:
    await instance.ok("admin.pool.Set.revisions_to_keep", "dom0", "varlibqubes", b"5")
    await instance.ok("admin.pool.Set.ephemeral_volatile", "dom0", "varlibqubes", b"Off")
    play = await instance.qube("play")
    assert play.volumes["private"].revisions_to_keep == 5
    assert instance.system.named("work").volumes["private"].revisions_to_keep == 1
    info = parse_pairs(await instance.ok("admin.vm.volume.Info", "play", "volatile"))
    assert info["ephemeral"] == "False"
    found = await _info(instance, "varlibqubes")
    assert (found["revisions_to_keep"], found["ephemeral_volatile"]) == ("5", "False")
    await instance.ok("admin.pool.Set.revisions_to_keep", "dom0", "varlibqubes", b"-1")
    setting = "admin.pool.Set.revisions_to_keep"
    for payload, refusal in (
        (b"", None), (b"01", None), (b" 1", None), (b"x", None), (b"1\n", None),
        (b"-2", "QubesValueError"), (b"9" * 20, None),
    ):  # fmt: skip
        assert await instance.refused(setting, "dom0", "varlibqubes", payload) == refusal
    assert await instance.refused(setting, "dom0", "linux-kernel", b"1") == REFUSED
    setting = "admin.pool.Set.ephemeral_volatile"
    assert await instance.refused(setting, "dom0", "varlibqubes", b"often") is None
    assert await instance.refused(setting, "dom0", "linux-kernel", b"1") == REFUSED
    place = str(tmp_path / "one").encode()
    await instance.ok("admin.pool.Add", "dom0", "file", b"name=one\ndir_path=" + place + b"\n")
    setting = "admin.pool.Set.revisions_to_keep"
    assert await instance.refused(setting, "dom0", "one", b"2") == "QubesValueError"


async def test_kernels_of_a_further_pool(instance: Instance, tmp_path: Path) -> None:
    place = tmp_path / "kernels"
    (place / "new").mkdir(parents=True)
    for part in ("vmlinuz", "initrd"):
        (place / "new" / part).write_text(part)
    text = f"name=more\ndir_path={place}\n".encode()
    await instance.ok("admin.pool.Add", "dom0", "linux-kernel", text)
    assert await instance.ok("admin.pool.volume.List", argument="more") == "new\n"
    await instance.ok("admin.vm.property.Set", "work", "kernel", b"new")
    info = parse_pairs(await instance.ok("admin.vm.volume.Info", "work", "kernel"))
    assert (info["pool"], info["vid"]) == ("more", "new")
    await instance.power.start(instance.system.named("work"))
    refusal = await instance.refused("admin.pool.Remove", argument="more")
    assert refusal == "QubesPoolInUseError"
    await instance.ok("admin.vm.property.Reset", "work", "kernel")
    await instance.ok("admin.pool.Remove", argument="more")
    assert "new" not in instance.system.kernels
    assert (place / "new" / "vmlinuz").exists()


async def test_a_pool_that_is_away_harms_nothing(tmp_path: Path) -> None:
    place, home = tmp_path / "big", tmp_path / "home"
    async with serving(home) as instance:
        await instance.template()
        await _add(instance, place)
        await instance.ok("admin.vm.CreateInPool.AppVM", "dom0", TEMPLATE,
                          b"name=play label=red pool=big")  # fmt: skip
        play = instance.system.named("play")
        await instance.power.start(play)
        await instance.power.kill(play)
    place.rename(tmp_path / "unmounted")
    place.mkdir()
    async with serving(home) as instance:
        play = instance.system.named("play")
        assert parse_pairs(await instance.ok("admin.vm.volume.Info", "play", "private"))
        assert await instance.refused("admin.vm.Start", "play") == DRIVER_REFUSED
        assert "size" not in await _info(instance)
        assert await instance.ok("admin.pool.UsageDetails", argument="big") == ""
        volumes = [one for qube in instance.system.in_order() for one in qube.volumes.values()]
        assert await instance.world.storage.sweep(volumes) == ()
        assert [*place.iterdir()] == []
        place.rmdir()
        (tmp_path / "unmounted").rename(place)
        await instance.ok("admin.vm.Start", "play")
        await instance.power.kill(play)


async def test_a_directory_with_volumes_of_others_is_not_taken(
    instance: Instance, tmp_path: Path
) -> None:
    place = tmp_path / "theirs"
    (place / "volumes" / "somebody").mkdir(parents=True)
    text = f"name=big\ndir_path={place}\n".encode()
    refusal = await instance.refused("admin.pool.Add", "dom0", "file", text)
    assert refusal == DRIVER_REFUSED
    assert (place / "volumes" / "somebody").is_dir()


async def test_two_pools_do_not_share_a_directory(instance: Instance, tmp_path: Path) -> None:
    await _add(instance, tmp_path / "big")
    (tmp_path / "link").symlink_to(tmp_path / "big")
    for path in (tmp_path / "big", tmp_path / "link", tmp_path / "big" / "volumes"):
        text = f"name=other\ndir_path={path}\n".encode()
        assert await instance.refused("admin.pool.Add", "dom0", "file", text) == DRIVER_REFUSED
    await _add(instance, tmp_path / "big" / "inner", "inner")
    assert (await _info(instance, "inner"))["included_in"] == "big"


async def test_a_file_system_without_links_is_refused_unless_told_otherwise(
    instance: Instance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*_args: object, **_options: object) -> None:
        raise OSError(1, "no links here")

    monkeypatch.setattr(os, "link", no_links)
    text = f"name=big\ndir_path={tmp_path / 'fat'}\n"
    refusal = await instance.refused("admin.pool.Add", "dom0", "file-reflink", text.encode())
    assert refusal == DRIVER_REFUSED
    text += "setup_check=False\n"
    await instance.ok("admin.pool.Add", "dom0", "file-reflink", text.encode())
    assert (await _info(instance))["setup_check"] == "False"


async def test_leftovers_in_a_pool_are_swept(instance: Instance, tmp_path: Path) -> None:
    await _add(instance, tmp_path / "big")
    await instance.ok("admin.property.Set", "dom0", "default_pool_private", b"big")
    play = await instance.qube("play")
    inside = tmp_path / "big" / "volumes"
    (inside / "left").mkdir()
    (inside / str(play.uuid) / "private" / "7.qcow2").write_text("left")
    volumes = [one for qube in instance.system.in_order() for one in qube.volumes.values()]
    removed = await instance.world.storage.sweep(volumes)
    assert set(removed) == {"left", f"{play.uuid}/private/7.qcow2"}
    assert [path.name for path in inside.iterdir()] == [str(play.uuid)]


async def test_a_new_standalone_lies_wholly_in_its_pool(instance: Instance, tmp_path: Path) -> None:
    await _add(instance, tmp_path / "big")
    await instance.ok("admin.vm.CreateInPool.StandaloneVM", "dom0", "",
                      b"name=alone label=red pool=big")  # fmt: skip
    alone = instance.system.named("alone")
    assert alone.klass is QubeClass.STANDALONE
    assert {volume.pool for volume in alone.volumes.values()} == {"big"}


async def test_the_one_revision_of_a_file_pool_is_the_old_one(
    instance: Instance, tmp_path: Path
) -> None:
    text = f"name=one\ndir_path={tmp_path / 'one'}\n".encode()
    await instance.ok("admin.pool.Add", "dom0", "file", text)
    await instance.ok("admin.vm.CreateInPool.AppVM", "dom0", TEMPLATE,
                      b"name=play label=red pool=one")  # fmt: skip
    play = instance.system.named("play")
    for _ in range(3):
        await instance.power.start(play)
        await instance.power.kill(play)
    assert await instance.ok("admin.vm.volume.ListSnapshots", "play", "private") == "old\n"
    before = play.volumes["private"].layers
    await instance.ok("admin.vm.volume.Revert", "play", "private", b"old\n")
    assert play.volumes["private"].layers == before[:-1]
    setting = "admin.vm.volume.Set.revisions_to_keep"
    assert await instance.refused(setting, "play", "private", b"2") == "QubesValueError"


async def test_a_pool_that_cannot_be_kept_leaves_its_directory(
    instance: Instance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "big"

    def full(*_changes: object) -> None:
        raise OSError(errno.ENOSPC, "no space")

    with monkeypatch.context() as patched:
        patched.setattr(store, "_execute", full)
        text = f"name=big\ndir_path={place}\n".encode()
        assert await instance.refused("admin.pool.Add", "dom0", "file", text) == REFUSED
    assert [*place.iterdir()] == []
    assert "pool-add" not in instance.names()
    await _add(instance, place)
    mark = (place / "insula-pool").read_text()
    assert await instance.refused("admin.pool.Add", "dom0", "file", text) is None
    other = text.replace(b"name=big", b"name=other")
    assert await instance.refused("admin.pool.Add", "dom0", "file", other) == DRIVER_REFUSED
    assert (place / "insula-pool").read_text() == mark
