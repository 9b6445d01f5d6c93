"""Taking a folder over. docs/dev/adopt.md numbers the steps, and says what is there after a crash in each of them."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from fusecas.adopt import checks, occupants
from fusecas.adopt.exchange import exchange, move
from fusecas.adopt.looking import Look, look_at
from fusecas.adopt.turns import inode_of, turn
from fusecas.errors import ChangedWhileRead
from fusecas.store.adopted import Note, Places, Step, is_repository, make_pointer_folder, remove_pointer_folder
from fusecas.store.importer import RESERVED, Imported, Progress
from fusecas.store.repository import Repository
from fusecas.workspace.importing import ImportedLayer, Placed, import_layer
from fusecas.workspace.mover import Deed
from fusecas.workspace.workspace import Workspace

TRIES = 3
TO_LEAVE = "end it or leave (cd), or --force goes on: what it does there stays with the folder as it was"


class Wishes(NamedTuple):
    """How to adopt: `lossy`: without what can't be kept. `force`: although others are in the folder. `tell`: what the
    user should know but did not ask for. `unmount`: ends the daemon of a repository in the folder, if there is one."""

    lossy: bool = False
    force: bool = False
    message: str | None = None
    deed: Deed = Deed()
    tell: Callable[[str], None] = lambda said: None
    unmount: Callable[[Path], None] = lambda repository: None
    progress: Callable[[Progress], None] | None = None


class Taken(NamedTuple):
    """What was read of a folder, and what the look after it has seen."""

    found: ImportedLayer
    seen: str


def adopt(places: Places, wishes: Wishes) -> ImportedLayer:
    """The folder is a workspace's then, not mounted yet. What is refused was not changed."""
    checks.check_surroundings(places)
    refuse_occupants(places, wishes)
    look = look_at(places.folder, closely=True)
    checks.refuse_what_is_not_kept(places, look, lossy=wishes.lossy)
    checks.try_a_mount()
    if is_repository(places.within):
        wishes.unmount(places.within)
        checks.check_mounts(places.folder)
    with ExitStack() as held:
        folder = held.enter_context(_repository(places))
        taken = _import_first(held, folder, places, look, wishes)
        note = _note(places, folder, taken)
        note.write(folder)
        try:
            take_place(places, note)
        except BaseException:
            if inode_of(places.folder) == note.inode:
                back(places, note)
            raise
        with Repository.open(places.repository) as repository:
            finish(repository, places, note, wishes)
    return taken.found


def _note(places: Places, repository: Path, taken: Taken) -> Note:
    found = places.folder.stat()
    is_within = repository == places.within
    mtime = found.st_mtime_ns if is_within else None
    return Note(Step.ADOPTING, places.folder.name, found.st_ino, taken.seen, is_within, mtime)


@contextmanager
def _repository(places: Places) -> Iterator[Path]:
    """The one that is there, else a new one, which goes again if nothing comes of it."""
    there = checks.repository_to_use(places)
    folder = there or places.repository
    if there is None:
        Repository.create(folder).close()
    with turn(folder):
        try:
            yield folder
        except BaseException:
            if there is None and Note.read(folder) is None:
                shutil.rmtree(folder)
            raise


def _import_first(held: ExitStack, folder: Path, places: Places, look: Look, wishes: Wishes) -> Taken:
    """Step 2. No daemon can begin to serve the repository before `held` ends."""
    with Repository.open(folder) as repository:
        held.enter_context(repository.served())
        taken = _import(repository, places.folder, look, wishes)
        refuse_occupants(places, wishes)
    return taken


def refuse_occupants(places: Places, wishes: Wishes) -> None:
    if wishes.force:
        return
    writing = occupants.writers(places.folder, but=places.within)
    occupants.refuse(places.folder, [*writing, *occupants.standing_in(places.folder)], TO_LEAVE)


# ---- reading it


class _Unquiet(Exception):
    """Something was changed while it was read. The next look is there already."""

    def __init__(self, seen: str) -> None:
        super().__init__(seen)
        self.seen = seen


def _import(repository: Repository, source: Path, look: Look, wishes: Wishes) -> Taken:
    """A layer with all that is in it, at one time: nothing has changed from a look before to one after."""
    seen = look.seen
    for _ in range(TRIES):
        try:
            found = _import_once(repository, source, seen, wishes)
        except _Unquiet as error:
            seen = error.seen
            continue
        if look.shared:
            wishes.tell(f"{look.shared} of its files have other names elsewhere, which stay with the folder as it was")
        return Taken(found, seen)
    raise ChangedWhileRead(f"{source} kept changing while it was read", hint="run it again when it is quiet")


def _import_once(
    repository: Repository, source: Path, seen: str | None, wishes: Wishes, *, refuse: bool = True
) -> ImportedLayer:
    def place(imported: Imported) -> Placed:
        is_ours = is_repository(source / os.fsdecode(RESERVED))  # it moves out of the folder
        left_out = [(path, why) for path, why in imported.skipped if path != RESERVED or not is_ours]
        if left_out and refuse and not wishes.lossy:
            raise checks.not_kept(source, left_out)
        if seen is not None and (now := look_at(source).seen) != seen:
            raise _Unquiet(now)
        for path, why in left_out:
            wishes.tell(f"left out {os.fsdecode(path)}: {why}")
        return _put_in_place(repository, imported, wishes)

    return import_layer(
        repository,
        source,
        place=place,
        message=wishes.message,
        trusted_xattrs=os.geteuid() == 0,
        skip_changed=not refuse,
        deed=wishes.deed,
        progress=wishes.progress,
    )


def _put_in_place(repository: Repository, imported: Imported, wishes: Wishes) -> Placed:
    workspace = Workspace(repository)
    moved = workspace.put_layer("import", imported.state, imported.times, imported.owner, wishes.message, wishes.deed)
    workspace.close()
    if moved.aside:
        wishes.tell("what was uncommitted in the workspace is set aside; fusecas undo brings it back")
    return Placed(moved.layer if moved.made else None, moved.aside)


# ---- moving it


def take_place(places: Places, note: Note) -> None:
    """Steps 4 to 6, after the note."""
    if note.within:
        move(places.within, places.repository)
        set_time(places.folder, note)
    make_pointer_folder(places.new, places.repository)
    exchange(places.folder, places.new)


def back(places: Places, note: Note) -> Path:
    """As it was before step 3, while the folder is at its place. Where the repository is then."""
    if os.path.lexists(places.new):
        remove_pointer_folder(places.new, places.repository)
    repository = places.repository
    if note.within:
        if not os.path.lexists(places.within):
            move(repository, places.within)
        set_time(places.folder, note)
        repository = places.within
    Note.remove(repository)
    return repository


def finish(repository: Repository, places: Places, note: Note, wishes: Wishes) -> None:
    """Steps 7 to 9, from the exchange on: what was changed until then belongs into the workspace. For who holds the
    daemon's lock."""
    if inode_of(places.before) != note.inode:
        move(places.new, places.before)
    set_time(places.before, note)
    if look_at(places.before).seen != note.seen:
        _import_once(repository, places.before, None, wishes, refuse=False)
        wishes.tell("something was changed while it was adopted: that is a layer of its own")
    Note(Step.ADOPTED, note.name).write(places.repository)


def set_time(folder: Path, note: Note) -> None:
    """As if no repository had been moved out of it, or into it."""
    if note.mtime is not None:
        os.utime(folder, ns=(folder.stat().st_atime_ns, note.mtime))
