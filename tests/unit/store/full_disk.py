"""Run alone: an instance on a file system that fills up; what came of it as JSON."""

import asyncio
import json
import os
import sys
from contextlib import AsyncExitStack, suppress
from pathlib import Path

from insula.protocol.errors import ReportableError
from tests.serving import Instance, memory_engine, open_instance


async def main(small: Path) -> None:
    home, run = small / "home", small / "run"
    run.mkdir()
    result: dict[str, object] = {}
    async with AsyncExitStack() as undo:
        instance = await open_instance(undo, home, run, memory_engine())
        await instance.template()
        for number in range(20):
            await instance.qube(f"work-{number}")
        _fill(small)
        result["full"] = await _until_full(instance)
        _fill(small)
        result["free"] = os.statvfs(small).f_bavail
        instance.told.clear()
        for number in range(20):
            await instance.administration.remove(instance.system.named(f"work-{number}"))
        result["events"] = len([one for one in instance.told if one.name == "domain-delete"])
        (small / "filler").unlink()
        await instance.qube("again")
        result["reserve"] = (home / "insula.db.reserve").stat().st_size
    async with AsyncExitStack() as undo:
        instance = await open_instance(undo, home, run, memory_engine())
        result["qubes"] = sorted(
            qube.name for qube in instance.system.qubes.values() if "more" not in qube.name
        )
    print(json.dumps(result))


async def _until_full(instance: Instance) -> dict[str, object]:
    """What is said when there is no room for another qube; a few may find some in the store."""
    for number in range(1000):
        before = set(instance.system.qubes)
        instance.told.clear()
        try:
            await instance.qube(f"more-{number}")
        except ReportableError as error:
            assert set(instance.system.qubes) == before
            assert instance.told == []
            return {"kind": error.api_name, "text": str(error), "hint": error.hint}
    return {}


def _fill(small: Path) -> None:
    """Leave no byte free."""
    with suppress(OSError), (small / "filler").open("ab", buffering=0) as filler:
        for size in (65536, 4096, 1):
            with suppress(OSError):
                while filler.write(b"x" * size):
                    pass


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
