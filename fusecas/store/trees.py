"""Directories in a state: finding, listing, walking, changing. A path is bytes from the root, b"" the root itself."""

from collections.abc import Iterator, Mapping
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


def entries(reader: Snapshot, tree: bytes | None, start: bytes = b"") -> Iterator[Entry]:
    """The entries of one directory, in the order of names, from `start` on."""
    return map(Entry._make, prolly.entries(Kind.TREE, tree, loader(reader), start))


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
    """An entry's time, and for a directory the times of what is in it."""

    mtime: int | None
    child: TimesId | None


UNTIMED = Timed(None, None)


class Times:
    """The times of one directory, asked for in the order of names from `start` on. The empty name is the root's own."""

    def __init__(self, reader: Snapshot, times: TimesId | None, start: bytes = b"") -> None:
        self._entries = prolly.entries(Kind.TIMES, times, loader(reader), start)
        self._next = next(self._entries, None)

    def of(self, name: bytes) -> Timed:
        while self._next is not None and self._next[0] < name:
            self._next = next(self._entries, None)
        if self._next is None or self._next[0] != name:
            return UNTIMED
        return Timed(*self._next[1:])


def time_at(reader: Snapshot, times: TimesId | None, path: bytes) -> int | None:
    """The time of what is at a path."""
    timed = Timed(None, times)
    for name in path.split(b"/"):
        found = prolly.find(Kind.TIMES, timed.child, name, loader(reader))
        if found is None:
            return None
        timed = Timed(*found[1:])
    return timed.mtime


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
        core = core._replace(mode=root.mode, ext=root.ext)
    tree = _edit_directories(core.tree, _nested(changes), read, keep)
    groups = {path: None if group is None else (path, group) for path, group in links.items()}
    new_links = prolly.edit(Kind.LINKS, core.links, groups, read, keep) if groups else core.links
    return core._replace(
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


class _Directory(NamedTuple):
    """A directory that is being changed: its own entry, what changes in it, and where changes lie deeper."""

    path: bytes
    entry: Entry
    here: dict[bytes, prolly.LeafEntry | None]
    below: Iterator[tuple[bytes, _Changes]]


def _to_change(path: bytes, entry: Entry, changes: _Changes) -> _Directory:
    here = {name: None if each is None else tuple(each) for name, each in changes.here.items()}
    return _Directory(path, entry, here, iter(changes.below.items()))


def _edit_directories(tree: bytes | None, changes: _Changes, load: Loader, save: Saver) -> ObjectId | None:
    """The root's new tree. Deepest first, on a stack of our own: a tree may be deeper than Python's."""
    stack = [_to_change(b"", Entry(b"", EntryKind.DIRECTORY, 0, tree), changes)]
    while True:
        directory = stack[-1]
        name, below = next(directory.below, (b"", None))
        if below is not None:
            deeper = _enter(directory, name, below, load)
            if deeper is not None:
                stack.append(deeper)
            continue
        stack.pop()
        old = directory.entry.target
        new = prolly.edit(Kind.TREE, old, directory.here, load, save) if directory.here else old
        if not stack:
            return None if new is None else ObjectId(new)
        count, size = (
            prolly.totals(Kind.TREE, new, load) if new != old else (directory.entry.count, directory.entry.size)
        )
        stack[-1].here[directory.entry.name] = tuple(directory.entry._replace(target=new, count=count, size=size))


def _enter(directory: _Directory, name: bytes, below: _Changes, load: Loader) -> _Directory | None:
    """The directory in which changes lie; None if it is not there and nothing is to be put into it."""
    place = join(directory.path, name)
    known = name in directory.here
    old = directory.here[name] if known else prolly.find(Kind.TREE, directory.entry.target, name, load)
    if old is not None and old[1] == EntryKind.DIRECTORY:
        return _to_change(place, Entry._make(old), below)
    if _adds_something(below):
        raise PathNotFound(f"{shown(place)} is not a directory")
    return None


def _adds_something(changes: _Changes) -> bool:
    stack = [changes]
    while stack:
        changes = stack.pop()
        if any(entry is not None for entry in changes.here.values()):
            return True
        stack += changes.below.values()
    return False
