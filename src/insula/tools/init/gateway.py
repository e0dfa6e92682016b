"""Making the gateway what it is: its rules and Tor's configuration, as files in its /rw/config."""

import io
import tarfile
from collections.abc import Callable
from importlib.resources import files
from importlib.resources.abc import Traversable

from insula.client import errors
from insula.client.app import App
from insula.protocol.errors import ReportableError
from insula.tools.init.record import Record
from insula.tools.init.roles import GATEWAY

_RECORD = "tor-gateway"
_DIRECTORY = "/rw/config"
_USER = "root"
# What is there already is somebody's, who may have changed it.
_UNPACK = "mkdir -p {0} && exec tar --extract --skip-old-files --no-same-owner --directory {0}"
_HAS_TOR = "test -x /usr/sbin/tor || test -x /usr/bin/tor"
Tell = Callable[[str], object]


def has_rules(app: App, tell: Tell, *, anew: bool) -> bool:
    """Give the gateway its files, unless it once got them; whether it has them.

    anew: it was just made, whatever another of its name had.

    Raises:
        DaemonNotRunningError: the daemon is gone.
    """
    record = Record(app)
    if not record.has(GATEWAY):
        tell(f"{GATEWAY}: is not ours: see to it that it lets nothing pass but through Tor")
        return True
    if anew:
        record.end(_RECORD, made=False)
    if record.has(_RECORD):
        return True
    try:
        _furnish(app, tell)
    except errors.DaemonNotRunningError:
        raise
    except ReportableError as error:
        tell(f"{GATEWAY}: its files could not be put there: {error}")
        return False
    record.end(_RECORD, made=True)
    return True


def _furnish(app: App, tell: Tell) -> None:
    gateway = app.domains[GATEWAY]
    gateway.start()
    gateway.run(_UNPACK.format(_DIRECTORY), archive(), user=_USER)
    tell(f"{GATEWAY}: has its rules and Tor's configuration in {_DIRECTORY}")
    try:
        gateway.run(_HAS_TOR, user=_USER)
    except errors.ServiceFailedError:
        tell(f"{GATEWAY}: lets nothing out before {gateway.template} has Debian's package tor")
    # The rules are loaded when it starts, before it has a network.
    gateway.shutdown(wait=True)


def archive() -> bytes:
    """The files as a tar archive; scripts, whose names end in .rc, can be run."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for path, content in _files(files("insula.tools.init") / "files" / "gateway", ""):
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = len(content), 0o755 if path.endswith(".rc") else 0o644
            tar.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def _files(directory: Traversable, prefix: str) -> list[tuple[str, bytes]]:
    found: list[tuple[str, bytes]] = []
    for one in sorted(directory.iterdir(), key=lambda entry: entry.name):
        if one.is_dir():
            found += _files(one, f"{prefix}{one.name}/")
        else:
            found.append((f"{prefix}{one.name}", one.read_bytes()))
    return found
