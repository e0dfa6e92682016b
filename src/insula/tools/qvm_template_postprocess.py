"""qvm-template-postprocess: make a template of an unpacked package, or take it away again."""

import argparse
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from insula.client import admin, errors
from insula.client.app import App, Qube
from insula.protocol.errors import ReportableError
from insula.tools.command import Parser, UsageError, completed, run, say, warn
from insula.tools.qvm_remove import uses

_PROGRAM = "qvm-template-postprocess"
_LABEL = "black"
_SHUTDOWN_TIMEOUT = 60.0  # seconds
_POLL = 0.2
_SERVICE = "qubes.PostInstall"


class InUseError(ReportableError):
    """Qubes need the template."""


def main(argv: Sequence[str] | None = None) -> int:
    """qvm-template-postprocess."""
    parser = Parser(
        _PROGRAM,
        "Make a template of an unpacked package, or take it away again. Used by qvm-template.",
        exit_codes={1: "a failure; before removal also: qubes use the template"},
    )
    parser.add_argument("--really", action="store_true", help="do it: this is no tool for people")
    parser.add_argument(
        "--skip-start", action="store_true", help="do not let it set itself up in a first start"
    )
    parser.add_argument("--keep-source", action="store_true", help="do not delete DIR")
    parser.add_argument(
        "--no-installed-by-rpm", dest="by_rpm", action="store_false",
        help="it is not one that rpm looks after",
    )  # fmt: skip
    parser.add_argument("--allow-pv", action="store_true", help="let it ask for mode pv")
    pool = parser.add_argument("--pool", metavar="POOL", default="", help="pool of a new template")
    completed(pool, "pools")
    parser.add_argument(
        "action", metavar="ACTION", choices=("post-install", "pre-remove"),
        help="post-install or pre-remove",
    )  # fmt: skip
    completed(parser.add_argument("name", metavar="NAME", help="the template"), "templates")
    directory = parser.add_argument("directory", metavar="DIR", type=Path, help="what was unpacked")
    completed(directory, "directories")
    return run(parser, _run, argv)


def _run(arguments: argparse.Namespace) -> int:
    if not arguments.really:
        raise UsageError("this is not for people; see qvm-template")
    if _in_chroot():
        words = " ".join((_PROGRAM, *sys.argv[1:]))
        print(f"This is a chroot, where nothing can be done. Run it later: {words}")
        return 0
    app = App()
    if arguments.action == "pre-remove":
        _pre_remove(app, arguments.name)
    else:
        _post_install(app, arguments)
    return 0


def _in_chroot() -> bool:
    try:
        ours, first = Path("/").stat(), Path("/proc/1/root/.").stat()
    except OSError:
        return False
    return (ours.st_dev, ours.st_ino) != (first.st_dev, first.st_ino)


def _post_install(app: App, arguments: argparse.Namespace) -> None:
    from insula.client.importing import import_volume  # noqa: PLC0415
    from insula.tools.templates.images import root_image  # noqa: PLC0415
    from insula.tools.templates.settings import apply_configuration, apply_menus  # noqa: PLC0415

    directory: Path = arguments.directory
    with root_image(directory) as (image, size):
        qube = _prepared(app, arguments.name, arguments.pool)
        import_volume(qube.name, "root", image, size)
    qube.set("installed_by_rpm", arguments.by_rpm)
    apply_menus(qube, directory)
    apply_configuration(qube, directory, allow_pv=arguments.allow_pv)
    if not arguments.skip_start:
        _first_start(qube)
    if not arguments.keep_source:
        shutil.rmtree(directory)


def _prepared(app: App, name: str, pool: str) -> Qube:
    """The template, made, or with nothing of its own left in it."""
    if name in app.domains:
        qube = app.domains[name]
        if qube.klass != "TemplateVM":
            raise ReportableError(f"{name} is a qube of class {qube.klass}")
        qube.set("installed_by_rpm", False)
        qube.call("admin.vm.volume.Clear", "private")
        return qube
    method = "admin.vm.CreateInPool.TemplateVM" if pool else "admin.vm.Create.TemplateVM"
    payload = f"name={name} label={_LABEL}" + (f" pool={pool}" if pool else "")
    admin.ask_dom0(method, payload=payload.encode())
    return app.domains[name]


def _first_start(qube: Qube) -> None:
    """Let it set itself up, without a network."""
    from insula.client.services import call_service  # noqa: PLC0415

    qube.set("netvm", "")
    qube.features["qrexec"] = "1"
    try:
        qube.call("admin.vm.Start")
        code = call_service(qube.name, _SERVICE)
        if code:
            warn(qube.name, f"{_SERVICE} ended with status {code}")
        _shut_down(qube)
    finally:
        qube.reset("netvm")


def _shut_down(qube: Qube) -> None:
    try:
        qube.call("admin.vm.Shutdown")
        deadline = time.monotonic() + _SHUTDOWN_TIMEOUT
        while qube.current_state().get("power_state") != "Halted":
            if time.monotonic() > deadline:
                say(qube.name, "it does not shut down, and is killed")
                qube.call("admin.vm.Kill")
                return
            time.sleep(_POLL)
    except errors.QubesVMNotStartedError:
        pass  # It is down.


def _pre_remove(app: App, name: str) -> None:
    if name not in app.domains:
        raise UsageError(f"no such qube: {name!r}")
    qube = app.domains[name]
    found = list(uses(app, qube))
    if found:
        for use in found:
            print(f" - {use}", file=sys.stderr)
        raise InUseError(f"{name} is in use")
    qube.set("installed_by_rpm", False)
    qube.call("admin.vm.Remove")


if __name__ == "__main__":
    sys.exit(main())
