"""Build a template without a daemon: `python -m insula.template build NAME --cache DIR`."""

import argparse
import sys
from pathlib import Path

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from insula.protocol.errors import ReportableError
from insula.template.build import build
from insula.template.recipes import find_recipe


def main() -> int:
    """Build what the command line names; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m insula.template")
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("build", help="build a template, unless the cache has it")
    command.add_argument("name", help="the template's name, such as debian-12")
    command.add_argument("--cache", type=Path, required=True, metavar="DIR")
    arguments = parser.parse_args()
    columns = (TextColumn("{task.description:20}"), BarColumn(), TimeElapsedColumn())
    try:
        with Progress(*columns) as bar:
            task = bar.add_task("template", total=None)

            def report(phase: str, fraction: float | None) -> None:
                total = None if fraction is None else 1.0
                bar.update(task, description=phase, completed=fraction or 0.0, total=total)

            built = build(find_recipe(arguments.name), arguments.cache.resolve(), report)
    except ReportableError as error:
        print(f"error: {error}", file=sys.stderr)
        if error.hint:
            print(error.hint, file=sys.stderr)
        return error.exit_code
    print(f"root={built.root}\nkernel={built.kernel}\ninitrd={built.initrd}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
