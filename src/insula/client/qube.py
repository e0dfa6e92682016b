"""One qube: its power, its properties, and what belongs to it."""

from typing import TYPE_CHECKING, Any

from insula.client import admin, errors
from insula.client.features import Features, Services, Tags
from insula.client.holder import Holder
from insula.protocol.admin import ListedQube, parse_pairs

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from insula.client.app import App
    from insula.client.devices import Devices
    from insula.client.events import Statistics
    from insula.client.firewall import Firewall
    from insula.client.services import Completed
    from insula.client.typed import QubeProperties
    from insula.client.volumes import Volumes
    from insula.protocol.admin import Event
else:
    QubeProperties = object


class Qube(Holder, QubeProperties):
    """One qube, dom0 included. It is equal to its name.

    Every method raises DaemonNotRunningError when nobody listens, QubesDaemonAccessError when the
    daemon gives no answer, and QubesVMNotFoundError when the qube is gone.
    """

    def __init__(self, app: "App", name: str, listed: ListedQube | None = None) -> None:
        super().__init__(app, name, "admin.vm")
        self._listed = listed
        self._state: str | None = None  # as an event told it
        self._devices: Devices | None = None

    @property
    def features(self) -> Features:
        """Its own features."""
        return Features(self)

    @property
    def services(self) -> Services:
        """Its own services, each on or off."""
        return Services(self)

    @property
    def tags(self) -> Tags:
        """Its tags."""
        return Tags(self)

    @property
    def volumes(self) -> "Volumes":
        """What it keeps on disk."""
        from insula.client.volumes import Volumes  # noqa: PLC0415 - few commands look at them

        return Volumes(self)

    @property
    def devices(self) -> "Devices":
        """Devices that it shows, has, or is to have, by their classes."""
        from insula.client.devices import Devices  # noqa: PLC0415 - few commands look at them

        if self._devices is None:
            self._devices = Devices(self)
        return self._devices

    @property
    def firewall(self) -> "Firewall":
        """What of the network it may reach."""
        from insula.client.firewall import Firewall  # noqa: PLC0415 - few commands look at it

        return Firewall(self)

    @property
    def notes(self) -> str:
        """A text for people.

        Raises:
            QubesNotesError: it cannot be read or set; dom0 has none.
        """
        try:
            return self.call("admin.vm.notes.Get").decode()
        except errors.QubesDaemonAccessError as error:
            raise errors.QubesNotesError(
                f"the notes of {self} could not be read: {error}"
            ) from None

    @notes.setter
    def notes(self, text: str) -> None:
        try:
            self.call("admin.vm.notes.Set", payload=text.encode())
        except (errors.QubesDaemonAccessError, errors.QubesValueError) as error:
            raise errors.QubesNotesError(f"the notes of {self} could not be set: {error}") from None

    @property
    def klass(self) -> str:
        """Its class, which never changes."""
        return self._listing().klass

    @property
    def uuid(self) -> str:
        """Its UUID, which never changes."""
        return self._listing().uuid

    @property
    def state(self) -> str:
        """Its power state; NA when there is no answer."""
        if self.app.cached:
            return self._state or self._listing().state
        try:
            return self.current_state().get("power_state", "NA")
        except errors.QubesDaemonAccessError:
            return "NA"

    def current_state(self) -> dict[str, str]:
        """What admin.vm.CurrentState answers: mem, cputime and so on."""
        return parse_pairs(self.call("admin.vm.CurrentState").decode(), " ")

    def is_running(self) -> bool:
        """Whether it is up in any way."""
        return self.state not in ("Halted", "NA")

    def is_halted(self) -> bool:
        """Whether it is down."""
        return self.state == "Halted"

    def is_paused(self) -> bool:
        """Whether it is paused."""
        return self.state == "Paused"

    def start(self) -> None:
        """Start it and what it needs, and wait until it is up; harmless when it is.

        Raises:
            QubesMemoryError: there is not enough memory.
            QubesException: it cannot be started.
        """
        self._power("Start")

    def shutdown(self, *, force: bool = False, wait: bool = False) -> None:
        """Ask it to shut down.

        force: also when others need it. wait: until it is down.

        Raises:
            QubesVMNotStartedError: it is not up.
            QubesVMInUseError: others need it.
            QubesVMShutdownTimeoutError: it is not down after its shutdown_timeout.
        """
        words = [word for word, wanted in (("force", force), ("wait", wait)) if wanted]
        self._power("Shutdown", "+".join(words))

    def kill(self) -> None:
        """End it at once.

        Raises:
            QubesVMNotStartedError: it is not up.
        """
        self._power("Kill")

    def pause(self) -> None:
        """Stop it where it is.

        Raises:
            QubesVMNotRunningError: it does not run.
        """
        self._power("Pause")

    def unpause(self) -> None:
        """Let it go on.

        Raises:
            QubesVMNotPausedError: it is not paused.
        """
        self._power("Unpause")

    def suspend(self) -> None:
        """Let it sleep, or pause it where it cannot.

        Raises:
            QubesVMNotRunningError: it does not run.
        """
        self._power("Suspend")

    def resume(self) -> None:
        """Wake it up.

        Raises:
            QubesVMError: it does not sleep.
        """
        self._power("Resume")

    def remove(self) -> None:
        """Remove it and all its data.

        Raises:
            QubesVMNotHaltedError: it is up.
            QubesVMInUseError: something refers to it.
        """
        self.call("admin.vm.Remove")
        self.app.domains.forget()

    def run_service(
        self,
        service: str,
        payload: bytes | str = b"",
        *,
        user: str | None = None,
        autostart: bool = True,
        check: bool = False,
    ) -> "Completed":
        """Call a service in it with a payload as input, and wait for its end.

        service: NAME or NAME+ARGUMENT. user: as whom; None as it is set in the qube. autostart:
        whether to start it first. check: whether an exit code that is not 0 is an error.

        Raises:
            ServiceFailedError: with check, the service did not end well.
            QubesVMNotRunningError: it is down and not to be started.
            QubesException: the call is refused.
        """
        from insula.client.services import run_service  # noqa: PLC0415 - few programs call

        done = run_service(
            self.name,
            service,
            payload.encode() if isinstance(payload, str) else payload,
            user=user,
            autostart=autostart,
        )
        if check:
            done.check()
        return done

    def run(
        self, command: str, payload: bytes | str = b"", *, user: str | None = None
    ) -> "Completed":
        """Run a shell command in it, which is not started for that; its failure is an error.

        Raises:
            ServiceFailedError: the exit code is not 0.
            QubesVMNotRunningError: it is down.
            QubesException: the call is refused.
        """
        end = "& exit\n" if self.features.check("os") == "Windows" else "; exit\n"
        first = (command + end).encode("utf-8", "surrogateescape")
        rest = payload.encode() if isinstance(payload, str) else payload
        return self.run_service(
            "qubes.VMShell", first + rest, user=user, autostart=False, check=True
        )

    def create_disposable(self) -> "Qube":
        """Make a disposable of it, which is gone after its shutdown; it is not started.

        Raises:
            QubesException: it has no template_for_dispvms.
        """
        return self.app.create_disposable(self)

    def events(self, *, reconnect: bool = False) -> "AsyncGenerator[Event, None]":
        """What happens to this qube from now on; as App.events."""
        return self.app.events(self, reconnect=reconnect)

    def statistics(self) -> "AsyncGenerator[Statistics, None]":
        """What it uses while it runs, each stats_interval seconds.

        Raises:
            QubesVMNotRunningError: it does not run any more.
        """
        from insula.client.events import statistics  # noqa: PLC0415 - loads asyncio

        return statistics(self.name)

    def call(self, method: str, argument: str = "", payload: bytes = b"") -> bytes:
        """A call of the Admin API with this qube as its destination."""
        return admin.call(self.name, method, argument, payload)

    def relist(self, listed: ListedQube) -> None:
        """Take over a line of the list of qubes; what was known of another of that name goes."""
        if self._listed is not None and self._listed.uuid != listed.uuid:
            self.forget()
        self._listed, self._state = listed, None

    def tell_state(self, state: str) -> None:
        """Take over a power state that an event told."""
        self._state = state

    def forget(self, name: str | None = None) -> None:
        """Drop what the cache has of one property, or of everything of the qube."""
        super().forget(name)
        if name is None:
            self._devices = None

    def forget_state(self) -> None:
        """Drop the cached power state."""
        self._listed, self._state = None, None

    def _power(self, action: str, argument: str = "") -> None:
        try:
            self.call(f"admin.vm.{action}", argument)
        finally:
            self.forget_state()

    def _listing(self) -> ListedQube:
        if self._listed is None:
            listed = self.app.domains.listing(self.name)
            found = next((one for one in listed if one.name == self.name), None)
            if found is None:
                raise errors.QubesVMNotFoundError(f"no such qube: {self.name!r}")
            self._listed = found
        return self._listed

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"Qube({self.name!r})"

    def __eq__(self, other: object) -> bool:
        return self.name == other.name if isinstance(other, Qube) else self.name == other

    def __lt__(self, other: Any) -> bool:
        return self.name < str(other)

    def __hash__(self) -> int:
        return hash(self.name)
