"""Has questions of the policy put to the person: the program for that starts when one comes.

Its socket is ours, so that nobody who asks finds nobody listening, and a program that fails is
started anew by the next question.
"""

import asyncio
import logging
import os
import socket
import sys
from contextlib import suppress
from pathlib import Path

SOCKET_NAME = "policy-agent.sock"
_PROGRAM = "insula.prompts.agent"
_BACKLOG = 64
_PAUSE = 1.0  # seconds after one that failed
_END_TIMEOUT = 5.0

log = logging.getLogger("insula.session")


async def put_questions(run: Path, display: str) -> None:
    """Go on until cancelled; the program ends then, and what it asks is refused."""
    path = run / SOCKET_NAME
    with socket.socket(socket.AF_UNIX) as listener:
        listener.setblocking(False)
        path.unlink(missing_ok=True)
        listener.bind(str(path))
        path.chmod(0o600)
        listener.listen(_BACKLOG)
        try:
            while True:
                await _readable(listener)
                if await _ask(listener, display):
                    await asyncio.sleep(_PAUSE)
        finally:
            path.unlink(missing_ok=True)


async def _ask(listener: socket.socket, display: str) -> int:
    """Run the program until it has nothing more to ask; its exit code."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-s", "-m", _PROGRAM, "--listener", str(listener.fileno())),
        env={**os.environ, "DISPLAY": display, "QT_QPA_PLATFORM": "xcb"},
        stdin=asyncio.subprocess.DEVNULL,
        pass_fds=(listener.fileno(),),
    )
    try:
        code = await process.wait()
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.terminate()
            with suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), _END_TIMEOUT)
    if code:
        log.warning("the program that asks about calls ended with %d", code)
    return code


async def _readable(listener: socket.socket) -> None:
    loop, ready = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(listener, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(listener)
