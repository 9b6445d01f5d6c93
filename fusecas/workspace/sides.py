"""What lies beside a directory's tree: the times of what is in it, and the numbers of its inodes."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

from fusecas import _native
from fusecas.errors import InvalidObject
from fusecas.store import prolly
from fusecas.store.ids import Kind, ObjectId
from fusecas.store.prolly import LeafEntry, Loader, Saver

ROOT = 0
Changes = Mapping[bytes, LeafEntry | None]
OLDEST, NEWEST = -(1 << 63), (1 << 64) - 1


class DirIds(NamedTuple):
    """A directory in the store: its tree and the side trees beside it; `first`: its numbers, where `inodes` is None."""

    tree: bytes | None
    times: bytes | None
    inodes: bytes | None
    first: int


def clamped(time: int) -> int:
    return min(max(time, OLDEST), NEWEST)


def written_times(base: DirIds, fallback: int, load: Loader, save: Saver) -> bytes | None:
    """The times of a directory; written down now, if it had none."""
    if base.times is not None:
        return base.times
    with _malformed_is_invalid(base):
        return _native.write_times(base.tree, fallback, _by_number(load), lambda kind, data: save(Kind(kind), data))


def written_inodes(base: DirIds, fallback: int, load: Loader, save: Saver) -> bytes | None:
    """The numbers of a directory. If they were not written down, they go in the order of a walk, and what they name
    was changed when it was last modified."""
    return changed_inodes(base, fallback, {}, load, save)


def changed_inodes(base: DirIds, fallback: int, changes: Changes, load: Loader, save: Saver) -> bytes | None:
    """The same, after some changes: a name's new entry, or None if it is gone."""
    if base.inodes is not None:
        return prolly.edit(Kind.INODES, base.inodes, changes, load, save) if changes else base.inodes
    with _malformed_is_invalid(base):
        return _native.write_inodes(
            base.tree,
            base.times,
            base.first,
            fallback,
            list(changes.items()),
            _by_number(load),
            lambda kind, data: save(Kind(kind), data),
        )


@contextmanager
def _malformed_is_invalid(base: DirIds) -> Iterator[None]:
    try:
        yield
    except _native.FormatError as error:
        tree = "no tree" if base.tree is None else f"tree {base.tree.hex()}"
        raise InvalidObject(f"{tree}, or the times beside it: {error}") from error


def _by_number(load: Loader) -> Callable[[bytes, int], bytes]:
    return lambda object_id, kind: load(ObjectId(object_id), Kind(kind))
