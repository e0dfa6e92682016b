"""A qube's service called by qvm-run, for clipboards that no window agent hands over."""

import asyncio
import logging
import sys
from asyncio.subprocess import DEVNULL, PIPE
from contextlib import suppress

_TIMEOUT = 15.0  # seconds
_QVM_RUN = (sys.executable, "-P", "-s", "-m", "insula.tools.qvm_run")

log = logging.getLogger("insula.session")


async def call(
    qube: str, service: str, given: bytes, most: int, *, command: tuple[str, ...] = _QVM_RUN
) -> bytes | None:
    """The first bytes that a service says, most at most; None where the call failed."""
    options = ("--pass-io", "--service", "--no-autostart", "--quiet", "--", qube, service)
    process = await asyncio.create_subprocess_exec(
        *command, *options, stdin=PIPE, stdout=PIPE, stderr=DEVNULL
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        async with asyncio.timeout(_TIMEOUT):
            with suppress(ConnectionError):
                process.stdin.write(given)
                await process.stdin.drain()
            process.stdin.close()
            said = b""
            while len(said) < most and (chunk := await process.stdout.read(most - len(said))):
                said += chunk
            if len(said) < most and await process.wait() != 0:
                log.warning("%s: %s failed", qube, service)
                return None
            return said
    except TimeoutError:
        log.warning("%s: %s does not end", qube, service)
        return None
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
