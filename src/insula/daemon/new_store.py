"""python3 -m insula.daemon.new_store: a store where there is none, without a daemon."""

import asyncio
import os
import sys
from contextlib import ExitStack
from pathlib import Path

from insula.daemon.alone import only_daemon
from insula.daemon.store.first import fill
from insula.daemon.store.store import FILE, Store
from insula.protocol.errors import ReportableError


class ExistsError(ReportableError):
    """There is a store already."""


def main() -> int:
    """Make the store of the instance that INSULA_HOME names."""
    home = Path(os.environ["INSULA_HOME"])
    try:
        with ExitStack() as locks:
            only_daemon(home, locks)
            asyncio.run(_make(home))
    except ReportableError as error:
        print(f"{error}\n{error.hint}" if error.hint else error, file=sys.stderr)
        return error.exit_code
    return 0


async def _make(home: Path) -> None:
    store = Store(home)
    try:
        if store.load().qubes:
            error = ExistsError(f"{home / FILE} is a store already, and stays as it is")
            error.hint = "For another instance set INSULA_HOME and INSULA_RUN."
            raise error
        await fill(store)
    finally:
        await store.close()


if __name__ == "__main__":
    sys.exit(main())
