"""The instance that figures are taken from."""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from insula.client.local_socket import request
from tests.bench.floor import Floor
from tests.vm.instance import BUILD_TIMEOUT, Instance

TEMPLATE = "debian-12"
_TICKS = os.sysconf("SC_CLK_TCK")
WITH_X, WITHOUT_X = "dvm", "dvm-plain"  # disposable templates


@dataclass(frozen=True, slots=True)
class Setting:
    """An instance that is up, with a template, its snapshots and two disposable templates.

    with_x, without_x: bare machines of the snapshots that these make.
    """

    instance: Instance
    with_x: Floor
    without_x: Floor
    scratch: Path

    def timed(self, *words: str) -> float:
        """Seconds that a command takes, which has to succeed."""
        begun = time.monotonic()
        self.instance.say(*words)
        return time.monotonic() - begun


@contextmanager
def setting() -> Iterator[Setting]:
    """Bring an instance up for the length of the block."""
    home = Path(tempfile.mkdtemp(prefix="insula-bench-"))
    instance = Instance.make(home)
    os.environ |= {"INSULA_HOME": str(instance.home), "INSULA_RUN": str(instance.run)}
    instance.up()
    try:
        instance.say("insula", "template", "build", TEMPLATE, timeout=BUILD_TIMEOUT)
        for name in (WITH_X, WITHOUT_X):
            instance.say("qvm-create", "--label", "red", name)
            instance.say("qvm-prefs", name, "template_for_dispvms", "True")
        instance.say("qvm-features", WITHOUT_X, "gui", "")
        instance.say("qubes-prefs", "default_dispvm", WITHOUT_X)
        scratch = instance.run / "floor"
        scratch.mkdir(mode=0o700)
        yield Setting(instance, _floor(instance, WITH_X), _floor(instance, WITHOUT_X), scratch)
    finally:
        instance.down()
        shutil.rmtree(home, ignore_errors=True)


def cpu_seconds(pid: int) -> float:
    """Processor time that a process took so far."""
    fields = Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _floor(instance: Instance, qube: str) -> Floor:
    key = request("golden", timeout=BUILD_TIMEOUT, qube=qube)["key"]
    return Floor.of(instance.home, instance.run, TEMPLATE, str(key))
