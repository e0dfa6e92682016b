"""Reading a policy of a thousand rules, and deciding by it."""

import random
import time

from insula.protocol.policy.evaluation import Request, evaluate
from insula.protocol.policy.loading import Places, load
from insula.protocol.policy.policy import Policy
from insula.protocol.policy.system import QubeInfo, SystemInfo
from tests.bench.report import Figure, median

_RULES, _QUBES, _SERVICES = 1000, 100, 20
_ROUNDS = 15


class _Files:
    """One file of rules."""

    def __init__(self, text: str) -> None:
        self._text = text

    def names(self, _directory: str) -> list[str]:
        return ["30-user.policy"]

    def text(self, _path: str) -> str:
        return self._text


def policy() -> list[Figure]:
    """Reading, and decisions uniformly over the rules."""
    chance = random.Random(1)
    asked: list[tuple[str, int, int]] = []
    for number in range(_RULES):
        one, other = chance.sample(range(_QUBES), 2)
        asked.append((f"test.S{number % _SERVICES}", one, other))
    text = "".join(f"{service} * q{one} q{other} allow\n" for service, one, other in asked)
    files, places = _Files(text), Places(("/p",), "/l")
    reading = []
    for _ in range(_ROUNDS):
        begun = time.perf_counter()
        rules = Policy(load(files, places))
        reading.append((time.perf_counter() - begun) * 1000)
    system = SystemInfo(
        [QubeInfo(name="dom0", klass="AdminVM")]
        + [QubeInfo(name=f"q{number}", klass="AppVM", guivm="dom0") for number in range(_QUBES)]
    )
    requests = [Request.of(call[0], f"q{call[1]}", f"q{call[2]}") for call in asked]
    deciding = []
    for _ in range(_ROUNDS):
        begun = time.perf_counter()
        for request in requests:
            evaluate(rules, system, request)
        deciding.append((time.perf_counter() - begun) / _RULES * 1e6)
    read, decided = median(reading), median(deciding)
    return [
        Figure("reading 1000 rules", f"{read:.1f} ms", "under 12 ms", read < 12),
        Figure("a decision, 1000 rules, 100 qubes", f"{decided:.1f} us", "about 10 us", None),
    ]
