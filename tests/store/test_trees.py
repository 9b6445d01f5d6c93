"""Directories in a state: found, listed, walked, and changed at the cost of what changes."""

from collections.abc import Iterator, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from making import ANYTHING
from strategies import names

from fusecas import _native
from fusecas.errors import PathNotFound
from fusecas.store import prolly, trees
from fusecas.store.ids import Kind, ObjectId, StateId
from fusecas.store.kinds import Entry, EntryKind, State
from fusecas.store.store import Store

EMPTY = State(tree=None, mode=0o755, links=None)
A_DIRECTORY = Entry(b"", EntryKind.DIRECTORY, 0o755)


class Nodes:
    """A store of nodes that counts what is asked of it."""

    def __init__(self) -> None:
        self.data: dict[bytes, bytes] = {}
        self.loads = self.saves = 0

    def load(self, node: ObjectId, kind: Kind) -> bytes:
        self.loads += 1
        return self.data[node]

    def save(self, kind: Kind, data: bytes) -> ObjectId:
        self.saves += 1
        node = ObjectId(_native.node_id(kind, data))
        self.data[node] = data
        return node

    def edit(
        self, core: State, changes: Mapping[bytes, Entry | None], links: Mapping[bytes, bytes | None] | None = None
    ) -> State:
        return trees.edit(core, changes, links or {}, self.load, self.save)


def a_file(size: int = 1) -> Entry:
    return Entry(b"", EntryKind.FILE, 0o644, size.to_bytes(32, "big"), size)


def with_directories(paths: Iterator[bytes] | Mapping[bytes, Entry]) -> dict[bytes, Entry]:
    """These files, and the directories that they need."""
    found: dict[bytes, Entry] = {}
    for path in paths:
        steps = path.split(b"/")
        for i in range(1, len(steps)):
            found[b"/".join(steps[:i])] = A_DIRECTORY
    return found


def built(nodes: Nodes, files: Mapping[bytes, Entry]) -> State:
    """A state with these files, made directory by directory from the top."""
    state = EMPTY
    for path, entry in sorted({**with_directories(files), **files}.items()):
        state = nodes.edit(state, {path: entry})
    return state


def shape(nodes: Nodes, tree: bytes | None, below: bytes = b"") -> Iterator[tuple[bytes, int, int, int]]:
    for name, kind, _, target, size, count, _ in prolly.entries(Kind.TREE, tree, nodes.load):
        yield trees.join(below, name), kind, size, count
        if kind == EntryKind.DIRECTORY:
            yield from shape(nodes, target, trees.join(below, name))


few_names = st.sampled_from([b"a", b"b", b"c", b"a.b", b"\xff"])
few_paths = st.lists(few_names, min_size=1, max_size=3).map(b"/".join)


def without_clashes(files: Mapping[bytes, int]) -> dict[bytes, Entry]:
    """A path that is a file and a directory is a directory."""
    above = set(with_directories({path: a_file() for path in files}))
    return {path: a_file(size) for path, size in files.items() if path not in above}


@given(
    st.dictionaries(few_paths, st.integers(1, 3), max_size=8).map(without_clashes),
    st.dictionaries(few_paths, st.integers(1, 3), max_size=8).map(without_clashes),
)
def test_changes_at_once_lead_to_what_building_gives(before: dict[bytes, Entry], after: dict[bytes, Entry]) -> None:
    nodes = Nodes()
    old, new = with_directories(before), with_directories(after)
    changes: dict[bytes, Entry | None] = {path: None for path in {**before, **old} if path not in {**after, **new}}
    changes |= {path: A_DIRECTORY for path in new if path not in old}
    changes |= {path: entry for path, entry in after.items() if before.get(path) != entry}
    wanted = built(nodes, after)
    assert nodes.edit(built(nodes, before), changes) == wanted
    assert {path for path, kind, *_ in shape(nodes, wanted.tree) if kind == EntryKind.FILE} == set(after)


@given(st.dictionaries(names, st.integers(1, 9), min_size=1, max_size=20))
def test_each_directory_counts_what_is_below_it(files: dict[bytes, int]) -> None:
    nodes = Nodes()
    state = built(nodes, {b"deep/down/" + name: a_file(size) for name, size in files.items()})
    seen = {path: (size, count) for path, _, size, count in shape(nodes, state.tree)}
    assert seen[b"deep/down"] == (sum(files.values()), len(files))
    assert seen[b"deep"] == (sum(files.values()), len(files) + 1)


def test_one_change_in_a_large_tree_reads_and_writes_a_few_nodes() -> None:
    nodes = Nodes()
    below = prolly.build(Kind.TREE, (a_file(i + 1)._replace(name=b"%06d" % i) for i in range(50_000)), nodes.save)
    count, size = prolly.totals(Kind.TREE, below, nodes.load)
    state = nodes.edit(EMPTY, {b"large": A_DIRECTORY._replace(target=below, count=count, size=size)})
    nodes.loads = nodes.saves = 0
    nodes.edit(state, {b"large/025000": a_file(7)})
    assert nodes.loads <= 12 and nodes.saves <= 8


def test_a_tree_may_be_deeper_than_pythons_stack() -> None:
    nodes = Nodes()
    deep = b"/".join([b"d"] * 3000)
    entry = A_DIRECTORY
    for _ in range(2999):
        tree = prolly.build(Kind.TREE, [tuple(entry._replace(name=b"d"))], nodes.save)
        entry = A_DIRECTORY._replace(target=tree, count=entry.count + 1)
    state = nodes.edit(EMPTY, {b"d": entry})
    changed = nodes.edit(state, {deep + b"/file": a_file()})
    assert changed.tree is not None
    assert prolly.totals(Kind.TREE, changed.tree, nodes.load) == (3001, 1)


def test_a_file_can_not_get_anything_below_it() -> None:
    nodes = Nodes()
    state = built(nodes, {b"file": a_file()})
    with pytest.raises(PathNotFound, match="file is not a directory"):
        nodes.edit(state, {b"file/below": a_file()})


def test_removing_what_is_not_there_changes_nothing() -> None:
    nodes = Nodes()
    state = built(nodes, {b"a/file": a_file()})
    assert nodes.edit(state, {b"b/c/d": None, b"a/other": None}) == state


def test_the_roots_own_attributes_can_change() -> None:
    nodes = Nodes()
    state = built(nodes, {b"file": a_file()})
    changed = nodes.edit(state, {b"": A_DIRECTORY._replace(mode=0o700, ext={"O": [5, None]})})
    assert changed == state._replace(mode=0o700, ext={"O": [5, None]})


def test_groups_of_links_come_and_go_with_the_entries() -> None:
    nodes = Nodes()
    linked = a_file()._replace(ext={"L": True})
    plain = built(nodes, {b"a": a_file(), b"z": a_file()})
    joined = nodes.edit(plain, {b"a": linked, b"z": linked}, {b"a": b"a", b"z": b"a"})
    assert list(prolly.entries(Kind.LINKS, joined.links, nodes.load)) == [(b"a", b"a"), (b"z", b"a")]
    assert nodes.edit(joined, {b"a": a_file(), b"z": a_file()}, {b"a": None, b"z": None}) == plain


@pytest.fixture
def stored(store: Store) -> tuple[Store, StateId]:
    nodes = Nodes()
    with store.write() as transaction:
        contents = {name: transaction.put_content(name) for name in (b"one", b"two")}
        files = {
            path: Entry(b"", EntryKind.FILE, 0o644, contents[name], 3)
            for path, name in {b"sub/one": b"one", b"sub.txt": b"two", b"two": b"two"}.items()
        }
        changes = {**with_directories(files), **files}
        core = trees.edit(EMPTY, changes, {}, nodes.load, transaction.put_node)
        state = StateId(transaction.put_node(Kind.STATE, core.encode()))
        transaction.set_ref("pins/kept", state, ANYTHING)
    return store, state


def test_paths_are_looked_up_without_following_anything(stored: tuple[Store, StateId]) -> None:
    store, state = stored
    with store.read() as reader:
        found = trees.lookup(reader, state, b"sub/one")
        assert found is not None and (found.name, found.size) == (b"one", 3)
        root = trees.lookup(reader, state, b"")
        assert root is not None and (root.mode, root.count, root.size) == (0o755, 4, 9)
        assert trees.lookup(reader, state, b"sub/two") is None
        assert trees.lookup(reader, state, b"two/below") is None
        with pytest.raises(PathNotFound, match="no sub/two there"):
            trees.needed(reader, state, b"sub/two")


def test_a_walk_meets_a_directory_before_what_is_in_it(stored: tuple[Store, StateId]) -> None:
    store, state = stored
    with store.read() as reader:
        tree = trees.read_state(reader, state).tree
        assert [path for path, _ in trees.walk(reader, tree)] == [b"sub", b"sub/one", b"sub.txt", b"two"]


def test_a_listing_can_start_anywhere(stored: tuple[Store, StateId]) -> None:
    store, state = stored
    with store.read() as reader:
        tree = trees.read_state(reader, state).tree
        assert [each.name for each in trees.entries(reader, tree, b"sub.")] == [b"sub.txt", b"two"]
