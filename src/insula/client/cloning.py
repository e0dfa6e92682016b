"""A copy of a qube, made by its parts (admin-api.md section 8.5): no single call does that."""

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

from insula.client import admin, errors
from insula.client.app import App
from insula.client.qube import Qube
from insula.protocol.errors import ReportableError

_NOT_COPIED = frozenset(("name", "qid", "template", "label", "uuid", "installed_by_rpm"))
_WITH_TEMPLATE = ("AppVM", "DispVM")
_PRELOADING, _PRELOADING_COPIED = "preload-dispvm", "preload-dispvm-max"
_CREATED_BY = "created-by-"
_FRONTEND = re.compile(r" ?frontend_domain='[^']*'")
_UNKNOWN_INTERFACE, _ENCODED_UNKNOWN = "?******", "_______"

Complaint = Callable[[str], object]
Step = Callable[[], object]


def clone_qube(
    app: App,
    source: Qube,
    name: str,
    *,
    klass: str | None = None,
    label: str | None = None,
    pool: str = "",
    pools: Mapping[str, str] | None = None,
    ignore_volumes: Sequence[str] = (),
    complain: Complaint | None = None,
) -> Qube:
    """Make a qube like another. When something fails, the copy is removed again.

    klass, label: default the source's. pool: for all volumes; pools: for single ones; without
    either each goes where the source has it. complain: told what of the metadata could not be
    copied, instead of failing.

    Raises:
        QubesException: the daemon refuses a part.
    """
    klass = klass or source.klass
    copied = _copied_volumes(source, ignore_volumes)
    if not pool and not pools:
        pools = _own_pools(app, copied)
    fields = {"name": name, "label": label or source.get("label").value}
    if pool:
        fields["pool"] = pool
    fields |= {f"pool:{volume}": where for volume, where in (pools or {}).items()}
    _create(source, klass, fields)
    copy = app.domains.known(name)
    try:
        for copy_part in (_properties, _tags, _features, _notes, _firewall):
            _try(copy_part(source, copy), complain)
        _menus(source, copy)
        for volume in copied:
            token = source.call("admin.vm.volume.CloneFrom", volume)
            copy.call("admin.vm.volume.CloneTo", volume, token)
        _try(_devices(source, copy), complain)
    except BaseException:
        _remove(copy)
        raise
    return copy


def _try(steps: Iterator[Step], complain: Complaint | None) -> None:
    """Take all steps; where somebody hears complaints, one that fails keeps no other from it."""
    while True:
        try:
            step = next(steps, None)  # Looking at the source may be refused as well.
            if step is None:
                return
            step()
        except errors.DaemonNotRunningError:
            raise
        except errors.QubesException as error:
            if complain is None:
                raise
            complain(str(error))


def _remove(copy: Qube) -> None:
    try:
        copy.call("admin.vm.Remove")
    except errors.QubesException as error:
        text = f"{copy} could not be copied to, and not be removed again: {error}"
        raise ReportableError(text) from error


def _copied_volumes(source: Qube, ignored: Sequence[str]) -> dict[str, dict[str, str]]:
    infos = ((name, source.volumes.named(name).info()) for name in source.volumes)
    return {
        volume: info
        for volume, info in infos
        if info.get("save_on_stop") == "True" and volume not in ignored
    }


def _own_pools(app: App, volumes: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """The source's pools, where they are not the default ones."""
    properties = app.get_all()
    found = {}
    for volume, info in volumes.items():
        default = properties.get(f"default_pool_{volume}") or properties.get("default_pool")
        if default is not None and info["pool"] != default.value:
            found[volume] = info["pool"]
    return found


def _create(source: Qube, klass: str, fields: Mapping[str, str]) -> None:
    template = source.get_all().get("template")
    argument = template.value if template is not None and klass in _WITH_TEMPLATE else ""
    method = "CreateInPool" if len(fields) > 2 else "Create"
    payload = " ".join(f"{key}={value}" for key, value in fields.items()).encode()
    admin.ask_dom0(f"admin.vm.{method}.{klass}", argument, payload)


def _properties(source: Qube, copy: Qube) -> Iterator[Step]:
    known = set(copy.property_names())
    for name, answer in source.get_all().items():
        if not answer.is_default and name in known - _NOT_COPIED:
            yield partial(copy.set, name, answer.value)


def _tags(source: Qube, copy: Qube) -> Iterator[Step]:
    for tag in source.tags:
        if not tag.startswith(_CREATED_BY):
            yield partial(copy.tags.add, tag)


def _features(source: Qube, copy: Qube) -> Iterator[Step]:
    for name, value in source.features.items():
        if not name.startswith(_PRELOADING) or name == _PRELOADING_COPIED:
            yield partial(copy.features.__setitem__, name, value)


def _notes(source: Qube, copy: Qube) -> Iterator[Step]:
    if notes := source.call("admin.vm.notes.Get"):
        yield partial(copy.call, "admin.vm.notes.Set", payload=notes)


def _firewall(source: Qube, copy: Qube) -> Iterator[Step]:
    rules = source.call("admin.vm.firewall.Get")
    if rules != copy.call("admin.vm.firewall.Get"):
        yield partial(copy.call, "admin.vm.firewall.Set", payload=rules)


def _menus(source: Qube, copy: Qube) -> None:
    """Have the application menus of the copy made, where there is a program for that."""
    program = shutil.which("qvm-appmenus")
    if program is not None:
        words = [program, "--init", "--update", "--source", source.name, copy.name]
        subprocess.run(words, check=False)


def _devices(source: Qube, copy: Qube) -> Iterator[Step]:
    for klass in admin.ask_dom0("admin.deviceclass.List").decode().split():
        assigned = source.call(f"admin.vm.device.{klass}.Assigned").decode()
        for argument, payload in _assignments(assigned):
            method = f"admin.vm.device.{klass}.Assign"
            yield partial(copy.call, method, argument, payload.encode())


def _assignments(text: str) -> Iterator[tuple[str, str]]:
    """Argument and payload with which each assignment of a list is made for another qube."""
    for line in text.split("\n"):
        device, space, assignment = line.partition(" ")
        if not space:
            continue
        port, _, identity = device.partition(":")
        backend, _, port_id = port.partition("+")
        identity = identity.replace(_UNKNOWN_INTERFACE, _ENCODED_UNKNOWN).replace(":", "+")
        parts = [backend, "_" if port_id == "*" else port_id, "_" if identity == "*" else identity]
        yield "+".join(part for part in parts if part), _FRONTEND.sub("", assignment).strip()
