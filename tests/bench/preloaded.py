"""What disposables gain that were started ahead of their use, and what one costs that waits."""

from insula.client.app import App
from tests.bench.report import Figure, interleaved, median, milliseconds
from tests.bench.setting import WITHOUT_X, Setting
from tests.vm.instance import wait_for

KEPT = "dvm-kept"
TIMES = 9
_LIMIT, _DELAY, _MEMBERS = "preload-dispvm-max", "preload-dispvm-delay", "preload-dispvm"
_COMPLETED = "preload-dispvm-completed"
_MB = 1_000_000


def preloaded(setting: Setting) -> list[Figure]:
    """`qvm-run -p --dispvm -- echo hello` in one that waits, and in a new clone in turn."""
    instance = setting.instance
    instance.say("qvm-create", "--label", "red", KEPT)
    instance.say("qvm-prefs", KEPT, "template_for_dispvms", "True")
    for name, value in (("gui", ""), (_DELAY, "0.1"), (_LIMIT, "1")):
        instance.say("qvm-features", KEPT, name, value)

    def fresh() -> float:
        return setting.timed("qvm-run", "-p", f"--dispvm={WITHOUT_X}", "--", "echo", "hello")

    def kept() -> float:
        wait_for(_waits, "a disposable that waits")
        return setting.timed("qvm-run", "-p", f"--dispvm={KEPT}", "--", "echo", "hello")

    fresh(), kept()
    new, waiting = interleaved(TIMES, fresh, kept)
    wait_for(_waits, "a disposable that waits")
    (name,) = _members()
    running = {one["name"]: one for one in instance.status()["running"]}
    private = running[name]["private"] / _MB
    instance.say("qvm-features", KEPT, _LIMIT, "0")
    wait_for(lambda: not _members(), "an end of waiting")
    ratio = median(waiting) / median(new)
    return [
        Figure(
            "qvm-run --dispvm in one that waits, median",
            f"{milliseconds(median(waiting))} = {ratio:.2f} x {milliseconds(median(new))}",
            "at most 0.7 x a new clone",
            ratio <= 0.7,
            tuple(waiting),
        ),
        Figure("a disposable that waits, private memory", f"{private:.0f} MB", "", None),
    ]


def _members() -> list[str]:
    features = App().domains[KEPT].features
    return features.get(_MEMBERS, "").split()


def _waits() -> bool:
    domains = App().domains
    names = _members()
    return bool(names) and all(
        name in domains and _COMPLETED in domains[name].features for name in names
    )
