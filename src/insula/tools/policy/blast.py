"""insula blast: what a qube that was taken over could reach."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from insula.client.app import App
from insula.client.errors import QubesException
from insula.client.policy_reading import places_of, read_system
from insula.client.qube import Qube
from insula.protocol.errors import ReportableError
from insula.protocol.policy.loading import load
from insula.protocol.policy.policy import Policy
from insula.protocol.policy.reach import CLIPBOARD, FILES, Relations, Step, chain, steps_from
from insula.protocol.policy.system import SystemInfo
from insula.protocol.policy.tokens import DISPOSABLE_OF
from insula.qrexec.policy_store import PolicyReader
from insula.tools.command import UsageError, print_json
from insula.tools.policy.picture import draw

_NO_WAY = 1


def run(arguments: argparse.Namespace) -> int:
    """Show what is reached; 1 where no chain leads."""
    system, _ = read_system(arguments.system)
    policy = Policy(load(PolicyReader(), places_of(arguments.policy_dir)))
    relations = Relations() if arguments.system else _relations()
    ends = (arguments.source, arguments.target)
    if any(ends):
        if not all(ends) or arguments.qube:
            raise UsageError("--from and --to go together, without QUBE")
        return _show_chain(policy, system, relations, arguments)
    if not arguments.qube:
        raise UsageError("a qube is needed, or --from and --to")
    _known(system, arguments.qube)
    steps = steps_from(policy, system, relations, arguments.qube)
    if arguments.svg is not None:
        _write(arguments.svg, draw(arguments.qube, steps))
    if arguments.json:
        print_json(_as_json(arguments.qube, steps, relations))
    elif arguments.svg is None:
        _print(arguments.qube, steps, relations)
    return 0


def _known(system: SystemInfo, *names: str) -> None:
    for name in names:
        if system.find(name.removeprefix(DISPOSABLE_OF)) is None:
            raise ReportableError(f"there is no qube {name}")


def _relations() -> Relations:
    """What the running system says of its qubes."""
    app = App(cache=True)
    templates: dict[str, str] = {}
    netvms: dict[str, str] = {}
    devices: dict[str, tuple[str, ...]] = {}
    for qube in app.domains:
        if backends := _backends(qube):
            devices[qube.name] = backends
        for name, found in (("template", templates), ("netvm", netvms)):
            try:
                value = getattr(qube, name)
            except (AttributeError, QubesException):
                continue  # Its class has none.
            if value is not None:
                found[qube.name] = str(value)
    return Relations(templates=templates, netvms=netvms, devices=devices)


def _backends(qube: Qube) -> tuple[str, ...]:
    """Whose devices a qube has, or is to have."""
    try:
        given = [
            one.name.backend
            for devclass in qube.devices
            for one in (*qube.devices[devclass].attached(), *qube.devices[devclass].assigned())
        ]
    except QubesException:
        return ()  # Its class has none.
    return tuple(dict.fromkeys(given))


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, "utf-8")
    except OSError as error:
        raise ReportableError(f"{path} cannot be written: {error.strerror}") from None


def _show_chain(
    policy: Policy, system: SystemInfo, relations: Relations, arguments: argparse.Namespace
) -> int:
    _known(system, arguments.source, arguments.target)
    found = chain(policy, system, relations, arguments.source, arguments.target)
    if arguments.json:
        steps = None if found is None else [_step(one) for one in found]
        print_json({"from": arguments.source, "to": arguments.target, "chain": steps})
    elif found is None:
        print(f"{arguments.source} cannot reach {arguments.target}")
    else:
        asked = sum(one.asked for one in found)
        print(f"{arguments.source} reaches {arguments.target}, {_confirmations(asked)}:")
        for one in found:
            print(f"  {one.source} -> {one.target}: {one.why}")
    return _NO_WAY if found is None else 0


def _confirmations(count: int) -> str:
    return {0: "without a confirmation", 1: "with one confirmation"}.get(
        count, f"with {count} confirmations"
    )


def _step(step: Step) -> dict[str, Any]:
    rule = step.rule
    return {
        "from": step.source,
        "to": step.target,
        "how": step.how,
        "service": step.called or None,
        "asked": step.asked,
        "rule": None if rule is None else {"file": rule.file, "line": rule.line},
    }


def _as_json(qube: str, steps: Sequence[Step], relations: Relations) -> dict[str, Any]:
    calls = [one for one in steps if one.how == "call"]
    disposables = {one.target for one in calls if one.target.startswith(DISPOSABLE_OF)}
    return {
        "qube": qube,
        "calls": [_step(one) for one in calls],
        "files": _by_confirmation(calls, FILES),
        "clipboard": _by_confirmation(calls, CLIPBOARD),
        "disposables": sorted(disposables),
        "templates": [one.target for one in steps if one.how == "template"],
        "network": {
            "through": relations.netvms.get(qube),
            "for": [one.target for one in steps if one.how == "network"],
        },
        "devices": [one.target for one in steps if one.how == "devices"],
    }


def _by_confirmation(calls: Sequence[Step], services: Sequence[str]) -> dict[str, list[str]]:
    found = [one for one in calls if one.called.partition("+")[0] in services]
    free = sorted({one.target for one in found if not one.asked})
    return {"without": free, "with": sorted({one.target for one in found if one.asked})}


def _print(qube: str, steps: Sequence[Step], relations: Relations) -> None:
    print(qube)
    groups: list[tuple[str, list[str]]] = [
        ("is what these are made from", [one.target for one in steps if one.how == "template"]),
        ("carries the network of", [one.target for one in steps if one.how == "network"]),
        ("gives devices to", [one.target for one in steps if one.how == "devices"]),
    ]
    netvm = relations.netvms.get(qube)
    groups.append(("reaches the network through", [netvm] if netvm else []))
    for asked, title in ((False, "may call without a confirmation"), (True, "may ask to call")):
        calls = [one for one in steps if one.how == "call" and one.asked is asked]
        groups.append((title, _by_target(calls)))
    shown = [(title, lines) for title, lines in groups if lines]
    for number, (title, lines) in enumerate(shown):
        last = number == len(shown) - 1
        print(f"{'└' if last else '├'}─ {title}")
        for count, line in enumerate(lines):
            edge = "└" if count == len(lines) - 1 else "├"
            print(f"{' ' if last else '│'}  {edge}─ {line}")


def _by_target(calls: Sequence[Step]) -> list[str]:
    targets: dict[str, list[str]] = {}
    for one in calls:
        targets.setdefault(one.target, []).append(one.called)
    return [f"{target}: {', '.join(dict.fromkeys(names))}" for target, names in targets.items()]
