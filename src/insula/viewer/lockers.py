"""Keeping a qube's frameless windows below a screen locker (gui.md section 6.8)."""

from insula.viewer.desktop import Desktop
from insula.viewer.xlib import xcffib

_X = xcffib.xproto


def restack(desktop: Desktop, frame: int, lockers: tuple[str, ...]) -> None:
    """Put a frame right below the lowest screen locker's window, or without one on top."""
    mask = _X.ConfigWindow
    children = list(desktop.core.QueryTree(desktop.root).reply().children)
    for child in children:
        if child == frame:
            continue
        attributes = desktop.reply(desktop.core.GetWindowAttributes(child))
        if (
            attributes is None
            or not attributes.override_redirect
            or attributes.map_state != _X.MapState.Viewable
        ):
            continue
        instance = desktop.text(child, "WM_CLASS").split(b"\0", 1)[0]
        if instance.decode("latin-1") in lockers:
            if children.index(child) < children.index(frame):
                desktop.core.ConfigureWindow(
                    frame, mask.Sibling | mask.StackMode, [child, _X.StackMode.Below]
                )
            return
    desktop.core.ConfigureWindow(frame, mask.StackMode, [_X.StackMode.Above])
