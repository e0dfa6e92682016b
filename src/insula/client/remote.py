"""What a program in a qube asks of dom0 and of other qubes: calls that the policy decides on.

Source of the procedure: admin-api.md section 1.3.
"""

import asyncio
import os
import select
import subprocess
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import IO, BinaryIO

from insula.client import errors
from insula.qrexec.sinks import Sink

EXIT_REFUSED = 126  # of qrexec-client-vm: the call is not to be
_CLIENT = "qrexec-client-vm"
_CHUNK = 65_536


def command(target: str, service: str, *options: str) -> list[str]:
    """The words of a call."""
    return [_CLIENT, *options, "--", target, service]


def method_service(method: str, argument: str) -> str:
    """A method of the Admin API as a service."""
    return f"{method}+{argument}" if argument else method


def ask(target: str, service: str, payload: bytes, timeout: float = 0) -> bytes:
    """What is answered to a call, as it came.

    Raises:
        QubesDaemonAccessError: it was refused, or failed.
        QubesDaemonCommunicationError: it took longer than timeout seconds.
    """
    try:
        done = subprocess.run(
            command(target, service),
            input=payload,
            capture_output=True,
            timeout=timeout or None,
            check=False,
        )
    except FileNotFoundError:
        raise _no_client() from None
    except subprocess.TimeoutExpired:
        text = f"{service}: no answer in {timeout:g} s"
        raise errors.QubesDaemonCommunicationError(text) from None
    if done.returncode:
        raise denied(target, service, done.stderr)
    return done.stdout


def ask_with_data(target: str, service: str, first: bytes, data: BinaryIO) -> bytes:
    """As ask, for a payload that is followed by a stream of any length.

    Raises:
        QubesDaemonAccessError: it was refused, or failed.
    """
    with _started(target, service) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        said: list[bytes] = []
        problems = process.stderr
        listening = threading.Thread(target=lambda: said.append(problems.read()))
        listening.start()
        with suppress(BrokenPipeError):  # The answer says why.
            process.stdin.write(first)
            while chunk := data.read(_CHUNK):
                process.stdin.write(chunk)
        with suppress(BrokenPipeError):
            process.stdin.close()
        answer = process.stdout.read()
        listening.join()
    if process.returncode:
        raise denied(target, service, said[0])
    return answer


def call(target: str, service: str, payload: bytes, output: Sink, problems: Sink) -> int:
    """Call a service of another qube; returns its exit code.

    Raises:
        QubesDaemonAccessError: it was refused.
    """
    with _started(target, service) as process:
        assert process.stdout is not None
        threads = [
            threading.Thread(target=_feed, args=(process.stdin, payload)),
            threading.Thread(target=_pass_on, args=(process.stderr, problems)),
        ]
        for thread in threads:
            thread.start()
        _pass_on(process.stdout, output)
        for thread in threads:
            thread.join()
    if process.returncode == EXIT_REFUSED:
        raise denied(target, service, b"")
    return process.returncode if process.returncode >= 0 else 128 - process.returncode


@asynccontextmanager
async def stream(target: str, service: str) -> AsyncIterator[asyncio.StreamReader]:
    """What comes of a call that lasts, for the length of the block.

    Raises:
        QubesDaemonAccessError: it was refused, or has failed.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *command(target, service),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
    except FileNotFoundError:
        raise _no_client() from None
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        yield process.stdout
        said = await process.stderr.read()
        if await process.wait():
            raise denied(target, service, said)
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def denied(target: str, service: str, said: bytes) -> errors.QubesDaemonAccessError:
    """That a call was not to be, by what qrexec-client-vm said of it."""
    text = said.decode("utf-8", "replace").strip() or "the call was refused"
    return errors.QubesDaemonAccessError(f"{service} of {target}: {text}")


def _no_client() -> errors.QubesDaemonCommunicationError:
    return errors.QubesDaemonCommunicationError(f"there is no {_CLIENT} in this qube")


def _started(target: str, service: str) -> "subprocess.Popen[bytes]":
    pipe = subprocess.PIPE
    try:
        return subprocess.Popen(command(target, service), stdin=pipe, stdout=pipe, stderr=pipe)
    except FileNotFoundError:
        raise _no_client() from None


def _feed(pipe: IO[bytes], payload: bytes) -> None:
    with suppress(BrokenPipeError):
        pipe.write(payload)
    with suppress(BrokenPipeError):
        pipe.close()


def _pass_on(pipe: IO[bytes], sink: Sink) -> None:
    """Pass everything on, up to where the sink takes no more."""
    while not sink.broken and (data := os.read(pipe.fileno(), _CHUNK)):
        rest = memoryview(data)
        while rest and not sink.broken:
            rest = rest[sink.write(rest) :]
            if rest and sink.descriptor >= 0:
                select.select([], [sink.descriptor], [])
    sink.end()
    pipe.close()
