"""Data between a command and a qube, beside a raw port of a bare machine in the same run."""

import os
import socket
import time

from insula.client.local_socket import request
from tests.bench.floor import RAW_PORT, BareMachine
from tests.bench.report import Figure, interleaved, median
from tests.bench.setting import Setting, cpu_seconds

MIB = 1024 * 1024
ROUNDS = 300
SIZE = 64 * MIB
LONG = 256 * MIB
_RAW_DEVICE = f"/dev/virtio-ports/org.insula.data.{RAW_PORT}"


def data(setting: Setting) -> list[Figure]:
    """Round trips, throughput, and what the daemon has to do with it."""
    instance = setting.instance
    instance.say("qvm-create", "--label", "blue", "data")
    instance.say("qvm-start", "data")
    try:
        with setting.with_x.machine(setting.scratch) as bare:
            return [_round_trip(setting, bare), _throughput(setting, bare), _daemon(setting)]
    finally:
        instance.say("qvm-kill", "data")


def _round_trip(setting: Setting, bare: BareMachine) -> Figure:
    raw = bare.join(RAW_PORT)
    # One descriptor both ways: a port is opened once. The cat in the middle is the echo.
    bare.begin(f"exec 3<>{_RAW_DEVICE}; cat <&3 | cat | cat >&3", user="root")
    process = setting.instance.start("qvm-run", "-p", "-q", "data", "--", "cat")
    assert process.stdin is not None
    assert process.stdout is not None
    sending, receiving = process.stdin.fileno(), process.stdout.fileno()

    def ours() -> float:
        begun = time.monotonic()
        os.write(sending, b"x")
        os.read(receiving, 1)
        return time.monotonic() - begun

    ours()
    framed, plain = interleaved(ROUNDS, ours, lambda: _echo(raw))
    raw.close()
    process.stdin.close()
    process.wait(30)
    process.stdout.close()
    ratio = median(framed) / median(plain)
    value = f"{median(framed) * 1e6:.0f} us = {ratio:.2f} x {median(plain) * 1e6:.0f} us"
    return Figure("round trip through cat, median", value, "at most 1.3 x a raw port", ratio <= 1.3)


def _echo(raw: socket.socket) -> float:
    begun = time.monotonic()
    raw.sendall(b"x")
    raw.recv(1)
    return time.monotonic() - begun


def _throughput(setting: Setting, bare: BareMachine) -> Figure:
    blocks = SIZE // 65_536
    give = f"dd if=/dev/zero bs=65536 count={blocks} status=none"

    def ours() -> float:
        begun = time.monotonic()
        process = setting.instance.start("qvm-run", "-p", "-q", "data", give)
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        left = SIZE
        while data := process.stdout.read(65_536):
            left -= len(data)
        process.wait(30)
        process.stdout.close()
        if left:
            raise RuntimeError(f"{left} bytes did not come")
        return time.monotonic() - begun

    def plain() -> float:
        raw = bare.join(RAW_PORT)
        begun = time.monotonic()
        bare.begin(f"{give} | dd of={_RAW_DEVICE} bs=65536 status=none", user="root")
        left = SIZE
        while left:
            left -= len(raw.recv(65_536))
        raw.close()
        return time.monotonic() - begun

    framed, raw_port = interleaved(5, ours, plain)
    ratio = median(raw_port) / median(framed)
    value = (
        f"{SIZE / median(framed) / 1e6:.0f} MB/s = {ratio:.2f} x "
        f"{SIZE / median(raw_port) / 1e6:.0f} MB/s"
    )
    return Figure("qvm-run from a qube, 64 MiB", value, "at least 0.7 x dd | dd", ratio >= 0.7)


def _daemon(setting: Setting) -> Figure:
    pid = request("status")["pid"]
    before, begun = cpu_seconds(pid), time.monotonic()
    give = f"dd if=/dev/zero bs=65536 count={LONG // 65_536} status=none"
    process = setting.instance.start("qvm-run", "-p", "-q", "data", give)
    assert process.stdout is not None
    while process.stdout.read(MIB):
        pass
    process.wait(30)
    taken = time.monotonic() - begun
    share = (cpu_seconds(pid) - before) / taken * 100
    return Figure(
        "daemon's processor time, 256 MiB",
        f"{share:.1f} % of {taken:.1f} s",
        "under 2 %",
        share < 2,
    )
