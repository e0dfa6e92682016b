"""The console scripts of this package: for their man pages and completion."""

from collections.abc import Callable
from importlib import import_module

Main = Callable[[list[str]], int]


def console_scripts() -> dict[str, str]:
    """Each command's name with its MODULE:FUNCTION, sorted by name."""
    from importlib.metadata import distribution  # noqa: PLC0415 - completion is not to wait for it

    found = distribution("insula").entry_points.select(group="console_scripts")
    return {script.name: script.value for script in sorted(found, key=lambda one: one.name)}


def load(target: str) -> Main:
    """The main function of a console script."""
    module, _, function = target.partition(":")
    main: Main = getattr(import_module(module), function)
    return main
