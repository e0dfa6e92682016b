"""Labels (admin-api.md section 4.5)."""

from insula.daemon.admin.calls import Call, Method
from insula.daemon.model.errors import (
    LabelNotFoundError,
    RefusedError,
    RefusedSilentlyError,
    ValueRefusedError,
)
from insula.daemon.model.labels import HIGHEST_BUILT_IN, Label, is_color, is_name


def _label(call: Call) -> Label:
    try:
        return call.api.world.system.label(call.argument)
    except LabelNotFoundError:
        raise ValueRefusedError("") from None


async def list_labels(call: Call) -> str:
    labels = sorted(call.api.world.system.labels.values(), key=lambda label: label.index)
    return "".join(f"{label.name}\n" for label in labels)


async def color(call: Call) -> str:
    return _label(call).color


async def index(call: Call) -> str:
    return str(_label(call).index)


async def create(call: Call) -> str:
    name, color = call.argument, call.payload_text().strip()
    if not is_name(name) or not is_color(color):
        raise RefusedSilentlyError(f"not a label and its colour: {name!r}, {color!r}")
    async with call.api.world.editing() as edit:
        labels = edit.touch_labels()
        if name in labels:
            raise ValueRefusedError(f"There is a label {name} already")
        highest = max(label.index for label in labels.values())
        labels[name] = Label(max(HIGHEST_BUILT_IN, highest) + 1, name, color)
    return ""


async def remove(call: Call) -> str:
    async with call.api.world.editing() as edit:
        label = _label(call)
        if label.index <= HIGHEST_BUILT_IN:
            raise RefusedSilentlyError(f"{label.name} is built in")
        users = [one.name for one in edit.system.in_order() if one.label == label.name]
        if users:
            raise RefusedError(
                f"Label {label.name} is used by {', '.join(users)}",
                f"Give them another: qvm-prefs {users[0]} label OTHER",
            )
        del edit.touch_labels()[label.name]
    return ""


METHODS = {
    "admin.label.List": Method(run=list_labels, destination="dom0"),
    "admin.label.Get": Method(run=color, destination="dom0", argument=True),
    "admin.label.Create": Method(run=create, destination="dom0", argument=True, payload=True),
    "admin.label.Remove": Method(run=remove, destination="dom0", argument=True),
    "admin.label.Index": Method(run=index, destination="dom0", argument=True),
}
