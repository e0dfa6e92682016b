"""xcffib, imported without the search for libxcb that runs a compiler or ldconfig."""

import ctypes
import importlib
import sys
import types
from typing import Any


def _prepare() -> None:
    """Answer xcffib's question for libxcb ourselves: ctypes.util would start processes for it."""
    finder = types.ModuleType("ctypes.util")
    finder.find_library = lambda _name: "libxcb.so.1"  # type: ignore[attr-defined]
    sys.modules.setdefault("ctypes.util", finder)
    ctypes.util = sys.modules["ctypes.util"]  # type: ignore[attr-defined]


_prepare()
xcffib: Any = importlib.import_module("xcffib")  # it comes without types
for _name in ("composite", "damage", "shm", "xfixes", "xproto", "xtest"):
    importlib.import_module(f"xcffib.{_name}")
