"""The object API against a whole instance: what a script does with it."""

import asyncio
import subprocess
import sys
from contextlib import aclosing
from pathlib import Path

import pytest

import insula.client
from insula.client import App, Qube, Rule, errors
from insula.client.services import run_service
from insula.protocol import admin
from insula.protocol.devices import DeviceInfo
from tests.live import Live
from tests.serving import TEMPLATE, TIMEOUT, user

UNKNOWN_COLOUR = "0x00ff7f"


@pytest.fixture
def app(served: Live) -> App:
    assert served
    return App()


@pytest.fixture
def work(app: App) -> Qube:
    return app.add_new_qube("AppVM", "work", "red", template=TEMPLATE)


def test_a_qube_is_made_driven_and_removed(app: App, work: Qube) -> None:
    assert (work.klass, work.state, work.label) == ("AppVM", "Halted", "red")
    assert work.template == TEMPLATE
    work.start()
    assert work.is_running()
    work.pause()
    assert work.is_paused()
    with pytest.raises(errors.QubesVMNotHaltedError):
        work.remove()
    work.unpause()
    work.shutdown(wait=True)
    assert work.is_halted()
    with pytest.raises(errors.QubesVMNotStartedError):
        work.kill()
    work.start()
    work.shutdown(force=True, wait=True)
    work.start()
    work.kill()
    work.remove()
    assert "work" not in app.domains
    with pytest.raises(errors.QubesPropertyAccessError):
        _ = work.memory


def test_a_qube_sleeps_and_wakes(work: Qube) -> None:
    work.start()
    work.suspend()
    assert work.state in ("Paused", "Suspended")
    work.resume()
    assert work.state == "Running"


def test_properties_are_typed(app: App, work: Qube) -> None:
    work.memory = 512
    assert (work.memory, work.is_default("memory"), work.default("memory")) == (512, False, 400)
    del work.memory
    assert work.is_default("memory")
    assert work.debug is False
    assert work.netvm is None
    assert work.uuid == work.get("uuid").value
    with pytest.raises(AttributeError):
        work.default("backup_timestamp")
    with pytest.raises(AttributeError):
        work.name = "home"
    with pytest.raises(AttributeError):
        work.state = "Running"  # type: ignore[misc]
    with pytest.raises(errors.QubesValueError):
        work.set("memory", "much")
    with pytest.raises(AttributeError):
        work.colour = "red"
    app.default_template = app.domains[TEMPLATE]
    assert app.default_template == TEMPLATE
    assert app.add_new_qube("AppVM", "other", "blue").template == TEMPLATE


def test_properties_are_completed(app: App, work: Qube) -> None:
    assert {"memory", "start", "netvm"} <= set(dir(work))
    assert {"default_netvm", "domains"} <= set(dir(app))
    work.remove()
    assert "start" in dir(work)


def test_features_services_tags_and_notes(work: Qube) -> None:
    work.services["cups"] = True
    work.services["crond"] = False
    assert dict(work.services) == {"cups": True, "crond": False}
    assert (work.features["service.cups"], work.features["service.crond"]) == ("1", "")
    del work.services["cups"]
    with pytest.raises(KeyError):
        _ = work.services["cups"]
    work.features["x-on"] = True
    assert work.features.check("x-on") == "1"
    assert "created-by-dom0" in work.tags
    work.tags.add("mine")
    assert len(work.tags) == len(list(work.tags))
    work.notes = "of Ünal"
    assert work.notes == "of Ünal"
    with pytest.raises(errors.QubesNotesError):
        work.notes = "a" * 70_000
    with pytest.raises(errors.QubesNotesError):
        _ = work.app.domains["dom0"].notes


def test_volumes(work: Qube, app: App, tmp_path: Path) -> None:
    assert set(work.volumes) == {"root", "private", "volatile", "kernel"}
    private = work.volumes["private"]
    assert (private.rw, private.save_on_stop, private.snap_on_start) == (True, True, False)
    assert (private.source, private.ephemeral, private.revisions_to_keep) == (None, False, 1)
    assert work.volumes["root"].source == app.domains[TEMPLATE].volumes["root"].vid
    assert work.volumes["root"].is_outdated is False
    private.resize(private.size + (1 << 20))
    private.revisions_to_keep = 3
    assert private.info()["revisions_to_keep"] == "3"
    with pytest.raises(errors.QubesException, match="no former state"):
        private.revert()
    data = tmp_path / "data"
    data.write_bytes(b"x" * 4096)
    private.import_file(data)
    assert private.size == 4096
    assert private.revisions()
    private.revert()
    other = app.add_new_qube("AppVM", "other", "red", template=TEMPLATE)
    other.volumes["private"].clone_from(private)
    other.volumes["private"].clear()
    with pytest.raises(KeyError, match="no volume 'none'"):
        _ = work.volumes["none"]
    assert repr(private) == "Volume('work', 'private')"


def test_devices(served: Live, work: Qube) -> None:
    shown = DeviceInfo(
        devclass="block", backend="dom0", port="sda", device_id="1:2", interfaces="b******"
    )
    served.instance.drivers["block"].shown["dom0"] = [shown]
    assert "block" in work.devices
    assert len(work.devices) == len(list(work.devices))
    [device] = work.app.domains["dom0"].devices["block"].available()
    assert (str(device.name), device.interfaces) == ("dom0:sda:1:2", "b******")
    block = work.devices["block"]
    block.assign(device, "required", read_only=True)
    [assignment] = block.assigned()
    assert (str(assignment.name), assignment.mode) == ("dom0:sda:1:2", "required")
    assert assignment.options == {"read-only": "yes"}
    with pytest.raises(errors.DeviceAlreadyAssigned):
        block.assign(device)
    block.set_mode(assignment, "auto-attach")
    block.unassign("dom0:sda:1:2")
    assert block.assigned() == []
    work.start()
    block.attach("dom0:sda")
    assert [str(one.name) for one in block.attached()] == ["dom0:sda:1:2"]
    block.detach(device)
    assert block.attached() == []
    with pytest.raises(errors.QubesValueError):
        block.detach("sda")
    with pytest.raises(KeyError):
        _ = work.devices["none"]
    work.devices.deny("u03****")
    assert work.devices.denied == ["u03****"]
    work.devices.allow("all")
    assert work.devices.denied == []


def test_firewall(work: Qube) -> None:
    assert [str(rule) for rule in work.firewall.rules] == ["action=accept"]
    rule = Rule(action="accept", host=("dsthost", "example.org"))
    work.firewall.rules = [rule, "action=drop comment=the rest"]
    assert work.firewall.rules[0] == rule
    assert work.firewall.rules[1].comment == "the rest"
    work.firewall.reload()
    with pytest.raises(errors.QubesValueError):
        work.firewall.rules = ["action=maybe"]


def test_labels_and_pools(app: App, tmp_path: Path) -> None:
    assert (app.labels["red"].color, app.labels["red"].index) == ("0xcc0000", 1)
    made = app.labels.create("mint", UNKNOWN_COLOUR)
    assert (str(made), made.index) == ("mint", 9)
    assert "mint" in app.labels
    app.labels.remove("mint")
    with pytest.raises(KeyError):
        _ = app.labels["mint"]
    assert "varlibqubes" in app.pools
    (tmp_path / "pool").mkdir()
    pool = app.pools.add("slow", "file", dir_path=str(tmp_path / "pool"))
    assert (pool.driver, str(pool), pool.volumes()) == ("file", "slow", [])
    pool.revisions_to_keep = 0
    pool.ephemeral_volatile = True
    assert (pool.revisions_to_keep, app.pools["slow"].ephemeral_volatile) == (0, True)
    assert "dir_path" in app.pools.drivers()["file"]
    assert pool.size is None or pool.size > 0
    qube = app.add_new_qube("AppVM", "there", "red", template=TEMPLATE, pools={"private": "slow"})
    assert qube.volumes["private"].pool == "slow"
    with pytest.raises(errors.QubesPoolInUseError):
        pool.remove()
    qube.remove()
    pool.remove()
    with pytest.raises(KeyError):
        _ = app.pools["slow"]


def test_disposables_and_clones(app: App, work: Qube) -> None:
    work.template_for_dispvms = True
    with pytest.raises(errors.QubesException):
        app.create_disposable()
    app.default_dispvm = work
    assert app.create_disposable().klass == "DispVM"
    assert work.create_disposable().template == work
    work.notes = "mine"
    copy = app.clone_qube(work, "copy")
    assert (copy.notes, copy.template_for_dispvms, copy.label) == ("mine", True, "red")
    assert app.clone_qube("copy", "again", label="blue").label == "blue"


def test_a_service_is_called(work: Qube) -> None:
    done = work.run_service("no.such.Service", user=user())
    assert done.code == 127
    with pytest.raises(errors.ServiceFailedError) as caught:
        work.run_service("no.such.Service", "input", user=user(), check=True)
    assert caught.value.code == 127
    assert done.text == ""
    assert run_service("work", "no.such.Service", user=user()).code == 127
    work.kill()
    with pytest.raises(errors.QubesVMNotStartedError):
        work.run_service("no.such.Service", autostart=False)


async def test_events_are_an_iterator(served: Live, app: App) -> None:
    work = await asyncio.to_thread(app.add_new_qube, "AppVM", "work", "red", template=TEMPLATE)
    assert served
    seen = []
    async with asyncio.timeout(TIMEOUT), aclosing(app.events()) as happening:
        async for event in happening:
            seen.append((event.subject, event.name))
            if event.name == "connection-established":
                await asyncio.to_thread(setattr, work, "memory", 600)
            if event.name == "property-set:memory":
                break
    assert seen[0] == ("", "connection-established")
    assert seen[-1] == ("work", "property-set:memory")


async def test_a_cache_follows_events(served: Live) -> None:
    app, other = App(cache=True), App()
    work = await asyncio.to_thread(other.add_new_qube, "AppVM", "work", "red", template=TEMPLATE)
    assert served

    def look() -> tuple[int, str, list[str], int]:
        qube = app.domains["work"]
        assigned = len(qube.devices["block"].assigned())
        return qube.memory, qube.state, app.domains.names(), assigned

    def change() -> None:
        work.memory = 500
        work.devices["block"].assign(f"{TEMPLATE}:sda", "required")
        other.add_new_qube("AppVM", "new", "red", template=TEMPLATE)

    async with asyncio.timeout(TIMEOUT), aclosing(app.events()) as happening:
        await anext(happening)
        before = await asyncio.to_thread(look)
        same = app.domains["work"]
        await asyncio.to_thread(change)
        assert await asyncio.to_thread(look) == before
        async for event in happening:
            if event.name == "domain-create-on-disk":
                break
        after = await asyncio.to_thread(look)
        await asyncio.to_thread(work.devices["block"].unassign, f"{TEMPLATE}:sda")
        await asyncio.to_thread(work.start)
        async for event in happening:
            if event.name == "domain-start":
                break
        assert (await asyncio.to_thread(look))[1] == "Running"
    assert before == (400, "Halted", ["dom0", TEMPLATE, "work"], 0)
    assert after == (500, "Halted", ["dom0", "new", TEMPLATE, "work"], 1)
    assert app.domains["work"] is same


def test_what_a_program_sets_itself_is_not_hidden_by_its_cache(served: Live) -> None:
    assert served
    app = App(cache=True)
    work = app.add_new_qube("AppVM", "work", "red", template=TEMPLATE)
    assert work.icon == "appvm-red"
    work.label = "blue"
    assert (work.label, work.icon) == ("blue", "appvm-blue")
    work.start()
    assert work.state == "Running"
    app.domains["work"].kill()
    assert work.state == "Halted"
    with pytest.raises(AttributeError):
        app.cached = False


async def test_statistics_of_what_runs(served: Live, app: App) -> None:
    work = await asyncio.to_thread(app.add_new_qube, "AppVM", "work", "red", template=TEMPLATE)
    assert served
    async with asyncio.timeout(TIMEOUT), aclosing(work.statistics()) as stream:
        with pytest.raises(errors.QubesVMNotRunningError):
            await anext(stream)
    await asyncio.to_thread(work.start)
    async with asyncio.timeout(TIMEOUT), aclosing(app.statistics()) as stream:
        first = await anext(stream)
    assert first.qube == "work"
    assert first.memory > 0


@pytest.mark.usefixtures("instance")
async def test_without_a_daemon_events_are_refused_or_waited_for() -> None:
    async with aclosing(App().events()) as stream:
        with pytest.raises(errors.DaemonNotRunningError) as caught:
            await anext(stream)
    assert caught.value.hint == "Start it with: insula up"
    async with aclosing(App().events(reconnect=True)) as stream:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await anext(stream)


async def test_events_begin_anew_when_the_daemon_is_back(
    instance: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("insula.client.events.RECONNECT_AFTER", 0)
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        assert await reader.read() == b"admin.Events+ dom0 name dom0\0"
        writer.write(b"1\0\0connection-established\0\0")
        if connections == 3:
            writer.write(admin.exception("QubesException", "no more"))
        writer.close()

    server = await asyncio.start_unix_server(serve, instance / "qubesd.sock")
    async with server, asyncio.timeout(TIMEOUT), aclosing(App().events(reconnect=True)) as stream:
        for _ in range(3):
            assert (await anext(stream)).name == "connection-established"
        with pytest.raises(errors.QubesException, match="no more"):
            await anext(stream)
        async with aclosing(App().events()) as once:
            await anext(once)
            with pytest.raises(errors.QubesDaemonCommunicationError, match="over"):
                await anext(once)


@pytest.mark.parametrize("sent", [b"0\0", b"x", b"1\0work\0vm-stats\0memory_kb\0x\0\0"])
async def test_what_is_no_stream_is_told(instance: Path, sent: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.write(sent)
        writer.close()

    server = await asyncio.start_unix_server(serve, instance / "qubesd.sock")
    async with server, asyncio.timeout(TIMEOUT), aclosing(App().statistics()) as stream:
        with pytest.raises(errors.QubesDaemonCommunicationError):
            await anext(stream)


@pytest.mark.parametrize("name", insula.client.__all__)
def test_every_name_is_there(name: str) -> None:
    assert getattr(insula.client, name) is not None
    assert name in dir(insula.client)


def test_a_name_that_is_not_there() -> None:
    with pytest.raises(AttributeError):
        _ = insula.client.Nothing


def test_a_command_loads_little() -> None:
    code = "import insula.client.app, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert not loaded & {"asyncio", "dataclasses", "pathlib", "json", "insula.client.volumes"}
