"""Calling services of other qubes, by the program that does it."""

import os
import subprocess
from collections.abc import Mapping, Sequence

_CLIENT = "/usr/lib/insula/bin/qrexec-client-vm"


def call_words(target: str, service: str, *program: str, options: Sequence[str] = ()) -> list[str]:
    """The words that call a service, connected with a program if one is named."""
    return [os.environ.get("QREXEC_CLIENT_VM", _CLIENT), *options, "--", target, service, *program]


def call(
    target: str,
    service: str,
    *program: str,
    options: Sequence[str] = (),
    stdin: int | None = None,
    stdout: int | None = None,
    environment: Mapping[str, str] | None = None,
) -> int:
    """Call a service and wait for its end; its exit code."""
    words = call_words(target, service, *program, options=options)
    done = subprocess.run(
        words,
        stdin=stdin,
        stdout=stdout,
        check=False,
        env={**os.environ, **(environment or {})},
    )
    return done.returncode if done.returncode >= 0 else 128 - done.returncode
