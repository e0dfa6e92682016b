"""What this host can do for Insula, and the exact lines to run for what it lacks."""

import json
import os
import pwd
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

GIB = 1 << 30
DISK_NEEDED = 12 * GIB
MEMORY_NEEDED = 4 * GIB
KVM_PROBE_TIMEOUT = 60.0
PROBE_TIMEOUT = 10.0
PROGRAMS = {
    "qemu-system-x86_64": "qemu-system-x86",
    "qemu-img": "qemu-utils",
    "bwrap": "bubblewrap",
    "mmdebstrap": "mmdebstrap",
    "newuidmap": "uidmap",
    "mke2fs": "e2fsprogs",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One look at the host. level: ok, warning (works, with a loss) or lack. fix: lines to run."""

    subject: str
    level: str
    text: str
    fix: tuple[str, ...] = ()


def programs() -> Finding:
    """The programs that are called."""
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    missing = {name for name in PROGRAMS if shutil.which(name, path=path) is None}
    if not missing:
        return Finding("programs", "ok", "all are installed")
    packages = " ".join(sorted({PROGRAMS[name] for name in missing}))
    return Finding(
        "programs",
        "lack",
        f"not installed: {', '.join(sorted(missing))}",
        (f"sudo apt-get install --no-install-recommends {packages}",),
    )


def kvm() -> Finding:
    """KVM, judged by a tiny guest that has to come to its end."""
    command = [sys.executable, "-m", "insula.daemon.engine.qemu.detect"]
    try:
        done = subprocess.run(command, capture_output=True, timeout=KVM_PROBE_TIMEOUT, check=True)
        verdict = json.loads(done.stdout)
    except (subprocess.SubprocessError, ValueError, OSError) as error:
        return Finding("kvm", "warning", f"could not be tried: {error}")
    if verdict["usable"]:
        return Finding("kvm", "ok", verdict["reason"])
    fix: tuple[str, ...] = ()
    if "may not be opened" in verdict["reason"]:
        fix = (f"sudo usermod -aG kvm {user_name()}", "then log out and in again")
    elif "does not exist" in verdict["reason"]:
        fix = (
            "enable virtualisation in the firmware",
            "sudo modprobe kvm_intel || sudo modprobe kvm_amd",
        )
    text = f"{verdict['reason']}; software emulation is used, which is no security boundary"
    return Finding("kvm", "warning", text, fix)


def xen() -> Finding:
    """Whether this is a Xen dom0."""
    capabilities = Path("/proc/xen/capabilities")
    if capabilities.exists() and "control_d" in capabilities.read_text():
        return Finding("xen", "ok", "this is a Xen dom0")
    return Finding("xen", "ok", "not under Xen (not needed)")


def user_namespaces() -> Finding:
    """What every jail is made of, tried and not looked up."""
    command = ["bwrap", "--unshare-all", "--ro-bind", "/", "/", "/bin/true"]
    if os.geteuid() == 0 and shutil.which("setpriv"):
        command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *command]
    try:
        done = subprocess.run(command, capture_output=True, timeout=PROBE_TIMEOUT, check=False)
    except (OSError, subprocess.SubprocessError) as error:
        return Finding("user namespaces", "lack", f"could not be tried: {error}")
    if done.returncode == 0:
        return Finding("user namespaces", "ok", "an unprivileged jail can be made")
    restricted = Path("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")
    clone = Path("/proc/sys/kernel/unprivileged_userns_clone")
    fix: tuple[str, ...] = ()
    if restricted.exists() and restricted.read_text().strip() == "1":
        fix = (
            "printf 'abi <abi/4.0>,\\ninclude <tunables/global>\\n"
            "profile bwrap /usr/bin/bwrap flags=(unconfined) { userns, }\\n'"
            " | sudo tee /etc/apparmor.d/bwrap",
            "sudo apparmor_parser -r /etc/apparmor.d/bwrap",
        )
    elif clone.exists() and clone.read_text().strip() == "0":
        fix = ("sudo sysctl -w kernel.unprivileged_userns_clone=1",)
    said = done.stderr.decode(errors="replace").strip().splitlines()
    return Finding("user namespaces", "lack", said[-1] if said else "refused", fix)


def subordinate_ids() -> Finding:
    """Ranges with which an ordinary user builds templates."""
    if os.geteuid() == 0:
        return Finding("subuid ranges", "ok", "not needed by root")
    name = user_name()
    ranges = [
        any(
            line.startswith((f"{name}:", f"{os.getuid()}:"))
            for line in path.read_text().splitlines()
        )
        for path in (Path("/etc/subuid"), Path("/etc/subgid"))
        if path.exists()
    ]
    if len(ranges) == 2 and all(ranges):
        return Finding("subuid ranges", "ok", f"{name} has them")
    fix = f"sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {name}"
    return Finding("subuid ranges", "lack", f"{name} has none; templates cannot be built", (fix,))


def lingering() -> Finding:
    """Whether the person's processes outlive their last session."""
    if os.geteuid() == 0:
        return Finding("lingering", "ok", "not needed by root")
    name = user_name()
    if Path("/var/lib/systemd/linger", name).exists():
        return Finding("lingering", "ok", f"on for {name}")
    text = "off: qubes end with the last session of this user"
    return Finding("lingering", "warning", text, (f"sudo loginctl enable-linger {name}",))


def swap() -> Finding:
    """Swap that is not encrypted keeps qubes' memory on disk."""
    lines = Path("/proc/swaps").read_text().splitlines()[1:]
    devices = [line.split()[0] for line in lines if line.split()]
    plain = [device for device in devices if not _is_encrypted(device)]
    if not devices:
        return Finding("swap", "ok", "off")
    if not plain:
        return Finding("swap", "ok", "encrypted or in memory")
    text = f"not encrypted: {', '.join(plain)}; memory of qubes may come to lie on disk"
    return Finding("swap", "lack", text, (f"sudo swapoff {' '.join(plain)}",))


def cgroups() -> Finding:
    """Whether limits can be set for each qube."""
    if not Path("/sys/fs/cgroup/cgroup.controllers").exists():
        text = "no unified cgroup hierarchy: limits are set by rlimit and nice alone"
        return Finding("cgroups", "warning", text)
    own = Path("/proc/self/cgroup").read_text().strip().rsplit(":", 1)[-1]
    folder = Path("/sys/fs/cgroup") / own.lstrip("/")
    if os.access(folder / "cgroup.procs", os.W_OK):
        return Finding("cgroups", "ok", "delegated")
    text = "not delegated: limits are set by rlimit and nice alone"
    return Finding(
        "cgroups", "warning", text, ("systemctl --user start insula (the user unit delegates)",)
    )


def display() -> Finding:
    """An X server to show windows on."""
    name = os.environ.get("DISPLAY")
    if not name:
        return Finding("display", "warning", "DISPLAY is not set: windows are shown nowhere")
    if name.startswith(":"):
        number = name[1:].split(".")[0]
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(PROBE_TIMEOUT)
            try:
                probe.connect(f"/tmp/.X11-unix/X{number}")
            except OSError as error:
                return Finding("display", "lack", f"{name} does not answer: {error}")
        return Finding("display", "ok", f"{name} answers")
    return Finding("display", "lack", f"{name} is not on this machine")


def disk() -> Finding:
    """Room for templates and qubes."""
    home = instance_home()
    place = home
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    text = f"{free / GIB:.1f} GiB free at {home}"
    if free < DISK_NEEDED:
        return Finding("disk", "lack", text, (f"free {(DISK_NEEDED - free) / GIB:.1f} GiB there",))
    return Finding("disk", "ok", text)


def memory() -> Finding:
    """Memory for a few qubes."""
    fields = dict(
        line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines() if ":" in line
    )
    total = int(fields["MemTotal"].split()[0]) * 1024
    available = int(fields["MemAvailable"].split()[0]) * 1024
    text = f"{available / GIB:.1f} of {total / GIB:.1f} GiB available"
    level = "ok" if available >= MEMORY_NEEDED else "warning"
    return Finding("memory", level, text)


CHECKS: tuple[Callable[[], Finding], ...] = (
    programs,
    kvm,
    xen,
    user_namespaces,
    subordinate_ids,
    lingering,
    swap,
    cgroups,
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


def user_name() -> str:
    """The login name of whoever runs this."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def instance_home() -> Path:
    """Where this instance keeps its state."""
    if given := os.environ.get("INSULA_HOME"):
        return Path(given)
    base = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(base, "insula")


def _is_encrypted(device: str) -> bool:
    """Whether a swap device lies in memory or on a dm-crypt device."""
    name = Path(device).resolve().name
    if name.startswith("zram"):
        return True
    uuid = Path("/sys/class/block", name, "dm/uuid")
    return uuid.exists() and uuid.read_text().startswith("CRYPT-")
