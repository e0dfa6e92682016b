"""Features and tags of qubes (admin-api.md section 4.4)."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from insula.daemon.admin.calls import Call, Method
from insula.daemon.model import changes, features
from insula.daemon.model.edit import Edit
from insula.daemon.model.errors import (
    FeatureNotFoundError,
    QubeNotFoundError,
    RefusedSilentlyError,
)
from insula.daemon.model.properties.network import netvms_of
from insula.daemon.model.qube import Qube


async def list_features(call: Call) -> str:
    return "".join(f"{name}\n" for name in call.destination.features)


async def get(call: Call) -> str:
    return _first(call, [call.destination])


async def check_with_template(call: Call) -> str:
    return _first(call, _own_and_templates(call))


async def check_with_netvm(call: Call) -> str:
    system, qube = call.api.world.system, call.destination
    providers = list(netvms_of(system, qube)) if qube.klass.is_machine else []
    return _first(call, [qube, *providers])


async def check_with_adminvm(call: Call) -> str:
    return _first(call, [call.destination, call.api.world.system.dom0])


async def check_with_template_and_adminvm(call: Call) -> str:
    return _first(call, [*_own_and_templates(call), call.api.world.system.dom0])


async def set_feature(call: Call) -> str:
    value = call.payload_text()
    features.check_written(call.argument, value)
    features.check_managed(call.argument)
    async with _editing(call) as edit:
        changes.set_feature(edit, call.destination, call.argument, value)
    return ""


async def remove_feature(call: Call) -> str:
    features.check_managed(call.argument)
    async with _editing(call) as edit:
        changes.remove_feature(edit, call.destination, call.argument)
    return ""


async def list_tags(call: Call) -> str:
    return "".join(f"{tag}\n" for tag in sorted(call.destination.tags))


async def get_tag(call: Call) -> str:
    return "1" if _tag(call) in call.destination.tags else "0"


async def set_tag(call: Call) -> str:
    tag = _own_tag(call)
    if tag not in call.destination.tags:
        async with _editing(call) as edit:
            features.add_tag(edit, call.destination, tag)
    return ""


async def remove_tag(call: Call) -> str:
    tag = _own_tag(call)
    async with _editing(call) as edit:
        features.remove_tag(edit, call.destination, tag)
    return ""


@asynccontextmanager
async def _editing(call: Call) -> AsyncIterator[Edit]:
    """Change the destination, if it was not removed while the call waited."""
    async with call.api.world.editing() as edit:
        if call.destination.uuid not in edit.system.qubes:
            raise QubeNotFoundError(call.destination.name)
        yield edit


def _own_and_templates(call: Call) -> list[Qube]:
    return [call.destination, *call.api.world.system.templates_of(call.destination)]


def _first(call: Call, qubes: Iterable[Qube]) -> str:
    """The feature's value on the first qube that has it, be it empty."""
    for qube in qubes:
        if call.argument in qube.features:
            return qube.features[call.argument]
    raise FeatureNotFoundError(call.destination.name, call.argument)


def _tag(call: Call) -> str:
    features.check_tag(call.argument)
    return call.argument


def _own_tag(call: Call) -> str:
    tag = _tag(call)
    if features.is_guarded(tag) and call.source is not call.api.world.system.dom0:
        raise RefusedSilentlyError(f"{tag} is for dom0 to change")
    return tag


METHODS = {
    "admin.vm.feature.List": Method(run=list_features),
    "admin.vm.feature.Get": Method(run=get, argument=True),
    "admin.vm.feature.CheckWithTemplate": Method(run=check_with_template, argument=True),
    "admin.vm.feature.CheckWithNetvm": Method(run=check_with_netvm, argument=True),
    "admin.vm.feature.CheckWithAdminVM": Method(run=check_with_adminvm, argument=True),
    "admin.vm.feature.CheckWithTemplateAndAdminVM": Method(
        run=check_with_template_and_adminvm, argument=True
    ),
    "admin.vm.feature.Set": Method(run=set_feature, argument=True, payload=True),
    "admin.vm.feature.Remove": Method(run=remove_feature, argument=True),
    "admin.vm.tag.List": Method(run=list_tags),
    "admin.vm.tag.Get": Method(run=get_tag, argument=True),
    "admin.vm.tag.Set": Method(run=set_tag, argument=True),
    "admin.vm.tag.Remove": Method(run=remove_tag, argument=True),
}
