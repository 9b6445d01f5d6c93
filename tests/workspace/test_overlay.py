"""The overlay against a plain model: random operations, with commits, thaws, crashes and new starts in between."""

import contextlib
import errno
import os
import select
import stat
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from blake3 import blake3
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fusecas.errors import Conflict, Refused
from fusecas.store import heads, transaction, trees
from fusecas.store.ids import LayerId
from fusecas.store.repository import Repository
from fusecas.store.revisions import resolve
from fusecas.store.snapshot import Snapshot
from fusecas.store.verify import verify
from fusecas.workspace import workspace as workspace_module
from fusecas.workspace.siblings import Siblings
from fusecas.workspace.target import Target
from fusecas.workspace.workspace import Workspace
from fusecas.workspace.workspaces import Workspaces

FILE, FOLDER = stat.S_IFREG | 0o644, stat.S_IFDIR | 0o755
NAMES = st.sampled_from([b"a", b"b", b"c", b"d"])
OFFSETS = st.one_of(st.integers(0, 20_000), st.sampled_from([0, 4095, 4096, 4097, 8192, 65_536, 70_000]))


class Folder(dict[bytes, Any]):
    """A directory of the model: names to folders, and to files, which are bytearrays."""


class Elsewhere(NamedTuple):
    """Another workspace than the one that is worked in, as it was left."""

    workspace: Workspace
    root: Folder
    held: list[int]
    open: list[tuple[int, bytearray]]
    past: list[tuple[LayerId | None, Folder]]
    at: int
    layer: LayerId | None


class OverlayMachine(RuleBasedStateMachine):
    """The model is a tree of dicts; each operation is done to both, and must succeed or fail in both."""

    def __init__(self) -> None:
        super().__init__()
        import tempfile

        self._scratch = tempfile.TemporaryDirectory()
        self.repository = Repository.create(Path(self._scratch.name) / ".fusecas")
        self.workspace = Workspace(self.repository)
        self.root = Folder()
        self.held: list[int] = []
        self.open: list[tuple[int, bytearray]] = []
        self.layers: list[tuple[LayerId | None, Folder]] = [(None, Folder())]
        self.past: list[tuple[LayerId | None, Folder]] = [(None, Folder())]
        self.at = 0
        self.layer: LayerId | None = None
        self.forks = 0
        self.elsewhere: dict[str, Elsewhere] = {}

    def teardown(self) -> None:
        try:
            for name in list(self.elsewhere):
                self.work_in(name)
                self.they_are_the_same()
        finally:
            self.end()

    def end(self) -> None:
        report = verify(self.repository.store)
        self.repository.close()
        self._scratch.cleanup()
        assert report.clean, report

    @initialize()
    def begin(self) -> None:
        for name in (b"a", b"b"):
            self.overlay.make(0, name, FOLDER, 0, 0, 0)
            self.root[name] = Folder()
        self.overlay.make(0, b"c", FILE, 0, 0, 0)
        self.root[b"c"] = bytearray()

    @property
    def overlay(self) -> Any:
        return self.workspace.overlay

    def find(self, path: list[bytes]) -> tuple[int, Any]:
        """The inode and the model of a directory; 0 and the root for a path that leads nowhere."""
        ino, here = 0, self.root
        for name in path:
            below = here.get(name)
            if not isinstance(below, Folder):
                break
            ino, here = self.looked_up(ino, name), below
        return ino, here

    def looked_up(self, parent: int, name: bytes) -> int:
        """As the kernel does: it holds what it works on."""
        found = self.overlay.lookup(parent, name)
        assert found is not None, name
        self.held.append(found[0])
        return int(found[0])

    def file(self, path: list[bytes], name: bytes) -> tuple[int, bytearray] | None:
        parent, here = self.find(path)
        if not isinstance(here.get(name), bytearray):
            return None
        return self.looked_up(parent, name), here[name]

    @rule(path=st.lists(NAMES, max_size=2), name=NAMES, folder=st.booleans())
    def make(self, path: list[bytes], name: bytes, folder: bool) -> None:
        parent, here = self.find(path)
        try:
            made = self.overlay.make(parent, name, FOLDER if folder else FILE, 0, 0, 0)
        except OSError as error:
            assert error.errno == errno.EEXIST and name in here
        else:
            assert name not in here
            self.held.append(made[0])
            here[name] = Folder() if folder else bytearray()

    @rule(
        path=st.lists(NAMES, max_size=2),
        name=NAMES,
        offset=OFFSETS,
        data=st.binary(min_size=1, max_size=40),
        times=st.sampled_from([1, 200, 3000]),
    )
    def write(self, path: list[bytes], name: bytes, offset: int, data: bytes, times: int) -> None:
        found = self.file(path, name)
        if found is not None:
            ino, model = found
            data = data * times
            self.overlay.write(ino, offset, data)
            model.extend(bytes(max(0, offset - len(model))))
            model[offset : offset + len(data)] = data

    @rule(path=st.lists(NAMES, max_size=2), name=NAMES, size=OFFSETS)
    def truncate(self, path: list[bytes], name: bytes, size: int) -> None:
        found = self.file(path, name)
        if found is not None:
            ino, model = found
            self.overlay.setattr(ino, size=size)
            del model[size:]
            model.extend(bytes(size - len(model)))

    @rule(path=st.lists(NAMES, max_size=2), name=NAMES)
    def remove(self, path: list[bytes], name: bytes) -> None:
        parent, here = self.find(path)
        there = here.get(name)
        remove = self.overlay.rmdir if isinstance(there, Folder) else self.overlay.unlink
        try:
            remove(parent, name)
        except OSError as error:
            expected = errno.ENOENT if there is None else errno.ENOTEMPTY
            assert error.errno == expected and (there is None or len(there))
        else:
            del here[name]

    @rule(
        path=st.lists(NAMES, max_size=2), name=NAMES, to=st.lists(NAMES, max_size=2), new=NAMES, exchange=st.booleans()
    )
    def rename(self, path: list[bytes], name: bytes, to: list[bytes], new: bytes, exchange: bool) -> None:
        parent, here = self.find(path)
        new_parent, there = self.find(to)
        try:
            self.overlay.rename(parent, name, new_parent, new, exchange, True)
        except OSError as error:
            assert error.errno in (errno.ENOENT, errno.EINVAL, errno.ENOTDIR, errno.EISDIR, errno.ENOTEMPTY)
            return
        moved = here[name]
        if exchange:
            here[name], there[new] = there[new], moved
        elif there.get(new) is not moved:  # of two links to one file nothing happens
            del here[name]
            there[new] = moved

    @rule(path=st.lists(NAMES, max_size=2), name=NAMES, to=st.lists(NAMES, max_size=2), new=NAMES)
    def link(self, path: list[bytes], name: bytes, to: list[bytes], new: bytes) -> None:
        found = self.file(path, name)
        new_parent, there = self.find(to)
        if found is not None and new not in there:
            self.overlay.link(found[0], new_parent, new)
            self.held.append(found[0])
            there[new] = found[1]

    @rule(path=st.lists(NAMES, max_size=2), name=NAMES)
    def open_a_file(self, path: list[bytes], name: bytes) -> None:
        found = self.file(path, name)
        if found is not None:
            self.overlay.opened(found[0])
            self.open.append(found)

    @rule()
    def close_all(self) -> None:
        for ino, _ in self.open:
            self.overlay.closed(ino)
        self.open.clear()

    # where it stood: what undo and redo move in

    def now(self) -> tuple[LayerId | None, Folder]:
        return self.layer, deepcopy(self.root)

    def with_edits(self) -> list[tuple[LayerId | None, Folder]]:
        """The past up to where we are, with what was edited since as its last step."""
        past = self.past[: self.at + 1]
        return past if past[-1] == self.now() else [*past, self.now()]

    def arrive(self, layer: LayerId | None, root: Folder) -> None:
        self.layer, self.root = layer, deepcopy(root)
        for number, (ino, _) in enumerate(self.open):
            path = self.overlay.path(ino)
            if self.overlay.getattr(ino)[2] and path is not None:  # it has stayed: what is written there is seen here
                here: Any = self.root
                for name in path.split(b"/"):
                    here = here[name]
                self.open[number] = (ino, here)

    @rule()
    def commit(self) -> None:
        made = self.workspace.commit("step").layer
        if made is not None:
            past = self.with_edits()
            self.layer = made
            self.layers.append(self.now())
            self.past, self.at = [*past, self.now()], len(past)

    @rule(which=st.integers(0, 1000))
    def checkout(self, which: int) -> None:
        layer, root = self.layers[which % len(self.layers)]
        if (layer, root) == self.now():
            return
        text = "@empty" if layer is None else layer.hex()

        def find(snapshot: Snapshot, head: heads.Head) -> Target:
            found = resolve(snapshot, text, self.workspace.name)
            return Target(found.layer, found.state, found.times)

        past = self.with_edits()
        self.workspace.checkout(find)
        self.arrive(layer, root)
        self.past, self.at = [*past, self.now()], len(past)

    @rule()
    def undo(self) -> None:
        past = self.with_edits()
        here = len(past) - 1
        earlier = [at for at in range(here) if past[at] != past[here]]
        try:
            self.workspace.undo()
        except Refused:
            assert not earlier
            return
        if here > self.at or self.past[self.at] != self.now():
            self.past = past  # the edits are its end now: what could be redone is not there any more
        self.at = earlier[-1]
        self.arrive(*self.past[self.at])

    @rule()
    def redo(self) -> None:
        later = [at for at in range(self.at + 1, len(self.past)) if self.past[at] != self.past[self.at]]
        try:
            self.workspace.redo()
        except Refused:
            assert not later or self.past[self.at] != self.now()
            return
        assert self.past[self.at] == self.now()
        self.at = later[0]
        self.arrive(*self.past[self.at])

    @rule()
    def seal(self) -> None:
        self.workspace.seal()

    @rule(stay=st.booleans())
    def fork(self, stay: bool) -> None:
        """What is uncommitted is in both; we go on in the fork, or stay where we are."""
        self.forks += 1
        name = f"fork{self.forks}"
        self.workspace.fork(name)
        fork = Workspace(self.repository, name, self.workspace.siblings)
        self.elsewhere[name] = Elsewhere(fork, deepcopy(self.root), [], [], [self.now()], 0, self.layer)
        if not stay:
            self.work_in(name)

    @precondition(lambda self: self.elsewhere)
    @rule(which=st.integers(0, 9))
    def go_elsewhere(self, which: int) -> None:
        self.work_in(sorted(self.elsewhere)[which % len(self.elsewhere)])

    def work_in(self, name: str) -> None:
        here = Elsewhere(self.workspace, self.root, self.held, self.open, self.past, self.at, self.layer)
        self.elsewhere[self.workspace.name] = here
        there = self.elsewhere.pop(name)
        self.workspace, self.root, self.held, self.open, self.past, self.at, self.layer = there

    @precondition(lambda self: self.elsewhere)
    @rule()
    def remove_workspace(self) -> None:
        gone = self.elsewhere.pop(next(iter(self.elsewhere)))
        gone.workspace.remove()

    @rule()
    def a_seal_that_fails(self) -> None:
        def refuse(*_: object) -> None:
            raise Conflict("as if it were moved meanwhile")

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(workspace_module, "store_frozen", refuse)
            with contextlib.suppress(Conflict):
                self.workspace.seal()

    @rule()
    def settle(self) -> None:
        self.workspace.settle()

    @rule()
    def sync(self) -> None:
        self.overlay.sync()

    @rule()
    def crash(self) -> None:
        """The process dies: nothing is said to anybody. What was acknowledged is there."""
        siblings = Siblings()
        self.held.clear()
        self.open.clear()
        self.workspace = opened(self.repository, self.workspace.name, siblings)
        for name, there in list(self.elsewhere.items()):
            again = opened(self.repository, name, siblings)
            self.elsewhere[name] = there._replace(workspace=again, held=[], open=[])

    @rule()
    def forget(self) -> None:
        """Under memory pressure the kernel lets go of what it knows."""
        for ino in self.held:
            self.overlay.forget(ino, 1)
        self.held.clear()

    @invariant()
    def they_are_the_same(self) -> None:
        self.compare(0, self.root)
        for ino, expected in self.open:
            assert self.overlay.read(ino, 0, len(expected) + 1) == bytes(expected)

    def compare(self, ino: int, model: Folder) -> None:
        assert [name for name, _ in self.overlay.names(ino)[0]] == sorted(model)
        assert self.overlay.getattr(ino)[2] == 2 + sum(isinstance(each, Folder) for each in model.values())
        for name, expected in model.items():
            found = self.overlay.lookup(ino, name)
            if isinstance(expected, Folder):
                self.compare(found[0], expected)
            else:
                assert found[6] == len(expected)
                assert self.overlay.read(found[0], 0, len(expected) + 1) == bytes(expected)
            self.overlay.forget(found[0], 1)


OverlayMachine.TestCase.settings = settings(max_examples=25, stateful_step_count=40, deadline=None)
TestOverlay = OverlayMachine.TestCase


def opened(repository: Repository, name: str, siblings: Siblings) -> Workspace:
    return siblings.named(name) or Workspace(repository, name, siblings)


# ---- single behaviours


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    with Repository.create(tmp_path / ".fusecas") as made:
        yield made


def names_of_head(repository: Repository) -> set[bytes]:
    with repository.store.read() as snapshot:
        state = heads.read_head(snapshot).live.state
        return {each.path for each in trees.walk(snapshot, trees.read_state(snapshot, state).tree)}


def test_a_commit_of_nothing_makes_no_layer(repository: Repository) -> None:
    workspace = Workspace(repository)
    assert workspace.commit().layer is None
    made = workspace.overlay.make(0, b"x", FILE, 0, 0, 0)
    assert workspace.commit("one").layer is not None
    assert workspace.commit("two").layer is None
    workspace.overlay.setattr(made[0], mode=0o600)
    workspace.overlay.setattr(made[0], mode=0o644)
    assert workspace.commit("three").layer is None


def test_what_does_not_fit_one_transaction_is_committed_all_the_same(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = Workspace(repository)
    data = os.urandom(100_000)
    ino = workspace.overlay.make(0, b"x", FILE, 0, 0, 0)[0]
    workspace.overlay.write(ino, 0, data)
    monkeypatch.setattr(transaction, "MOST_BYTES", 50_000)
    done = workspace.commit()
    assert done.layer is not None and done.stored_bytes > len(data)
    assert names_of_head(repository) == {b"x"}
    overlay = Workspace(repository).overlay
    found = overlay.lookup(0, b"x")
    assert found is not None and overlay.read(found[0], 0, 200_000) == data


def test_an_inode_keeps_its_number_over_commits_and_new_starts(repository: Repository) -> None:
    workspace = Workspace(repository)
    numbers = {name: workspace.overlay.make(0, name, FILE, 0, 0, 0)[0] for name in (b"x", b"y", b"z")}
    workspace.commit()
    workspace.overlay.unlink(0, b"y")
    again = workspace.overlay.make(0, b"y", FILE, 0, 0, 0)[0]
    assert again not in numbers.values()
    for _ in range(2):
        workspace = Workspace(repository)
        assert dict(workspace.overlay.names(0)[0]) == {**numbers, b"y": again}
        workspace.commit()


def test_an_open_file_without_a_name_keeps_its_bytes(repository: Repository) -> None:
    overlay = Workspace(repository).overlay
    ino = overlay.make(0, b"x", FILE, 0, 0, 0)[0]
    overlay.opened(ino)
    overlay.write(ino, 0, b"kept" * 2000)
    overlay.unlink(0, b"x")
    other = overlay.make(0, b"other", FILE, 0, 0, 0)[0]
    overlay.write(other, 0, b"other" * 2000)
    overlay.write(ino, 3, b"!")
    assert overlay.read(ino, 0, 8) == b"kep!kept" and overlay.getattr(ino)[2] == 0
    overlay.forget(ino, 1)
    overlay.closed(ino)
    with pytest.raises(OSError):
        overlay.getattr(ino)


def test_blocks_come_back_when_files_go(repository: Repository) -> None:
    workspace = Workspace(repository)
    for round in range(5):
        for name in (b"x", b"y"):
            ino = workspace.overlay.make(0, name, FILE, 0, 0, 0)[0]
            workspace.overlay.write(ino, 0, os.urandom(500_000))
            workspace.overlay.forget(ino, 1)
        workspace.overlay.sync()
        if round % 2:
            workspace.commit()
        workspace.overlay.unlink(0, b"x")
        workspace.overlay.unlink(0, b"y")
        workspace.overlay.sync()
        workspace.overlay.sync()
    workspace.commit()
    held, changed, orphans, blocks = workspace.overlay.figures()
    assert (changed, orphans, blocks) == (0, 0, 0) and held == 1


def test_a_failed_seal_leaves_everything_uncommitted(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = Workspace(repository)
    ino = workspace.overlay.make(0, b"x", FILE, 0, 0, 0)[0]
    workspace.overlay.write(ino, 0, b"before")

    def refuse(*_: Any) -> None:
        raise Conflict("moved meanwhile")

    monkeypatch.setattr(Workspace, "_to_layer", refuse)
    with pytest.raises(Conflict):
        workspace.commit()
    monkeypatch.undo()
    workspace.overlay.write(ino, 6, b" and after")
    assert workspace.commit().layer is not None
    assert names_of_head(repository) == {b"x"}
    assert workspace.overlay.read(ino, 0, 100) == b"before and after"


def test_changes_are_numbered_and_name_their_paths(repository: Repository) -> None:
    overlay = Workspace(repository).overlay
    folder = overlay.make(0, b"d", FOLDER, 0, 0, 0)[0]
    first = overlay.event
    overlay.make(folder, b"x", FILE, 0, 0, 0)
    overlay.rename(0, b"d", 0, b"e", False, True)
    last, found = overlay.events(first, 100)
    assert found is not None and last == overlay.event
    assert [path for _, path in found] == [b"e/x", b"d", b"e"]
    assert overlay.events(first, 2) == (first + 2, found[:2])
    assert overlay.events(last, 100) == (last, [])


def test_changes_that_nobody_knows_any_more_are_told_from_no_changes(repository: Repository) -> None:
    """A number of an earlier process, or one that no process gave out."""
    before = Workspace(repository).overlay
    before.make(0, b"a", FILE, 0, 0, 0)
    overlay = Workspace(repository).overlay
    overlay.make(0, b"b", FILE, 0, 0, 0)
    assert overlay.events(before.event, 100) == (overlay.event, None)
    assert overlay.events(overlay.event + 1, 100) == (overlay.event, None)


def test_a_bell_rings_at_the_next_change_only_when_armed(repository: Repository) -> None:
    overlay = Workspace(repository).overlay
    bell = overlay.bell()

    def rings() -> bool:
        return bool(select.select([bell], [], [], 0)[0])

    assert bell.arm(overlay.event) and not rings()
    overlay.make(0, b"a", FILE, 0, 0, 0)
    assert rings()
    assert not bell.arm(overlay.event - 1)
    assert bell.arm(overlay.event) and not rings()


def test_a_bell_that_nobody_holds_any_more_is_no_trouble(repository: Repository) -> None:
    overlay = Workspace(repository).overlay
    assert overlay.bell().arm(overlay.event)
    overlay.make(0, b"b", FILE, 0, 0, 0)


def test_another_file_at_the_name_of_a_hard_link_is_not_linked(repository: Repository) -> None:
    """The links are gone, and something new has their names: a later seal must not look for them there."""
    workspace = Workspace(repository)
    overlay = workspace.overlay
    folder = overlay.make(0, b"d", FOLDER, 0, 0, 0)[0]
    linked = overlay.make(0, b"x", FILE, 0, 0, 0)[0]
    overlay.link(linked, folder, b"y")
    workspace.commit("linked")
    overlay.unlink(0, b"x")
    overlay.unlink(folder, b"y")
    overlay.rmdir(0, b"d")
    overlay.make(0, b"x", FILE, 0, 0, 0)
    overlay.make(0, b"d", FOLDER, 0, 0, 0)
    workspace.commit("others")
    with repository.store.read() as snapshot:
        assert trees.read_state(snapshot, heads.read_head(snapshot).live.state).links is None
    overlay.unlink(0, b"x")
    workspace.commit("gone")
    assert names_of_head(repository) == {b"d"}


def test_an_access_list_that_is_not_there_can_be_removed(repository: Repository) -> None:
    """An empty list comes from the kernel as a removal, and ext4 takes it as one."""
    overlay = Workspace(repository).overlay
    ino = overlay.make(0, b"x", FILE, 0, 0, 0)[0]
    overlay.removexattr(ino, b"system.posix_acl_access")
    with pytest.raises(OSError):
        overlay.removexattr(ino, b"user.absent")


def test_a_chown_that_changes_nothing_moves_the_ctime(repository: Repository) -> None:
    overlay = Workspace(repository).overlay
    before = overlay.make(0, b"x", FILE, 0, 0, 0)
    after = overlay.setattr(before[0])
    assert after[10] > before[10] and after[9] == before[9]


def test_what_is_open_below_a_directory_that_goes_is_kept_from_gc(repository: Repository) -> None:
    workspace = Workspace(repository)
    overlay = workspace.overlay
    folder = overlay.make(0, b"folder", FOLDER, 0, 0, 0)[0]
    inner = overlay.make(folder, b"inner", FOLDER, 0, 0, 0)[0]
    for parent, name, size in ((inner, b"open", 5000), (inner, b"not", 6000), (0, b"stays", 7000)):
        file = overlay.make(parent, name, FILE, 0, 0, 0)[0]
        overlay.write(file, 0, name[:1] * size)
        if name == b"open":
            overlay.opened(file)
    workspace.commit("all")
    with repository.store.read() as snapshot:
        empty = heads.state_of(snapshot, None)
    workspace.checkout(lambda snapshot, head: Target(None, empty, None))
    with repository.store.read() as snapshot:
        live = snapshot.get_live(workspace.id)
    assert live is not None and blake3(b"o" * 5000).digest() in live.needs


def test_a_name_that_was_just_freed_is_not_answered_with_the_workspace_that_had_it(repository: Repository) -> None:
    workspaces = Workspaces(repository)
    workspaces.create("name")
    first = workspaces.get("name")
    first.remove()  # as `Workspaces.remove` does, before it forgets it
    workspaces.create("name")
    second = workspaces.get("name")
    assert second.id != first.id
    second.overlay.make(0, b"file", FILE, 0, 0, 0)
