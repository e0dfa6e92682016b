"""The applications that a new root has, told as a qube of it would tell them."""

from pathlib import Path

from insula.protocol.menus import told_of

_FOLDERS = ("usr/local/share/applications", "usr/share/applications")  # the first of an id counts


def told_by(root: Path) -> str:
    """The lines of qubes.GetAppmenus."""
    lines: list[str] = []
    seen = set()
    for folder in _FOLDERS:
        for path in sorted((root / folder).rglob("*.desktop")):
            name = str(path.relative_to(root / folder)).replace("/", "-")
            # A link might lead out of the root, to a file of the host.
            if path.is_symlink() or not path.is_file() or name in seen:
                continue
            seen.add(name)
            lines += told_of(name, path.read_text(errors="replace"))
    return "".join(f"{line}\n" for line in lines)
