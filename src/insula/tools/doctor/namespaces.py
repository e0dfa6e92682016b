"""User namespaces, which jails and the builds of templates are made of."""

import os
import subprocess
from pathlib import Path

from insula.tools.doctor.finding import Finding, sudo, user_name

PROBE_TIMEOUT = 10.0
SETTINGS = Path("/proc/sys")
RANGES = {"uid": Path("/etc/subuid"), "gid": Path("/etc/subgid")}
_JAIL = (
    *("bwrap", "--unshare-user", "--unshare-pid", "--unshare-net", "--disable-userns"),
    *("--ro-bind", "/", "/", "true"),
)
_NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
_OWN = ("unshare", "--user", "--map-root-user", "--mount", "true")
_RANGE = ("unshare", "--user", "--map-root-user", "--map-auto", "true")
# What a setting forbids user namespaces with, and what it has to be. AppArmor's restriction would
# have to be lifted for bwrap, unshare and Python each: whoever can run one of them is free of it.
_FORBIDDING = {
    "kernel.unprivileged_userns_clone": ("0", "1"),
    "kernel.apparmor_restrict_unprivileged_userns": ("1", "0"),
    "user.max_user_namespaces": ("0", "15000"),
}
_FIRST_ID, _IDS = 100_000, 65_536


def user_namespaces() -> Finding:
    """Whether jails can be made, tried and not looked up."""
    subject = "user namespaces"
    tries = [(*_NOBODY, *_JAIL)] if os.geteuid() == 0 else [_JAIL, _OWN]
    for command in tries:
        if (complaint := _complaint(command)) is not None:
            return Finding(subject, "lack", complaint, _to_allow(complaint))
    return Finding(subject, "ok", "an unprivileged jail can be made")


def subordinate_ids() -> Finding:
    """Ranges with which an ordinary user builds templates."""
    subject = "subuid ranges"
    if os.geteuid() == 0:
        return Finding(subject, "ok", "not needed by root")
    name = user_name()
    # Where no user namespace can be made, unshare would wait for ever for one with ranges.
    forbidden = _complaint(_OWN)
    complaint = forbidden or _complaint(_RANGE)
    if complaint is None:
        return Finding(subject, "ok", f"{name} has them")
    first = _first_free()
    words = [
        f"--add-sub{kind}s {first}-{first + _IDS - 1}"
        for kind, path in RANGES.items()
        if not any(owner in (name, str(os.getuid())) for owner, _, _ in _ranges(path))
    ]
    if words:
        line = f"{sudo()}usermod {' '.join(words)} {name}"
        return Finding(subject, "lack", f"{name} has none: templates cannot be built", (line,))
    fix = () if forbidden else (f"{sudo()}apt-get install --reinstall uidmap",)
    return Finding(subject, "lack", f"templates cannot be built: {complaint}", fix)


def _complaint(command: tuple[str, ...]) -> str | None:
    """What a command says when it fails; None when it does not."""
    try:
        done = subprocess.run(command, capture_output=True, timeout=PROBE_TIMEOUT, check=False)
    except (OSError, subprocess.SubprocessError) as error:
        return f"could not be tried: {error}"
    if done.returncode == 0:
        return None
    said = done.stderr.decode(errors="replace").strip().splitlines()
    return said[-1] if said else f"{command[0]} was refused"


def _to_allow(complaint: str) -> tuple[str, ...]:
    if "disable-userns" in complaint:
        return ("# install bubblewrap 0.8 or newer",)
    wrong = [
        f"{name} = {wanted}"
        for name, (forbidding, wanted) in _FORBIDDING.items()
        if _setting(name) == forbidding
    ]
    if not wrong:
        return ()
    file = "/etc/sysctl.d/60-insula.conf"
    lines = "\\n".join(wrong)
    return (f"printf '{lines}\\n' | {sudo()}tee {file}", f"{sudo()}sysctl -p {file}")


def _setting(name: str) -> str | None:
    try:
        return SETTINGS.joinpath(*name.split(".")).read_text().strip()
    except OSError:
        return None


def _ranges(path: Path) -> list[tuple[str, int, int]]:
    """Owner, first id and number of ids of each range in a file of subuid(5)."""
    found = []
    try:
        lines = path.read_text().splitlines()
    except FileNotFoundError:
        return []
    for line in lines:
        match line.strip().split(":"):
            case [owner, first, count] if first.isdecimal() and count.isdecimal():
                found.append((owner, int(first), int(count)))
    return found


def _first_free() -> int:
    """The first id beyond all that somebody has."""
    ends = [first + count for path in RANGES.values() for _, first, count in _ranges(path)]
    return max(_FIRST_ID, *ends) if ends else _FIRST_ID
