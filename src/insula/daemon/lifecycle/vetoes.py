"""What keeps a qube from starting or from ending (admin-api.md sections 8.2 and 8.3)."""

from insula.daemon.model.errors import (
    NotEnoughMemoryError,
    NotHaltedError,
    QubeInUseError,
    QubeStateError,
)
from insula.daemon.model.members import is_preloaded
from insula.daemon.model.properties.network import netvm
from insula.daemon.model.properties.qubes import value_of
from insula.daemon.model.qube import Qube, QubeClass
from insula.daemon.model.system import System

_RESTORED = "backup-restore-in-progress"


def check_start(qube: Qube) -> None:
    """Refuse to start a qube that is not whole yet.

    Raises:
        QubeStateError: it is being restored.
    """
    if _RESTORED in qube.tags:
        error = QubeStateError(f"Qube {qube.name} is being restored from a backup")
        error.hint = f"If no restore is going on: qvm-tags {qube.name} del {_RESTORED}"
        raise error


def check_memory(system: System, qube: Qube) -> None:
    """Refuse to start a qube for which the host is too small.

    Raises:
        NotEnoughMemoryError: it is.
    """
    wanted = int(str(value_of(system, qube, "memory")))
    if system.host_memory and wanted > system.host_memory:
        raise NotEnoughMemoryError(qube.name, wanted, system.host_memory)


def check_in_place(system: System, qube: Qube) -> None:
    """Refuse to start a disposable template that would change volumes under its disposables.

    Raises:
        NotHaltedError: one of them runs.
    """
    if qube.klass is not QubeClass.APP or not any(one.in_place for one in qube.volumes.values()):
        return
    for disposable in system.made_from(qube):
        if not disposable.halted:
            raise NotHaltedError(disposable.name, f"runs from a volume of {qube.name}")


def check_shutdown(system: System, qube: Qube) -> None:
    """Refuse to end a qube that running ones need.

    Raises:
        QubeStateError: they do.
    """
    others = [
        other
        for other in system.qubes.values()
        if other is not qube
        and other.klass.is_machine
        and not other.halted
        and not is_preloaded(system, other)
    ]
    for what, error, users in (
        (
            "provides network to",
            QubeInUseError,
            [other for other in others if netvm(system, other) is qube],
        ),
        (
            "shows the windows of",
            QubeStateError,
            [other for other in others if value_of(system, other, "guivm") == qube.uuid],
        ),
        (
            "plays the sound of",
            QubeInUseError,
            [other for other in others if value_of(system, other, "audiovm") == qube.uuid],
        ),
    ):
        if users:
            names = ", ".join(other.name for other in users)
            refusal = error(f"Qube {qube.name} {what} {names}")
            refusal.hint = f"Shut those down first, or: qvm-shutdown --force {qube.name}"
            raise refusal
