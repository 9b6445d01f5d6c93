"""A folder that was adopted (docs/dev/adopt.md): where it and its repository lie, the note in the repository, and the
pointer folder, which stands for the workspace while that is not mounted.
"""

import os
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple, Self

from fusecas.errors import Damaged, NotFound, Refused
from fusecas.store.durable import replace_file, sync_folder, write_file

POINTER = ".fusecas"
SUFFIX = ".fusecas"
BEFORE = ".before-fusecas"
NOTE = "adopted"
VERSION = 1
FIRST_LINE = b"Not mounted. Run: fusecas mount .\n"
POINTER_MODE = 0o555
LONGEST_POINTER = 4096


class Step(StrEnum):
    ADOPTING = "adopting"
    ADOPTED = "adopted"
    RELEASING = "releasing"


class Note(NamedTuple):
    """`name`: of the folder, beside the repository. `inode`: of the folder that moves. `seen`: what the last look at
    it has seen. `within`: the repository was in the folder before, whose `mtime` must not show that it was moved."""

    step: Step
    name: str
    inode: int | None = None
    seen: str | None = None
    within: bool = False
    mtime: int | None = None

    @classmethod
    def read(cls, repository: Path) -> Self | None:
        """None: no folder was adopted into this repository."""
        import json

        try:
            data = (repository / NOTE).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            fields = json.loads(data)
            if fields.pop("v") != VERSION:
                raise ValueError("another version")
            return cls(**{**fields, "step": Step(fields["step"])})
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise Damaged(
                f"{repository / NOTE} can't be read: {error}", hint="docs/format.md says what it is"
            ) from error

    def write(self, repository: Path) -> None:
        import json

        replace_file(repository / NOTE, json.dumps({"v": VERSION, **self._asdict()}).encode() + b"\n")

    @staticmethod
    def remove(repository: Path) -> None:
        (repository / NOTE).unlink()
        sync_folder(repository)


class Places(NamedTuple):
    """All that adopt and release give names to, beside the folder. A folder that was renamed since it was adopted has
    its repository under another name."""

    folder: Path
    repository: Path

    @classmethod
    def beside(cls, folder: Path) -> Self:
        """Of one that is to be adopted."""
        return cls(folder, _with_suffix(folder, SUFFIX))

    @classmethod
    def of(cls, repository: Path, note: Note) -> Self:
        if note.within and repository.name == POINTER:
            return cls.beside(repository.parent)
        return cls(repository.parent / note.name, repository)

    @property
    def within(self) -> Path:
        """Where a repository is that was made in the folder."""
        return self.folder / POINTER

    @property
    def new(self) -> Path:
        return _with_suffix(self.folder, ".new")

    @property
    def before(self) -> Path:
        return _with_suffix(self.folder, BEFORE)

    @property
    def released(self) -> Path:
        return _with_suffix(self.folder, ".released-new")


def _with_suffix(folder: Path, suffix: str) -> Path:
    return folder.parent / (folder.name + suffix)


def is_repository(folder: Path) -> bool:
    return os.path.isdir(folder / "store")  # not Path.is_dir: it raises in a mount whose daemon is gone


def adopted_folder(repository: Path) -> Path | None:
    """The folder that stands for this repository's workspace, mounted or not."""
    note = Note.read(repository)
    return None if note is None else Places.of(repository, note).folder


# ---- finding the repository


def repository_of(place: Path) -> Path | None:
    """The repository of an adopted folder, if this is one: by its pointer, or by the note of what lies beside it."""
    beside = Places.beside(place).repository
    note = Note.read(beside) if is_repository(beside) else None
    if note is not None and note.name == place.name:
        return beside
    if is_repository(place) and Note.read(place) is not None:
        return place
    return pointed_at(place)


def is_before(place: Path) -> Path | None:
    """The adopted folder, if this is what it was before."""
    if not place.name.endswith(BEFORE):
        return None
    folder = place.parent / place.name.removesuffix(BEFORE)
    note = Note.read(Places.beside(folder).repository)
    return folder if note is not None and note.name == folder.name else None


# ---- the pointer folder


def pointer_text(repository: Path) -> bytes:
    return FIRST_LINE + b"../" + os.fsencode(repository.name) + b"\n"


def pointed_at(folder: Path) -> Path | None:
    """What the pointer in a folder leads to, if there is one. It must lie beside the folder."""
    data = _pointer_in(folder)
    if data is None or not data.startswith(FIRST_LINE):
        return None
    name = data[len(FIRST_LINE) :].removeprefix(b"../").removesuffix(b"\n")
    repository = folder.parent / os.fsdecode(name)
    if b"/" in name or not is_repository(repository):
        raise NotFound(
            f"{folder} was adopted, and its repository is not at {repository}",
            hint="put it there again, or name it: fusecas --repo DIR",
        )
    return repository


def is_pointer_folder(folder: Path, repository: Path) -> bool:
    """Whether there is nothing in it but the pointer to this repository."""
    return os.listdir(folder) == [POINTER] and _pointer_in(folder) == pointer_text(repository)


def _pointer_in(folder: Path) -> bytes | None:
    place = folder / POINTER
    if os.path.islink(place) or not os.path.isfile(place):
        return None
    with place.open("rb") as file:
        return file.read(LONGEST_POINTER)


def make_pointer_folder(folder: Path, repository: Path) -> None:
    folder.mkdir(mode=0o700)
    write_file(folder / POINTER, pointer_text(repository), 0o444)
    (folder / POINTER).chmod(0o444)
    folder.chmod(POINTER_MODE)
    sync_folder(folder)
    sync_folder(folder.parent)


def remove_pointer_folder(folder: Path, repository: Path) -> None:
    """Also one that was made half; refused, if there is anything else in it."""
    data = _pointer_in(folder)
    is_ours = data is not None and pointer_text(repository).startswith(data)
    if os.listdir(folder) not in ([], [POINTER] if is_ours else []):
        raise Refused(f"{folder} holds more than the pointer to {repository}", hint="move what else is in it elsewhere")
    folder.chmod(0o700)
    if is_ours:
        (folder / POINTER).unlink()
    folder.rmdir()
    sync_folder(folder.parent)
