"""A whole instance in a thread of the test's process, for tests of what waits for its answers."""

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

from insula.daemon.admin.local import LocalServer
from insula.daemon.admin.local_calls import FOR_CALLER, LocalCalls
from insula.daemon.lifecycle.viewers import Viewers
from insula.protocol import local
from tests.serving import TEMPLATE, TIMEOUT, Instance, serving

Answer = TypeVar("Answer")


class Live:
    """The instance, and the loop that it runs in."""

    def __init__(self, instance: Instance, loop: asyncio.AbstractEventLoop) -> None:
        self.instance = instance
        self._loop = loop

    def do(self, work: Coroutine[Any, Any, Answer]) -> Answer:
        """Have something done in the instance's loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(TIMEOUT)


@contextmanager
def live(home: Path, template: str = TEMPLATE) -> Iterator[Live]:
    """An instance with a template and local calls, for the block."""
    started: list[Live] = []
    ready, failed = threading.Event(), []

    async def serve() -> None:
        async with serving(home) as instance:
            await instance.template(template)
            viewers = cast(Viewers, None)  # Nothing is shown.
            calls = LocalCalls(
                instance.api, instance.templates, instance.snapshots, viewers, lambda *_: False
            )
            path = instance.run / local.SOCKET_NAME
            server = LocalServer(path, calls.handlers(), FOR_CALLER)
            server.start()
            started.append(Live(instance, asyncio.get_running_loop()))
            ready.set()
            try:
                await done.wait()
            finally:
                await server.close()

    def run() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:
            failed.append(error)
            raise
        finally:
            ready.set()

    done = asyncio.Event()
    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert ready.wait(TIMEOUT)
        assert not failed, failed
        yield started[0]
    finally:
        if started:
            started[0]._loop.call_soon_threadsafe(done.set)
        thread.join(TIMEOUT)
        assert not thread.is_alive()
