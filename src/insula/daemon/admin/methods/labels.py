"""Labels (admin-api.md section 4.5)."""

from insula.daemon.admin.calls import Call, Method
from insula.daemon.model.errors import LabelNotFoundError, ValueRefusedError
from insula.daemon.model.labels import Label


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


METHODS = {
    "admin.label.List": Method(run=list_labels, destination="dom0"),
    "admin.label.Get": Method(run=color, destination="dom0", argument=True),
    "admin.label.Index": Method(run=index, destination="dom0", argument=True),
}
