"""Requests of local programs to the daemon that need a descriptor in the answer.

The socket `$INSULA_RUN/local.sock` is SOCK_SEQPACKET; records are JSON objects of at most
MAX_RECORD bytes, descriptors travel beside them. One request per connection; the connection stays
open for as long as what was asked for is in use, and its closing says that the caller is done.

| op | fields, descriptors | answer |
|---|---|---|
| call | target, user, service or command, autostart, gui | qube, domain, port, nonce (hex); data |
| window | qube; an X connection | viewer's pid; its pidfd |

call: target is a qube's name, "@dispvm" or "@dispvm:TEMPLATE"; a disposable ends with the
connection. service is "NAME[+ARG]"; command is a shell command; exactly one of them. user is a
login name or "DEFAULT". An error answer has "error" (an Admin API exception name) and "message".
"""

MAX_RECORD = 70_000
SOCKET_NAME = "local.sock"
