"""The figures of this machine: `make bench`, or `python -m tests.bench NAME...` for some."""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from tests.bench.crowds import many, memory
from tests.bench.data import data
from tests.bench.report import Figure, show
from tests.bench.restart import restart
from tests.bench.setting import setting
from tests.bench.starts import app_qube, disposables
from tests.bench.windows import windows

GROUPS = {
    "disposables": disposables,
    "app-qube": app_qube,
    "windows": windows,
    "memory": memory,
    "data": data,
    "restart": restart,
    "many": many,
}


def main() -> int:
    """Measure, print a table, keep the numbers in out/bench.json."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(GROUPS)}")
    names = parser.parse_args().names or list(GROUPS)
    unknown = set(names) - GROUPS.keys()
    if unknown:
        parser.error(f"no such figures: {', '.join(sorted(unknown))}")
    figures: list[Figure] = []
    with setting() as ready:
        for name in names:
            print(f"measuring: {name}", flush=True)
            figures += GROUPS[name](ready)
            show(figures)
    out = Path("out")
    out.mkdir(exist_ok=True)
    (out / "bench.json").write_text(json.dumps([asdict(one) for one in figures], indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
