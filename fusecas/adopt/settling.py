"""After an adopt or a release that was interrupted: back to before it, or on to its end (docs/dev/adopt.md)."""

import os
from pathlib import Path
from typing import NamedTuple

from fusecas.adopt.exchange import remove_copy
from fusecas.adopt.taking import Wishes, back, finish
from fusecas.adopt.turns import inode_of, turn
from fusecas.errors import Refused
from fusecas.store.adopted import Note, Places, Step, remove_pointer_folder
from fusecas.store.repository import Repository


class Settled(NamedTuple):
    """What was done, and whether the folder is adopted now. `repository`: it may have moved."""

    said: str
    is_adopted: bool
    repository: Path


def settle(repository: Path, wishes: Wishes = Wishes()) -> Settled | None:
    """None, if there is nothing to be settled. InUse, while an adopt or a release is at work."""
    if not _is_open(Note.read(repository)):
        return None
    with turn(repository):
        note = Note.read(repository)
        if note is None or not _is_open(note):
            return None
        places = Places.of(repository, note)
        if note.step == Step.ADOPTING:
            return _settle_adopt(repository, places, note, wishes)
        return _settle_release(repository, places, note)


def _is_open(note: Note | None) -> bool:
    return note is not None and note.step != Step.ADOPTED


def _settle_adopt(repository: Path, places: Places, note: Note, wishes: Wishes) -> Settled:
    if inode_of(places.folder) == note.inode:
        return Settled(f"adopting {places.folder} was interrupted; it is as it was", False, back(places, note))
    if note.inode not in (inode_of(places.new), inode_of(places.before)):
        raise Refused(
            f"{places.folder} was being adopted, and is neither there nor at {places.before} any more",
            hint=f"move it to {places.folder} (its inode number is {note.inode}), then again",
        )
    with Repository.open(repository) as opened, opened.served():
        finish(opened, places, note, wishes)
    return Settled(f"adopting {places.folder} was interrupted; it is done now", True, repository)


def _settle_release(repository: Path, places: Places, note: Note) -> Settled:
    if note.inode is not None and inode_of(places.folder) == note.inode:
        end_release(places)
        return Settled(f"releasing {places.folder} was interrupted; it is done now", False, repository)
    withdraw(places, note)
    return Settled(f"releasing {places.folder} was interrupted; it is adopted as it was", True, repository)


def withdraw(places: Places, note: Note) -> None:
    """Before the exchange: the copy is removed, if it is ours."""
    inode = inode_of(places.released)
    if inode is not None and inode == note.inode:
        remove_copy(places.released)
    elif inode is not None and note.inode is None and not os.listdir(places.released):
        places.released.rmdir()
    note._replace(step=Step.ADOPTED, inode=None).write(places.repository)


def end_release(places: Places) -> None:
    """After the exchange: the pointer folder goes, then the note."""
    if os.path.lexists(places.released):
        remove_pointer_folder(places.released, places.repository)
    Note.remove(places.repository)
