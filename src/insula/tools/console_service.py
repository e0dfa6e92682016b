"""The service admin.vm.Console of dom0: a qube's console on standard input and output.

The calling qube and the one called for are in the environment, as for imports of volumes. What the
daemon refuses goes to standard output as it came.
"""

import os
import select
import sys

from insula.client import instance
from insula.client.admin import ask_raw
from insula.protocol import admin
from insula.protocol.errors import ProtocolError, ReportableError
from insula.tools.qvm_console import TakenError, opened
from insula.tools.volume_import import SOURCE, TARGET

_METHOD = "admin.vm.Console"
_CHUNK = 4096
_POLL = 1000  # milliseconds after which a qube that is gone is noticed
_LINGER = 500  # milliseconds that what was typed last has to show something


def main() -> int:
    """Serve one call."""
    source, target = (os.environ.get(key, "") for key in (SOURCE, TARGET))
    try:
        request = admin.encode_request(_METHOD, "", target, source=source)
        answer = ask_raw(request, instance.ADMIN_SOCKET)
        path = admin.decode_answer(answer)
        if not isinstance(path, bytes):
            sys.stdout.buffer.write(answer)
            return 1
        with opened(target, path.decode()) as console:
            _pass_on(console)
    except (ReportableError, ProtocolError, OSError) as error:
        sys.stderr.write(f"{_METHOD}: {error}\n")
        return error.exit_code if isinstance(error, TakenError) else 1
    return 0


def _pass_on(console: int) -> None:
    """Pass both ways until the console ends, or the caller and what it typed last."""
    typed, shown, wait = sys.stdin.fileno(), sys.stdout.fileno(), _POLL
    poll = select.poll()
    poll.register(typed, select.POLLIN)
    poll.register(console, select.POLLIN)
    while True:
        ready = poll.poll(wait)
        if not ready and wait == _LINGER:
            return
        for descriptor, _events in ready:
            try:
                data = os.read(descriptor, _CHUNK)
            except OSError:
                return  # The console is no more.
            if descriptor == typed and not data:
                poll.unregister(typed)
                wait = _LINGER
            elif not data:
                return
            else:
                _write_all(console if descriptor == typed else shown, data)


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


if __name__ == "__main__":
    sys.exit(main())
