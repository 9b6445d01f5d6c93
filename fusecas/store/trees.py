"""Directories in a state: finding, listing, walking, changing. A path is bytes from the root, b"" the root itself."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple

from fusecas.errors import PathNotFound
from fusecas.store import prolly
from fusecas.store.ids import Kind, LinksId, ObjectId, StateId, TimesId, TreeId
from fusecas.store.kinds import Entry, EntryKind, State
from fusecas.store.prolly import Loader, Saver
from fusecas.store.snapshot import Snapshot


class Placed(NamedTuple):
    """An entry and where it is."""

    path: bytes
    entry: Entry


def loader(reader: Snapshot) -> Loader:
    return reader.read_node


def read_state(reader: Snapshot, state: StateId) -> State:
    return State.decode(reader.read_node(state, Kind.STATE))


def root_entry(reader: Snapshot, state: StateId) -> Entry:
    """The root as a directory's entry, without a name."""
    core = read_state(reader, state)
    count, size = prolly.totals(Kind.TREE, core.tree, loader(reader))
    return core.root(size, count)


def lookup(reader: Snapshot, state: StateId, path: bytes) -> Entry | None:
    """What is at a path, symbolic links not followed; reads the nodes on the way only."""
    return find(reader, read_state(reader, state).tree, path) if path else root_entry(reader, state)


def find(reader: Snapshot, tree: bytes | None, path: bytes) -> Entry | None:
    """What is at a path below a directory."""
    entry = Entry(b"", EntryKind.DIRECTORY, 0, tree)
    for name in path.split(b"/"):
        if not entry.is_directory:
            return None
        found = prolly.find(Kind.TREE, entry.target, name, loader(reader))
        if found is None:
            return None
        entry = Entry._make(found)
    return entry


def needed(reader: Snapshot, state: StateId, path: bytes) -> Entry:
    entry = lookup(reader, state, path)
    if entry is None:
        raise PathNotFound(f"no {shown(path)} there", details={"path": shown(path)})
    return entry


def entries(reader: Snapshot, tree: bytes | None) -> Iterator[Entry]:
    """The entries of one directory, in the order of names."""
    return map(Entry._make, prolly.entries(Kind.TREE, tree, loader(reader)))


def walk(reader: Snapshot, tree: bytes | None, below: bytes = b"") -> Iterator[Placed]:
    """Everything below a directory: a directory before what is in it, names in order."""
    stack = [(below, entries(reader, tree))]
    while stack:
        path, listing = stack[-1]
        entry = next(listing, None)
        if entry is None:
            stack.pop()
            continue
        place = join(path, entry.name)
        yield Placed(place, entry)
        if entry.is_directory:
            stack.append((place, entries(reader, entry.target)))


def join(directory: bytes, name: bytes) -> bytes:
    return directory + b"/" + name if directory else name


def shown(path: bytes) -> str:
    """A path in a message."""
    return path.decode(errors="backslashreplace") or "/"


def group_of(reader: Snapshot, links: LinksId | None, path: bytes) -> bytes | None:
    """The hard-link group of a path: its smallest path."""
    found = prolly.find(Kind.LINKS, links, path, loader(reader))
    return None if found is None else found[1]


# ---- times


class Timed(NamedTuple):
    mtime: int | None
    child: TimesId | None


def times_of_directory(reader: Snapshot, times: TimesId | None) -> dict[bytes, Timed]:
    """name → its time and the times below it; at the root, the empty name is the root's own."""
    return {name: Timed(mtime, child) for name, mtime, child in prolly.entries(Kind.TIMES, times, loader(reader))}


# ---- changing


def edit(
    core: State,
    changes: Mapping[bytes, Entry | None],
    links: Mapping[bytes, bytes | None],
    load: Loader,
    save: Saver,
) -> State:
    """A state with some paths changed: a new entry, or None for «gone»; costs what changes.

    A directory's entry brings what is below it. `links` says which path is in which group from now on (None: in none);
    that entries of groups carry the mark `L`, and others don't, is the caller's care. The path b"" changes the root.
    """
    fresh: dict[bytes, bytes] = {}  # what was saved may not be readable yet, and directories count what is in them

    def keep(kind: Kind, data: bytes) -> ObjectId:
        node = save(kind, data)
        fresh[node] = data
        return node

    def read(node: ObjectId, kind: Kind) -> bytes:
        return fresh[node] if node in fresh else load(node, kind)

    changes = dict(changes)
    root = changes.pop(b"", None)
    if root is not None:
        core = replace(core, mode=root.mode, ext=root.ext)
    tree = _edit_directory(core.tree, _nested(changes), b"", read, keep)
    groups = {path: None if group is None else (path, group) for path, group in links.items()}
    new_links = prolly.edit(Kind.LINKS, core.links, groups, read, keep) if groups else core.links
    return replace(
        core,
        tree=None if tree is None else TreeId(tree),
        links=None if new_links is None else LinksId(ObjectId(new_links)),
    )


class _Changes(NamedTuple):
    here: dict[bytes, Entry | None]
    below: "dict[bytes, _Changes]"


def _nested(changes: Mapping[bytes, Entry | None]) -> _Changes:
    top = _Changes({}, {})
    for path, entry in changes.items():
        *directories, name = path.split(b"/")
        place = top
        for directory in directories:
            place = place.below.setdefault(directory, _Changes({}, {}))
        place.here[name] = None if entry is None else entry._replace(name=name)
    return top


def _edit_directory(tree: bytes | None, changes: _Changes, path: bytes, load: Loader, save: Saver) -> ObjectId | None:
    entries_here: dict[bytes, prolly.LeafEntry | None] = {
        name: None if entry is None else tuple(entry) for name, entry in changes.here.items()
    }
    for name, below in changes.below.items():
        old = entries_here[name] if name in entries_here else prolly.find(Kind.TREE, tree, name, load)
        place = join(path, name)
        if old is None or old[1] != EntryKind.DIRECTORY:
            if any(each is not None for each in below.here.values()) or below.below:
                raise PathNotFound(f"{shown(place)} is not a directory")
            continue
        directory = Entry._make(old)
        child = _edit_directory(directory.target, below, place, load, save)
        count, size = prolly.totals(Kind.TREE, child, load)
        entries_here[name] = tuple(directory._replace(target=child, count=count, size=size))
    if not entries_here:
        return None if tree is None else ObjectId(tree)
    return prolly.edit(Kind.TREE, tree, entries_here, load, save)
