"""What qubes tell of themselves (admin-api.md sections 4.14 and 7.3)."""

import re

import pytest

from insula.daemon.model.qube import Qube
from insula.protocol.admin import Refusal
from tests.serving import TEMPLATE, Instance

MISC = "qubesd.misc.sock"
TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"


async def _tell(
    instance: Instance, method: str, source: str, payload: bytes = b"", destination: str = "dom0"
) -> str | None:
    """The kind of a refusal, None for one without a word, and the empty text for none."""
    answer = await instance.ask(method, destination, "", payload, source=source, over=MISC)
    return answer.kind if isinstance(answer, Refusal) else "" if answer == b"" else None


async def _request(instance: Instance, qube: Qube, **features: str) -> str | None:
    written = {f"/features-request/{key}": value for key, value in features.items()}
    instance.world.untrusted_written[qube.uuid] = {**written, "/other/key": "1"}
    instance.told.clear()
    return await _tell(instance, "qubes.FeaturesRequest", qube.name)


@pytest.fixture
def template(instance: Instance) -> Qube:
    """A template that has said nothing yet."""
    found = instance.system.named(TEMPLATE)
    found.features.clear()
    return found


async def test_what_a_template_may_say(instance: Instance, template: Qube) -> None:
    asked = {
        "os": "Linux",
        "os-distribution": "debian",
        "os-version": "12.1",
        "os-eol": "2028-06-30",
        "qubes-agent-version": "4.3",
        "qrexec": "1",
        "gui": "0",
        "vmexec": "1",
        "anon-timezone": "1",
        "supported-service.cups": "1",
        "supported-rpc.qubes.Filecopy": "1",
        "supported-feature.x": "0",
        "anything": "1",
    }
    assert await _request(instance, template, **asked) == ""
    assert template.features == {
        "os": "Linux",
        "os-distribution": "debian",
        "os-version": "12.1",
        "os-eol": "2028-06-30",
        "qubes-agent-version": "4.3",
        "qrexec": "1",
        "gui": "",
        "vmexec": "1",
        "anon-timezone": "1",
        "supported-service.cups": "1",
        "supported-rpc.qubes.Filecopy": "1",
    }
    assert instance.told[0].name == "features-request"
    assert instance.told[0].fields == {"untrusted_features": str(asked)}
    assert instance.names()[-1] == "template-postinstall"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("os", "BSD"),
        ("os-version", "x"),
        ("os-version", ".1"),
        ("os-eol", "2028-02-30"),
        ("os-eol", "soon"),
        ("qubes-agent-version", "4"),
        ("qubes-agent-version", "4.3333"),
        ("qrexec", "2"),
        ("anon-timezone", "0"),
        ("boot-mode.kernelopts.default", "a=b"),
    ],
)
async def test_what_is_not_believed(
    instance: Instance, template: Qube, name: str, value: str
) -> None:
    assert await _request(instance, template, **{name: value}) == ""
    assert template.features == {}


async def test_what_is_decided_is_decided(instance: Instance, template: Qube) -> None:
    template.features |= {"qrexec": "", "vmexec": ""}
    await _request(instance, template, qrexec="1", vmexec="1")
    assert template.features == {"qrexec": "", "vmexec": "1"}
    assert "template-postinstall" not in instance.names()


async def test_what_is_announced_no_more_is_gone(instance: Instance, template: Qube) -> None:
    await _request(instance, template, **{"supported-service.a": "1", "supported-rpc.x": "1"})
    await _request(instance, template, **{"supported-service.b": "1"})
    assert template.features == {"supported-service.b": "1", "supported-rpc.x": "1"}


async def test_a_qube_with_a_template_speaks_of_its_services_alone(instance: Instance) -> None:
    work = instance.system.named("work")
    await _request(instance, work, **{"os": "Linux", "supported-rpc.x": "1"})
    assert work.features == {"supported-rpc.x": "1"}


async def test_one_bad_value_spoils_the_request(instance: Instance, template: Qube) -> None:
    for value in ("a/b", "\u00e4", "a\nb"):
        assert await _request(instance, template, os="Linux", other=value) is None
    assert template.features == {}
    assert instance.told == []


async def test_boot_modes_are_a_set(instance: Instance, template: Qube) -> None:
    first = {"boot-mode.kernelopts.a": "one=1", "boot-mode.name.a": "A"}
    await _request(instance, template, **first)
    assert template.features == first
    second = {"boot-mode.kernelopts.b": "two=2"}
    await _request(instance, template, **second)
    assert template.features == second
    twice = {f"boot-mode.{kind}.{mode}": "x" for kind in ("kernelopts", "name") for mode in "cd"}
    await _request(instance, template, **twice)
    assert template.features == second


async def test_windows_is_furnished(instance: Instance, template: Qube) -> None:
    await _request(instance, template, os="Windows", qrexec="1")
    assert template.features["rpc-clipboard"] == "1"
    assert template.features["audio-model"] == "ich6"
    assert (template.properties["maxmem"], template.properties["qrexec_timeout"]) == (0, 6000)


async def test_the_old_form(instance: Instance, template: Qube) -> None:
    instance.world.untrusted_written[template.uuid] = {
        "/qubes-tools/qrexec": "1",
        "/qubes-tools/os": "Linux",
        "/qubes-tools/vmexec": "1",
    }
    assert await _tell(instance, "qubes.NotifyTools", TEMPLATE) == ""
    assert template.features == {"qrexec": "1", "os": "Linux"}
    instance.world.untrusted_written[template.uuid]["/qubes-tools/os"] = "a-b"
    assert await _tell(instance, "qubes.NotifyTools", TEMPLATE) is None


async def test_updates_of_a_template(instance: Instance, template: Qube) -> None:
    assert await _tell(instance, "qubes.NotifyUpdates", TEMPLATE, b" %s\n" % (b"3" * 9999)) == ""
    assert template.features["updates-available"] == "1"
    assert re.fullmatch(TIME, template.features["last-updates-check"])
    assert "last-update" not in template.features
    assert await _tell(instance, "qubes.NotifyUpdates", TEMPLATE, b"00") == ""
    assert template.features["updates-available"] == ""
    assert re.fullmatch(TIME, template.features["last-update"])


async def test_updates_that_a_qube_knows_of_are_its_templates(
    instance: Instance, template: Qube
) -> None:
    await _tell(instance, "qubes.NotifyUpdates", "work", b"0")
    assert template.features == {}
    await instance.power.start(template)
    await _tell(instance, "qubes.NotifyUpdates", "work", b"5")
    assert template.features == {}
    await instance.power.kill(template)
    await _tell(instance, "qubes.NotifyUpdates", "work", b"5")
    assert template.features["updates-available"] == "1"
    assert instance.system.named("work").features == {}


@pytest.mark.parametrize("payload", [b"", b"x", b"-1", b"1 2", b"\xff"])
async def test_what_is_no_number_of_updates(
    instance: Instance, template: Qube, payload: bytes
) -> None:
    assert await _tell(instance, "qubes.NotifyUpdates", TEMPLATE, payload) is None
    assert await _tell(instance, "qubes.NotifyUpdates", TEMPLATE, b"1", "work") is None
    assert template.features == {}
