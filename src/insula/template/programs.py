"""Running the programs of a build: as root of a namespace, never outliving the builder."""

import os
import subprocess
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from insula.protocol.errors import ReportableError

_SHOWN_LINES = 15
# Ordinary users do not search the directories of mkfs and chroot.
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class ProgramFailedError(ReportableError):
    """A program of a build failed; what it printed last says why."""

    def __init__(self, program: str, status: int, output: str) -> None:
        super().__init__(f"{program} failed (status {status}):\n{output}")
        self.output = output


class ProgramMissingError(ReportableError):
    """A program of a build is not installed."""

    def __init__(self, program: str) -> None:
        super().__init__(f"{program} is not installed")
        self.hint = "Install it with: apt install mmdebstrap e2fsprogs qemu-utils uidmap util-linux"


class NoRangesError(ReportableError):
    """This user cannot make files of several owners, as a root has them."""

    def __init__(self, said: str) -> None:
        super().__init__(f"templates are built with ranges of subordinate ids, and: {said}")
        self.hint = "See the line to run with: insula doctor"


def require_root() -> None:
    """Do nothing when `as_root` works.

    Raises:
        NoRangesError: it does not. ProgramMissingError: what it needs is not installed.
    """
    try:
        if os.geteuid() != 0:
            # Where that is forbidden, unshare would wait for ever for one with ranges.
            run(["unshare", "--user", "--map-root-user", "--", "true"])
        run(as_root(["true"]))
    except ProgramFailedError as error:
        raise NoRangesError(error.output) from error


def as_root(argv: Sequence[str]) -> list[str]:
    """The same command as root: really, or in a namespace where this user's range of ids is.

    When the thread that starts it ends, even by SIGKILL, all that the command started ends too.
    """
    identity = [] if os.geteuid() == 0 else ["--user", "--map-root-user", "--map-auto"]
    namespaces = ["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    return ["setpriv", "--pdeathsig", "KILL", "unshare", *identity, *namespaces, "--", *argv]


def run(
    argv: Sequence[str],
    *,
    heard: Callable[[str], None] | None = None,
    environment: dict[str, str] | None = None,
    keep: Iterable[int] = (),
) -> None:
    """Run a command to its end; heard gets each line it prints, keep are descriptors it inherits.

    Raises:
        ProgramMissingError: it is not installed.
        ProgramFailedError: it ended with a status other than 0.
    """
    program = argv[argv.index("--") + 1] if "--" in argv else argv[0]
    last: deque[str] = deque(maxlen=_SHOWN_LINES)
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            pass_fds=tuple(keep),
            umask=0o022,  # what these make is read by others
            env=os.environ | {"PATH": _PATH, "LC_ALL": "C.UTF-8"} | (environment or {}),
        )
    except FileNotFoundError:
        raise ProgramMissingError(argv[0]) from None
    with process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                last.append(line.rstrip())
                if heard is not None:
                    heard(line.rstrip())
        except BaseException:
            process.kill()
            raise
    output = "\n".join(last)
    if process.returncode == 127 and f"failed to execute {program}:" in output:
        raise ProgramMissingError(program)
    if process.returncode:
        raise ProgramFailedError(program, process.returncode, output)
