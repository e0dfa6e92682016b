"""The system as it is, as far as a description can say it; read when it is looked at."""

import time
from functools import cached_property

from insula.client.app import App, Qube
from insula.protocol.admin import ADMIN_QUBE, PropertyAnswer
from insula.protocol.firewall import DEFAULT, Rule
from insula.tools.apply.description import MANAGED_FEATURES, MANAGED_TAGS, STATE_FEATURES

BARE = ("AdminVM", "RemoteVM")  # classes without volumes and firewall
_BUILT_IN = 8  # highest index of a label that is always there
_NOT_DESCRIBED = frozenset(
    ("name", "qid", "uuid", "label", "template", "klass", "dispid", "backup_timestamp")
)


class FoundQube:
    """One qube as it is."""

    def __init__(self, qube: Qube) -> None:
        self.qube = qube
        self.name = qube.name
        self.klass = qube.klass

    @cached_property
    def answers(self) -> dict[str, PropertyAnswer]:
        """All its properties."""
        return dict(self.qube.get_all())

    @property
    def label(self) -> str:
        return self.answers["label"].value

    @property
    def template(self) -> str | None:
        """Its template; None for a class that has none."""
        found = self.answers.get("template")
        return None if found is None else found.value

    @property
    def own(self) -> dict[str, PropertyAnswer]:
        """The properties with values of its own that can be described."""
        return {
            name: answer
            for name, answer in self.answers.items()
            if not answer.is_default and name not in _NOT_DESCRIBED
        }

    @cached_property
    def features(self) -> dict[str, str]:
        """Its features, without those that are the daemon's own or say how updates stand."""
        return {
            name: value
            for name, value in self.qube.features.items()
            if name not in MANAGED_FEATURES | STATE_FEATURES
        }

    @cached_property
    def tags(self) -> frozenset[str]:
        """Its tags, without those that follow from something else."""
        return frozenset(tag for tag in self.qube.tags if not tag.startswith(MANAGED_TAGS))

    @cached_property
    def notes(self) -> str:
        return "" if self.name == ADMIN_QUBE else self.qube.notes

    @cached_property
    def firewall(self) -> tuple[Rule, ...]:
        return tuple(self.qube.firewall.rules)

    @property
    def has_default_firewall(self) -> bool:
        return [str(rule) for rule in self.firewall] == [DEFAULT]

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Bytes of the volumes that are its own and kept."""
        if self.klass in BARE:
            return {}
        infos = {name: self.qube.volumes.named(name).info() for name in self.qube.volumes}
        return {
            name: int(info["size"])
            for name, info in infos.items()
            if info["save_on_stop"] == "True" and info["rw"] == "True"
        }

    @property
    def is_passing(self) -> bool:
        """Whether it is a disposable that is gone after its use."""
        cleanup = self.answers.get("auto_cleanup")
        return cleanup is not None and cleanup.value == "True"


class Found:
    """The system as it is."""

    def __init__(self, app: App) -> None:
        self.app = app
        self.qubes = {qube.name: FoundQube(qube) for qube in app.domains}

    @cached_property
    def system(self) -> dict[str, PropertyAnswer]:
        """All properties of the system."""
        return dict(self.app.get_all())

    @cached_property
    def labels(self) -> dict[str, str]:
        """The colours of all labels."""
        return {name: label.color for name, label in self.app.labels.items()}

    def own_labels(self) -> dict[str, str]:
        """The colours of those that are not always there."""
        return {
            name: label.color for name, label in self.app.labels.items() if label.index > _BUILT_IN
        }

    @cached_property
    def types(self) -> dict[str, dict[str, str]]:
        """The types of properties by classes, as far as there are qubes of them."""
        found: dict[str, dict[str, str]] = {}
        for one in self.qubes.values():
            if one.klass not in found:
                found[one.klass] = {name: answer.type for name, answer in one.answers.items()}
        return found


def unexpired(rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
    """Rules whose time is not over; the daemon keeps no others."""
    now = time.time()
    return tuple(rule for rule in rules if not rule.expired(now))
