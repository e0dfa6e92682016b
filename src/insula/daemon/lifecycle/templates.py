"""Templates as builders make them: registered, and given a new root when it was built anew."""

import asyncio
import logging
from dataclasses import dataclass
from pathlib import Path

from insula.daemon.lifecycle.administration import Administration, NewQube
from insula.daemon.lifecycle.snapshots import Snapshots
from insula.daemon.lifecycle.world import World
from insula.daemon.model.changes import set_feature, set_property, set_setting
from insula.daemon.model.errors import NotHaltedError, QubeNotFoundError, RefusedError
from insula.daemon.model.properties.qubes import BY_CLASS
from insula.daemon.model.properties.system_wide import GLOBAL
from insula.daemon.model.qube import Qube, QubeClass, Value, check_name

RECIPE = "template-recipe"  # feature with the hash of the recipe that a template's root is of
# What the agent in a template of ours would announce of itself.
_FEATURES = {
    "os": "Linux",
    "qrexec": "1",
    "gui": "1",
    "vmexec": "1",
    "supported-rpc.qubes.VMRootExec": "1",
    "supported-rpc.qubes.VMRootShell": "1",
    "supported-rpc.qubes.WaitForRunningSystem": "1",
    "supported-rpc.qubes.WaitForSession": "1",
}
_SERVED = "supported-rpc."
_RECIPE_SHOWN = 12  # characters of a recipe's hash in a kernel's name

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltRoot:
    """What a builder made. root: a qcow2 image that is never written again."""

    name: str
    root: Path
    kernel: Path
    initrd: Path
    recipe: str


class Templates:
    """Registers what builders made."""

    def __init__(self, world: World, administration: Administration, snapshots: Snapshots) -> None:
        self._world = world
        self._administration = administration
        self._snapshots = snapshots
        self._registering = asyncio.Lock()

    async def register(self, built: BuiltRoot) -> Qube:
        """Make what was built the root of a template; nothing happens when it is that already.

        Raises:
            ReportableError: the name is another kind of qube's, the template runs, or there is no
                space; the template is as it was.
        """
        async with self._registering:
            return await self._register(built)

    async def _register(self, built: BuiltRoot) -> Qube:
        world = self._world
        template = self._template(built.name)
        if template is not None and template.features.get(RECIPE) == built.recipe:
            await self._announce(template)
            return template
        if template is not None and not template.halted:
            raise NotHaltedError(template.name)
        kernel = f"{built.name}-{built.recipe[:_RECIPE_SHOWN]}"
        await world.kernels.install(kernel, built.kernel, built.initrd)
        if template is None:
            template = await self._administration.create(
                NewQube(
                    klass=QubeClass.TEMPLATE,
                    name=built.name,
                    label="black",
                    template=None,
                    creator=world.system.dom0,
                )
            )
        async with world.lock(template.uuid):
            if template.uuid not in world.system.qubes:
                raise QubeNotFoundError(template.name)
            if not template.halted:
                raise NotHaltedError(template.name)
            await self._give_root(template, built, kernel)
        await self._be_default(template, kernel)
        self._snapshots.refresh(template)
        return template

    async def _announce(self, template: Qube) -> None:
        """Say of a template what its agent serves by now: that is newer than the template."""
        missing = [
            name for name in _FEATURES if name.startswith(_SERVED) and name not in template.features
        ]
        if not missing:
            return
        async with self._world.editing() as edit:
            for name in missing:
                set_feature(edit, template, name, _FEATURES[name])

    def _template(self, name: str) -> Qube | None:
        """The template of a name, if there is a qube of that name."""
        system = self._world.system
        if not system.has_name(check_name(name)):
            return None
        found = system.named(name)
        if found.klass is not QubeClass.TEMPLATE:
            raise RefusedError(
                f"Qube {name} is no template",
                f"Rename what is built, or remove that qube: qvm-remove {name}",
            )
        return found

    async def _give_root(self, template: Qube, built: BuiltRoot, kernel: str) -> None:
        world = self._world
        former = template.volumes["root"]
        root = await world.storage.import_image(former, built.root, "qcow2")
        try:
            async with world.editing() as edit:
                edit.touch(template).volumes["root"] = root
                set_property(edit, template, BY_CLASS[template.klass]["kernel"], kernel)
                for name, value in {**_FEATURES, RECIPE: built.recipe}.items():
                    set_feature(edit, template, name, value)
        finally:
            await world.storage.prune(template.volumes["root"])

    async def _be_default(self, template: Qube, kernel: str) -> None:
        """The first template is what new qubes are made from."""
        values: dict[str, Value] = {"default_template": template.uuid, "default_kernel": kernel}
        async with self._world.editing() as edit:
            for name, value in values.items():
                if name not in edit.system.properties:
                    set_setting(edit, GLOBAL[name], value)
