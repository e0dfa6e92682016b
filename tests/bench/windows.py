"""From a command to the first window on the desktop."""

import subprocess
import time

from tests.bench.report import Figure, median
from tests.bench.setting import WITH_X, Setting
from tests.desktop.joined import XServer

TIMES = 5


def windows(setting: Setting) -> list[Figure]:
    """`qvm-run --dispvm -- xterm` to its window in a frame, on a screen with a window manager."""
    with (
        XServer.started("1280x1024x24") as desktop,
        desktop.program("openbox", "--sm-disable", stderr=subprocess.DEVNULL),
        setting.instance.on_display(desktop.display),
        setting.instance.running("insula", "session"),
    ):
        desktop.wait_for_window_manager()
        _first_window(setting, desktop)
        taken = [_first_window(setting, desktop) for _ in range(TIMES)]
    return [
        Figure(
            "disposable to first xterm window, median",
            f"{median(taken):.2f} s",
            "at most 3 s",
            median(taken) <= 3,
            tuple(taken),
        )
    ]


def _first_window(setting: Setting, desktop: XServer) -> float:
    begun = time.monotonic()
    with setting.instance.running("qvm-run", "-q", f"--dispvm={WITH_X}", "--", "xterm"):
        while desktop.framed("[disp") is None:
            if time.monotonic() - begun > 60:
                raise TimeoutError("no window came")
        taken = time.monotonic() - begun
    while desktop.framed("[disp") is not None:
        if time.monotonic() - begun > 60:
            raise TimeoutError("the window stays")
    return taken
