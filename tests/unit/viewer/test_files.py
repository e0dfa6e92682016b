"""The files of viewers' jails: complete, by content, and without what a viewer need not have."""

import os
import subprocess
import sys
from pathlib import Path

from insula.viewer.files import lay_out


def test_the_same_content_lies_in_the_same_folder(tmp_path: Path) -> None:
    first = lay_out(tmp_path)
    before = {file: file.stat().st_ino for file in first.rglob("*")}
    assert lay_out(tmp_path) == first
    assert {file: file.stat().st_ino for file in first.rglob("*")} == before
    assert list(tmp_path.iterdir()) == [first]


def test_folders_of_old_programs_go_and_the_one_in_use_stays(tmp_path: Path) -> None:
    used = lay_out(tmp_path)
    for number in range(20):
        old = tmp_path / str(number)
        old.mkdir()
        os.utime(old, (number, number))
    assert lay_out(tmp_path) == used
    left = {folder.name for folder in tmp_path.iterdir()}
    assert left == {used.name, *(str(number) for number in range(13, 20))}


def test_only_two_rooms_and_three_modules_are_shown(tmp_path: Path) -> None:
    folder = lay_out(tmp_path)
    assert {entry.name for entry in (folder / "insula").iterdir() if entry.name[0] != "_"} == {
        "protocol",
        "viewer",
    }
    modules = {entry.stem for entry in (folder / "xcffib").glob("*.py")}
    assert modules == {"__init__", "ffi", "shm", "xproto"}


def test_everyone_may_read_and_nobody_else_write(tmp_path: Path) -> None:
    folder = lay_out(tmp_path)
    modes = {entry.stat().st_mode & 0o777 for entry in (folder, *folder.rglob("*"))}
    assert modes == {0o755, 0o644}


def test_a_viewer_loads_without_a_parser_of_c_and_without_compiling(tmp_path: Path) -> None:
    folder = lay_out(tmp_path)
    program = (
        "import os, sys; sys.dont_write_bytecode = True\n"
        f"sys.path[:0] = [{str(folder)!r}]\n"
        "import insula.viewer.__main__\n"
        "assert not {'cffi', 'pycparser', 'subprocess', 'inspect'} & set(sys.modules)\n"
        "names = [name for name in sys.modules if name.startswith(('insula', 'xcffib.'))]\n"
        "ours = [sys.modules[name] for name in names if sys.modules[name].__spec__]\n"
        "assert all(os.path.exists(one.__cached__) for one in ours)\n"
    )
    done = subprocess.run(
        [sys.executable, "-sSPE", "-c", program], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
