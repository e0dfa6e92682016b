"""From a recipe to a template that qubes can be made from: built, registered, with its snapshot."""

from pathlib import Path

from insula.client import errors
from insula.client.app import App
from insula.client.local_socket import request
from insula.menus.keeping import refresh
from insula.menus.store import Kept, Store
from insula.protocol.menus import take_applications
from insula.template.build import BuiltTemplate, build
from insula.template.progress import Progress
from insula.template.recipe import Recipe

_RECIPE_FEATURE = "template-recipe"  # the hash that the daemon keeps with a template


def provide(recipe: Recipe, cache: Path, progress: Progress, *, snapshot: bool) -> bool:
    """Have the daemon know the template of a recipe; False when it did already.

    A template is built only when its recipe has changed. snapshot: also wait for the snapshot that
    its qubes start from, which the daemon makes if it is not there.

    Raises:
        DaemonNotRunningError: nobody listens, which is found before anything is built.
        ReportableError: the build failed, or the daemon refused what came out.
    """
    known = registered_recipe(recipe.name) == recipe.hash
    if not known:
        register(recipe.name, build(recipe, cache, progress), progress)
    if snapshot:
        progress("snapshot", None)
        request("golden", timeout=None, qube=recipe.name)
    return not known


def registered_recipe(name: str) -> str | None:
    """The hash of the recipe that the daemon's template of this name was built by."""
    try:
        return App().domains[name].features.get(_RECIPE_FEATURE)
    except errors.QubesVMNotFoundError:
        return None


def register(name: str, built: BuiltTemplate, progress: Progress) -> None:
    """Give the daemon what was built: it copies what it needs."""
    progress("registering", None)
    request(
        "template",
        timeout=None,
        name=name,
        root=str(built.root.resolve()),
        kernel=str(built.kernel.resolve()),
        initrd=str(built.initrd.resolve()),
        recipe=built.hash,
    )
    _keep_applications(name, built)


def _keep_applications(name: str, built: BuiltTemplate) -> None:
    """Let the host's menu show what is in the template, which need not run for that."""
    if built.applications.is_file():
        lines = built.applications.read_bytes().splitlines()
        Store().keep(name, Kept(take_applications(lines)))
        refresh()
