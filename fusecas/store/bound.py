"""Which states hold the path of a workspace: what was made of them may be right at that path only.

A seal looks for the path in all that is new. A state has what the one before it had, as long as the files that hold it
are still there, at whatever place: its row names them, or the root if they are too many.
"""

import re
from collections.abc import Iterable, Iterator
from mmap import mmap

from fusecas.store import prolly
from fusecas.store.ids import Kind, StateId
from fusecas.store.kinds import Entry, EntryKind
from fusecas.store.prolly import LeafEntry, Loader
from fusecas.store.snapshot import Snapshot
from fusecas.store.trees import join

MOST_NAMED = 256
Holders = frozenset[bytes]
SOMEWHERE: Holders = frozenset({b""})


def is_bound(reader: Snapshot, state: StateId) -> bool:
    return bool(reader.bound(state))


def inherited(known: Holders, before: bytes | None, after: bytes | None, new: Iterable[bytes], load: Loader) -> Holders:
    """Of a state with the tree `after`, which was `before`. `new`: those that have been found now."""
    kept = {path for path in known if not path or _at(before, path, load) == _at(after, path, load)}
    lost = [entry for path in known - kept if (entry := _at(before, path, load)) is not None]
    return joined(kept, [*new, *_found_again(lost, before, after, load)])


def _found_again(lost: list[LeafEntry], before: bytes | None, after: bytes | None, load: Loader) -> Iterator[bytes]:
    """Where the content, the target or the attributes of entries are by now, in what has changed: nothing in them was
    written anew if they were moved, linked, or given another mode. Costs what has changed."""
    targets = {each[3] for each in lost if each[3] is not None and each[1] != EntryKind.DIRECTORY}
    attributes = [each[-1]["X"] for each in lost if each[-1] and "X" in each[-1]]
    stack = [(b"", before, after)] if lost else []
    while stack:
        above, old, now = stack.pop()
        for name, was, entry in prolly.diff(Kind.TREE, old, now, load):
            if entry is None:
                continue
            path = join(above, name)
            is_directory = entry[1] == EntryKind.DIRECTORY
            if is_directory:
                stack.append((path, was[3] if was is not None and was[1] == EntryKind.DIRECTORY else None, entry[3]))
            if (entry[-1] or {}).get("X") in attributes or (not is_directory and entry[3] in targets):
                yield path


def joined(some: Iterable[bytes], others: Iterable[bytes]) -> Holders:
    found = frozenset({*some, *others})
    return found if len(found) <= MOST_NAMED else SOMEWHERE


def _at(tree: bytes | None, path: bytes, load: Loader) -> LeafEntry | None:
    entry: LeafEntry | None = tuple(Entry(b"", EntryKind.DIRECTORY, 0, tree))
    for name in path.split(b"/"):
        if entry is None or entry[1] != EntryKind.DIRECTORY:
            return None
        entry = prolly.find(Kind.TREE, entry[3], name, load)
    return entry


def holds(data: "bytes | mmap", path: bytes) -> bool:
    """Whether a path stands in bytes as one, not as the beginning of a longer name: in doubt it does (`/w/x.`)."""
    return bool(path) and re.search(re.escape(path) + rb"(?![A-Za-z0-9_\x80-\xff-])", data) is not None
