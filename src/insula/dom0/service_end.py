"""python3 -m insula.dom0.service_end CONNECTION NONCE DESCRIPTOR: one call of a service of dom0.

CONNECTION is the number of a descriptor whose other end is a qube's. Nothing is read of it before
this process has settled; it ends with the call. QREXEC_SERVICE_PATH and QUBES_RPC_CONFIG_PATH name
the directories of services and of their configurations, INSULA_RUN where ours and the sockets lie.
"""

import os
import sys
from functools import partial

from insula.dom0 import confining
from insula.dom0.local_service import start
from insula.qrexec.call import Call
from insula.qrexec.loop import Loop
from insula.qrexec.port import SocketPort


def main() -> None:
    """Serve one call."""
    connection, nonce, descriptor = int(sys.argv[1]), bytes.fromhex(sys.argv[2]), sys.argv[3]
    confining.prepare()
    loop = Loop()
    port = SocketPort(loop)

    def over() -> None:
        loop.running = False

    call = Call(loop, port, nonce, over, keep_stderr=True)
    os.set_blocking(connection, False)
    os.set_inheritable(connection, False)
    port.use(connection)
    if call.greet(nonce):
        ours = os.path.join(os.environ.get("INSULA_RUN", ""), "qubes-rpc")  # noqa: PTH118
        start(call, descriptor, confine=partial(confining.confined, ours=ours))
    confining.settle()
    loop.run()


main()
