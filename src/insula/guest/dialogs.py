"""Windows with which a program of a qube asks its person, or tells that it failed."""

import subprocess

_PROGRAM = "yad"
_TOLD_FOR = 60  # seconds; nobody may be there
_COMMON = (_PROGRAM, "--no-markup", "--width=400", "--center")


def confirmed(question: str, yes: str) -> bool:
    """Whether the person says yes; a qube that cannot show windows has a no."""
    return _show("--title=Insula", f"--text={question}", f"--button={yes}:0", "--button=Cancel:1")


def tell(text: str) -> None:
    """Show for a while what went wrong, if this qube can show windows."""
    shown_for = f"--timeout={_TOLD_FOR}"
    _show("--title=Insula", "--image=dialog-error", f"--text={text}", "--button=Close:0", shown_for)


def _show(*words: str) -> bool:
    try:
        done = subprocess.run(
            [*_COMMON, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
        )
    except OSError:
        return False
    return done.returncode == 0
