"""The commands for people, of the console scripts: for their man pages and completion.

Programs that other rooms have are not among them: they say what they take by --help.
"""

from collections.abc import Callable
from importlib import import_module

_ROOM = "insula.tools."
Main = Callable[[list[str]], int]


def console_scripts() -> dict[str, str]:
    """Each command's name with its MODULE:FUNCTION, sorted by name."""
    from importlib.metadata import distribution  # noqa: PLC0415 - completion is not to wait for it

    found = distribution("insula").entry_points.select(group="console_scripts")
    ours = (script for script in found if script.value.startswith(_ROOM))
    return {script.name: script.value for script in sorted(ours, key=lambda one: one.name)}


def load(target: str) -> Main:
    """The main function of a console script."""
    module, _, function = target.partition(":")
    main: Main = getattr(import_module(module), function)
    return main
