"""xcffib with the extensions a viewer needs, imported without a search for libxcb.

That search (ctypes.util) would start a compiler or ldconfig, which a jail has not, and its imports
would cost every viewer memory.
"""

import ctypes
import importlib
import sys
import types
from typing import Any


def _prepare() -> None:
    finder = types.ModuleType("ctypes.util")
    finder.find_library = lambda _name: "libxcb.so.1"  # type: ignore[attr-defined]
    sys.modules.setdefault("ctypes.util", finder)
    ctypes.util = sys.modules["ctypes.util"]  # type: ignore[attr-defined]


_prepare()
xcffib: Any = importlib.import_module("xcffib")  # it comes without types
for _name in ("shm", "xproto"):
    importlib.import_module(f"xcffib.{_name}")
