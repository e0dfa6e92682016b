"""Reading and changing the files of the policy (qrexec-policy.md section 12).

A change is made only if the policy as it would be after it can be read, and only to what the
caller has seen: each file has a token, which is of its content.
"""

import fcntl
import hashlib
import os
import posixpath
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from insula.protocol.errors import ReportableError
from insula.protocol.policy.errors import PolicyError
from insula.protocol.policy.loading import SUFFIX, Places, load
from insula.protocol.policy.rules import Rule

_INCLUDE = "include"
_CHARACTERS = re.compile(r"[A-Za-z0-9_.+-]*", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
_POLICY_NAME = re.compile(r"[0-9a-z_-]+", re.ASCII)
_HASH = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)
_ANY, _NEW = "any", "new"


class PolicyAdminException(ReportableError):  # noqa: N818 - the name is the API's
    """The files are as they were."""

    api_name: ClassVar[str] = "PolicyAdminException"


class TokenError(PolicyAdminException):
    """The file is not as the caller saw it."""

    api_name: ClassVar[str] = "PolicyAdminTokenException"


class FileMissingError(PolicyAdminException):
    """There is no such file."""

    api_name: ClassVar[str] = "PolicyAdminFileNotFoundException"


class FormError(PolicyAdminException):
    """What is asked for is not of the form that it should have."""

    api_name: ClassVar[str] = "PolicyAdminProtocolException"


class ContentError(FormError):
    """The policy could not be read any more."""

    api_name: ClassVar[str] = "PolicyAdminSyntaxException"


class FileNameError(FormError):
    """No file of the policy has such a name."""

    api_name: ClassVar[str] = "PolicyAdminInvalidFileNameException"


class PolicyAdministration:
    """The files in one directory of the policy, and those in its include/."""

    def __init__(self, directory: Path, legacy: str) -> None:
        self._directory = directory
        self._places = Places((str(directory),), legacy)

    def names(self, *, include: bool) -> list[str]:
        """Names of the files, sorted, without the suffix that those of the policy have."""
        with self._locked():
            place = self._directory / _INCLUDE if include else self._directory
            if not place.is_dir():
                return []
            found = [entry.name for entry in place.iterdir() if entry.is_file()]
        if not include:
            found = [name.removesuffix(SUFFIX) for name in found if name.endswith(SUFFIX)]
        return sorted(name for name in found if name and not name.startswith("."))

    def get(self, name: str, *, include: bool) -> tuple[str, str]:
        """A file's token, and its content.

        Raises:
            FileMissingError: there is none.
            FormError: it can have no such name.
        """
        with self._locked():
            content = _content(self._path(name, include=include))
        if content is None:
            raise FileMissingError(f"There is no file {name}")
        return _token(content), content.decode("utf-8", "replace")

    def replace(self, name: str, token: str, content: bytes, *, include: bool) -> None:
        """Give a file another content, or make it.

        Raises:
            PolicyAdminException: the token or the content is not acceptable.
        """
        path = self._path(name, include=include)
        if not include and _POLICY_NAME.fullmatch(name) is None:
            raise FileNameError(f"{name}: a policy's file has no upper-case letters in its name")
        with self._locked():
            _check_token(token, _content(path))
            try:
                text = content.decode("utf-8")
            except UnicodeDecodeError:
                raise ContentError(f"{name}: its content is not UTF-8") from None
            self._check(path, text)
            path.parent.mkdir(mode=0o700, exist_ok=True)
            temporary = path.with_name(f".{path.name}.new")
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.chmod(0o600)
            temporary.rename(path)

    def remove(self, name: str, token: str, *, include: bool) -> None:
        """Remove a file.

        Raises:
            PolicyAdminException: there is none, or the policy cannot do without it.
        """
        path = self._path(name, include=include)
        with self._locked():
            content = _content(path)
            _check_token(token, content)
            if content is None:
                raise FileMissingError(f"There is no file {name}")
            self._check(path, None)
            path.unlink()

    def files(self, service: str) -> list[str]:
        """Which files have a rule about a service, in the order of the rules.

        Raises:
            FormError: it is no service's name.
        """
        if not service or "+" in service or _CHARACTERS.fullmatch(service) is None:
            raise FormError(f"not a service's name: {service!r}")
        with self._locked():
            rules = self._rules({})
        found = [rule.file for rule in rules if rule.service in (None, service)]
        return list(dict.fromkeys(map(self._shown, found)))

    def _shown(self, file: str) -> str:
        path = Path(file)
        return path.name.removesuffix(SUFFIX) if path.is_relative_to(self._directory) else file

    def _path(self, name: str, *, include: bool) -> Path:
        if _CHARACTERS.fullmatch(name) is None:
            raise FormError(f"not a file's name: {name!r}")
        if _NAME.fullmatch(name) is None:
            raise FileNameError(f"not a file's name: {name!r}")
        return self._directory / (f"{_INCLUDE}/{name}" if include else name + SUFFIX)

    def _check(self, path: Path, text: str | None) -> None:
        """Whether the policy can be read with a file's text changed, or without the file."""
        try:
            self._rules({str(path): text})
        except PolicyError as error:
            raise ContentError(str(error)) from None

    def _rules(self, changed: dict[str, str | None]) -> tuple[Rule, ...]:
        return load(_Changed(changed), self._places)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Nobody else changes files meanwhile who asks for the lock, too."""
        descriptor = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


class _Changed:
    """Files as they would be. changed: texts by path, None for a file that would not be there."""

    def __init__(self, changed: dict[str, str | None]) -> None:
        self._changed = changed

    def names(self, directory: str) -> list[str]:
        """Names of the files in a directory."""
        with os.scandir(directory) as entries:
            found = {entry.name for entry in entries if entry.is_file()}
        for path, text in self._changed.items():
            folder, name = posixpath.split(path)
            if folder == directory:
                found = found | {name} if text is not None else found - {name}
        return sorted(found)

    def text(self, path: str) -> str:
        """A file's text."""
        if path in self._changed:
            text = self._changed[path]
            if text is None:
                raise FileNotFoundError(path)
            return text
        return Path(path).read_bytes().decode()


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _token(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _check_token(token: str, content: bytes | None) -> None:
    if token == _ANY:
        return
    if token == _NEW:
        if content is not None:
            raise TokenError("The file exists already")
    elif _HASH.fullmatch(token) is None:
        raise FormError(f"not a token: {token[:80]!r}")
    elif content is None:
        raise TokenError("The file does not exist any more")
    elif _token(content) != token:
        error = TokenError("The file was changed meanwhile")
        error.hint = "Get it again, and make the change to what it is now."
        raise error
