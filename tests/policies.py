"""Files of policies in a directory, for tests."""

from pathlib import Path


class Folder:
    """Files as the file system has them."""

    def names(self, directory: str) -> list[str]:
        return [entry.name for entry in Path(directory).iterdir() if entry.is_file()]

    def text(self, path: str) -> str:
        return Path(path).read_bytes().decode()
