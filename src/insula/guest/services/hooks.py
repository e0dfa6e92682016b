"""Services with which a qube's owner is told of sleep and of installation (in-qube.md 4, 4.5)."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

_BEFORE, _AFTER = Path("/etc/qubes/suspend-pre.d"), Path("/etc/qubes/suspend-post.d")
_INSTALLED = Path("/etc/qubes/post-install.d")
_LISTS = (
    Path("/etc/qubes-suspend-module-blacklist"),
    Path("/rw/config/suspend-module-blacklist"),
)
_UNLOADED = Path("/run/qubes/suspend-modules-loaded")
_CUSTOM = Path("/run/qubes-service/custom-persist")
_MODULES = Path("/proc/modules")
_HOOK_TIMEOUT = 50.0  # seconds; dom0 waits for 60


def main(name: str) -> int:
    """Serve one call of a service of this name; its exit code."""
    return _SERVICES[name]()


def run_hooks(directory: Path) -> int:
    """Run DIRECTORY/*.sh in the order of their names; 1 if one of them fails."""
    code = 0
    for path in sorted(directory.glob("*.sh")):
        if not os.access(path, os.X_OK):
            continue
        try:
            subprocess.run([path], stdin=subprocess.DEVNULL, timeout=_HOOK_TIMEOUT, check=True)
        except (OSError, subprocess.SubprocessError) as error:
            print(f"{path}: {error}", file=sys.stderr)
            code = 1
    return code


def unload_modules() -> int:
    """Take out the modules that do not survive sleep, and note which."""
    loaded = {line.partition(" ")[0] for line in _MODULES.read_text().splitlines()}
    unloaded = [
        name
        for name in _listed()
        if name.replace("-", "_") in loaded and _modprobe("-r", name) == 0
    ]
    _UNLOADED.parent.mkdir(exist_ok=True)
    _UNLOADED.write_text("".join(f"{name}\n" for name in unloaded))
    return 0


def load_modules() -> int:
    """Bring back what was taken out."""
    try:
        names = _UNLOADED.read_text().split()
    except FileNotFoundError:
        return 0
    codes = [_modprobe("", name) for name in names]
    _UNLOADED.unlink(missing_ok=True)
    return max(codes, default=0)


def _listed() -> list[str]:
    lists = _LISTS[:1] if _CUSTOM.exists() else _LISTS
    lines: list[str] = []
    for path in lists:
        if path.is_file():
            lines += path.read_text(errors="replace").splitlines()
    words = (line.partition("#")[0].strip() for line in lines)
    return [word for word in words if word and not word.startswith("-")]


def _modprobe(option: str, name: str) -> int:
    words = ["modprobe", *([option] if option else []), "--", name]
    try:
        return min(1, abs(subprocess.run(words, timeout=_HOOK_TIMEOUT, check=False).returncode))
    except (OSError, subprocess.TimeoutExpired) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 1


_SERVICES: dict[str, Callable[[], int]] = {
    "qubes.SuspendPre": unload_modules,
    "qubes.SuspendPost": load_modules,
    "qubes.SuspendPreAll": lambda: run_hooks(_BEFORE),
    "qubes.SuspendPostAll": lambda: run_hooks(_AFTER),
    "qubes.PostInstall": lambda: run_hooks(_INSTALLED),
}
