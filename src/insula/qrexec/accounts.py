"""Accounts of the qube, remembered for as long as its files of them stay the same."""

import os
import pwd

_FILES = ("/etc/passwd", "/etc/group")


class Accounts:
    """Looks accounts up; the second time costs two system calls."""

    def __init__(self) -> None:
        self._read: tuple[tuple[int, int, int], ...] = ()
        self._users: dict[str, pwd.struct_passwd] = {}
        self._groups: dict[str, list[int]] = {}

    def user(self, name: str) -> pwd.struct_passwd:
        """The account of a login name.

        Raises:
            KeyError, ValueError: there is none.
        """
        self._forget_changed()
        if name not in self._users:
            self._users[name] = pwd.getpwnam(name)
        return self._users[name]

    def groups(self, user: pwd.struct_passwd) -> list[int]:
        """Every group of an account."""
        self._forget_changed()
        if user.pw_name not in self._groups:
            self._groups[user.pw_name] = os.getgrouplist(user.pw_name, user.pw_gid)
        return self._groups[user.pw_name]

    def _forget_changed(self) -> None:
        found = tuple(map(_version, _FILES))
        if found != self._read:
            self._read = found
            self._users.clear()
            self._groups.clear()


def _version(path: str) -> tuple[int, int, int]:
    status = os.stat(path)  # noqa: PTH116 - on every call's path
    return status.st_ino, status.st_size, status.st_mtime_ns


ACCOUNTS = Accounts()
