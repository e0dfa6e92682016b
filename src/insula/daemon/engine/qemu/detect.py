"""Which accelerator this host really has, found by running a tiny guest on it.

/dev/kvm may exist, open and answer, and still hang every kernel: where it steps through a guest
instruction by instruction, a kernel would take hours. Only a guest that has real work to do and
reaches its own end within a deadline proves that it can be used.
"""

import asyncio
import json
import os
import re
import tempfile
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from insula.daemon.engine.interface import EngineError
from insula.daemon.engine.qemu.arguments import BINARY, Accelerator

PROBE_DEADLINE = 5.0
_EXIT_PORT_VALUE = 0x21  # isa-debug-exit: (value << 1) | 1
_KVM_DEVICE = Path("/dev/kvm")


@dataclass(frozen=True, slots=True)
class KvmVerdict:
    """Whether KVM can be used, and if not, why."""

    usable: bool
    reason: str


def boot_sector() -> bytes:
    """A guest of 512 bytes: enters protected mode with paging off, counts, and ends the machine.

    It runs in real mode first (which KVM may emulate) and then in protected mode (which it must
    run), and counts 200 million rounds there: a tenth of a second on a processor, hours where every
    instruction is emulated.
    """
    gdt_at = 0x7C00 + 0x40
    code = bytes.fromhex(
        "fa"  # cli
        "31c08ed8"  # xor ax,ax; mov ds,ax
        "0f0116" + (gdt_at + 24).to_bytes(2, "little").hex()  # lgdt [..]
    )
    code += bytes.fromhex("0f20c06683c8010f22c0")  # mov eax,cr0; or eax,1; mov cr0,eax
    jump_at = 0x7C00 + len(code)
    code += b"\xea" + (jump_at + 5).to_bytes(2, "little") + b"\x08\x00"  # jmp 8:next
    code += bytes.fromhex(
        "b900c2eb0b"  # mov ecx,200000000
        "4975fd"  # loop: dec ecx; jnz
        "b021"  # mov al,0x21
        "66baf400"  # mov dx,0xf4
        "ee"  # out dx,al
        "f4ebfd"  # hlt; jmp
    )
    assert len(code) <= gdt_at - 0x7C00, "the code runs into its descriptor table"
    table = bytes(8) + bytes.fromhex("ffff0000009acf00") + bytes.fromhex("ffff00000092cf00")
    pointer = (23).to_bytes(2, "little") + gdt_at.to_bytes(4, "little")
    image = code.ljust(gdt_at - 0x7C00, b"\x90") + table + pointer
    return image.ljust(510, b"\x00") + b"\x55\xaa"


async def runs_guest(accelerator: str, deadline: float = PROBE_DEADLINE) -> KvmVerdict:
    """Start the tiny guest on an accelerator and see whether it comes to its end."""
    with tempfile.TemporaryDirectory(prefix="insula-probe-") as scratch:
        image = Path(scratch, "boot.img")
        image.write_bytes(boot_sector().ljust(1024 * 1024, b"\x00"))
        process = await asyncio.create_subprocess_exec(
            *(BINARY, "-nodefaults", "-no-user-config", "-display", "none", "-m", "16"),
            *("-M", "pc", "-accel", accelerator, "-no-reboot"),
            *("-drive", f"file={image},format=raw,if=ide,readonly=off"),
            *("-device", "isa-debug-exit,iobase=0xf4,iosize=0x01"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(deadline):
                _, said = await process.communicate()
        except TimeoutError:
            return KvmVerdict(False, f"a tiny guest did not come to its end in {deadline:.0f} s")
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if process.returncode == (_EXIT_PORT_VALUE << 1) | 1:
        return KvmVerdict(True, "a tiny guest ran to its end")
    text = said.decode(errors="replace").strip().splitlines()
    return KvmVerdict(False, text[-1] if text else f"QEMU ended with {process.returncode}")


async def kvm_verdict() -> KvmVerdict:
    """Whether machines of this process may use KVM, and KVM works."""
    if not _KVM_DEVICE.exists():
        return KvmVerdict(False, "/dev/kvm does not exist")
    if not os.access(_KVM_DEVICE, os.R_OK | os.W_OK):
        return KvmVerdict(False, "/dev/kvm may not be opened by this user")
    if os.geteuid() == 0 and not opens_to_others(_KVM_DEVICE.stat()):
        return KvmVerdict(False, "/dev/kvm may be opened by root alone, which no qube runs as")
    return await runs_guest("kvm")


def opens_to_others(found: os.stat_result) -> bool:
    """Whether a user with no group but the device's may read and write it."""
    its_group = found.st_gid != 0 and found.st_mode & 0o060 == 0o060
    return its_group or found.st_mode & 0o006 == 0o006


async def newest_machine_type() -> str:
    """The newest versioned q35 of this QEMU: a snapshot must not change machine under an update."""
    process = await asyncio.create_subprocess_exec(
        BINARY, "-machine", "help", stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(PROBE_DEADLINE):
        listed, _ = await process.communicate()
    versions = re.findall(r"^pc-q35-(\d+)\.(\d+)\b", listed.decode(), re.MULTILINE)
    if not versions:
        raise EngineError(f"{BINARY} knows no versioned q35 machine")
    major, minor = max((int(major), int(minor)) for major, minor in versions)
    return f"pc-q35-{major}.{minor}"


async def choose_accelerator(wanted: str | None = None) -> Accelerator:
    """KVM when it really works, else software emulation; wanted overrides the choice."""
    machine_type = await newest_machine_type()
    if wanted == "kvm" or (wanted is None and (await kvm_verdict()).usable):
        return Accelerator(name="kvm", machine_type=machine_type)
    return Accelerator(name="tcg", machine_type=machine_type, options="thread=multi")


if __name__ == "__main__":  # For `insula doctor`, which works without a daemon.
    print(json.dumps(asdict(asyncio.run(kvm_verdict()))))
