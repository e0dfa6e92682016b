"""What the store of a new instance holds."""

from insula.daemon.model.system import new_dom0
from insula.daemon.store.records import put_qube, put_setting
from insula.daemon.store.store import Store


async def fill(store: Store) -> None:
    """Give an empty store what it begins with: dom0, and where kernels lie."""
    await store.write(put_qube(new_dom0()), put_setting("default_pool_kernel", "linux-kernel"))
