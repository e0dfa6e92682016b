"""The qube that searches repositories and downloads packages for us. It is not trusted."""

import os
import subprocess
from pathlib import Path

from insula.client.services import Kept, call_service
from insula.protocol.errors import ProtocolError, ReportableError
from insula.qrexec.sinks import HARMLESS, DescriptorSink, Sink
from insula.tools.templates.records import MAX_ANSWER, PREFIX, Package, parse_answer
from insula.tools.templates.repositories import Choice, request

SEARCH, DOWNLOAD = "qubes.TemplateSearch", "qubes.TemplateDownload"
_LOCAL_SERVICES = Path("/etc/qubes-rpc")


class UpdateQube:
    """What is asked of the update qube, whose name is empty where this host does it itself."""

    def __init__(
        self, name: str, repositories: str, *, releasever: str, refresh: bool,
        choices: list[Choice],
    ) -> None:  # fmt: skip
        self._name = name
        self._repositories = repositories
        self._releasever = releasever
        self._refresh = refresh
        self._choices = choices

    def search(self, spec: str) -> list[Package]:
        """The packages that a spec stands for.

        Raises:
            ReportableError: the qube fails, or answers what it should not.
        """
        kept = Kept(MAX_ANSWER)
        self._call(SEARCH, spec, kept)
        self._refresh = False  # once is enough
        try:
            found = parse_answer(bytes(kept.data))
        except ProtocolError as error:
            raise ReportableError(f"{self._who} answers what it should not: {error}") from None
        return [one for one in found if spec == "*" or one.named.matches(spec)]

    def download(self, package: Package, path: Path) -> None:
        """Write a package to a file.

        Raises:
            ReportableError: the qube fails, or sends anything but as much as it said.
        """
        with path.open("wb") as file:
            sink = _Limited(file.fileno(), package.size)
            try:
                self._call(DOWNLOAD, f"{package.name}-{package.version}", sink)
            except ReportableError:
                if not sink.exceeded:
                    raise
            size = os.fstat(file.fileno()).st_size
        if size != package.size:
            sent = "more" if sink.exceeded else f"{size} bytes"
            text = f"{self._who} sent {sent} of {package.file_name}, not {package.size} bytes"
            raise ReportableError(text)

    @property
    def _who(self) -> str:
        return self._name or "this host"

    def _call(self, service: str, spec: str, output: Sink) -> None:
        payload = request(
            self._repositories,
            f"{PREFIX}{spec}",
            releasever=self._releasever,
            refresh=self._refresh,
            choices=self._choices,
        )
        if self._name:
            code = call_service(
                self._name,
                service,
                payload,
                output=output,
                errors=DescriptorSink(2, table=HARMLESS),
            )
        else:
            code = _run_here(service, payload, output)
        if code:
            raise ReportableError(f"{service} in {self._who} failed (status {code})")


class _Limited(DescriptorSink):
    """Takes no more bytes than were promised, and one more to tell."""

    def __init__(self, descriptor: int, size: int) -> None:
        super().__init__(descriptor)
        self._left = size + 1
        self.exceeded = False

    def write(self, data: memoryview) -> int:
        """Break off where there is too much."""
        taken = super().write(data[: self._left]) if self._left else len(data)
        self._left -= min(taken, self._left)
        if not self._left:
            self.exceeded = self.broken = True
        return taken


def _run_here(service: str, payload: bytes, output: Sink) -> int:
    program = _LOCAL_SERVICES / service
    if not program.exists():
        error = ReportableError(f"this host has no {service} of its own")
        error.hint = "Name a qube that has it: --updatevm QUBE, or qubes-prefs updatevm QUBE"
        raise error
    done = subprocess.run([program], input=payload, stdout=subprocess.PIPE, check=False)
    output.write(memoryview(done.stdout))
    return done.returncode
