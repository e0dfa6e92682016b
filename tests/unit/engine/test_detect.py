"""An accelerator is judged by a guest that ran, not by a file."""

import os
import stat

import pytest

from insula.daemon.engine.qemu.detect import (
    boot_sector,
    newest_machine_type,
    opens_to_others,
    runs_guest,
)


async def test_the_tiny_guest_comes_to_its_end_under_emulation() -> None:
    verdict = await runs_guest("tcg", deadline=60)
    assert verdict.usable, verdict.reason


async def test_an_accelerator_that_does_not_exist_is_not_usable() -> None:
    verdict = await runs_guest("no-such-accelerator", deadline=20)
    assert not verdict.usable
    assert verdict.reason


async def test_a_guest_that_hangs_is_given_up() -> None:
    verdict = await runs_guest("tcg", deadline=0.001)
    assert not verdict.usable


def test_the_boot_sector_is_one() -> None:
    sector = boot_sector()
    assert len(sector) == 512
    assert sector.endswith(b"\x55\xaa")


async def test_the_machine_type_is_versioned() -> None:
    assert (await newest_machine_type()).startswith("pc-q35-")


@pytest.mark.parametrize(
    ("gid", "mode", "opens"),
    [(0, 0o600, False), (0, 0o660, False), (104, 0o660, True), (0, 0o666, True)],
)
def test_a_kvm_for_root_alone_is_none_for_machines(gid: int, mode: int, opens: bool) -> None:
    found = os.stat_result((stat.S_IFCHR | mode, 0, 0, 1, 0, gid, 0, 0, 0, 0))
    assert opens_to_others(found) == opens
