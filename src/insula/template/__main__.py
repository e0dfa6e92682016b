"""python -m insula.template build NAME: build a template and register it with the daemon.

With --only-cache no daemon is needed: the template is built into the cache, and that is all.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from insula.client import instance
from insula.protocol.errors import ReportableError
from insula.template.build import build
from insula.template.recipes import find_recipe
from insula.template.registering import provide
from insula.template.telling import told

EXIT_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Build what the command line names; returns the exit code."""
    parser = argparse.ArgumentParser(prog="insula template")
    commands = parser.add_subparsers(required=True, metavar="ACTION")
    command = commands.add_parser("build", help="build a template, unless its recipe is the same")
    command.add_argument("name", help="the template's name, such as debian-12")
    command.add_argument(
        "--cache", type=Path, metavar="DIR", help="where builds are kept (default: INSULA_CACHE)"
    )
    command.add_argument("--only-cache", action="store_true", help="do not register it")
    command.add_argument("--no-snapshot", action="store_true", help="leave the snapshot for later")
    arguments = parser.parse_args(argv)
    try:
        _build(arguments)
    except ReportableError as error:
        print(f"insula template: error: {error}", file=sys.stderr)
        if error.hint:
            print(error.hint, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return 0


def _build(arguments: argparse.Namespace) -> None:
    recipe = find_recipe(arguments.name)
    cache = (arguments.cache or instance.cache()).resolve()
    if arguments.only_cache:
        with told() as progress:
            built = build(recipe, cache, progress)
        print(f"root={built.root}\nkernel={built.kernel}\ninitrd={built.initrd}")
        return
    with told() as progress:
        new = provide(recipe, cache, progress, snapshot=not arguments.no_snapshot)
    print(f"template {recipe.name} is {'ready' if new else 'as its recipe says already'}")


if __name__ == "__main__":
    sys.exit(main())
