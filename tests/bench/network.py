"""Networks of qubes: links, throughput through a provider, and firewall rules."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.bench.report import Figure, median
from tests.bench.setting import Setting
from tests.vm.instance import Instance, wait_for

_PROVIDER, _ONE, _OTHER = "bench-net", "bench-one", "bench-two"
_READY = 300.0  # seconds
_RULES, _SIZE = 1000, 32 * 1024 * 1024
_ROUNDS = 5
# Says so once packets pass to the provider and back: it refuses connections, which takes both ways.
_WAIT_FOR_LINK = """python3 -uc '
import errno, socket, time
print("begun")
while True:
    with socket.socket() as one:
        one.settimeout(1)
        if one.connect_ex(("{gateway}", 9)) in (errno.ECONNREFUSED, errno.EHOSTUNREACH):
            break
    time.sleep(0.005)
print("up")
'"""
_SERVE = """systemd-run -q --unit=bench-sink python3 -c '
import socket
with socket.create_server(("0.0.0.0", 9009)) as listening:
    while True:
        one, _ = listening.accept()
        while one.recv(1 << 18):
            pass
        one.close()
'"""
_SEND = """python3 -c '
import socket, time
block = bytes(1 << 16)
with socket.create_connection(("{address}", 9009), 20) as one:
    begun = time.monotonic()
    for _ in range({size} >> 16):
        one.sendall(block)
    one.shutdown(socket.SHUT_WR)
    one.recv(1)
    print(time.monotonic() - begun)
'"""


def network(setting: Setting) -> list[Figure]:
    """A link, a flow through a provider, and many rules."""
    with _qubes(setting.instance) as gateway:
        return [
            _link(setting.instance, gateway),
            _throughput(setting.instance),
            _rules(setting.instance),
        ]


@contextmanager
def _qubes(instance: Instance) -> Iterator[str]:
    """A provider without a way out, and two clients, running; the provider's address."""
    names = (_PROVIDER, _ONE, _OTHER)
    for name in names:
        instance.say("qvm-create", "--label", "green", name)
    instance.say("qvm-features", _PROVIDER, "uplink", "none")
    instance.say("qvm-prefs", _PROVIDER, "provides_network", "True")
    instance.say("qvm-prefs", _PROVIDER, "netvm", "")
    for name in (_ONE, _OTHER):
        instance.say("qvm-prefs", name, "netvm", _PROVIDER)
    try:
        instance.say("qvm-start", *names, timeout=_READY)
        gateway = instance.say("qvm-prefs", _PROVIDER, "ip").strip()
        for name in (_ONE, _OTHER):
            instance.say("qvm-run", "-p", name, _WAIT_FOR_LINK.format(gateway=gateway))
        yield gateway
    finally:
        for name in reversed(names):
            instance.command("qvm-kill", name)


def _link(instance: Instance, gateway: str) -> Figure:
    taken = []
    for _ in range(_ROUNDS):
        instance.say("qvm-prefs", _ONE, "netvm", "")
        time.sleep(2)
        command = _WAIT_FOR_LINK.format(gateway=gateway)
        with instance.running("qvm-run", "-p", _ONE, command) as waiting:
            assert waiting.stdout is not None
            assert waiting.stdout.readline() == b"begun\n"
            begun = time.monotonic()
            instance.say("qvm-prefs", _ONE, "netvm", _PROVIDER)
            assert waiting.stdout.readline() == b"up\n"
            taken.append(time.monotonic() - begun)
    value = median(taken)
    return Figure("link up after netvm was set", f"{value:.2f} s", "under 1.5 s", value < 1.5)


def _throughput(instance: Instance) -> Figure:
    open_up = "nft add rule ip qubes custom-forward accept"
    instance.say("qvm-run", "-u", "root", _PROVIDER, open_up)
    serve = f"nft add rule ip qubes custom-input accept; {_SERVE}"
    instance.say("qvm-run", "-u", "root", _OTHER, serve)
    address = instance.say("qvm-prefs", _OTHER, "ip").strip()
    listening = ("qvm-run", "-p", _OTHER, "ss -Hltn | grep -c :9009")
    wait_for(lambda: instance.command(*listening).stdout == b"1\n", "the sink")
    send = _SEND.format(address=address, size=_SIZE)
    taken = [float(instance.say("qvm-run", "-p", _ONE, send)) for _ in range(_ROUNDS)]
    value = f"{_SIZE / median(taken) / 1e6:.1f} MB/s"
    return Figure("TCP through one provider", value, "0.6 x bare guests", None)


def _rules(instance: Instance) -> Figure:
    address = instance.say("qvm-prefs", _ONE, "ip").strip()
    taken = []
    for turn in range(3):
        text = "".join(
            f"action=accept dst4=10.{turn}.{number >> 8}.{number & 255} proto=tcp dstports=443\n"
            for number in range(_RULES)
        )
        with instance.running(
            *("qvm-run", "-p", "-u", "root", _PROVIDER),
            f"echo begun; qubesdb-watch -n 1 /qubes-firewall-handled/{address}",
        ) as watching:
            assert watching.stdout is not None
            assert watching.stdout.readline() == b"begun\n"
            time.sleep(1)  # until it watches
            begun = time.monotonic()
            _set_rules(instance, _ONE, text)
            watching.stdout.readline()
            taken.append(time.monotonic() - begun)
    instance.say("qvm-firewall", _ONE, "reset")
    value = median(taken)
    name = f"{_RULES} firewall rules set, and in force"
    return Figure(name, f"{value:.2f} s", "under 2 s", value < 2)


def _set_rules(instance: Instance, qube: str, text: str) -> None:
    words = ("qubesd-query", "--fail", "dom0", "admin.vm.firewall.Set", qube)
    instance.say(*words, given=text.encode())
