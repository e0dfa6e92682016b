"""Running `ip` and `nft`: each gets all that it is to do at once, as starting it takes long."""

import subprocess
from collections.abc import Iterable, Sequence

_TIMEOUT = 60.0  # seconds
_LONGEST = 300  # characters of what one says about a failure


class ProgramError(Exception):
    """A program did not do what it was told; the text is its own."""


def ip(commands: Iterable[str], *, namespace: str | None = None, force: bool = False) -> None:
    """Do commands of `ip` one after the other, up to the first that fails; force: all of them.

    Raises:
        ProgramError: one failed; with force never.
    """
    text = "".join(f"{command}\n" for command in commands)
    options = [*(("-n", namespace) if namespace else ()), *(("-force",) if force else ())]
    try:
        _run(["ip", *options, "-batch", "-"], text)
    except ProgramError:
        if not force:
            raise


def nft(text: str, *, namespace: str | None = None) -> None:
    """Do all of a text of nft, or nothing.

    Raises:
        ProgramError: nothing was done.
    """
    enter = ["ip", "netns", "exec", namespace] if namespace else []
    _run([*enter, "nft", "-f", "-"], text)


def _run(argv: Sequence[str], text: str) -> None:
    try:
        done = subprocess.run(
            argv, input=text, capture_output=True, text=True, timeout=_TIMEOUT, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ProgramError(f"{argv[0]}: {error}") from None
    if done.returncode:
        said = " ".join(done.stderr.split())
        raise ProgramError(f"{argv[0]}: {said[:_LONGEST] or done.returncode}")
