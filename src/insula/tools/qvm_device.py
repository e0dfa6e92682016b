"""qvm-device, and qvm-CLASS for each class of devices: who has which device."""

import argparse
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from insula.client import admin, errors
from insula.client.app import App, Qube
from insula.protocol.devices import (
    ANY,
    DeviceName,
    check_device_id,
    check_port,
    interfaces_of,
    matches,
)
from insula.protocol.errors import ProtocolError, ReportableError
from insula.tools import names
from insula.tools.command import UsageError, print_json, run, say, warn
from insula.tools.device_lists import (
    Assignment,
    Device,
    assigned,
    attached,
    available,
    change,
    give,
)
from insula.tools.device_options import CLASSES_OPTION, PROGRAM, build_parser
from insula.tools.pools import pairs
from insula.tools.table import print_table

_HEADING = ("BACKEND:DEVID", "DESCRIPTION", "USED BY")
_ANY_DEVICE = "any device"
_REQUIRED, _ASK, _AUTO = "required", "ask-to-attach", "auto-attach"
_CAN_BE_REQUIRED = ("pci", "block")
_PCI = "pci"
_READ_ONLY = "read-only"
_ADDRESS = re.compile(
    r"([^:]+):(?:([0-9a-f]{4}):)?([0-9a-f]{2}):([0-9a-f]{2}\.[0-7])((?::.*)?)", re.ASCII
)
_Item = TypeVar("_Item")
_YES, _NO = ("1", "true", "yes"), ("0", "false", "no")


def main(argv: Sequence[str] | None = None) -> int:
    """qvm-device; under another name, qvm-CLASS."""
    program = Path(sys.argv[0]).name
    if argv is None and program.startswith("qvm-") and program != PROGRAM:
        return _of_class(program.removeprefix("qvm-"), argv)
    return _main(None, argv)


def block(argv: Sequence[str] | None = None) -> int:
    """qvm-block."""
    return _of_class("block", argv)


def usb(argv: Sequence[str] | None = None) -> int:
    """qvm-usb."""
    return _of_class("usb", argv)


def pci(argv: Sequence[str] | None = None) -> int:
    """qvm-pci."""
    return _of_class("pci", argv)


def _of_class(devclass: str, argv: Sequence[str] | None) -> int:
    return _main(devclass, argv)


def _main(devclass: str | None, argv: Sequence[str] | None) -> int:
    words = list(sys.argv[1:] if argv is None else argv)
    parser = build_parser(devclass)
    work: Callable[[argparse.Namespace], int] = _run
    if CLASSES_OPTION in words:  # anywhere, whatever else is there
        words = ["list"] if devclass else ["block", "list"]
        work = _list_classes
    return run(parser, work, words, prefix="Error: ")


def _list_classes(_arguments: argparse.Namespace) -> int:
    for name in _classes():
        print(name)
    return 0


def _classes() -> list[str]:
    return sorted(admin.ask_dom0("admin.deviceclass.List").decode().split())


def _run(arguments: argparse.Namespace) -> int:
    if arguments.devclass not in (classes := _classes()):
        raise UsageError(f"no such class: {arguments.devclass!r}; there are {', '.join(classes)}")
    work = {
        "list": _list,
        "info": _info,
        "attach": _attach,
        "detach": _detach,
        "assign": _assign,
        "unassign": _unassign,
    }[arguments.action]
    app = App(cache=True)
    if arguments.devclass == _PCI and getattr(arguments, "name", None) is not None:
        arguments.name = _by_port(app, arguments.name)
    work(app, arguments)
    return 0


def _by_port(app: App, text: str) -> str:
    """A PCI device by its port, where it was named by its address, as lspci has it."""
    found = _ADDRESS.fullmatch(text)
    if found is None:
        return text
    backend, segment, bus, device, rest = found.groups()
    address = f"{segment or '0000'}:{bus}:{device}"
    for one in _plugged_in(app, _PCI, backend):
        if one.data.get("sbdf") == address:
            return f"{backend}:{one.name.port}{rest}"
    raise ReportableError(f"{backend} shows no PCI device at {address}")


def _named(text: str) -> DeviceName:
    """The device that BACKEND:PORT[:ID] names.

    Raises:
        UsageError: it names none.
    """
    backend, colon, rest = text.partition(":")
    port, has_id, device_id = rest.partition(":")
    try:
        if not backend or not colon:
            raise ProtocolError("a device has a backend and a port")
        port = port if port == ANY else check_port(port)
        return DeviceName(backend, port, check_device_id(device_id) if has_id else None)
    except ProtocolError as error:
        raise UsageError(f"{text!r} is not of the form BACKEND:PORT[:ID]: {error}") from None


def _plugged_in(app: App, devclass: str, backend: str) -> list[Device]:
    """What a backend shows now.

    Raises:
        ReportableError: there is no such qube.
    """
    if backend not in app.domains:
        raise ReportableError(f"no such qube: {backend!r}")
    return available(app.domains[backend], devclass)


def _list(app: App, arguments: argparse.Namespace) -> None:
    qubes = names.find_several(app, arguments, required=False)
    rows = [row for _, row in sorted(_rows(app, qubes, arguments))]
    with_sbdf = arguments.with_sbdf and arguments.devclass == _PCI
    cells: list[tuple[str, ...]] = [row if with_sbdf else (row[0], *row[2:]) for row in rows]
    if arguments.json:
        keys = ("device", "sbdf", "description", "used_by") if with_sbdf else (
            "device", "description", "used_by",
        )  # fmt: skip
        print_json([dict(zip(keys, row, strict=True)) for row in cells])
        return
    if cells and sys.stdout.isatty():
        first, *others = _HEADING
        cells.insert(0, (first, "SBDF", *others) if with_sbdf else _HEADING)
    print_table(cells)


def _rows(
    app: App, chosen: Sequence[Qube], arguments: argparse.Namespace
) -> Iterator[tuple[tuple[str, bool], tuple[str, str, str, str]]]:
    """Device, address, description and users; of the qubes chosen, else of all.

    Before each what it is sorted by: assignments come after the device that is in their port.
    """
    devclass, wanted = arguments.devclass, {qube.name for qube in chosen}
    uses = [one for qube in app.domains for one in _quietly(attached, qube, devclass)]
    for qube in app.domains:
        for device in _quietly(available, qube, devclass):
            users = [
                one
                for one in uses
                if (one.name.backend, one.name.port) == (device.name.backend, device.name.port)
            ]
            if not wanted or qube.name in wanted or wanted & {one.frontend for one in users}:
                used_by = ", ".join(_use(one, "attached") for one in users)
                sbdf = device.data.get("sbdf", "")
                port = f"{qube}:{device.name.port}"
                yield (port, False), (port, sbdf, device.description, used_by)
    for qube in app.domains if arguments.assignments else ():
        for one in _quietly(assigned, qube, devclass):
            if not wanted or wanted & {qube.name, one.name.backend}:
                known = one.name.device_id
                text = _ANY_DEVICE if known in (None, ANY) else str(known)
                port = f"{one.name.backend}:{one.name.port}"
                yield (port, True), (port, "", text, f"*{_use(one, one.mode)}")


def _quietly(read: Callable[[Qube, str], list[_Item]], qube: Qube, devclass: str) -> list[_Item]:
    """A list of a qube; nothing where it is not ours to see."""
    try:
        return read(qube, devclass)
    except errors.QubesDaemonAccessError:
        return []


def _use(one: Assignment, state: str) -> str:
    options = ", ".join(f"{key}={value}" for key, value in one.options.items())
    return f"{one.frontend} ({state}: {options})" if options else f"{one.frontend} ({state})"


def _info(app: App, arguments: argparse.Namespace) -> None:
    if arguments.name is None:
        found = [
            one for qube in app.domains for one in _quietly(available, qube, arguments.devclass)
        ]
    else:
        found = [_found(app, arguments.devclass, _named(arguments.name))]
    for device in found:
        print(device.description)
        print(f"device ID: {device.name.device_id}")
        for key, value in device.data.items():
            print(f"{key}: {value}")


def _found(app: App, devclass: str, name: DeviceName) -> Device:
    """The device that is plugged in under a name.

    Raises:
        ReportableError: none is, or another.
    """
    shown = _plugged_in(app, devclass, name.backend)
    wanted_id = None if name.device_id == ANY else name.device_id
    in_port = [one for one in shown if name.port in (ANY, one.name.port)]
    found = [one for one in in_port if wanted_id in (None, one.name.device_id)]
    if found and (name.port != ANY or len(found) == 1):
        return found[0]
    if in_port and name.port != ANY:
        text = f"in {name.backend}:{name.port} is {in_port[0].name.device_id}, not {wanted_id}"
        raise ReportableError(text)
    if found:
        raise ReportableError(f"{name} is {len(found)} devices")
    raise ReportableError(f"{name.backend} shows no {devclass} device {name.port}")


def _options(arguments: argparse.Namespace) -> dict[str, str]:
    options = dict(pairs(arguments.option, "NAME=VALUE"))
    if "ro" in options:
        value = options.pop("ro").lower()
        if value not in (*_YES, *_NO):
            raise UsageError(f"ro is yes or no, not {value!r}")
        options[_READ_ONLY] = "yes" if value in _YES else "no"
    if arguments.ro:
        options[_READ_ONLY] = "yes"
    return options


def _attach(app: App, arguments: argparse.Namespace) -> None:
    devclass, options, name = arguments.devclass, _options(arguments), _named(arguments.name)
    qube = names.find_one(app, arguments)
    if devclass == _PCI:
        error = ReportableError("PCI devices cannot be attached to a running qube")
        port = f"{name.backend}:{name.port}"
        error.hint = f"Assign it for the next start: qvm-pci assign --required {qube} {port}"
        raise error
    device = _found(app, devclass, name)
    assignment = Assignment(device.name, qube.name, options=options)
    try:
        give(qube, devclass, "Attach", assignment)
    except errors.DaemonNotRunningError:
        raise
    except errors.QubesException as error:
        if not arguments.persistent:
            raise
        warn(qube.name, str(error))
    if arguments.persistent:
        give(qube, devclass, "Assign", replace(assignment, mode=_REQUIRED))


def _detach(app: App, arguments: argparse.Namespace) -> None:
    name = None if arguments.name is None else _named(arguments.name)
    qube, devclass = names.find_one(app, arguments), arguments.devclass
    held = [one.name for one in attached(qube, devclass)]
    chosen = [one for one in held if name is None or _is_meant(name, one)]
    if name is not None and not chosen:
        _plugged_in(app, devclass, name.backend)
        raise errors.DeviceNotAssigned(f"{name.backend}:{name.port} is not attached to {qube}")
    for one in chosen:
        change(qube, devclass, "Detach", one)


def _is_meant(name: DeviceName, one: DeviceName) -> bool:
    """Whether a name stands for a device, or for an assignment."""
    return (
        name.backend in (ANY, one.backend)
        and name.port in (ANY, one.port)
        and name.device_id in (None, ANY, one.device_id)
    )


def _assign(app: App, arguments: argparse.Namespace) -> None:
    devclass, options, name = arguments.devclass, _options(arguments), _named(arguments.name)
    if arguments.required and devclass not in _CAN_BE_REQUIRED:
        raise UsageError(f"--required is for the classes {', '.join(_CAN_BE_REQUIRED)}")
    if devclass == _PCI and not arguments.required:
        raise UsageError("PCI devices are assigned with --required")
    qube = names.find_one(app, arguments)
    shown = [one for one in _plugged_in(app, devclass, name.backend) if _is_meant(name, one.name)]
    if arguments.port:
        name = replace(name, device_id=ANY)
    elif name.device_id is None:
        name = replace(name, device_id=_found(app, devclass, name).name.device_id)
    if arguments.device:
        name = replace(name, port=ANY)
    mode = _REQUIRED if arguments.required else _ASK if arguments.ask else _AUTO
    give(qube, devclass, "Assign", Assignment(name, qube.name, mode, options))
    denied = interfaces_of(qube.call("admin.vm.device.denied.List").decode().replace("\n", ""))
    if any(matches(one, code) for device in shown for code in device.interfaces for one in denied):
        say(_program(arguments), f"warning: {qube} denies devices such as this one")
    if shown and qube.is_running() and devclass != _PCI:
        _hint(arguments, "attach", qube, [one.name for one in shown])


def _unassign(app: App, arguments: argparse.Namespace) -> None:
    name = None if arguments.name is None else _named(arguments.name)
    qube, devclass = names.find_one(app, arguments), arguments.devclass
    if name is not None and arguments.port:
        name = replace(name, device_id=ANY)
    if name is not None and arguments.device:
        if name.device_id is None:
            name = replace(name, device_id=_found(app, devclass, name).name.device_id)
        name = replace(name, port=ANY)
    stored = [one.name for one in assigned(qube, devclass)]
    chosen = stored if name is None else _chosen_of(app, devclass, name, stored)
    if name is not None and not chosen:
        _plugged_in(app, devclass, name.backend)
        raise errors.DeviceNotAssigned(f"{arguments.name} is not assigned to {qube}")
    for one in chosen:
        change(qube, devclass, "Unassign", one)
    if qube.is_running() and devclass != _PCI:
        held = [one.name for one in attached(qube, devclass)]
        _hint(arguments, "detach", qube, [
            one for one in held if any(_is_meant(gone, one) for gone in chosen)
        ])  # fmt: skip


def _chosen_of(
    app: App, devclass: str, name: DeviceName, stored: Sequence[DeviceName]
) -> list[DeviceName]:
    """The assignment that a name stands for; without an ID that of what is plugged in now."""
    of_port = [one for one in stored if (one.backend, one.port) == (name.backend, name.port)]
    ids = [name.device_id]
    if name.device_id is None:
        shown = _plugged_in(app, devclass, name.backend)
        ids = [one.name.device_id for one in shown if one.name.port == name.port]
    exact = [one for one in of_port if one.device_id in ids]
    return exact if exact or name.device_id is not None else of_port


def _hint(
    arguments: argparse.Namespace, action: str, qube: Qube, devices: Sequence[DeviceName]
) -> None:
    if devices:
        lines = [
            f"\n\t{_program(arguments)} {action} {qube} {one.backend}:{one.port}:{one.device_id}"
            for one in devices
        ]
        say(_program(arguments), f"{qube} runs; to {action} it now, too:{''.join(lines)}")


def _program(arguments: argparse.Namespace) -> str:
    return f"qvm-{arguments.devclass}"


if __name__ == "__main__":
    sys.exit(main())
