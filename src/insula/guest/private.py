"""The private volume: checked, made where it is blank, mounted at /rw, set up (in-qube.md 2.3)."""

import functools
import os
import pwd
import shutil
import struct
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from insula.guest.mounts import MS_NODEV, MS_NOSUID, bind, mount, unmount

DEVICE = "/dev/vdb"
_SECTORS = "/sys/class/block/vdb/size"
_PLACE = "/rw"
_EXT_MAGIC_AT = 1080
_EXT_MAGIC = b"\x53\xef"
_EXT_STATE_AT = 1082
_EXT_BLOCKS_AT = 1028
_EXT_BLOCK_SIZE_AT = 1048
_EXT_NEEDS_AT = 1120  # features without which it cannot be mounted
_NEEDS_RECOVERY = 4
_CLEAN = 1
_ZEROES = 10 * 1024 * 1024  # bytes at the beginning that must be zero in a blank volume
_PROGRAM_TIMEOUT = 300
_SIZE_TIMEOUT = 5.0  # seconds
_SCRIPTS = (
    ("rc.local", 0o755, "#!/bin/sh\n# Runs as root once the qube is set up.\n"),
    ("qubes-firewall-user-script", 0o755, "#!/bin/sh\n# Runs when the firewall starts.\n"),
    ("suspend-module-blacklist", 0o644, "# Modules to unload before the host sleeps.\n"),
)


class PrivateVolumeError(Exception):
    """The private volume cannot be used."""


def make_blank_usable() -> None:
    """Make a blank volume what every qube's first one is; one that is not blank stays as it is.

    Raises:
        PrivateVolumeError, OSError: it could not be made.
    """
    if _holds_file_system(_read_head()) or not _is_blank():
        return
    _make()
    mount(DEVICE, _PLACE, "ext4", MS_NOSUID | MS_NODEV)
    _initialise(Path(_PLACE))
    unmount(_PLACE)


def set_up(*, journal: bool, size: int = 0) -> None:
    """Mount /rw and what is shown from it. Without a journal it is slower to lose, faster to use.

    size: bytes that the volume has, 0 for any; a clone's kernel may not have looked yet.

    Raises:
        PrivateVolumeError: it holds something that is no ext4 file system, or is damaged.
        OSError: the kernel refused a mount.
    """
    _wait_for(size)
    head = _read_head()
    if not _holds_file_system(head):
        if not _is_blank():
            raise PrivateVolumeError(f"{DEVICE} holds no ext4 file system and is not blank")
        _make()
        head = _read_head()
    elif not _is_clean(head):
        _run("fsck.ext4", "-p", DEVICE, accepted=(0, 1))
        head = _read_head()
    options = "discard" if journal or _needs_recovery(head) else "discard,noload"
    mount(DEVICE, _PLACE, "ext4", MS_NOSUID | MS_NODEV, options)
    if _has_grown(head):
        _run("resize2fs", DEVICE)
    _initialise(Path(_PLACE))
    bind(f"{_PLACE}/home", "/home", MS_NOSUID | MS_NODEV)
    bind(f"{_PLACE}/usrlocal", "/usr/local")


def _wait_for(size: int) -> None:
    """Wait until the kernel knows how large the volume is; what is mounted before may not fit.

    Raises:
        PrivateVolumeError: it has another size for good.
    """
    deadline = time.monotonic() + _SIZE_TIMEOUT
    while size and _size() != size:
        if time.monotonic() > deadline:
            raise PrivateVolumeError(f"{DEVICE} has {_size()} bytes, not {size}")
        time.sleep(0.001)


def _size() -> int:
    with open(_SECTORS, "rb", buffering=0) as opened:  # noqa: PTH123
        return int(opened.read(32)) * 512


def _holds_file_system(head: bytes) -> bool:
    return head[_EXT_MAGIC_AT : _EXT_MAGIC_AT + 2] == _EXT_MAGIC


def _is_clean(head: bytes) -> bool:
    return bool(_number(head, "<H", _EXT_STATE_AT) & _CLEAN)


def _needs_recovery(head: bytes) -> bool:
    return bool(_number(head, "<I", _EXT_NEEDS_AT) & _NEEDS_RECOVERY)


def _number(head: bytes, form: str, at: int) -> int:
    number: int = struct.unpack_from(form, head, at)[0]
    return number


def _read_head() -> bytes:
    with open(DEVICE, "rb", buffering=0) as device:  # noqa: PTH123 - pathlib is slow here
        return device.read(4096)


def _is_blank() -> bool:
    with Path(DEVICE).open("rb", buffering=0) as device:
        left = _ZEROES
        while left and (data := device.read(min(left, 1 << 20))):
            if data.strip(b"\0"):
                return False
            left -= len(data)
    done = subprocess.run(["/sbin/blkid", "-p", DEVICE], capture_output=True, check=False)
    return not done.stdout


def _make() -> None:
    # Inode tables at once: nothing is to write them behind the scenes later, in every clone.
    extended = "lazy_itable_init=0,lazy_journal_init=1,nodiscard"
    _run("mkfs.ext4", "-q", "-m", "0", "-E", extended, DEVICE)


def _has_grown(head: bytes) -> bool:
    """Whether the volume is larger than its file system, by more than a block group may leave."""
    return _size() - file_system_size(head) > 1024 * 1024


def file_system_size(head: bytes) -> int:
    """Bytes that an ext4 file system takes, by the beginning of its device."""
    blocks, scale = _number(head, "<I", _EXT_BLOCKS_AT), _number(head, "<I", _EXT_BLOCK_SIZE_AT)
    return blocks * (1024 << scale)


def _run(program: str, *words: str, accepted: tuple[int, ...] = (0,)) -> None:
    done = subprocess.run(
        [f"/sbin/{program}", *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=_PROGRAM_TIMEOUT,
        check=False,
    )
    if done.returncode not in accepted:
        said = done.stderr.decode(errors="replace").strip()
        raise PrivateVolumeError(f"{program} ended with {done.returncode}: {said}")


def _initialise(root: Path) -> None:
    if not (config := root / "config").exists():
        config.mkdir()
        for name, mode, text in _SCRIPTS:
            (config / name).write_text(text)
            (config / name).chmod(mode)
    if not (local := root / "usrlocal").exists():
        original = Path("/usr/local.orig")
        if original.exists():
            shutil.copytree(original, local, symlinks=True)
        else:
            local.mkdir()
    if not (homes := root / "home").exists():
        homes.mkdir()
    for account in _accounts():
        _home(root / account.pw_dir.lstrip("/"), account)


@functools.cache
def _accounts() -> tuple[pwd.struct_passwd, ...]:
    """Accounts that live in the private volume; nobody adds one between parking and here."""
    return tuple(each for each in pwd.getpwall() if each.pw_dir.startswith("/home/"))


def _home(home: Path, account: pwd.struct_passwd) -> None:
    try:
        owner = home.stat()
    except FileNotFoundError:
        shutil.copytree("/etc/skel", home, symlinks=True)
        _own(home, account, None)
        home.chmod(0o700)
        return
    if owner.st_uid != account.pw_uid or owner.st_gid != account.pw_gid:
        _own(home, account, owner.st_uid)


def _own(root: Path, account: pwd.struct_passwd, former: int | None) -> None:
    """Give a tree to an account: all of it, or what its former uid had."""
    for folder, folders, names in os.walk(root):
        for name in ("", *folders, *names):
            entry = Path(folder, name) if name else Path(folder)
            with suppress(FileNotFoundError):
                if former is None or entry.lstat().st_uid == former:
                    os.lchown(entry, account.pw_uid, account.pw_gid)
