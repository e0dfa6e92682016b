"""A daemon that is killed while many qubes run."""

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

from insula.client.admin import ask_dom0
from insula.client.local_socket import request
from tests.bench.report import Figure
from tests.bench.setting import Setting

COUNT = 20
_DEADLINE = 60.0


def restart(setting: Setting) -> list[Figure]:
    """SIGKILL of the daemon with 20 qubes running: until all 20 answer again."""
    names = [f"many{number}" for number in range(COUNT)]
    for name in names:
        setting.instance.say("qvm-create", "--label", "green", name)
        setting.instance.say("qvm-features", name, "gui", "")
        setting.instance.say("qvm-start", name)
    os.kill(request("status")["pid"], signal.SIGKILL)
    begun = time.monotonic()
    setting.instance.up()
    while ask_dom0("admin.vm.List").count(b"class=AppVM state=Running") < COUNT:
        if time.monotonic() - begun > _DEADLINE:
            break
    running = time.monotonic() - begun
    with ThreadPoolExecutor(4) as pool:
        commands = [("qvm-run", "-p", "-q", name, "--", "true") for name in names]
        list(pool.map(lambda words: setting.instance.say(*words), commands))
    served = time.monotonic() - begun
    for name in names:
        setting.instance.say("qvm-kill", name)
    value = f"{running * 1000:.0f} ms; {served:.1f} s until each ran a command"
    title = f"{COUNT} qubes, daemon killed: all agents answer"
    return [Figure(title, value, "under 1 s", running < 1)]
