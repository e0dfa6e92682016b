"""Refusals of the Admin API as exceptions, by the names that admin-api.md section 2 gives them.

A script catches them under these names, or as the Python exception that some of them also are.
"""

from insula.protocol.admin import Refusal
from insula.protocol.errors import ReportableError


class QubesException(ReportableError):  # noqa: N818 - the name is the Admin API's
    """A refusal with a text for the person. kind: its class as the daemon named it.

    The first line of a message says what is the matter; further lines are hints.
    """

    def __init__(self, message: str = "", kind: str | None = None) -> None:
        super().__init__(message)
        self.kind = kind or type(self).__name__
        self.text, _, hint = message.partition("\n")
        self.hint = hint or None

    def __init_subclass__(cls) -> None:
        cls.api_name = cls.__name__

    def __str__(self) -> str:
        return self.text


class QubesVMNotFoundError(QubesException, KeyError):
    """There is no such qube."""


class QubesVMInvalidUUIDError(QubesException):
    """A malformed UUID."""


class QubesVMError(QubesException):
    """A qube's state forbids it."""


class QubesVMInUseError(QubesVMError):
    """Something else needs the qube."""


class QubesVMNotStartedError(QubesVMError):
    """The qube is halted."""


class QubesVMNotRunningError(QubesVMNotStartedError):
    """The qube does not run."""


class QubesVMNotPausedError(QubesVMNotStartedError):
    """The qube is not paused."""


class QubesVMNotSuspendedError(QubesVMError):
    """The qube is not suspended."""


class QubesVMNotHaltedError(QubesVMError):
    """The qube is not halted."""


class QubesVMShutdownTimeoutError(QubesVMError):
    """The qube did not shut down in time."""


class QubesNoTemplateError(QubesVMError):
    """The qube has no template."""


class QubesMemoryError(QubesVMError, MemoryError):
    """There is not enough memory to start the qube."""


class QubesPoolInUseError(QubesException):
    """Volumes or properties use the pool."""


class QubesValueError(QubesException, ValueError):
    """A value that is not acceptable."""


class QubesPropertyValueError(QubesValueError):
    """A value that is not acceptable for its property."""


class QubesNoSuchPropertyError(QubesException, AttributeError):
    """There is no such property."""


class QubesNotImplementedError(QubesException, NotImplementedError):
    """The daemon cannot do that."""


class BackupCancelledError(QubesException):
    """The backup was cancelled."""


class BackupAlreadyRunningError(QubesException):
    """The same backup runs already."""


class QubesFeatureNotFoundError(QubesException, KeyError):
    """The feature is not set."""


class QubesTagNotFoundError(QubesException, KeyError):
    """The qube has no such tag."""


class QubesLabelNotFoundError(QubesException, KeyError):
    """There is no such label."""


class DeviceNotAssigned(QubesException, KeyError):  # noqa: N818
    """The device is not assigned."""


class DeviceNotFound(QubesException, KeyError):  # noqa: N818
    """There is no such device."""


class DeviceAlreadyAttached(QubesException, KeyError):  # noqa: N818
    """The device is attached already."""


class DeviceAlreadyAssigned(QubesException, KeyError):  # noqa: N818
    """The device is assigned already."""


class UnrecognizedDevice(QubesException, ValueError):  # noqa: N818
    """The device is not the expected one."""


class UnexpectedDeviceProperty(QubesException, ValueError):  # noqa: N818
    """The device is not as it was described."""


class StoragePoolException(QubesException):
    """A storage driver refuses."""


class QubesVMAlreadyExistsError(QubesException):
    """There is a qube of that name already."""


class QubesLabelInUseError(QubesException):
    """There is such a label already, or a qube has it."""


class QubesBackupProfileNotFoundError(QubesException):
    """There is no such backup profile."""


class QubesVolumeCopyInUseError(QubesException):
    """The volume is being copied."""


class ProtocolError(QubesException, AssertionError):  # named as daemons of later versions do
    """The request was not as it should be."""


class PermissionDenied(QubesException):
    """It is not allowed."""


class QubesInvalidTagError(ProtocolError):
    """What cannot be a tag."""


class QubesInvalidLabelError(ProtocolError):
    """What cannot be a label."""


class QubesInvalidLabelValueError(ProtocolError):
    """What cannot be the colour of a label."""


class QubesUnrecognizedDeviceAssignmentMode(ProtocolError):  # noqa: N818
    """There is no such way to assign a device."""


class QubesVolumeCopyTokenNotFoundError(ProtocolError):
    """There is no such token, or it was used."""


class QubesDaemonCommunicationError(QubesException):
    """The daemon does not answer, or not with an answer."""


class QubesDaemonAccessError(QubesDaemonCommunicationError):
    """The daemon ended the connection without an answer."""


QubesDaemonNoResponseError = QubesDaemonAccessError


class QubesPropertyAccessError(QubesDaemonAccessError, AttributeError):
    """A property could not be read."""


class BackupRestoreError(QubesException):
    """A backup could not be restored."""


class QubesNotesError(QubesException):
    """Notes could not be read or set."""


class ServiceFailedError(QubesException):
    """A service in a qube did not end well. code: its exit code; errors: what it wrote of them."""

    def __init__(self, message: str, code: int, errors: bytes = b"") -> None:
        super().__init__(message)
        self.code, self.errors = code, errors


class NotThereError(QubesException, KeyError):
    """There is no such volume, pool, or class of devices."""


class DaemonNotRunningError(QubesDaemonCommunicationError):
    """Nothing answers at the instance's socket."""

    def __init__(self, path: str) -> None:
        super().__init__(f"the daemon does not answer at {path}\nStart it with: insula up")


_OURS = (DaemonNotRunningError, NotThereError, ServiceFailedError)
_PYTHONS = (
    AssertionError, AttributeError, IndexError, KeyError, LookupError, NotImplementedError,
    PermissionError, RuntimeError, TimeoutError, TypeError, ValueError,
)  # fmt: skip


def from_refusal(refusal: Refusal) -> QubesException:
    """The exception that a refusal names; the general one when there is none of that name.

    One that has the name of an exception of Python's is caught as that, too.
    """
    found = globals().get(refusal.kind)
    kind = found if isinstance(found, type) and issubclass(found, QubesException) else None
    if kind is not None and kind not in _OURS:
        return kind(refusal.message)
    for one in _PYTHONS:
        if one.__name__ == refusal.kind:
            both = type(refusal.kind, (QubesException, one), {})
            error: QubesException = both(refusal.message, refusal.kind)
            return error
    return QubesException(refusal.message, refusal.kind)
