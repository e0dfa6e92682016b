"""The system over the Admin API: its qubes, properties, labels and pools as objects.

    app = App()
    work = app.domains["work"]
    work.netvm = None
    work.features["service.cups"] = "1"

With cache=True one call fetches all properties of a qube, and its state is that of the first list:
for programs that look at much. What happens meanwhile is seen by a program that follows events(),
which drop from the cache what is true no more, or after forget().
"""

from typing import TYPE_CHECKING, Any

from insula.client import admin
from insula.client.domains import Domains
from insula.client.features import Features, Tags
from insula.client.holder import Holder, lines
from insula.client.qube import Qube
from insula.protocol.admin import ADMIN_QUBE

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping, Sequence

    from insula.client.events import Statistics
    from insula.client.labels import Labels
    from insula.client.pools import Pools
    from insula.client.typed import SystemProperties
    from insula.protocol.admin import Event
else:
    SystemProperties = object

__all__ = ["App", "Domains", "Features", "Holder", "Qube", "Tags"]


class App(Holder, SystemProperties):
    """The system: its properties, and its qubes as `domains`.

    Every method raises DaemonNotRunningError when nobody listens, and QubesDaemonAccessError when
    the daemon gives no answer.
    """

    cached = False

    def __init__(self, *, cache: bool = False) -> None:
        object.__setattr__(self, "cached", cache)
        super().__init__(self, ADMIN_QUBE, "admin")
        self._domains = Domains(self)

    @property
    def domains(self) -> Domains:
        """All qubes by their names."""
        return self._domains

    @property
    def labels(self) -> "Labels":
        """All labels by their names."""
        from insula.client.labels import Labels  # noqa: PLC0415 - few commands look at them

        return Labels(self)

    @property
    def pools(self) -> "Pools":
        """All pools by their names."""
        from insula.client.pools import Pools  # noqa: PLC0415 - few commands look at them

        return Pools(self)

    def classes(self) -> list[str]:
        """The classes that a qube can have, sorted."""
        return sorted(lines(self.call("admin.vmclass.List").decode()))

    def device_classes(self) -> list[str]:
        """The classes that a device can have, sorted."""
        return sorted(lines(self.call("admin.deviceclass.List").decode()))

    def add_new_qube(
        self,
        klass: str,
        name: str,
        label: str,
        *,
        template: Qube | str | None = None,
        pool: str | None = None,
        pools: "Mapping[str, str] | None" = None,
    ) -> Qube:
        """Make a qube.

        template: for a class that has one; None for the system's default. pool: where all its
        volumes lie; pools: the same for single volumes; only one of both.

        Raises:
            QubesValueError: the name is taken or none, or there is no default template.
            QubesLabelNotFoundError, QubesVMNotFoundError: no such label, no such template.
        """
        fields = {"name": name, "label": str(label)}
        if pool:
            fields["pool"] = pool
        fields |= {f"pool:{volume}": where for volume, where in (pools or {}).items()}
        method = "admin.vm.CreateInPool" if len(fields) > 2 else "admin.vm.Create"
        payload = " ".join(f"{key}={value}" for key, value in fields.items())
        self.call(f"{method}.{klass}", "" if template is None else str(template), payload.encode())
        self.domains.forget()
        return self.domains.known(name)

    def create_disposable(self, template: Qube | str | None = None) -> Qube:
        """Make a disposable, which is gone after its shutdown; it is not started.

        template: of which qube; None for default_dispvm.

        Raises:
            QubesException: that is no template of disposables, or there is none.
        """
        destination = ADMIN_QUBE if template is None else str(template)
        name = admin.call(destination, "admin.vm.CreateDisposable").decode()
        self.domains.forget()
        return self.domains.known(name)

    def clone_qube(
        self,
        source: Qube | str,
        name: str,
        *,
        klass: str | None = None,
        label: str | None = None,
        pool: str = "",
        pools: "Mapping[str, str] | None" = None,
        ignore_volumes: "Sequence[str]" = (),
        complain: "Callable[[str], object] | None" = None,
    ) -> Qube:
        """Make a qube like another, with its settings and files; when it fails, nothing is left.

        klass, label: default the source's. pool, pools: where its volumes lie; without either,
        where the source's do. complain: told what of the settings could not be copied, instead of
        failing.

        Raises:
            QubesException: the daemon refuses a part.
        """
        from insula.client.cloning import clone_qube  # noqa: PLC0415 - few programs clone

        known = source if isinstance(source, Qube) else self.domains[source]
        copy = clone_qube(
            self,
            known,
            name,
            klass=klass,
            label=label,
            pool=pool,
            pools=pools,
            ignore_volumes=ignore_volumes,
            complain=complain,
        )
        self.domains.forget()
        return copy

    async def events(
        self, qube: Qube | str | None = None, *, reconnect: bool = False
    ) -> "AsyncGenerator[Event, None]":
        """What happens from now on, in the whole system or to one qube; it never just ends.

        The first event is connection-established. reconnect: begin again with that event when the
        daemon is gone, as soon as it is back; what happened meanwhile is not told. With a cache,
        what an event makes untrue is dropped from it before the event is given out.

        Raises:
            DaemonNotRunningError: nobody listens.
            QubesDaemonCommunicationError: the stream is over.
        """
        from insula.client.events import apply_to_cache, events  # noqa: PLC0415 - loads asyncio

        destination = ADMIN_QUBE if qube is None else str(qube)
        stream = events(destination, reconnect=reconnect)
        try:
            async for event in stream:
                if self.cached:
                    apply_to_cache(self, event)
                yield event
        finally:
            await stream.aclose()

    def statistics(self) -> "AsyncGenerator[Statistics, None]":
        """What running qubes use, for each every stats_interval seconds."""
        from insula.client.events import statistics  # noqa: PLC0415 - loads asyncio

        return statistics()

    def forget(self, name: str | None = None) -> None:
        """Drop what the cache has of one of the system's properties, or of everything."""
        super().forget(name)
        if name is None:
            self.forget_properties()
            self.domains.forget()
            for qube in self.domains.cached_qubes():
                qube.forget_state()

    def forget_properties(self) -> None:
        """Drop the cached properties of the system and of all qubes: one may follow another."""
        super().forget()
        for qube in self.domains.cached_qubes():
            qube.forget()

    def call(self, method: str, argument: str = "", payload: bytes = b"") -> bytes:
        """A call of the Admin API whose destination is dom0."""
        return admin.ask_dom0(method, argument, payload)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "cached":
            raise AttributeError("whether there is a cache is chosen at creation")
        super().__setattr__(name, value)
