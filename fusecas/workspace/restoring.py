"""Some paths of one state brought into another: what `checkout REF -- PATH…` puts into a workspace."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import cached_property

from fusecas.errors import PathNotFound, Refused
from fusecas.store import prolly, trees
from fusecas.store.diff import Change, ChangeKind, apply_changes, diff_states
from fusecas.store.ids import Kind, StateId
from fusecas.store.kinds import Entry, State
from fusecas.store.prolly import Loader, Saver
from fusecas.store.snapshot import Snapshot

Groups = dict[bytes, bytes]
"""Of hard links: path → what a state calls its group."""


class Restoring:
    """Of `paths` (b"": all) from `source` into `live`; what is in `source` not, goes.

    PathNotFound if a path is in neither. Hard links are kept among the paths that are brought; one that is brought is
    no link to one that is not, unless both were the same file in both states already.
    """

    def __init__(self, snapshot: Snapshot, live: StateId, source: StateId, paths: Sequence[bytes]) -> None:
        self._snapshot = snapshot
        self._paths = paths
        self._live, self._source = (trees.read_state(snapshot, each) for each in (live, source))
        self.changes: list[Change] = []
        for path in paths:
            if all(trees.lookup(snapshot, state, path) is None for state in (live, source)):
                shown = trees.shown(path)
                raise PathNotFound(f"no {shown}, neither there nor here", details={"path": shown})
            self.changes += self._folders_above(path)
        self.changes += diff_states(snapshot, live, source, paths=paths, renames=False)

    def _folders_above(self, path: bytes) -> Iterator[Change]:
        """Those that are missing; nothing is put in the place of a file that nobody has named."""
        above, at = path.rpartition(b"/")[0], 0
        if trees.find(self._snapshot, self._source.tree, path) is None:
            return
        while 0 <= at < len(above):
            end = above.find(b"/", at)
            folder, at = (above, -1) if end < 0 else (above[:end], end + 1)
            here = trees.find(self._snapshot, self._live.tree, folder)
            if here is None and all(each.path != folder for each in self.changes):
                new = trees.find(self._snapshot, self._source.tree, folder)
                yield Change(folder, frozenset({ChangeKind.ADDED}), None, new)
            elif here is not None and not here.is_directory:
                shown = trees.shown(folder)
                raise Refused(f"{shown} is a directory there and none here", hint=f"move it away, or check out {shown}")

    def state(self, load: Loader, save: Saver) -> StateId:
        """The state that this makes of the live one."""
        alone = [change._replace(links=None) for change in self.changes]
        core = apply_changes(self._live, alone, load, save)
        if self._live.links is not None or self._source.links is not None:
            core = self._linked(core, load, save)
        return StateId(save(Kind.STATE, core.encode()))

    # hard links

    def _linked(self, core: State, load: Loader, save: Saver) -> State:
        """With the groups as they must be then, and marks on exactly the entries that are in one."""
        now, source = _groups(self._live, load), _groups(self._source, load)
        wanted = self._wanted_groups(now, source)
        links = {path: wanted.get(path) for path in now.keys() | wanted.keys() if now.get(path) != wanted.get(path)}
        marks: dict[bytes, Entry | None] = {}
        for path in now.keys() | source.keys():
            entry = _find(core, path, load)
            if entry is not None and entry.linked != (path in wanted):
                ext = {key: value for key, value in (entry.ext or {}).items() if key != "L"}
                marks[path] = entry._replace(ext=({**ext, "L": True} if path in wanted else ext) or None)
        return trees.edit(core, marks, links, load, save)

    def _wanted_groups(self, live: Groups, source: Groups) -> Groups:
        # A file of several names that is the same in both: those that are not brought stay names of it.
        same = {group for path, group in source.items() if self._is_brought(path) and self._stays(path, live, group)}
        members: dict[tuple[bool, bytes], list[bytes]] = defaultdict(list)
        for path, group in live.items():
            if not self._is_brought(path):
                members[group in same, group].append(path)
        for path, group in source.items():
            if self._is_brought(path):
                members[True, group].append(path)
        return {path: min(paths) for paths in members.values() if len(paths) > 1 for path in paths}

    def _stays(self, path: bytes, live: Groups, group: bytes) -> bool:
        return live.get(path) == group and path not in self._changed

    @cached_property
    def _changed(self) -> set[bytes]:
        return {change.path for change in self.changes}

    def _is_brought(self, path: bytes) -> bool:
        return any(not each or path == each or path.startswith(each + b"/") for each in self._paths)


def _groups(core: State, load: Loader) -> Groups:
    return dict(prolly.entries(Kind.LINKS, core.links, load))


def _find(core: State, path: bytes, load: Loader) -> Entry | None:
    """What is at a path of a state that may not be stored yet."""
    entry = core.root(0, 0)
    for name in path.split(b"/"):
        found = prolly.find(Kind.TREE, entry.target, name, load) if entry.is_directory else None
        if found is None:
            return None
        entry = Entry._make(found)
    return entry
