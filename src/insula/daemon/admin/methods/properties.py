"""Properties of qubes and of the system (admin-api.md section 4.3)."""

from collections.abc import Mapping
from dataclasses import dataclass

from insula.daemon.admin.calls import Call, Method
from insula.daemon.model import changes
from insula.daemon.model.errors import (
    NoSuchPropertyError,
    PropertyValueError,
    QubeNotFoundError,
    RefusedSilentlyError,
    ValueRefusedError,
)
from insula.daemon.model.properties.definition import Access, Property, held, text_of
from insula.daemon.model.properties.parsing import check_kind
from insula.daemon.model.properties.qubes import BY_CLASS, stored
from insula.daemon.model.properties.system_wide import GLOBAL
from insula.daemon.model.qube import Qube, Value
from insula.protocol.admin import PropertyAnswer, default_answer, property_answer, property_lines


@dataclass(frozen=True, slots=True)
class _Holder:
    """A qube, or the system (whose properties are computed with dom0 in the qube's place)."""

    name: str
    table: Mapping[str, Property]
    own: Mapping[str, Value]
    qube: Qube


def _holder(call: Call) -> _Holder:
    system = call.api.world.system
    if call.method.startswith("admin.property."):
        return _Holder("The system", GLOBAL, system.properties, system.dom0)
    qube = call.destination
    return _Holder(qube.name, BY_CLASS[qube.klass], stored(qube), qube)


def _named(call: Call, holder: _Holder) -> Property:
    """The property that a call is about.

    Raises:
        NoSuchPropertyError: there is none of that name.
    """
    found = holder.table.get(call.argument)
    if found is None:
        raise NoSuchPropertyError(holder.name, call.argument)
    return found


def _check_there(call: Call, holder: _Holder) -> None:
    """Refuse a qube that was removed while the call waited."""
    if holder.qube.uuid not in call.api.world.system.qubes:
        raise QubeNotFoundError(holder.qube.name)


def _answer(call: Call, holder: _Holder, prop: Property) -> PropertyAnswer:
    system = call.api.world.system
    found = held(system, holder.qube, prop, holder.own)
    return PropertyAnswer(found.is_default, prop.kind, text_of(system, found.value))


async def list_names(call: Call) -> str:
    return "".join(f"{name}\n" for name in _holder(call).table)


async def get(call: Call) -> str:
    holder = _holder(call)
    return property_answer(_answer(call, holder, _named(call, holder)))


async def get_all(call: Call) -> str:
    holder = _holder(call)
    return property_lines(
        (name, _answer(call, holder, prop)) for name, prop in holder.table.items()
    )


async def get_default(call: Call) -> str:
    holder = _holder(call)
    prop = _named(call, holder)
    if prop.default is None:
        return ""
    value = prop.default(call.api.world.system, holder.qube)
    return default_answer(prop.kind, text_of(call.api.world.system, value))


async def help_text(call: Call) -> str:
    return _named(call, _holder(call)).help


async def set_value(call: Call) -> str:
    holder = _holder(call)
    prop = _named(call, holder)
    try:
        text = call.untrusted_payload.decode("ascii")
    except UnicodeDecodeError:
        raise ValueRefusedError("The value is not ASCII") from None
    check_kind(call.api.world.system, holder.qube, prop.kind, text)
    if prop.access is Access.READ_ONLY:
        raise PropertyValueError(f"{prop.name} of {holder.name} cannot be set")
    if prop.access is Access.WRITE_ONCE:
        raise RefusedSilentlyError(f"{prop.name} is set already")
    async with call.api.world.editing() as edit:
        _check_there(call, holder)
        value = prop.parse(edit.system, holder.qube, text)
        if holder.table is GLOBAL:
            changes.set_setting(edit, prop, value)
        else:
            changes.set_property(edit, holder.qube, prop, value)
    return ""


async def reset(call: Call) -> str:
    holder = _holder(call)
    prop = _named(call, holder)
    if prop.access is Access.WRITE_ONCE:
        raise RefusedSilentlyError(f"{prop.name} cannot be reset")
    async with call.api.world.editing() as edit:
        _check_there(call, holder)
        if holder.table is GLOBAL:
            changes.reset_setting(edit, prop)
        else:
            changes.reset_property(edit, holder.qube, prop)
    return ""


_FORMS = {
    "List": Method(run=list_names),
    "Get": Method(run=get, argument=True),
    "GetAll": Method(run=get_all),
    "GetDefault": Method(run=get_default, argument=True),
    "Help": Method(run=help_text, argument=True),
    "Set": Method(run=set_value, argument=True, payload=True),
    "Reset": Method(run=reset, argument=True),
}
METHODS = {
    **{f"admin.vm.property.{name}": method for name, method in _FORMS.items()},
    **{
        f"admin.property.{name}": Method(
            run=method.run, destination="dom0", argument=method.argument, payload=method.payload
        )
        for name, method in _FORMS.items()
    },
}
