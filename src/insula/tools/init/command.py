"""What `insula init` does, as far as it needs a daemon."""

import argparse

from insula.client import errors
from insula.client.app import App
from insula.protocol.errors import ReportableError
from insula.tools.command import UsageError, say
from insula.tools.init.making import make_qubes, set_system
from insula.tools.init.roles import ANONYMISING, GATEWAY, SYSTEM, USUAL

_UPDATES_TAG = "whonix-updatevm"


def run(arguments: argparse.Namespace) -> int:
    """Make what is missing.

    Raises:
        UsageError: a name is none of those that it makes.
        ReportableError: there is no template to make qubes of.
    """
    app = App()
    every = (*USUAL, *ANONYMISING)
    known = [role.name for role in every]
    wanted: list[str] = arguments.name
    if unknown := [name for name in wanted if name not in known]:
        raise UsageError(f"insula init does not make {unknown[0]}; it makes {', '.join(known)}")
    usual = every if arguments.whonix else USUAL
    roles = [role for role in every if role.name in wanted] if wanted else usual
    template = _template(app, arguments.template)
    failed = make_qubes(app, roles, template, print, wanted)
    if not wanted:
        failed += set_system(app, SYSTEM, print)
    if arguments.whonix_updates:
        app.domains[template].tags.add(_UPDATES_TAG)
        print(f"{template}: tag {_UPDATES_TAG}: its updates come through {GATEWAY}")
    if failed:
        say("insula", f"failed: {', '.join(failed)}")
    return 1 if failed else 0


def _template(app: App, given: str | None) -> str:
    if given is not None:
        if app.domains[given].klass != "TemplateVM":
            raise errors.QubesValueError(f"{given} is not a template")
        return given
    default = app.get("default_template").value
    if not default:
        error = ReportableError("there is no template to make qubes of")
        error.hint = "Build one with: insula template build debian-12"
        raise error
    return default
