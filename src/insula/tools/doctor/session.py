"""What a person's login gives: sockets' place, lingering, cgroups, a display."""

import os
from pathlib import Path

from insula.client import instance
from insula.desktop.xdisplay import DisplayError, Greeted, parse
from insula.protocol.errors import ReportableError
from insula.tools.doctor.finding import Finding, can_be_made, runs_systemd, sudo, user_name

LINGERING = Path("/var/lib/systemd/linger")
CGROUPS = Path("/sys/fs/cgroup")
X_SOCKETS = Path("/tmp/.X11-unix")


def sockets() -> Finding:
    """Whether there is a place for the instance's sockets."""
    try:
        run = instance.run()
    except ReportableError as error:
        return Finding("sockets", "lack", str(error), (f"# {error.hint}",))
    if can_be_made(run):
        return Finding("sockets", "ok", f"in {run}")
    text = f"{run} cannot be made"
    uid = os.getuid()
    if run.parent != Path(f"/run/user/{uid}"):
        return Finding("sockets", "lack", text, ("# set INSULA_RUN to a directory of your own",))
    if runs_systemd():
        return Finding("sockets", "lack", text, (f"{sudo()}loginctl enable-linger {user_name()}",))
    fix = f"{sudo()}install --directory --mode=700 --owner={uid} --group={os.getgid()} {run.parent}"
    return Finding("sockets", "lack", text, (fix,))


def lingering() -> Finding:
    """Whether what a login gave outlives its end."""
    if os.geteuid() == 0:
        return Finding("lingering", "ok", "not needed by root")
    if not runs_systemd():
        return Finding("lingering", "ok", "not needed without systemd")
    name = user_name()
    if (LINGERING / name).exists():
        return Finding("lingering", "ok", f"on for {name}")
    text = "off: sockets of qubes vanish when the last session of this user ends"
    return Finding("lingering", "warning", text, (f"{sudo()}loginctl enable-linger {name}",))


def cgroups() -> Finding:
    """Whether limits can be set for each qube."""
    subject, alone = "cgroups", "limits are set by rlimit alone"
    if not (CGROUPS / "cgroup.controllers").exists():
        text = f"no unified hierarchy: {alone}"
        fix = ("# boot with systemd.unified_cgroup_hierarchy=1",) if runs_systemd() else ()
        return Finding(subject, "warning", text, fix)
    own = Path("/proc/self/cgroup").read_text().strip().rsplit(":", 1)[-1]
    uid = os.getuid()
    manager = f"user.slice/user-{uid}.slice/user@{uid}.service"
    for group in (own.lstrip("/"), manager):
        if os.access(CGROUPS / group / "cgroup.procs", os.W_OK):
            return Finding(subject, "ok", f"delegated; so far, {alone}")
    fix = (f"{sudo()}loginctl enable-linger {user_name()}",) if runs_systemd() else ()
    return Finding(subject, "warning", f"not delegated: {alone}", fix)


def display() -> Finding:
    """An X server to show windows on, that takes this user's programs."""
    text = os.environ.get("DISPLAY")
    if not text:
        found = "DISPLAY is not set: windows are shown nowhere"
        return Finding("display", "warning", found, _to_have_one())
    try:
        Greeted(parse(text)).connection.close()
    except DisplayError as error:
        fix = (f"# {error.hint}",) if error.hint else ()
        return Finding("display", "lack", str(error), fix)
    return Finding("display", "ok", f"{text} answers")


def _to_have_one() -> tuple[str, ...]:
    """Lines after which there is a display: for one that runs already, or one for Wayland."""
    for socket in sorted(X_SOCKETS.glob("X[0-9]*")):
        name = f":{socket.name[1:]}"
        try:
            Greeted(parse(name)).connection.close()
        except (DisplayError, OSError):
            continue
        return (f"export DISPLAY={name}",)
    if os.environ.get("WAYLAND_DISPLAY"):
        return (f"{sudo()}apt-get install --no-install-recommends xwayland",)
    return ("# run it in a terminal of your desktop",)
