"""What a caller asks storage to attach."""

from dataclasses import dataclass
from pathlib import Path

from insula.daemon.model.machine import Layer
from insula.daemon.model.volume import Volume


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One volume for a machine.

    source: the volume whose current state a snap_on_start volume begins from. extra: frozen layers
    over that state, as a golden snapshot has one. top: where a layer for what the machine writes is
    made and kept in the clear; None throws it away, or keeps it where the volume's kind says.
    """

    volume: Volume
    source: Volume | None = None
    extra: tuple[Layer, ...] = ()
    top: Path | None = None

    def __post_init__(self) -> None:
        if self.volume.snap_on_start != (self.source is not None):
            raise ValueError("a source belongs to a volume that is snap_on_start, and only there")
        if (self.extra or self.top) and self.volume.save_on_stop:
            raise ValueError("further layers cannot belong to a volume that is saved")
