"""QEMU's own programs on disks as storage hands them out: by descriptor, formats explicit."""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from insula.daemon.model.machine import Disk

MIB = 1 << 20
_TIMEOUT = 60.0


def disk_io(disk: Disk, *commands: str) -> None:
    """Run qemu-io commands on a disk; read -P in them says what must be there."""
    descriptors = [layer.fd for layer in disk.layers if layer.fd is not None]
    with _secret(disk) as secrets:
        argv = ["qemu-io", *secrets]
        for command in commands:
            argv += ["-c", command]
        if disk.read_only:
            argv.append("-r")
        argv.append("json:" + json.dumps(_node(disk, len(disk.layers) - 1, "/proc/self/fd/{}")))
        run(argv, [*descriptors, *_inherited(secrets)])


def check(disk: Disk) -> None:
    """Have qemu-img check the top layer of a disk."""
    with _secret(disk) as secrets:
        node = _node(disk, len(disk.layers) - 1, "/proc/self/fd/{}")
        argv = ["qemu-img", "check", *secrets, "json:" + json.dumps(node)]
        descriptors = [layer.fd for layer in disk.layers if layer.fd is not None]
        run(argv, [*descriptors, *_inherited(secrets)])


def machine_io(disk: Disk, *commands: str) -> None:
    """Run qemu-io commands in a whole QEMU that got the disk as descriptor sets."""
    descriptors = [layer.fd for layer in disk.layers if layer.fd is not None]
    top = _node(disk, len(disk.layers) - 1, "/dev/fdset/{}") | {"node-name": "top"}
    requests: list[dict[str, Any]] = [{"execute": "qmp_capabilities"}]
    for command in commands:
        line = {"command-line": f'qemu-io top "{command}"'}
        requests.append({"execute": "human-monitor-command", "arguments": line})
    requests.append({"execute": "quit"})
    with _secret(disk) as secrets:
        argv = ["qemu-system-x86_64", "-M", "none", "-nodefaults", "-display", "none", "-S"]
        argv += ["-qmp", "stdio", *secrets]
        for number in descriptors:
            argv += ["-add-fd", f"fd={number},set={number}"]
        argv += ["-blockdev", json.dumps(top)]
        spoken = run(
            argv, [*descriptors, *_inherited(secrets)], "\n".join(map(json.dumps, requests))
        )
    # What qemu-io itself says comes between the answers.
    answers = [json.loads(line) for line in spoken.splitlines() if line.startswith("{")]
    assert len([each for each in answers if each.get("return") in ({}, "")]) == len(requests)
    wrong = [each for each in answers if "error" in each or each.get("return", "") not in ({}, "")]
    assert not wrong, wrong


def _node(disk: Disk, place: int, name: str) -> dict[str, Any]:
    layer = disk.layers[place]
    node: dict[str, Any] = {
        "driver": layer.format,
        "read-only": not layer.writable,
        "file": {
            "driver": "file",
            "filename": name.format(layer.fd),
            "read-only": not layer.writable,
            "auto-read-only": False,
        },
    }
    if layer.format == "qcow2":
        node["backing"] = _node(disk, place - 1, name) if place else None
    if layer.key is not None:
        node["encrypt"] = {"format": "luks", "key-secret": "key"}
    return node


@contextmanager
def _secret(disk: Disk) -> Iterator[list[str]]:
    """Words that give a QEMU the passphrase of the disk's top layer through a pipe."""
    key = disk.layers[-1].key
    if key is None:
        yield []
        return
    reading, writing = os.pipe()
    try:
        os.write(writing, key)
        os.close(writing)
        yield ["--object", f"secret,id=key,format=raw,file=/proc/self/fd/{reading}"]
    finally:
        os.close(reading)


def _inherited(secrets: list[str]) -> list[int]:
    return [int(secrets[1].rpartition("/")[2])] if secrets else []


def run(argv: list[str], descriptors: list[int] | None = None, request: str = "") -> str:
    """Run a program of QEMU's, which must succeed; what it said."""
    done = subprocess.run(
        argv,
        pass_fds=descriptors or (),
        input=request,
        capture_output=True,
        text=True,
        timeout=_TIMEOUT,
        check=False,
    )
    told = done.stdout + done.stderr
    assert done.returncode == 0, told
    assert "Pattern verification failed" not in told, told
    return done.stdout
