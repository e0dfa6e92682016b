"""rpm's own database of this host, as far as templates are in it."""

from insula.protocol.errors import ProtocolError, ReportableError
from insula.tools.templates.packages import FIELDS, SEPARATOR, output
from insula.tools.templates.records import PREFIX, Package, parse_answer

_END = "\x1e"


def installed_templates() -> list[Package]:
    """The templates that rpm says it installed.

    Raises:
        ReportableError: rpm is not there, or says what it should not.
    """
    asked = SEPARATOR.join(f"%{{{field}}}" for field in FIELDS) + _END
    said = output(["rpm", "-qa", "--qf", asked, f"{PREFIX}*"])
    found = []
    for record in said.split(_END)[:-1]:
        *name_and_version, built, license_, url, summary, text = record.replace("|", " ").split(
            SEPARATOR
        )
        fields = [*name_and_version, "@rpmdb", "0", built, license_, url, summary, text]
        try:
            found += parse_answer(("|".join(fields) + "|\n").encode("ascii", "replace"))
        except ProtocolError as error:
            raise ReportableError(f"rpm's database: {error}") from None
    return found


def forget(package: Package) -> None:
    """Take a template out of rpm's database; its files stay."""
    output(["rpm", "-e", "--justdb", f"{PREFIX}{package.name}"])
