"""Refusals by their Admin API names (admin-api.md section 2), each with the way out."""

from typing import ClassVar

from insula.protocol.errors import ReportableError


class RefusedSilentlyError(Exception):
    """What the API answers by closing the connection without a byte; the text is for our log."""


def full_text(error: ReportableError) -> str:
    """An error's text with its way out."""
    return f"{error}\n{error.hint}" if error.hint else str(error)


class RefusedError(ReportableError):
    """A refusal of no further kind, with its way out."""

    def __init__(self, text: str, hint: str | None = None) -> None:
        super().__init__(text)
        self.hint = hint


class NotImplementedHereError(ReportableError):
    """Something that the API has and we do not."""

    api_name: ClassVar[str] = "QubesNotImplementedError"


class QubeNotFoundError(ReportableError):
    api_name: ClassVar[str] = "QubesVMNotFoundError"

    def __init__(self, name: str) -> None:
        super().__init__(f"No such qube: {name!r}")
        self.hint = "See those there are with: qvm-ls"


class InvalidUuidError(ReportableError):
    api_name: ClassVar[str] = "QubesVMInvalidUUIDError"

    def __init__(self, text: str) -> None:
        super().__init__(f"Not a UUID: {text!r}")


class QubeStateError(ReportableError):
    """The qube's state or kind forbids it."""

    api_name: ClassVar[str] = "QubesVMError"


class QubeInUseError(QubeStateError):
    api_name: ClassVar[str] = "QubesVMInUseError"


class NotStartedError(QubeStateError):
    api_name: ClassVar[str] = "QubesVMNotStartedError"

    def __init__(self, name: str, why: str = "is not started") -> None:
        super().__init__(f"Qube {name} {why}")
        self.hint = f"Start it with: qvm-start {name}"


class NotRunningError(NotStartedError):
    api_name: ClassVar[str] = "QubesVMNotRunningError"

    def __init__(self, name: str, why: str = "is not running") -> None:
        super().__init__(name, why)


class NotPausedError(NotStartedError):
    api_name: ClassVar[str] = "QubesVMNotPausedError"

    def __init__(self, name: str) -> None:
        super().__init__(name, "is not paused")
        self.hint = None


class NotHaltedError(QubeStateError):
    api_name: ClassVar[str] = "QubesVMNotHaltedError"

    def __init__(self, name: str, why: str = "is not halted") -> None:
        super().__init__(f"Qube {name} {why}")
        self.hint = f"Shut it down first: qvm-shutdown --wait {name}"


class NotEnoughMemoryError(QubeStateError):
    api_name: ClassVar[str] = "QubesMemoryError"

    def __init__(self, name: str, wanted: int, there_is: int) -> None:
        super().__init__(
            f"Qube {name} starts with {wanted} MiB of memory, and the host has {there_is}"
        )
        self.hint = f"Give it less: qvm-prefs {name} memory MEBIBYTES"


class ShutdownTimeoutError(QubeStateError):
    api_name: ClassVar[str] = "QubesVMShutdownTimeoutError"

    def __init__(self, name: str, seconds: float) -> None:
        super().__init__(f"Qube {name} did not shut down within {seconds:.0f} s")
        self.hint = f"End it now with: qvm-kill {name}"


class ValueRefusedError(ReportableError):
    api_name: ClassVar[str] = "QubesValueError"


class PropertyValueError(ValueRefusedError):
    api_name: ClassVar[str] = "QubesPropertyValueError"


class NoSuchPropertyError(ReportableError):
    api_name: ClassVar[str] = "QubesNoSuchPropertyError"

    def __init__(self, holder: str, name: str) -> None:
        super().__init__(f"{holder} has no property {name!r}")
        self.hint = "See those there are with: qvm-prefs --help-properties"


class LabelNotFoundError(ReportableError):
    api_name: ClassVar[str] = "QubesLabelNotFoundError"

    def __init__(self, name: str, known: str) -> None:
        super().__init__(f"No such label: {name!r}")
        self.hint = f"There are {known}"


class PoolInUseError(ReportableError):
    api_name: ClassVar[str] = "QubesPoolInUseError"

    def __init__(self, pool: str, why: str) -> None:
        super().__init__(f"Pool {pool} is in use: {why}")


class FeatureNotFoundError(ReportableError):
    api_name: ClassVar[str] = "QubesFeatureNotFoundError"

    def __init__(self, holder: str, name: str) -> None:
        super().__init__(f"Feature not set on {holder}: {name}")


class TagNotFoundError(ReportableError):
    api_name: ClassVar[str] = "QubesTagNotFoundError"

    def __init__(self, holder: str, name: str) -> None:
        super().__init__(f"Qube {holder} has no tag {name}")


class DeviceNotAssignedError(ReportableError):
    api_name: ClassVar[str] = "DeviceNotAssigned"

    def __init__(self, device: str, qube: str) -> None:
        super().__init__(f"Device {device} is not assigned to {qube}")
        self.hint = f"See what is: qvm-device CLASS list --assignments {qube}"


class DeviceNotAttachedError(ReportableError):
    api_name: ClassVar[str] = "DeviceNotAssigned"

    def __init__(self, device: str, qube: str) -> None:
        super().__init__(f"Device {device} is not attached to {qube}")


class DeviceAlreadyAssignedError(ReportableError):
    api_name: ClassVar[str] = "DeviceAlreadyAssigned"

    def __init__(self, device: str, qube: str) -> None:
        super().__init__(f"Device {device} is assigned to {qube} already")


class DeviceAlreadyAttachedError(ReportableError):
    api_name: ClassVar[str] = "DeviceAlreadyAttached"

    def __init__(self, device: str, qube: str) -> None:
        super().__init__(f"Device {device} is attached to {qube} already")
        self.hint = f"Detach it first: qvm-device CLASS detach {qube} {device}"
