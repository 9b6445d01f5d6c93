"""What must be on the disk before the next step: folders, small files that are replaced as a whole."""

import os
from pathlib import Path


def sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_file(path: Path, data: bytes, mode: int = 0o600) -> None:
    """A new file, on the disk; its name is not yet."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    with open(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(descriptor)


def replace_file(path: Path, data: bytes) -> None:
    """The file has this content, or after a crash what it had before."""
    new = path.with_name(path.name + ".new")
    write_file(new, data)
    new.rename(path)
    sync_folder(path.parent)
