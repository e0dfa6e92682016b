"""Errors of the formats, and the errors a person can act on."""

from typing import ClassVar


class ProtocolError(Exception):
    """A peer sent bytes that its format does not allow; its connection is closed, nothing else."""


class ReportableError(Exception):
    """A failure its reader can act on, with its Admin API name and a command's exit code."""

    api_name: ClassVar[str] = "QubesException"
    exit_code: ClassVar[int] = 1
    hint: str | None = None
