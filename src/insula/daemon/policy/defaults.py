"""The policy that a new instance begins with (qrexec-policy.md section 10).

A file that nobody changed since it was put there is replaced when a newer one comes with Insula;
one that was changed or removed is left so.
"""

import hashlib
import json
import logging
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from insula.protocol.policy.errors import PolicyError

_MARKER = ".shipped.json"
_USERS = "30-user.policy"
_USERS_TEXT = b"# Your own rules. The first rule that matches a call decides.\n"

log = logging.getLogger(__name__)


def put_in_place(directory: Path) -> None:
    """Write what a policy directory lacks of the default policy.

    Raises:
        PolicyError: it cannot be written.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        shipped = _shipped(directory)
        now = {}
        for name, content in _defaults():
            now[name] = _digest(content)
            path = directory / name
            there = _digest(path.read_bytes()) if path.is_file() else None
            if there != now[name] and shipped.get(name) == there:
                path.parent.mkdir(mode=0o700, exist_ok=True)
                path.write_bytes(content)
                path.chmod(0o600)
        if now != shipped:
            (directory / _MARKER).write_text(json.dumps(now, indent=1, sort_keys=True))
    except OSError as error:
        raise PolicyError(f"{directory} cannot be given its default policy: {error}") from error


def _defaults() -> list[tuple[str, bytes]]:
    top = files(__package__) / "defaults"
    return [(_USERS, _USERS_TEXT), *_below(top, "")]


def _below(place: Traversable, prefix: str) -> list[tuple[str, bytes]]:
    found: list[tuple[str, bytes]] = []
    for entry in sorted(place.iterdir(), key=lambda one: one.name):
        if entry.is_dir():
            found += _below(entry, f"{prefix}{entry.name}/")
        else:
            found.append((prefix + entry.name, entry.read_bytes()))
    return found


def _shipped(directory: Path) -> dict[str, str]:
    """What was put there, by name."""
    try:
        loaded = json.loads((directory / _MARKER).read_text())
        return {str(name): str(digest) for name, digest in loaded.items()}
    except FileNotFoundError:
        return {}
    except (ValueError, AttributeError) as error:
        log.warning("not known what was shipped", extra={"why": str(error)})
        return {}


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
