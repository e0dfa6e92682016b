"""The figures of this machine: `make bench`, or `python -m tests.bench NAME...` for some."""

import argparse
import json
import sys
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path

from tests.bench.api import api
from tests.bench.calls import calls
from tests.bench.commands import commands
from tests.bench.crowds import many, memory
from tests.bench.data import data
from tests.bench.floods import floods
from tests.bench.network import network
from tests.bench.policy import policy
from tests.bench.preloaded import preloaded
from tests.bench.report import Figure, show
from tests.bench.restart import restart
from tests.bench.setting import setting
from tests.bench.starts import app_qube, disposables
from tests.bench.windows import windows

WITHOUT_MACHINES = {"api": api, "commands": commands, "policy": policy}
GROUPS = {
    "disposables": disposables,
    "preloaded": preloaded,
    "app-qube": app_qube,
    "windows": windows,
    "memory": memory,
    "data": data,
    "calls": calls,
    "floods": floods,
    "network": network,
    "restart": restart,
    "many": many,
}


def main() -> int:
    """Measure, print a table, keep the numbers in out/bench.json."""
    known = [*WITHOUT_MACHINES, *GROUPS]
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(known)}")
    names = parser.parse_args().names or known
    unknown = set(names) - set(known)
    if unknown:
        parser.error(f"no such figures: {', '.join(sorted(unknown))}")
    figures: list[Figure] = []
    for name in names:
        if name in WITHOUT_MACHINES:
            print(f"measuring: {name}", flush=True)
            figures += WITHOUT_MACHINES[name]()
            show(figures)
    with setting() if GROUPS.keys() & set(names) else nullcontext() as ready:
        for name in names:
            if ready is not None and name in GROUPS:
                print(f"measuring: {name}", flush=True)
                figures += GROUPS[name](ready)
                show(figures)
    out = Path("out")
    out.mkdir(exist_ok=True)
    (out / "bench.json").write_text(json.dumps([asdict(one) for one in figures], indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
