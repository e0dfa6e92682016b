"""Disks as QEMU knows them: block nodes, base first, and the device that shows the uppermost.

Nodes are named by their disk's serial, so that what belongs to a disk is found without having been
written down: SERIAL-top, SERIAL-0 ... for the layers below it, each with a -file of its own.
"""

from typing import Any

from insula.daemon.model.machine import Disk, Layer

Node = dict[str, Any]
LONGEST_SERIAL = 20  # characters that a guest gets to see


def top_node(serial: str) -> str:
    """The name of a disk's uppermost block node."""
    return f"{serial}-top"


def node_names(disk: Disk) -> tuple[str, ...]:
    """Names of the nodes of a disk's layers, base first."""
    below = tuple(f"{disk.serial}-{place}" for place in range(len(disk.layers) - 1))
    return (*below, top_node(disk.serial))


def belongs(node: str, serial: str) -> bool:
    """Whether a node is one of the disk with that serial."""
    name, dash, place = node.removesuffix("-file").rpartition("-")
    return bool(dash) and name == serial and (place == "top" or place.isdigit())


def device_id(serial: str) -> str:
    """The name of a disk's device."""
    return f"disk-{serial}"


def key_id(node: str) -> str:
    """The name of the object that holds a node's key."""
    return f"{node}-key"


def blank_node(disk: Disk) -> Node:
    """A disk without layers: it is blank and forgets what is written."""
    return {
        "driver": "null-co",
        "node-name": top_node(disk.serial),
        "size": disk.size,
        "read-zeroes": True,
    }


def file_node(name: str, layer: Layer, descriptor_set: int) -> Node:
    """The file under a layer's node, opened by the set that holds its descriptor."""
    return {
        "driver": "file",
        "node-name": f"{name}-file",
        "filename": f"/dev/fdset/{descriptor_set}",
        "read-only": not layer.writable,
        "auto-read-only": False,
        "discard": "unmap",
    }


def layer_node(name: str, layer: Layer, below: str | None) -> Node:
    """A layer, over the node below."""
    node: Node = {
        "driver": layer.format,
        "node-name": name,
        "file": f"{name}-file",
        "read-only": not layer.writable,
        "discard": "unmap",
    }
    if layer.format == "qcow2":
        node["backing"] = below
    if layer.key is not None:
        node["encrypt"] = {"format": "luks", "key-secret": key_id(name)}
    return node


def device(disk: Disk) -> Node:
    """What the guest sees, but for the place where it is plugged in."""
    return {
        "driver": "virtio-blk-pci",
        "id": device_id(disk.serial),
        "drive": top_node(disk.serial),
        "serial": disk.serial,
        # What a snapshot's placeholder accepts, its clones' images must too.
        "discard": True,
        "write-zeroes": True,
    }
