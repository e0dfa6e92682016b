"""The qube's end of a call: the command really runs, as a process beside the test."""

import os
import socket
import subprocess
import threading
from contextlib import suppress
from typing import IO

from insula.protocol.command import decode_vmexec
from insula.protocol.frames import HEADER, frame
from insula.protocol.local import CallRequest
from insula.protocol.qrexec import MessageType, exit_code, hello

_SHELL = ["/bin/bash"]
# Services that the tests call, beside those that run commands.
SERVICES = {
    "test.Cat": ["cat"],
    "test.Lost": ["sh", "-c", "exit 0"],
    "qubes.WaitForSession": ["cat"],
    "qubes.GetAppmenus": ["sh", "-c", 'cat "$INSULA_RUN/applications"'],
    "qubes.GetImageRGBA": ["sh", "-c", 'read -r name; cat "$INSULA_RUN/${name#*:}"'],
}


def serve_call(connection: socket.socket, nonce: bytes, request: CallRequest) -> None:
    """Do what an agent does with a call, up to its exit code."""
    name, _, argument = (request.service or "").partition("+")
    with connection, connection.makefile("rb") as stream:
        connection.sendall(nonce + hello())
        assert stream.read(16 + len(hello())) == nonce + hello()
        if name == "test.Lost":
            return
        if request.detached:
            connection.sendall(exit_code(0))
            return
        argv = SERVICES.get(name)
        if name.startswith(("qubes.VMExec", "qubes.VMRootExec")):
            argv = [os.fsdecode(word) for word in decode_vmexec(argument)]
        elif name.startswith(("qubes.VMShell", "qubes.VMRootShell")):
            argv = _SHELL
        if argv is None:
            ends = frame(MessageType.DATA_STDOUT) + frame(MessageType.DATA_STDERR)
            connection.sendall(ends + exit_code(127))
            return
        _run(argv, connection, stream)


def _run(argv: list[str], connection: socket.socket, stream: IO[bytes]) -> None:
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        lock = threading.Lock()
        threads = [
            threading.Thread(target=_pass_on, args=(pipe_, kind, connection, lock))
            for pipe_, kind in (
                (process.stdout, MessageType.DATA_STDOUT),
                (process.stderr, MessageType.DATA_STDERR),
            )
        ]
        threads.append(threading.Thread(target=_feed, args=(stream, process.stdin)))
        for thread in threads:
            thread.start()
        for thread in threads[:2]:
            thread.join()
        code = process.wait()
        try:
            connection.sendall(exit_code(code if code >= 0 else 128 - code))
            connection.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # The caller left.
        threads[2].join()


def _pass_on(
    output: IO[bytes], kind: MessageType, connection: socket.socket, lock: threading.Lock
) -> None:
    while True:
        data = os.read(output.fileno(), 65_536)
        try:
            with lock:
                connection.sendall(frame(kind, data))
        except OSError:
            output.close()  # The caller left: the program gets SIGPIPE.
            return
        if not data:
            return


def _feed(stream: IO[bytes], program: IO[bytes]) -> None:
    """Give the program its input until the caller ends it or leaves."""
    with suppress(OSError):
        while len(header := stream.read(HEADER.size)) == HEADER.size:
            _give(stream.read(HEADER.unpack(header)[1]), program)
    _give(b"", program)


def _give(body: bytes, program: IO[bytes]) -> None:
    with suppress(OSError, ValueError):  # It has ended, or its input has.
        if body:
            program.write(body)
            program.flush()
        else:
            program.close()
