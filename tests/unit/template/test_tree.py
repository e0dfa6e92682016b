"""Trees of files: read, hashed, written."""

import os
import string
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from insula.template.tree import TreeFile, hash_tree, read_tree, write_tree

names = st.text(string.ascii_lowercase, min_size=1, max_size=3)
paths = st.builds("{}.d/{}".format, names, names)
trees = st.dictionaries(paths, st.binary(max_size=20), max_size=5).map(
    lambda found: tuple(TreeFile(path, found[path]) for path in sorted(found))
)


@given(trees)
def test_what_is_written_reads_back_the_same(files: tuple[TreeFile, ...]) -> None:
    with TemporaryDirectory() as name:
        write_tree(Path(name) / "top", files)
        assert read_tree(Path(name) / "top") == files


@given(trees, trees)
def test_trees_that_differ_have_other_hashes(
    one: tuple[TreeFile, ...], other: tuple[TreeFile, ...]
) -> None:
    assert (hash_tree(one) == hash_tree(other)) == (one == other)


def test_a_files_name_is_not_taken_for_its_content() -> None:
    assert hash_tree([TreeFile("a", b"bc")]) != hash_tree([TreeFile("ab", b"c")])


@pytest.fixture
def _strict_umask() -> object:
    before = os.umask(0o077)
    yield
    os.umask(before)


@pytest.mark.usefixtures("_strict_umask")
def test_a_tree_is_readable_by_everybody_and_its_scripts_run(tmp_path: Path) -> None:
    top = tmp_path / "top"
    write_tree(top, [TreeFile("a/b/plain", b"text"), TreeFile("a/script", b"#!/bin/sh\n")])
    modes = {path.name: path.stat().st_mode & 0o777 for path in (top, *top.rglob("*"))}
    assert modes == {"top": 0o755, "a": 0o755, "b": 0o755, "plain": 0o644, "script": 0o755}


def test_caches_of_python_are_not_part_of_a_tree(tmp_path: Path) -> None:
    write_tree(tmp_path / "top", [TreeFile("__pycache__/a.pyc", b""), TreeFile("a.py", b"")])
    assert [file.path for file in read_tree(tmp_path / "top")] == ["a.py"]
