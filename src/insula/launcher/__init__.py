"""The menu of all qubes in a window of its own, for desktops without a menu (Qt)."""
