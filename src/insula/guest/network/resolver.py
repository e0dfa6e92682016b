"""/etc/resolv.conf: the name servers that a qube asks (network-firewall.md section 3)."""

import errno
import os
import subprocess
from collections.abc import Iterable
from pathlib import Path

from insula.guest.network.addresses import Address
from insula.guest.network.places import Places

_TIMEOUT = 20.0  # seconds


def text(servers: Iterable[Address]) -> str:
    """The file's content."""
    return "".join(f"nameserver {server}\n" for server in servers)


def write(path: Path, content: str) -> bool:
    """Have the file be this, in place of a link if it is one; whether it changed.

    Raises:
        OSError: it cannot be written.
    """
    if not path.is_symlink() and _read(path) == content:
        return False
    new = path.with_name(f".{path.name}.insula")
    new.write_text(content)
    new.chmod(0o644)
    try:
        new.rename(path)
    except OSError as error:
        new.unlink()
        if error.errno != errno.EBUSY:  # It is a mount point, as a persistent file is.
            raise
        path.write_text(content)
    return True


def tell_resolved(name: str, servers: Iterable[Address], places: Places) -> None:
    """Have systemd-resolved ask these by a card, where it runs."""
    if not places.resolved.exists():
        return
    try:
        subprocess.run(
            [places.resolvectl, "dns", name, *map(str, servers)],
            stdin=subprocess.DEVNULL,
            timeout=_TIMEOUT,
            check=True,
        )
    except (OSError, subprocess.SubprocessError) as error:
        print(f"systemd-resolved: {error}", flush=True)


def _read(path: Path) -> str | None:
    try:
        return os.fsdecode(path.read_bytes())
    except OSError:
        return None
