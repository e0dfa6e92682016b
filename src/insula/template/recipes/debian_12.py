"""Debian 12 with a small desktop: terminal, documents, files, a text editor."""

from pathlib import Path

from insula.template.recipe import Recipe, load


def debian_12() -> Recipe:
    """The recipe of the template that `make setup` builds."""
    files = Path(__file__).parent.parent / "files"
    return load("debian-12", "bookworm", files / "debian-12")
