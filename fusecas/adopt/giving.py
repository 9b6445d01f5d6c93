"""Giving a plain folder back. docs/dev/adopt.md numbers the steps, and says what is there after a crash in each."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from fusecas.adopt import checks, occupants
from fusecas.adopt.exchange import exchange, remove_copy, sync_file_system
from fusecas.adopt.settling import end_release, withdraw
from fusecas.adopt.turns import inode_of, turn
from fusecas.errors import AlreadyExists, Damaged, InUse, Refused
from fusecas.mount.device import is_mounted
from fusecas.mount.mountpoint import clear_away, forget
from fusecas.store import heads
from fusecas.store.adopted import Note, Places, Step, is_pointer_folder
from fusecas.store.diff import diff_states
from fusecas.store.exporter import Exported, export_tree
from fusecas.store.ids import LayerId
from fusecas.store.importer import Progress, import_tree
from fusecas.store.repository import Repository, own_files
from fusecas.store.rows import Live
from fusecas.workspace.mover import Deed
from fusecas.workspace.workspace import Workspace

MOST_PATHS = 100
LEAVE = "leave it (cd, close files), then again: fusecas release {folder}"


class Terms(NamedTuple):
    """How to release. `commit`: makes a layer of what is uncommitted, by whoever has the workspace open. `unmount`:
    ends the daemon, if there is one. `lossy`: without what can't be set here."""

    commit: Callable[[], None]
    unmount: Callable[[], None]
    lossy: bool = False
    deed: Deed = Deed()
    progress: Callable[[Progress], None] | None = None


class Released(NamedTuple):
    """`layer`: what the folder holds. `others`: workspaces that stay in the repository."""

    places: Places
    exported: Exported
    layer: LayerId | None
    others: list[str]


def release(repository: Path, terms: Terms) -> Released:
    with turn(repository):
        note = Note.read(repository)
        if note is None:
            raise Refused(f"{repository} has no adopted folder", hint="fusecas export @ DIR makes a plain folder")
        places = Places.of(repository, note)
        _check(places)
        terms.commit()
        return _release(places, note, terms)


def _check(places: Places) -> None:
    if os.path.lexists(places.released):
        raise AlreadyExists(f"{places.released} is there already", hint="that name is needed for a moment: rename it")
    clear_away(places.repository)
    if not is_mounted(places.folder):
        _check_pointer_folder(places)
    occupants.refuse(places.folder, occupants.users(places.folder), LEAVE.format(folder=places.folder))


def _check_pointer_folder(places: Places) -> None:
    """What stands in the place of the released folder must be ours, since it goes."""
    if not places.folder.is_dir() or not is_pointer_folder(places.folder, places.repository):
        raise Refused(
            f"{places.folder} is not the folder that was adopted, or holds more than the pointer to its repository",
            hint="move what else is in it elsewhere, or fusecas export @ DIR",
        )


def _release(places: Places, note: Note, terms: Terms) -> Released:
    note = note._replace(step=Step.RELEASING)
    note.write(places.repository)
    try:
        places.released.mkdir(mode=0o700)
        note = note._replace(inode=inode_of(places.released))
        note.write(places.repository)
        with Repository.open(places.repository) as repository:
            released = _exchanged(repository, places, terms)
    except BaseException:
        if inode_of(places.folder) != note.inode or note.inode is None:
            withdraw(places, note)
        raise
    end_release(places)
    forget(places.repository)
    return released


def _exchanged(repository: Repository, places: Places, terms: Terms) -> Released:
    """Steps 3 to 5: the long part while the mount serves on, and again if something was changed meanwhile."""
    live = _live(repository)
    exported = _export(repository, live, places, terms)
    terms.unmount()
    with repository.served():
        if is_mounted(places.folder):
            raise InUse(f"{places.folder} is a mount still", hint=f"umount {places.folder}")
        _check_pointer_folder(places)
        workspace = Workspace(repository)
        workspace.commit(deed=terms.deed)
        workspace.close()
        now = _live(repository)
        if now.pair != live.pair:
            remove_contents(places.released)
            exported = _export(repository, now, places, terms)
        with repository.store.read() as snapshot:
            others = [head.name for head in heads.all_heads(snapshot) if head.name != heads.DEFAULT]
        exchange(places.folder, places.released)
    return Released(places, exported, now.layer, others)


def _live(repository: Repository) -> Live:
    with repository.store.read() as snapshot:
        return heads.read_head(snapshot).live


def _export(repository: Repository, live: Live, places: Places, terms: Terms) -> Exported:
    """Into the folder that is there, empty; on the disk when it returns, and equal."""
    exported = export_tree(
        repository.store,
        live.state,
        places.released,
        times=live.times,
        owner=live.owner,
        skip=own_files(repository.folder),
        progress=terms.progress,
    )
    if exported.unset and not terms.lossy:
        raise checks.not_kept(places.folder, [(path, f"{what}: {why}") for path, what, why in exported.unset])
    _verify(repository, live, places, exported, terms)
    sync_file_system(places.released)
    return exported


def _verify(repository: Repository, live: Live, places: Places, exported: Exported, terms: Terms) -> None:
    """It is read again: an equal folder has an equal state, and equal times."""
    with repository.store.session() as session:
        read = import_tree(
            session, places.released, owner=live.owner, trusted_xattrs=os.geteuid() == 0, progress=terms.progress
        )
        if read.state != live.state:
            session.flush()
            with session.read() as reader:
                differing = {each.path for each in diff_states(reader, live.state, read.state, renames=False)}
            _check_difference(places.released, differing, exported)
    if read.times != live.times and not terms.lossy:
        raise checks.not_kept(places.folder, [(b"", "times are kept less exactly on its file system")])


def _check_difference(folder: Path, differing: set[bytes], exported: Exported) -> None:
    """What could not be set is known, and was agreed to; it is all that may differ."""
    paths = differing - {path for path, _, _ in exported.unset}
    if paths or not exported.unset:
        raise Damaged(
            f"what was exported to {folder} is not what was to be released",
            hint="nothing was released; fusecas verify checks what is stored",
            details={"paths": [os.fsdecode(path) for path in sorted(paths)[:MOST_PATHS]]},
        )


def remove_contents(folder: Path) -> None:
    """It stays itself: its inode is in the note."""
    folder.chmod(0o700)
    for each in list(folder.iterdir()):
        remove_copy(each)
