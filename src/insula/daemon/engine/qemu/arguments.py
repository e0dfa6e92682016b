"""The command line of a QEMU, from a machine's spec and the descriptors it will find.

Every file is a descriptor: disks by descriptor sets, memory, kernel and keys by /proc/self/fd.
Values are JSON or words of a list, never formatted into strings that QEMU splits again, except
numbers and names of ours. A snapshot's machine and its clones differ in nothing but block back
ends, sockets and the memory's sharing.
"""

import json
from dataclasses import dataclass, field
from typing import Any

from insula.daemon.engine.interface import (
    FIRST_DATA_PORT,
    FIRST_MAC,
    LAST_DATA_PORT,
    MachineSpec,
    Shape,
)
from insula.daemon.engine.qemu import blocks
from insula.daemon.engine.qemu.cards import FIRST_DEVICE, HUB
from insula.daemon.model.machine import Disk, Layer

BINARY = "/usr/bin/qemu-system-x86_64"
SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
MIB = 1024 * 1024
FIRST_DESCRIPTOR = 10
ROOT_PORT_SLOT = 0x10
_PORTS_WITH_IO = 16
DISK_SLOT = 0x4
NIC_SLOT = 0x8
SERIAL_SLOT = 0x3


@dataclass(slots=True)
class Descriptors:
    """What a QEMU inherits: the daemon's descriptor and its number in the QEMU."""

    given: list[int] = field(default_factory=list)

    def add(self, descriptor: int) -> int:
        """Pass one more; returns its number in the QEMU."""
        self.given.append(descriptor)
        return FIRST_DESCRIPTOR + len(self.given) - 1

    @property
    def numbers(self) -> tuple[int, ...]:
        return tuple(range(FIRST_DESCRIPTOR, FIRST_DESCRIPTOR + len(self.given)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Accelerator:
    """How the guest's instructions run. options: of -accel beyond the name."""

    name: str  # "tcg" or "kvm"
    machine_type: str  # versioned, "pc-q35-7.2"
    options: str = ""

    @property
    def cpu(self) -> str:
        return "host,migratable=on" if self.name == "kvm" else "max"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Descriptors of a launch beside its disks, as the daemon has them.

    memory: None for memory that no snapshot shares. kernel, initrd: None for a clone.
    """

    qmp: int
    control: int
    gui: int
    pixels: int
    memory: int | None
    kernel: int | None
    initrd: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenLayer:
    """A layer of a disk, opened for this launch; key: a descriptor of its passphrase."""

    descriptor: int
    key: int | None


def arguments(
    spec: MachineSpec,
    accelerator: Accelerator,
    sources: Sources,
    disks: tuple[tuple[Disk, tuple[OpenLayer, ...]], ...],
    descriptors: Descriptors,
) -> list[str]:
    """The whole argv of a QEMU; fills descriptors."""
    shape = spec.shape
    words = [
        BINARY,
        *("-name", spec.name, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *("-sandbox", SANDBOX),
        "-M",
        f"{accelerator.machine_type},memory-backend=m0,nvdimm=on,hpet=off,vmport=off",
        *("-accel", _accel(spec, accelerator)),
        *("-cpu", accelerator.cpu, "-smp", f"{shape.cpus},maxcpus={shape.maximum_cpus}"),
        *("-m", f"size={shape.memory}B,slots=8,maxmem={shape.maximum_memory}B"),
        *_memory(spec, sources, descriptors),
        *_channels(sources, descriptors),
        *_pixels(shape, sources, descriptors),
        *("-device", "vmgenid,guid=auto,id=generation"),
        *_root_ports(shape),
        *("-netdev", f"hubport,id=n0,hubid={HUB}"),
        "-device",
        f"virtio-net-pci,netdev=n0,id={FIRST_DEVICE},mac={FIRST_MAC},romfile=,addr={NIC_SLOT:#x}",
        *("-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"),
    ]
    for slot, (disk, layers) in enumerate(disks):
        words += _disk(disk, layers, DISK_SLOT + slot, descriptors)
    if spec.golden is not None:
        words += ["-incoming", "defer"]
    else:
        words += _boot(spec, sources, descriptors)
    return words


def _accel(spec: MachineSpec, accelerator: Accelerator) -> str:
    words = [accelerator.name, accelerator.options]
    if accelerator.name == "tcg":
        words.append(f"tb-size={spec.code_cache // MIB}")
    return ",".join(filter(None, words))


def _memory(spec: MachineSpec, sources: Sources, descriptors: Descriptors) -> list[str]:
    size = spec.shape.memory
    if sources.memory is None:
        backend: dict[str, Any] = {"qom-type": "memory-backend-ram", "id": "m0", "size": size}
    else:
        backend = {
            "qom-type": "memory-backend-file",
            "id": "m0",
            "size": size,
            "mem-path": f"/proc/self/fd/{descriptors.add(sources.memory)}",
            "share": spec.golden is None,
        }
    return ["-object", json.dumps(backend)]


def _channels(sources: Sources, descriptors: Descriptors) -> list[str]:
    def listening(name: str, descriptor: int) -> list[str]:
        number = descriptors.add(descriptor)
        return ["-chardev", f"socket,id={name},fd={number},server=on,wait=off"]

    words = [
        *listening("qmp", sources.qmp),
        *("-mon", "chardev=qmp,mode=control"),
        *("-device", f"virtio-serial-pci,id=vs0,max_ports=31,addr={SERIAL_SLOT:#x}"),
        *listening("control", sources.control),
        *_port(1, "control", "org.insula.control"),
        *listening("gui", sources.gui),
        *_port(2, "gui", "org.insula.gui"),
    ]
    for port in range(FIRST_DATA_PORT, LAST_DATA_PORT + 1):
        words += ["-chardev", f"null,id=c{port}"]
        words += _port(port, f"c{port}", f"org.insula.data.{port}")
    return words


def _port(number: int, chardev: str, name: str) -> list[str]:
    return [
        "-device",
        f"virtserialport,bus=vs0.0,nr={number},chardev={chardev},id=p{number},name={name}",
    ]


def _pixels(shape: Shape, sources: Sources, descriptors: Descriptors) -> list[str]:
    backend = {
        "qom-type": "memory-backend-file",
        "id": "pixels",
        "size": shape.pixels,
        "mem-path": f"/proc/self/fd/{descriptors.add(sources.pixels)}",
        "share": True,
    }
    return ["-object", json.dumps(backend), "-device", "nvdimm,id=nv0,memdev=pixels"]


def _root_ports(shape: Shape) -> list[str]:
    words = []
    # There is room for a range of I/O behind few of them, and nothing of ours needs one.
    more = ",io-reserve=0" if shape.root_ports > _PORTS_WITH_IO else ""
    for port in range(shape.root_ports):
        address = f"{ROOT_PORT_SLOT + port // 8:#x}.{port % 8}"
        words += [
            "-device",
            f"pcie-root-port,id=rp{port},chassis={port + 1},bus=pcie.0,addr={address},"
            f"multifunction=on,pref64-reserve=64M{more}",
        ]
    return words


def _disk(
    disk: Disk, layers: tuple[OpenLayer, ...], slot: int, descriptors: Descriptors
) -> list[str]:
    words = [] if layers else ["-blockdev", json.dumps(blocks.blank_node(disk))]
    below: str | None = None
    for name, layer, opened in zip(blocks.node_names(disk), disk.layers, layers, strict=False):
        words += _layer(name, layer, below, opened, descriptors)
        below = name
    device = {**blocks.device(disk), "addr": f"{slot:#x}"}
    return [*words, "-device", json.dumps(device)]


def _layer(
    name: str, layer: Layer, below: str | None, opened: OpenLayer, descriptors: Descriptors
) -> list[str]:
    number = descriptors.add(opened.descriptor)
    words = ["-add-fd", f"fd={number},set={number}"]
    words += ["-blockdev", json.dumps(blocks.file_node(name, layer, number))]
    if opened.key is not None:
        secret = {
            "qom-type": "secret",
            "id": blocks.key_id(name),
            "format": "raw",
            "file": f"/proc/self/fd/{descriptors.add(opened.key)}",
        }
        words += ["-object", json.dumps(secret)]
    return [*words, "-blockdev", json.dumps(blocks.layer_node(name, layer, below))]


def _boot(spec: MachineSpec, sources: Sources, descriptors: Descriptors) -> list[str]:
    if sources.kernel is None or sources.initrd is None:
        raise ValueError("a machine without a snapshot boots a kernel")
    return [
        "-S",  # Its jail is looked at before it runs.
        *("-kernel", f"/proc/self/fd/{descriptors.add(sources.kernel)}"),
        *("-initrd", f"/proc/self/fd/{descriptors.add(sources.initrd)}"),
        *("-append", spec.kernel.options),
    ]
