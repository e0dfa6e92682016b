"""Copying files from qube to qube: the sending and the receiving end (filecopy.md)."""
