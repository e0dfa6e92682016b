"""What qubes can run on: KVM, Xen."""

import grp
import json
import os
import pwd
import subprocess
import sys
from pathlib import Path

from insula.tools.doctor.finding import Finding, sudo, user_name

KVM_PROBE_TIMEOUT = 60.0
DEVICE = Path("/dev/kvm")
_GROUP = "kvm"
_MODULES = {"vmx": "kvm_intel", "svm": "kvm_amd"}  # by the processor's flag
_GROUP_MAY = 0o060


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
    text = f"{verdict['reason']}; software emulation is used, which is no security boundary"
    fix = _to_open() if DEVICE.exists() else _to_appear()
    return Finding("kvm", "warning", text, fix)


def xen() -> Finding:
    """Whether this is a Xen dom0."""
    capabilities = Path("/proc/xen/capabilities")
    if capabilities.exists() and "control_d" in capabilities.read_text():
        return Finding("xen", "ok", "this is a Xen dom0")
    return Finding("xen", "ok", "not under Xen (not needed)")


def _to_appear() -> tuple[str, ...]:
    """Lines that make /dev/kvm appear."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    for flag, module in _MODULES.items():
        if flag in flags:
            return (f"{sudo()}modprobe {module}",)
    return ("# enable virtualisation in the firmware, or for this machine at its own host",)


def _to_open() -> tuple[str, ...]:
    """Lines after which this user's machines may open /dev/kvm, as far as they may not."""
    found = DEVICE.stat()
    lines = []
    if found.st_gid != 0 and found.st_mode & _GROUP_MAY == _GROUP_MAY:
        group = _name_of(found.st_gid)
    elif os.geteuid() != 0 and os.access(DEVICE, os.R_OK | os.W_OK):
        return ()
    else:
        group = _GROUP
        if not _exists(group):
            lines.append(f"{sudo()}groupadd --system {group}")
        lines += [f"{sudo()}chgrp {group} {DEVICE}", f"{sudo()}chmod 660 {DEVICE}"]
    if os.geteuid() != 0:
        if not _is_member(group):
            lines.append(f"{sudo()}usermod --append --groups {group} {user_name()}")
        if not _exists(group) or grp.getgrnam(group).gr_gid not in (*os.getgroups(), os.getgid()):
            lines.append("# then log out and in again")
    return tuple(lines)


def _name_of(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def _exists(group: str) -> bool:
    try:
        grp.getgrnam(group)
    except KeyError:
        return False
    return True


def _is_member(group: str) -> bool:
    """Whether this user would be in a group after logging in."""
    name = user_name()
    try:
        gid = grp.getgrnam(group).gr_gid
        return gid in os.getgrouplist(name, pwd.getpwnam(name).pw_gid)
    except KeyError:
        return False
