"""qvm-pool: where volumes lie."""

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from itertools import takewhile
from typing import TypeVar

from insula.client.admin import ask_dom0
from insula.client.errors import DaemonNotRunningError
from insula.protocol.admin import parse_pairs
from insula.protocol.errors import ReportableError
from insula.tools.command import (
    Parser,
    UsageError,
    add_json,
    completed,
    print_json,
    run,
    show,
)
from insula.tools.pools import pairs
from insula.tools.table import print_table

_SETTINGS = ("revisions_to_keep", "ephemeral_volatile")
_LEGACY = frozenset(
    (
        *("-l", "--list", "-i", "--info", "-a", "--add", "-r", "--remove", "-s", "--set"),
        "--help-drivers",
    )
)
_ACTIONS = frozenset(
    (
        *("list", "l", "ls", "info", "i", "add", "a", "set", "s", "remove", "r", "rm"),
        *("drivers", "d"),
    )
)
_FORM = "NAME=VALUE"
_Item = TypeVar("_Item")


def main(argv: Sequence[str] | None = None) -> int:
    """qvm-pool."""
    words = list(sys.argv[1:] if argv is None else argv)
    if _is_legacy(words):
        return _run_legacy("qvm-pool", words)
    parser = Parser(
        "qvm-pool",
        "Look at pools, in which volumes lie, and change them. Without an action they are listed.",
        default_command="list",
        examples={
            "qvm-pool add big file-reflink -o dir_path=/mnt/big": "let volumes lie on another disk",
            "qubes-prefs default_pool_private big": "keep private volumes of new qubes there",
            "qvm-pool set big -o revisions_to_keep=3": "keep more former states of later volumes",
        },
    )
    actions = parser.add_commands(metavar="ACTION")
    add = actions.add_parser("list", aliases=("l", "ls"), help="list pools")
    add_json(add)
    add.set_defaults(work=_list)
    add = actions.add_parser("info", aliases=("i",), help="show one pool")
    completed(add.add_argument("pool", metavar="POOL", help="its name"), "pools")
    add_json(add)
    add.set_defaults(work=lambda arguments: _info(arguments.pool, json=arguments.json))
    add = actions.add_parser("add", aliases=("a",), help="add a pool")
    add.add_argument("pool", metavar="POOL", help="what it is to be called")
    completed(add.add_argument("driver", metavar="DRIVER", help="its driver"), "drivers")
    _add_options(add)
    add.set_defaults(work=lambda given: _add(given.pool, given.driver, given.option))
    add = actions.add_parser("set", aliases=("s",), help="change options of a pool")
    completed(add.add_argument("pool", metavar="POOL", help="its name"), "pools")
    _add_options(add)
    add.set_defaults(work=lambda given: _set(given.pool, given.option))
    add = actions.add_parser("remove", aliases=("r", "rm"), help="remove pools")
    pools = add.add_argument("pools", metavar="POOL", nargs="+", help="names of pools")
    completed(pools, "pools")
    add.set_defaults(work=lambda given: _remove(given.pools))
    add = actions.add_parser("drivers", aliases=("d",), help="list drivers and their options")
    add_json(add)
    add.set_defaults(work=_drivers)
    return run(parser, lambda arguments: int(arguments.work(arguments)), words)


def _is_legacy(words: Sequence[str]) -> bool:
    """Whether options of old releases are given, where an action would be."""
    options = takewhile(lambda word: word not in _ACTIONS, words)
    return any(
        word.partition("=")[0] in _LEGACY or (word[:2] in _LEGACY and word[1:2] != "-")
        for word in options
    )


def legacy(argv: Sequence[str] | None = None) -> int:
    """qvm-pool-legacy."""
    return _run_legacy("qvm-pool-legacy", argv)


def _run_legacy(program: str, argv: Sequence[str] | None) -> int:
    parser = Parser(program, "Look at pools and change them, with the options of old releases.")
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("-l", "--list", action="store_true", help="list pools")
    pool = action.add_argument("-i", "--info", metavar="POOL", help="show one pool")
    completed(pool, "pools")
    action.add_argument(
        "-a", "--add", nargs=2, metavar=("NAME", "DRIVER"), help="add a pool with a driver"
    )
    pool = action.add_argument("-r", "--remove", metavar="NAME", help="remove a pool")
    completed(pool, "pools")
    pool = action.add_argument("-s", "--set", metavar="POOL", help="change options of a pool")
    completed(pool, "pools")
    text = "list drivers and their options"
    action.add_argument("--help-drivers", action="store_true", help=text)
    parser.add_argument(
        "-o",
        metavar="NAME=VALUE,NAME=VALUE",
        dest="option",
        action="append",
        default=[],
        help="options for --add and --set",
    )
    return run(parser, _legacy, argv)


def _legacy(arguments: argparse.Namespace) -> int:
    """What is refused is a usage error there."""
    options = [one for text in arguments.option for one in text.split(",") if one]
    try:
        if arguments.add is not None:
            name, driver = arguments.add
            return _add(name, driver, options)
        if arguments.remove is not None:
            ask_dom0("admin.pool.Remove", arguments.remove)
            return 0
        if arguments.set is not None:
            for name, value in pairs(options, _FORM):
                _change(arguments.set, name, value)
            return 0
        if arguments.info is not None:
            return _info(arguments.info)
        arguments.json = False
        return _list(arguments) if arguments.list else _drivers(arguments)
    except (UsageError, DaemonNotRunningError):
        raise
    except ReportableError as error:
        usage = UsageError(str(error))
        usage.hint = error.hint
        raise usage from None


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-o",
        "--option",
        metavar=_FORM,
        action="append",
        default=[],
        help="an option of its driver; may be repeated",
    )


def _list(arguments: argparse.Namespace) -> int:
    rows = [(name, _pool(name)["driver"]) for name in _lines("admin.pool.List")]
    rows.sort()
    if arguments.json:
        print_json([{"name": name, "driver": driver} for name, driver in rows])
    else:
        print_table([("NAME", "DRIVER"), *rows])
    return 0


def _info(pool: str, *, json: bool = False) -> int:
    if pool not in _lines("admin.pool.List"):
        raise UsageError(f"no such pool: {pool!r}")
    found = {"name": pool, **dict(sorted(_pool(pool).items()))}
    if json:
        print_json(found)
    else:
        print_table(list(found.items()))
    return 0


def _add(pool: str, driver: str, options: Sequence[str]) -> int:
    given = [("name", pool), *pairs(options, _FORM)]
    if any("\n" in value for _, value in given):
        raise UsageError("an option is one line")
    payload = "".join(f"{name}={value}\n" for name, value in given)
    ask_dom0("admin.pool.Add", driver, payload.encode())
    return 0


def _set(pool: str, options: Sequence[str]) -> int:
    changes = pairs(options, _FORM)
    if not changes:
        raise UsageError("give what is to be set, as --option NAME=VALUE")
    return _each(changes, lambda change: _change(pool, *change))


def _change(pool: str, name: str, value: str) -> None:
    if name not in _SETTINGS:
        raise ReportableError(f"{name!r} cannot be set; {' and '.join(_SETTINGS)} can")
    ask_dom0(f"admin.pool.Set.{name}", pool, value.encode())


def _remove(pools: Sequence[str]) -> int:
    return _each(pools, lambda pool: ask_dom0("admin.pool.Remove", pool))


def _each(items: Iterable[_Item], work: Callable[[_Item], object]) -> int:
    """Do it with each; what is refused keeps none of the others from it."""
    code = 0
    for item in items:
        try:
            work(item)
        except ReportableError as error:
            show(error, "qvm-pool: error: ")
            code = 1
    return code


def _drivers(arguments: argparse.Namespace) -> int:
    found = [line.split(" ") for line in _lines("admin.pool.ListDrivers")]
    drivers = {name: sorted(options) for name, *options in sorted(found)}
    if arguments.json:
        print_json(drivers)
    else:
        rows = [(name, ", ".join(options)) for name, options in drivers.items()]
        print_table([("DRIVER", "OPTIONS"), *rows])
    return 0


def _pool(name: str) -> dict[str, str]:
    return parse_pairs(ask_dom0("admin.pool.Info", name).decode())


def _lines(method: str) -> list[str]:
    return [line for line in ask_dom0(method).decode().split("\n") if line]
