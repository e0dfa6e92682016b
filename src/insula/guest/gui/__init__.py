"""The window agent: shows this qube's X windows to its viewer (gui.md section 8).

Runs as root on DISPLAY from boot, before any viewer exists, and through snapshots; while no viewer
is connected nothing wakes it. Beside the standard library it uses xcffib, which may be as old as
Debian 12's.
"""
