"""Files that remember the times of others, as git's index does: any `git status` at a prompt writes them anew.

They are in a key by what they say. So a result may be served where one of them has other bytes, and then it is left as
it is there, if the run itself has not made it say something else.
"""

import threading
from collections.abc import Sequence

from blake3 import blake3

from fusecas import _native
from fusecas.store import trees
from fusecas.store.ids import ContentId, Kind, ObjectId, StateId
from fusecas.store.kinds import Entry
from fusecas.store.snapshot import Snapshot

USUAL = (b".git/index",)
MOST_KNOWN = 1000
LARGEST = 1 << 28
IS_INDEX, IS_BYTES = b"\1", b"\0"


class StatCaches:
    """Remembers what contents say. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[bytes, bytes] = {}

    def key_state(self, snapshot: Snapshot, state: StateId, paths: Sequence[bytes]) -> StateId:
        """What a key has of a state: it, with the digest of what each stat cache says in the place of its content."""
        found = {path: trees.lookup(snapshot, state, path) for path in paths}
        said = {
            path: entry._replace(target=self._said(snapshot, entry.target), size=1)
            for path, entry in found.items()
            if entry is not None and entry.is_file and entry.target is not None
        }
        if not said:
            return state
        core = trees.edit(trees.read_state(snapshot, state), said, {}, trees.loader(snapshot), _only_named)
        return StateId(_only_named(Kind.STATE, core.encode()))

    def says_the_same(self, snapshot: Snapshot, old: Entry | None, new: Entry | None) -> bool:
        if old is None or new is None or not (old.is_file and new.is_file):
            return False
        if old._replace(target=None, size=0) != new._replace(target=None, size=0):
            return False
        if old.target is None or new.target is None:
            return old.target == new.target
        return self._said(snapshot, old.target) == self._said(snapshot, new.target)

    def alike(self, snapshot: Snapshot, one: StateId, other: StateId, paths: Sequence[bytes] = USUAL) -> bool:
        """Whether two states are the same but for the bytes of stat caches. What gc has taken is like itself alone."""
        if one == other:
            return True
        if not (snapshot.has(one) and snapshot.has(other)):
            return False
        return self.key_state(snapshot, one, paths) == self.key_state(snapshot, other, paths)

    def says(self, snapshot: Snapshot, content: ContentId, data: bytes) -> bool:
        """Whether that is what it says, in whatever bytes."""
        said = _native.git_index_digest(data)
        return said is not None and self._said(snapshot, content) == blake3(IS_INDEX + said).digest()

    def _said(self, snapshot: Snapshot, content: bytes) -> bytes:
        with self._lock:
            known = self._known.get(content)
        if known is None:
            known = _digest(snapshot, ContentId(ObjectId(content)))
            with self._lock:
                if len(self._known) >= MOST_KNOWN:
                    self._known.clear()
                self._known[content] = known
        return known


def _only_named(kind: Kind, data: bytes) -> ObjectId:
    """A node that nobody needs to read."""
    return ObjectId(_native.node_id(kind, data))


def _digest(snapshot: Snapshot, content: ContentId) -> bytes:
    said = (
        _native.git_index_digest(snapshot.read_content(content)) if snapshot.content_size(content) <= LARGEST else None
    )
    return blake3(IS_BYTES + content if said is None else IS_INDEX + said).digest()
