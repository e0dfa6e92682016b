"""Every look at the host, and how it is told."""

import json
from collections.abc import Callable
from dataclasses import asdict

from insula.tools.doctor.engines import kvm, xen
from insula.tools.doctor.finding import Finding
from insula.tools.doctor.namespaces import subordinate_ids, user_namespaces
from insula.tools.doctor.programs import programs
from insula.tools.doctor.resources import disk, memory
from insula.tools.doctor.session import cgroups, display, lingering, sockets
from insula.tools.doctor.swap import swap
from insula.tools.doctor.uplinks import uplink

CHECKS: tuple[Callable[[], Finding], ...] = (
    programs,
    kvm,
    xen,
    user_namespaces,
    subordinate_ids,
    sockets,
    lingering,
    swap,
    cgroups,
    uplink,
    display,
    disk,
    memory,
)


def examine() -> list[Finding]:
    """Every look, in order; one that fails is a finding of its own."""
    found = []
    for check in CHECKS:
        try:
            found.append(check())
        except (OSError, ValueError, KeyError, IndexError) as error:
            found.append(Finding(check.__name__, "warning", f"could not be looked at: {error}"))
    return found


def report(*, as_json: bool) -> int:
    """Print the findings; exit code 1 when something is lacking."""
    found = examine()
    if as_json:
        print(json.dumps([asdict(finding) for finding in found], indent=2))
    else:
        width = max(len(finding.subject) for finding in found)
        for finding in found:
            print(f"{finding.level:<8} {finding.subject:<{width}}  {finding.text}")
            for line in finding.fix:
                print(f"{'':<{width + 11}}{line}")
    return 1 if any(finding.level == "lack" for finding in found) else 0
