"""Options that say in which pools a new qube's volumes lie, and words of the form KEY=VALUE."""

import argparse
from collections.abc import Sequence

from insula.tools.command import UsageError, completed


def add_pools(parser: argparse.ArgumentParser) -> None:
    """-P and --pool, which exclude each other."""
    group = parser.add_mutually_exclusive_group()
    one = group.add_argument(
        "-P", dest="one_pool", metavar="POOL", default="", help="pool for all volumes"
    )
    completed(one, "pools")
    group.add_argument(
        "-p",
        "--pool",
        metavar="VOLUME=POOL",
        action="append",
        default=[],
        help="pool for a volume; may be repeated",
    )


def chosen_pools(arguments: argparse.Namespace) -> tuple[str, dict[str, str]]:
    """The pool for all volumes, and those for single ones.

    Raises:
        UsageError: one is not of the form VOLUME=POOL, or a volume is named twice.
    """
    given = pairs(arguments.pool, "VOLUME=POOL")
    pools = dict(given)
    if len(pools) < len(given) or not all(pools.values()):
        raise UsageError("give one pool for a volume")
    return arguments.one_pool, pools


def pairs(given: Sequence[str], form: str) -> list[tuple[str, str]]:
    """Words of the form KEY=VALUE.

    Raises:
        UsageError: one is not.
    """
    found = []
    for word in given:
        key, equals, value = word.partition("=")
        if not key or not equals:
            raise UsageError(f"{word!r} is not of the form {form}")
        found.append((key, value))
    return found
