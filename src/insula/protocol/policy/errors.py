"""Why there is no policy."""

from insula.protocol.errors import ReportableError


class PolicyError(ReportableError):
    """The policy cannot be read, so that everything is refused. kind: as tests name it."""

    kind = "load"


class PolicySyntaxError(PolicyError):
    """A line that nobody understands. line: counted from 1."""

    kind = "syntax"

    def __init__(self, file: str, line: int, text: str) -> None:
        super().__init__(f"{file}:{line}: {text}")
        self.file, self.line, self.text = file, line, text
        self.hint = f"Mend that line; check the file with: qubes-policy-lint {file}"


class IncludeDepthError(PolicyError):
    """Files that include each other, or too many deep."""

    kind = "recursion"
