"""Pools as they are asked for: options of admin.pool.Add (admin-api.md section 4.6). No I/O."""

import re
from collections.abc import Collection, Mapping
from pathlib import PurePath

from insula.daemon.model.errors import RefusedError, RefusedSilentlyError, ValueRefusedError
from insula.daemon.model.pools import DRIVERS, ELSEWHERE, POOL_NAME, Pool
from insula.daemon.model.properties.parsing import truth

_WHOLE = re.compile(r"0|-?[1-9][0-9]{0,17}", re.ASCII)


def parse_pool(driver: str, text: str, known: Collection[str], mark: str) -> Pool:
    """A new pool of `key=value` lines, as admin.pool.Add takes them.

    Raises:
        RefusedSilentlyError: they are not of that form, or the name is none or taken.
        ReportableError: driver or options are none that there are.
    """
    if driver in ELSEWHERE:
        raise RefusedError(
            f"Driver {driver} is not offered here",
            f"Put a file system on that storage, and use one of: {', '.join(DRIVERS)}",
        )
    if driver not in DRIVERS:
        raise RefusedError(f"No such driver: {driver!r}", f"There are {', '.join(DRIVERS)}")
    options = _options(text)
    name = options.pop("name", "")
    if POOL_NAME.fullmatch(name) is None or name in known:
        raise RefusedSilentlyError(f"not the name of a new pool: {name!r}")
    offered = DRIVERS[driver]
    for option in options:
        if option not in offered.options:
            raise RefusedError(
                f"Driver {driver} has no option {option!r}",
                f"It has {', '.join(offered.options)}",
            )
    for option in sorted(offered.mandatory - options.keys()):
        raise RefusedError(
            f"Driver {driver} needs the option {option}", f"Add: --option {option}=VALUE"
        )
    return Pool(
        name=name,
        driver=driver,
        directory=_directory(options["dir_path"]),
        revisions_to_keep=_revisions(driver, options.get("revisions_to_keep", "1")),
        ephemeral_volatile=_boolean("ephemeral_volatile", options),
        setup_check=_boolean("setup_check", options),
        mark=mark,
    )


def check_revisions(driver: str, count: int) -> int:
    """How many revisions volumes of a driver are to keep; -1 is no snapshots at all.

    Raises:
        ValueRefusedError: it cannot keep as many.
    """
    most = DRIVERS[driver].most_revisions
    if count < -1 or (most is not None and count > most):
        highest = "on" if most is None else f"to {most}"
        raise ValueRefusedError(f"revisions_to_keep is a number from -1 {highest}, not {count}")
    return count


def _options(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in text.removesuffix("\n").split("\n"):
        key, equals, value = line.partition("=")
        if not equals or key in found:
            raise RefusedSilentlyError(f"not an option, or given twice: {line!r}")
        found[key] = value
    return found


def _revisions(driver: str, text: str) -> int:
    if _WHOLE.fullmatch(text) is None:
        raise ValueRefusedError(f"revisions_to_keep is a number, not {text!r}")
    return check_revisions(driver, int(text))


def _directory(text: str) -> str:
    path = PurePath(text)
    if not path.is_absolute() or ".." in path.parts or not text.isprintable():
        raise ValueRefusedError(f"dir_path is an absolute path, not {text!r}")
    return str(path)


def _boolean(name: str, options: Mapping[str, str]) -> bool:
    text = options.get(name, "True")
    try:
        return truth(text)
    except ValueRefusedError:
        raise ValueRefusedError(f"{name} is True or False, not {text!r}") from None
