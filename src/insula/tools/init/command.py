"""What `insula init` does, as far as it needs a daemon."""

import argparse
from collections.abc import Sequence

from insula.client import errors
from insula.client.app import App
from insula.protocol.errors import ReportableError
from insula.tools.command import UsageError, say
from insula.tools.init.gateway import has_rules
from insula.tools.init.making import make_qubes, set_system
from insula.tools.init.roles import ANONYMISING, GATEWAY, SYSTEM, USUAL, Role

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
    failed = _make_all(app, roles, template, wanted)
    if arguments.whonix_updates:
        app.domains[template].tags.add(_UPDATES_TAG)
        print(f"{template}: tag {_UPDATES_TAG}: its updates come through {GATEWAY}")
    if failed:
        say("insula", f"failed: {', '.join(failed)}")
    return 1 if failed else 0


def _make_all(app: App, roles: Sequence[Role], template: str, wanted: Sequence[str]) -> list[str]:
    """Make qubes, those behind the gateway once it has its rules; returns what failed."""
    behind = [role for role in roles if role.properties.get("netvm") == GATEWAY]
    others = [role for role in roles if role not in behind]
    made = make_qubes(app, others, template, print, wanted)
    failed = made.failed
    if not wanted:
        failed += set_system(app, SYSTEM, print)
    if not behind and GATEWAY not in made.names:
        return failed
    if GATEWAY in failed or not has_rules(app, print, anew=GATEWAY in made.names):
        return [*failed, *(role.name for role in behind)]
    return failed + make_qubes(app, behind, template, print, wanted).failed


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
