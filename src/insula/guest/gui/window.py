"""What the agent knows of one top-level window."""

from insula.guest.gui.region import Buffer
from insula.protocol.gui.geometry import Rect


class Window:
    """A child of the root, or a tray icon, whose geometry is that of its embedder.

    damaged is what changed since the last capture; buffer is the image the viewer has or is about
    to get; wants_dump says that the next capture begins with a new one.
    """

    __slots__ = (
        "buffer",
        "damage",
        "damaged",
        "deletes",
        "embedder",
        "geometry",
        "id",
        "input_hint",
        "mapped",
        "override_redirect",
        "pixmap",
        "reported",
        "takes_focus",
        "urgent",
        "wants_dump",
    )

    def __init__(self, window: int, geometry: Rect, override_redirect: bool) -> None:
        self.id = window
        self.geometry = geometry
        self.override_redirect = override_redirect
        self.mapped = False
        self.embedder = 0  # of a tray icon, the window of ours that it lies in
        self.damage = 0  # the Damage object; 0 for a window without pixels
        self.pixmap = 0
        self.buffer: Buffer | None = None
        self.damaged: Rect | None = None
        self.wants_dump = True
        self.input_hint = True
        self.urgent = False  # its WM_HINTS ask for attention
        self.deletes = False  # understands WM_DELETE_WINDOW
        self.takes_focus = False  # understands WM_TAKE_FOCUS
        self.reported: dict[str, object] = {}  # the last message of a kind, to send only changes

    @property
    def shown(self) -> int:
        """The child of the root that is shown: the window itself, or what it lies in."""
        return self.embedder or self.id

    @property
    def whole(self) -> Rect:
        """The window in its own coordinates."""
        return Rect(0, 0, self.geometry.width, self.geometry.height)

    def add_damage(self, rectangle: Rect) -> None:
        """Note that the rectangle, in the window's coordinates, changed."""
        self.damaged = rectangle if self.damaged is None else self.damaged.union(rectangle)

    def invalidate(self) -> None:
        """Have the next capture send a new buffer with all of the window."""
        self.wants_dump = True
        self.damaged = self.whole
