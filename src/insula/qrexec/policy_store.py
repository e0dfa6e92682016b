"""The policy of an instance: loaded once, and again when one of its files changes.

Whether one did is seen before each decision, by what the file system tells of every file and
directory that was read: there is no moment at which a change was made and is not obeyed. While it
cannot be read or understood, nothing is allowed.
"""

import logging
import os
from pathlib import Path

from insula.protocol.policy.errors import PolicyError
from insula.protocol.policy.evaluation import ERROR, Request, Verdict, evaluate
from insula.protocol.policy.loading import Places, load
from insula.protocol.policy.policy import Policy
from insula.protocol.policy.system import SystemInfo

PERMANENT = "policy.d"  # in both directories of an instance
LEGACY = "qubes-rpc/policy"
_Signature = tuple[int, int, int, int] | None

log = logging.getLogger(__name__)


def instance_places(home: Path, run: Path) -> Places:
    """Where the policy of an instance lies: until the next boot first, then for good."""
    return Places((str(run / PERMANENT), str(home / PERMANENT)), str(home / LEGACY))


class PolicyStore:
    """Reads the policy from its directories and decides by it."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._policy: Policy | None = None
        self._seen: dict[str, _Signature] = {}
        self.failure: PolicyError | None = None

    @classmethod
    def of_instance(cls, home: Path, run: Path) -> "PolicyStore":
        """That of the directories of an instance; they are made where they are not there."""
        places = instance_places(home, run)
        for place in (*places.directories, places.legacy):
            Path(place).mkdir(mode=0o700, parents=True, exist_ok=True)
        return cls(places)

    @property
    def policy(self) -> Policy:
        """The policy as its files have it now.

        Raises:
            PolicyError: they have none.
        """
        if self._policy is None or self._changed():
            self._load()
        if self._policy is None:
            assert self.failure is not None
            raise self.failure
        return self._policy

    def decide(self, request: Request, system: SystemInfo) -> Verdict:
        """What the policy says to a call."""
        try:
            policy = self.policy
        except PolicyError as error:
            return Verdict(
                outcome=ERROR,
                source=request.source,
                requested=request.target,
                reason=f"{error.kind}: {error}",
            )
        return evaluate(policy, system, request)

    def _changed(self) -> bool:
        return any(_signature(path) != seen for path, seen in self._seen.items())

    def _load(self) -> None:
        reader = PolicyReader()
        before = self._seen
        try:
            policy = Policy(load(reader, self._places))
        except PolicyError as error:
            self._policy, self._seen, self.failure = None, reader.seen, error
            if reader.seen != before:
                log.error(
                    "there is no policy: every call is refused",
                    extra={"why": str(error), "hint": error.hint},
                )
            return
        self._policy, self._seen, self.failure = policy, reader.seen, None
        log.info("policy loaded", extra={"rules": len(policy.rules)})


class PolicyReader:
    """Files as the file system has them. seen: what it told of each before it was read."""

    def __init__(self) -> None:
        self.seen: dict[str, _Signature] = {}

    def names(self, directory: str) -> list[str]:
        """Names of the files in a directory, links to files among them."""
        self._look(directory)
        with os.scandir(directory) as entries:
            return [entry.name for entry in entries if entry.is_file()]

    def text(self, path: str) -> str:
        """A file's text."""
        self._look(path)
        return Path(path).read_bytes().decode()

    def _look(self, path: str) -> None:
        if path not in self.seen:
            self.seen[path] = _signature(path)


def _signature(path: str) -> _Signature:
    try:
        status = os.stat(path)  # noqa: PTH116 - before each decision
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
