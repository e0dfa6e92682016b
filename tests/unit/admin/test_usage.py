"""What machines take of the host, and what is taken beside them."""

import os

import pytest

from insula.daemon.admin import usage
from insula.daemon.admin.usage import used, used_beside


def test_a_process_takes_memory_and_time() -> None:
    memory, before = used(os.getpid())
    sum(range(3_000_000))
    assert memory > 1000
    assert used(os.getpid())[1] > before
    assert used(2**22 + 1) == (0, 0)


def test_the_host_takes_what_its_machines_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    memory, time = used_beside(())
    assert memory > used(os.getpid())[0]
    assert time > 0
    monkeypatch.setattr(usage, "used", lambda _pid: (memory // 4, 0))
    assert 0 < used_beside((1, 2))[0] < memory * 3 // 4
    assert used_beside(range(20))[0] == 0
