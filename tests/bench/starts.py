"""How long qubes take to start, beside the floor of the same run."""

import time
from functools import partial

from insula.client.admin import ask_dom0
from tests.bench.report import Figure, interleaved, median, milliseconds
from tests.bench.setting import WITH_X, WITHOUT_X, Setting

TIMES = 9
IN_A_ROW = 12
_FREE_WITHIN = 5.0


def disposables(setting: Setting) -> list[Figure]:
    """`qvm-run -p --dispvm -- echo hello`, with an X server in the qube and without."""
    figures = []
    for title, template, floor in (
        ("without X", WITHOUT_X, setting.without_x),
        ("with X", WITH_X, setting.with_x),
    ):

        def command(template: str = template) -> float:
            return setting.timed("qvm-run", "-p", f"--dispvm={template}", "--", "echo", "hello")

        command()
        ours, bare = interleaved(TIMES, command, partial(floor.once, setting.scratch))
        ratio = median(ours) / median(bare)
        figures.append(
            Figure(
                f"qvm-run --dispvm, {title}, median",
                f"{milliseconds(median(ours))} = {ratio:.2f} x {milliseconds(median(bare))}",
                "at most 1.6 x the floor",
                ratio <= 1.6,
                tuple(ours),
            )
        )
        figures.append(_cold(setting, title, template))
    figures += _in_a_row(setting)
    return figures


def _cold(setting: Setting, title: str, template: str) -> Figure:
    """The same qube booted; one with X is there when its session is, as it is in the snapshot."""
    instance = setting.instance
    booted = f"{template}-cold"
    instance.say("qvm-create", "--label", "red", booted)
    instance.say("qvm-prefs", booted, "template_for_dispvms", "True")
    instance.say("qvm-prefs", booted, "start_mode", "cold")
    if template == WITHOUT_X:
        instance.say("qvm-features", booted, "gui", "")
    session = "--gui" if template == WITH_X else "--no-gui"
    cold, warm = (
        setting.timed("qvm-run", "-p", session, f"--dispvm={one}", "--", "echo", "hello")
        for one in (booted, template)
    )
    return Figure(
        f"the same {title}, booted",
        f"{cold:.1f} s = {cold / warm:.0f} x",
        "at least 50 x slower",
        cold / warm >= 50,
    )


def _in_a_row(setting: Setting) -> list[Figure]:
    free = []
    begun = time.monotonic()
    waited = 0.0
    for _ in range(IN_A_ROW):
        setting.instance.say("qvm-run", "-p", f"--dispvm={WITHOUT_X}", "--", "echo", "hello")
        ended = time.monotonic()
        while b"DispVM" in ask_dom0("admin.vm.List"):
            if time.monotonic() - ended > _FREE_WITHIN:
                break
        free.append(time.monotonic() - ended)
        waited += free[-1]
    mean = (time.monotonic() - begun) / IN_A_ROW
    return [
        Figure(
            f"{IN_A_ROW} in a row, mean with clean-up",
            milliseconds(mean),
            "under 1200 ms each",
            mean < 1.2,
        ),
        Figure(
            "name free again after the end, worst",
            milliseconds(max(free)),
            "within 100 ms",
            max(free) <= 0.1,
        ),
    ]


def app_qube(setting: Setting) -> list[Figure]:
    """`qvm-start` of an app qube whose private volume is there."""
    setting.instance.say("qvm-create", "--label", "blue", "app")
    setting.timed("qvm-start", "app")
    setting.instance.say("qvm-shutdown", "--wait", "app")

    def start() -> float:
        taken = setting.timed("qvm-start", "app")
        setting.instance.say("qvm-shutdown", "--wait", "app")
        return taken

    ours, bare = interleaved(5, start, partial(setting.with_x.once, setting.scratch))
    ratio = median(ours) / median(bare)
    return [
        Figure(
            "app qube, qvm-start to ready",
            f"{milliseconds(median(ours))} = {ratio:.2f} x {milliseconds(median(bare))}",
            "at most 2 x the floor",
            ratio <= 2,
            tuple(ours),
        )
    ]
