"""Keeping a qube's frameless windows below what has to be seen: a screen locker (gui.md 6.8), and
the window by which dom0 asks the person something.
"""

from insula.protocol.viewing import IN_FRONT
from insula.viewer.desktop import Desktop
from insula.viewer.xlib import xcffib

_X = xcffib.xproto
_MOST = 4
_DEEPEST = 8  # windows that one may lie in, one in the other


def restack(desktop: Desktop, frame: int, lockers: tuple[str, ...], *, raises: bool = True) -> None:
    """Put a frame right below the lowest of those windows, or without any on top.

    raises: also when it is further below.
    """
    mask = _X.ConfigWindow
    children = list(desktop.core.QueryTree(desktop.root).reply().children)
    in_front = _in_front(desktop)
    for child in children:
        if child == frame:
            continue
        if child in in_front or _locks(desktop, child, lockers):
            if raises or (frame in children and children.index(child) < children.index(frame)):
                desktop.core.ConfigureWindow(
                    frame, mask.Sibling | mask.StackMode, [child, _X.StackMode.Below]
                )
            return
    if raises:
        desktop.core.ConfigureWindow(frame, mask.StackMode, [_X.StackMode.Above])


def _locks(desktop: Desktop, window: int, lockers: tuple[str, ...]) -> bool:
    """Whether a child of the root is a screen locker's."""
    attributes = desktop.reply(desktop.core.GetWindowAttributes(window))
    if (
        attributes is None
        or not attributes.override_redirect
        or attributes.map_state != _X.MapState.Viewable
    ):
        return False
    instance = desktop.text(window, "WM_CLASS").split(b"\0", 1)[0]
    return instance.decode("latin-1") in lockers


def _in_front(desktop: Desktop) -> set[int]:
    """The children of the root that hold the windows which the root's property names."""
    found = set()
    for window in (desktop.words(desktop.root, IN_FRONT) or ())[:_MOST]:
        if desktop.words(window, IN_FRONT) != (window,):
            continue
        for _ in range(_DEEPEST):
            tree = desktop.reply(desktop.core.QueryTree(window))
            if tree is None:
                break
            if tree.parent == desktop.root:
                found.add(window)
                break
            window = tree.parent  # noqa: PLW2901
    return found
