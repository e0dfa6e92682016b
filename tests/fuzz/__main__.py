"""Feed every parser for a while: `python -m tests.fuzz SECONDS [NAME...]`.

Each target runs in a process of its own, guided by coverage, with the inputs that earlier runs
found worth keeping (out/fuzz). An input that breaks one is left beside them, and ends the run.
"""

import argparse
import importlib
import subprocess
import sys
from pathlib import Path

TARGETS = tuple(sorted(path.stem for path in Path(__file__).parent.glob("fuzz_*.py")))
_KEPT = Path("out", "fuzz")
_LONGEST = 70_000  # bytes of an input
_RUN = "--run"


def main() -> int:
    """Run the targets one after the other; returns the first exit code that is not 0."""
    if sys.argv[1:2] == [_RUN]:
        _fuzz(sys.argv[2], sys.argv[3:])
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("seconds", type=int, help="for each target")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(TARGETS))
    arguments = parser.parse_args()
    for name in arguments.names or TARGETS:
        kept = _KEPT / name
        kept.mkdir(parents=True, exist_ok=True)
        words = [sys.executable, "-m", "tests.fuzz", _RUN, name, str(kept)]
        words += [f"-max_total_time={arguments.seconds}", f"-max_len={_LONGEST}"]
        words += [f"-artifact_prefix={kept}/broken-", "-print_final_stats=1"]
        print(f"fuzzing {name} for {arguments.seconds} s", flush=True)
        done = subprocess.run(words, timeout=arguments.seconds + 120, check=False)
        if done.returncode:
            return done.returncode
    return 0


def _fuzz(name: str, words: list[str]) -> None:
    import atheris  # noqa: PLC0415 - installed by `make fuzz` alone

    with atheris.instrument_imports(include=["insula"]):
        target = importlib.import_module(f"tests.fuzz.{name}")
    atheris.Setup([name, *words], target.fuzz)
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
