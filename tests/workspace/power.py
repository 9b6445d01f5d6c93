"""Random operations on a workspace and its forks, killed and cut off from power at any system call, in recovery too.

    python -m tests.workspace.power EXAMPLES SEED      with tests/crash/disk.c preloaded
    python -m tests.workspace.power every STEP

Promised, of each workspace: after a kill, all that was acknowledged; after a power cut, a state that was there once,
not older than the last sync, commit or fork that was acknowledged. A fork that was not is there as its source was, or
not at all. Everything verifies, and goes on working.
"""

import contextlib
import errno
import itertools
import os
import random
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from fusecas.errors import Conflict, Refused, StorageProblem
from fusecas.store import heads, trees
from fusecas.store.repository import Repository
from fusecas.store.verify import verify_here
from fusecas.workspace import workspace as workspace_module
from fusecas.workspace import workspace as workspaces
from fusecas.workspace.mover import Deed
from fusecas.workspace.workspace import ID_BYTES, OVERLAYS, Workspace
from fusecas.workspace.workspaces import Workspaces
from tests.workspace.disk import Disk, Disks, Image, Images, Memories, Told, put
from tests.workspace.promises import Promise, Tree, contents_of, tree_of

FILE, FOLDER = stat.S_IFREG | 0o644, stat.S_IFDIR | 0o755
NAMES = st.sampled_from([b"a", b"b", b"c"])
PLACES = st.sampled_from([([], b"c"), ([], b"c"), ([], b"c"), ([b"a"], b"a"), ([b"b"], b"b"), ([b"a"], b"c")])
PATHS = st.lists(st.sampled_from([b"a", b"b"]), max_size=2)
OFFSETS = st.one_of(st.integers(0, 9_000), st.sampled_from([0, 4095, 4096, 8192, 20_000]))
SEEDS = st.integers(0, 1 << 16)
MOMENTS = st.integers(1, 14)
THEN = st.sampled_from(["", "", "", "sync", "sync", "power"])
"""What comes right after an operation: chains like write, sync, write, power cut are what finds most."""

MEMORY = Path("/dev/shm")
"""Nothing here asks the real disk for anything: what it forgets is made up."""
REFUSALS = {
    errno.EPERM,
    errno.ENOENT,
    errno.EEXIST,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EINVAL,
    errno.ENOTEMPTY,
}

MOST = 4
"""Workspaces at a time."""
MANY_BLOCKS = 1 << 20

Place = tuple[list[bytes], bytes]
Promises = dict[str, Promise]
told = Told()


def is_roomy(folder: Path) -> bool:
    return folder.is_dir() and shutil.disk_usage(folder).free > 1 << 30


class Cut(NamedTuple):
    """What a crash left: the files of all overlays, the store's; and, unless the machine itself went down, what the
    disks had not got."""

    overlays: Images
    store: Image
    memories: Memories | None

    @property
    def is_power(self) -> bool:
        return self.memories is None


class Machine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self._scratch = tempfile.TemporaryDirectory(prefix="power-", dir=MEMORY if is_roomy(MEMORY) else None)
        self.top = Path(self._scratch.name)
        self.boot = b"boot 0"
        self.folders = 0
        self.steps = 0
        self.held: list[int] = []
        self.moment: tuple[int, int, bool] | None = None
        self.cuts: list[Cut] = []
        self.name = heads.DEFAULT
        self.promises = {self.name: Promise([{}])}
        self.forks = 0
        folder = self.new_folder()
        self.repository = Repository.create(folder)
        self.use(folder, None, None)

    def teardown(self) -> None:
        try:
            for name in self.promises:
                self.look_at(name)
        finally:
            self.leave()
            self._scratch.cleanup()

    def leave(self) -> None:
        self.disks.close()
        for each in self.workspaces.opened():
            vars(each).clear()  # lets its files go at once
        self.repository.close()

    def new_folder(self) -> Path:
        self.folders += 1
        return self.top / f"{self.folders}"

    @property
    def workspace(self) -> Workspace:
        """The one that is worked in."""
        return self.workspaces.get(self.name)

    @property
    def overlay(self) -> Any:
        return self.workspace.overlay

    @property
    def blocks(self) -> int:
        """Of the arena, in use or waiting for a mark. Huge, if more were given back than were taken."""
        return int(self.overlay.figures()[3])

    @property
    def disk(self) -> Disk:
        return self.disks[self.workspace.id.hex()]

    @property
    def promise(self) -> Promise:
        return self.promises[self.name]

    @property
    def past(self) -> list[Tree]:
        return self.promise.past

    def use(self, folder: Path, memories: Memories | None, armed: tuple[int, int, bool] | None) -> Cut | None:
        """Open what is in a folder; the cut that was made meanwhile, if `armed` for one came due."""
        workspaces.boot_id = lambda: self.boot
        self.disks = Disks(folder / OVERLAYS, told, memories)
        self.moment, self.cuts = armed, []
        self.workspaces = Workspaces(self.repository)
        chance = random.Random(self.folders)
        names = [name for name in self.workspaces.names() if name == self.name or chance.random() < 0.5]
        with self.watched():
            for name in chance.sample(names, len(names)):
                self.workspaces.get(name)
            self.opened()
        self.moment = None
        return self.taken_cut()

    def opened(self) -> None:
        """What else is done at a start."""

    # crashes

    @contextmanager
    def watched(self) -> Iterator[None]:
        told.listen(self.hear)
        try:
            yield
        finally:
            told.leave(self.hear)

    def hear(self, is_done: bool, call: str, path: Path) -> int:
        if self.moment is not None and self.top / f"{self.folders}" in path.parents:
            left, number, is_power = self.moment
            self.moment = (left - 1, number, is_power)
            if left == 1:
                self.cuts.append(self.cut_now(number, is_power))
        return 0

    def taken_cut(self) -> Cut | None:
        cuts, self.cuts = self.cuts, []
        return cuts[0] if cuts else None

    def cut_now(self, number: int, is_power: bool) -> Cut:
        files = self.disks.after_power_cut(random.Random(number)) if is_power else self.disks.now()
        store = self.repository.folder / "store"
        memories = None if is_power else self.disks.memories()
        return Cut(files, {"data.mdb": (store / "data.mdb").read_bytes()}, memories)

    def restart(self, cut: Cut, armed: tuple[int, int, bool] | None = None) -> Cut | None:
        """The program starts again on what a crash left."""
        self.held.clear()
        self.leave()
        old, new = self.repository.folder, self.new_folder()
        put(new / "store", cut.store)
        for name, files in cut.overlays.items():
            put(new / OVERLAYS / name, files)
        shutil.rmtree(old)
        if cut.is_power:
            self.boot = b"boot %d" % self.folders
        self.repository = Repository.open(new)
        return self.use(new, cut.memories, armed)

    def recovered(self, unsure: set[str]) -> None:
        """Each is as promised; from now on that is certain, and it goes on working. Others are looked at later."""
        names = self.workspaces.names()
        for name in unsure.difference(names):
            del self.promises[name]
        assert sorted(names) == sorted(self.promises)
        for each in self.workspaces.opened():
            self.look_at(each.name)
        report = verify_here(self.repository.store, None, None)
        assert report.clean, report

    def look_at(self, name: str) -> None:
        self.promises[name].meet(tree_of(self.workspaces.get(name).overlay))

    def act(
        self,
        what: Callable[[], object],
        *,
        changes: int | None = None,
        sure: bool = False,
        unsure: Promises | None = None,
    ) -> bool:
        """Do something; if a moment was armed, the crash at that moment must leave what was before or what is after.
        `changes`: the file that is written to; `unsure`: workspaces that a crash may leave or not. Whether there was no
        crash."""
        before = len(self.past) - 1
        with self.watched():
            what()
        self.let_go()
        self.see(changes)
        cut = self.taken_cut()
        if cut is not None:
            self.promises |= unsure or {}
            self.recover(cut, cut.is_power, before=before, unsure={*(unsure or ())})
        elif sure:
            self.promise.sure = len(self.past) - 1
        return cut is None

    def see(self, changes: int | None = None) -> None:
        """What is here now: no file has other bytes but the one that was written to."""
        now = tree_of(self.overlay)
        before = contents_of(self.past[-1])
        for ino, content in contents_of(now).items():
            assert ino == changes or before.get(ino, content) == content, f"inode {ino} has changed by itself"
        assert self.blocks < MANY_BLOCKS
        if now != self.past[-1]:
            self.past.append(now)

    def let_go(self) -> None:
        for ino in self.held:
            self.overlay.forget(ino, 1)
        self.held.clear()

    def recover(
        self,
        cut: Cut,
        powers: bool,
        again: Sequence[tuple[int, int, bool]] = (),
        before: int | None = None,
        unsure: frozenset[str] | set[str] = frozenset(),
    ) -> None:
        """Start again; each of `again` is a crash in that recovery, after which it runs again. `powers`: whether any
        of these crashes is a power cut."""
        for name, promise in self.promises.items():
            self.promises[name] = promise.after_crash(powers, before if name == self.name else None)
        for each in again:
            next_cut = self.restart(cut, each)
            if next_cut is None:
                break
            cut = next_cut
        else:
            self.restart(cut)
        self.recovered(set(unsure))

    def go_on(self, number: int) -> None:
        """All workspaces can be worked in, and survive a power cut once more."""
        for name in sorted(self.promises):
            self.go_to(name)
            self.write(([b"a"], b"a"), 0, 4, 9000, "sync")
            self.commit()
        self.crash(number, True)

    # operations

    @initialize()
    def begin(self) -> None:
        def make_some() -> None:
            for name in (b"a", b"b"):
                folder = self.hold(self.overlay.make(0, name, FOLDER, 0, 0, 0))
                self.overlay.write(self.hold(self.overlay.make(folder, name, FILE, 0, 0, 0)), 0, name * 5000)
            self.overlay.write(self.hold(self.overlay.make(0, b"c", FILE, 0, 0, 0)), 0, b"c" * 5000)

        self.act(make_some)

    def hold(self, found: Any) -> int:
        """As the kernel does, for the time of one operation."""
        self.held.append(int(found[0]))
        return self.held[-1]

    def folder(self, path: list[bytes]) -> int:
        ino = 0
        for name in path:
            found = self.overlay.lookup(ino, name)
            if found is None:
                break
            there = self.hold(found)
            if not stat.S_ISDIR(found[1]):
                break
            ino = there
        return ino

    def file(self, path: list[bytes], name: bytes) -> int | None:
        found = self.overlay.lookup(self.folder(path), name)
        if found is None:
            return None
        ino = self.hold(found)
        return ino if stat.S_ISREG(found[1]) else None

    def attempt(self, what: Callable[[], object]) -> None:
        """Refusals are the business of test_overlay.py."""

        def tried() -> None:
            try:
                what()
            except OSError as error:
                assert error.errno in REFUSALS, error

        self.act(tried)

    @rule(path=PATHS, name=NAMES, folder=st.integers(0, 3), then=THEN)
    def make(self, path: list[bytes], name: bytes, folder: int, then: str) -> None:
        parent = self.folder(path)
        self.attempt(lambda: self.hold(self.overlay.make(parent, name, FILE if folder else FOLDER, 0, 0, 0)))
        self.after(then)

    @rule(
        place=PLACES,
        offset=OFFSETS,
        byte=st.integers(1, 255),
        length=st.sampled_from([1, 50, 4096, 9000]),
        then=THEN,
    )
    def write(self, place: Place, offset: int, byte: int, length: int, then: str) -> None:
        ino = self.file(*place)
        if ino is not None:
            self.act(lambda: self.overlay.write(ino, offset, bytes([byte]) * length), changes=ino)
        self.after(then)

    @rule(place=PLACES)
    def write_much(self, place: Place) -> None:
        """So that it gets a segment of its own."""
        ino = self.file(*place)
        if ino is not None:
            self.act(lambda: self.overlay.write(ino, 0, b"much" * 400_000), changes=ino)

    @rule(place=PLACES, size=OFFSETS, then=THEN)
    def truncate(self, place: Place, size: int, then: str) -> None:
        ino = self.file(*place)
        if ino is not None:
            self.act(lambda: self.overlay.setattr(ino, size=size), changes=ino)
        self.after(then)

    @rule(path=PATHS, name=NAMES, then=THEN)
    def remove(self, path: list[bytes], name: bytes, then: str) -> None:
        parent = self.folder(path)
        self.attempt(lambda: self.overlay.unlink(parent, name))
        self.after(then)

    @rule(path=PATHS, name=NAMES)
    def remove_folder(self, path: list[bytes], name: bytes) -> None:
        parent = self.folder(path)
        self.attempt(lambda: self.overlay.rmdir(parent, name))

    @rule(path=PATHS, name=NAMES, to=PATHS, new=NAMES, exchange=st.booleans(), then=THEN)
    def rename(self, path: list[bytes], name: bytes, to: list[bytes], new: bytes, exchange: bool, then: str) -> None:
        parent, new_parent = self.folder(path), self.folder(to)
        self.attempt(lambda: self.overlay.rename(parent, name, new_parent, new, exchange, True))
        self.after(then)

    @rule(path=PATHS, name=NAMES, to=PATHS, new=NAMES, then=THEN)
    def link(self, path: list[bytes], name: bytes, to: list[bytes], new: bytes, then: str) -> None:
        ino = self.file(path, name)
        if ino is not None:
            parent = self.folder(to)
            self.attempt(lambda: self.hold(self.overlay.link(ino, parent, new)))
        self.after(then)

    @rule(place=PLACES, mode=st.sampled_from([0o600, 0o644]))
    def set_mode(self, place: Place, mode: int) -> None:
        ino = self.file(*place)
        if ino is not None:
            self.act(lambda: self.overlay.setattr(ino, mode=mode))

    def after(self, then: str) -> None:
        self.steps += 1
        if then == "sync":
            self.sync()
        elif then:
            self.crash(self.steps, then == "power")

    def crash(self, number: int, is_power: bool, *again: tuple[int, int, bool]) -> None:
        powers = is_power or any(power for _, _, power in again)
        self.recover(self.cut_now(number, is_power), powers, again)

    @rule()
    def sync(self) -> None:
        if self.act(lambda: self.overlay.sync(), sure=True) and self.overlay.is_clean:
            assert self.blocks == 0

    @rule()
    def commit(self) -> None:
        self.store(lambda: self.workspace.commit("step"))

    @rule()
    def seal(self) -> None:
        self.store(lambda: self.workspace.seal())

    def store(self, seal: Callable[[], object]) -> None:
        before = self.past[-1]
        if self.act(seal, sure=True):
            self.check_stored(before)
            self.others_are_the_same()

    def others_are_the_same(self) -> None:
        for each in self.workspaces.opened():
            self.look_at(each.name)

    def check_stored(self, expected: Tree) -> None:
        with self.repository.store.read() as snapshot:
            live = heads.read_head(snapshot, self.name).live
            tree = trees.read_state(snapshot, live.state).tree
            for path, entry in trees.walk(snapshot, tree):
                if entry.kind == 1:
                    content = b"" if entry.target is None else snapshot.read_content(entry.target)
                    assert content == expected[b"/" + path][-1], path
                else:
                    assert b"/" + path in expected

    @rule(redo=st.booleans())
    def undo(self, redo: bool) -> None:
        """Another state is put in place; what was here is sealed first, even if there is nothing to go back to."""

        def move() -> None:
            with suppress(Refused):
                self.workspace.redo() if redo else self.workspace.undo()

        if self.act(move, sure=True):
            self.others_are_the_same()

    @rule(then=THEN)
    def settle(self, then: str) -> None:
        if self.act(lambda: self.workspace.settle()):
            self.others_are_the_same()
        self.after(then)

    # other workspaces

    @precondition(lambda self: len(self.promises) < MOST)
    @rule(stay=st.booleans(), late=st.one_of(st.none(), PLACES), then=THEN)
    def fork(self, stay: bool, late: Place | None, then: str) -> None:
        """We go on in the fork, or stay. `late`: a file that is changed before the fork is written down: that is no
        business of the fork."""
        name, before = self.new_name(), len(self.past) - 1
        write = Workspace._write_fork

        def fork_late(workspace: Workspace, *arguments: Any) -> None:
            self.change(late)
            write(workspace, *arguments)

        unsure = {name: Promise(self.past[-1:])}
        with patched(Workspace, "_write_fork", fork_late):
            is_made = self.act(lambda: self.workspaces.fork(name, self.name), unsure=unsure)
        if is_made:
            self.promise.sure = before
            self.promises |= unsure
            if not stay:
                self.go_to(name)
        self.after(then)

    def new_name(self) -> str:
        self.forks += 1
        return f"fork{self.forks}"

    def change(self, place: Place | None) -> None:
        ino = None if place is None else self.file(*place)
        if ino is not None:
            self.overlay.write(ino, 100, b"late" * 1500)
            self.see(ino)

    @precondition(lambda self: len(self.promises) > 1)
    @rule(which=st.integers(0, MOST), then=THEN)
    def go_elsewhere(self, which: int, then: str) -> None:
        others = sorted(set(self.promises) - {self.name})
        self.go_to(others[which % len(others)])
        self.after(then)

    def go_to(self, name: str) -> None:
        with self.watched():
            self.workspaces.get(name)
        self.name = name
        cut = self.taken_cut()
        if cut is None:
            self.look_at(name)
        else:
            self.recover(cut, cut.is_power)

    @precondition(lambda self: set(self.promises) - {self.name, heads.DEFAULT})
    @rule(which=st.integers(0, MOST))
    def remove_workspace(self, which: int) -> None:
        others = sorted(set(self.promises) - {self.name, heads.DEFAULT})
        name = others[which % len(others)]
        gone = {name: self.promises.pop(name)}
        if self.act(lambda: self.workspaces.remove(name), unsure=gone):
            assert name not in self.workspaces.names()
            self.others_are_the_same()

    # what is done while something is stored

    @rule(
        place=PLACES,
        other=NAMES,
        is_early=st.booleans(),
        fails=st.booleans(),
        forks=st.booleans(),
        then=THEN,
    )
    def change_while_it_is_sealed(
        self, place: Place, other: bytes, is_early: bool, fails: bool, forks: bool, then: str
    ) -> None:
        """What is done after the freeze, before or after it was stored; the seal then succeeds or fails. `forks`: and
        what is frozen is shared meanwhile."""
        store, is_small = workspace_module.store_frozen, workspace_module.is_small
        stored_nodes: list[object] = []
        sealed = 0

        def change() -> None:
            self.change(place)
            self.come_and_go(self.folder(place[0]), other)
            self.see()

        def late(nodes: Any, *arguments: Any) -> Any:
            nonlocal sealed
            if not any(each is nodes for each in stored_nodes):
                stored_nodes.append(nodes)
                sealed = len(self.past) - 1
                if forks:
                    self.fork_of_what_is_sealed()
            if is_early:
                change()
            stored = store(nodes, *arguments)
            if not is_early:
                change()
            if fails:
                raise Conflict("moved meanwhile")
            return stored

        self.overlay.setattr(0, mode=0o755)  # so that there is something to freeze
        with (
            patched(workspace_module, "store_frozen", late),
            patched(workspace_module, "is_small", lambda nodes: not forks and is_small(nodes)),
        ):
            try:
                self.workspace.seal()
                assert not fails
                self.promise.sure = sealed
                self.check_stored(self.past[sealed])
            except Conflict:
                assert fails
        self.let_go()
        self.others_are_the_same()
        self.after(then)

    def come_and_go(self, parent: int, name: bytes) -> None:
        there = self.overlay.lookup(parent, name)
        if there is None:
            made = self.overlay.make(parent, name, FILE, 0, 0, 0)[0]
            self.overlay.write(made, 0, b"brief" * 250_000)
            self.overlay.forget(made, 1)
            self.overlay.unlink(parent, name)
        else:
            self.hold(there)
            if stat.S_ISREG(there[1]):
                self.overlay.unlink(parent, name)

    def fork_of_what_is_sealed(self) -> None:
        """If it is the source of one: else the fork would wait for the seal."""
        if len(self.promises) < MOST:
            name = self.new_name()
            if self.workspace._fork_at_once(name, os.urandom(ID_BYTES), Deed()):
                self.promises[name] = Promise(self.past[-1:])
                self.promise.sure = len(self.past) - 1

    # faults

    @rule(number=SEEDS)
    def write_back(self, number: int) -> None:
        self.disk.write_back(random.Random(number))

    @rule(left=MOMENTS, number=SEEDS, is_power=st.booleans())
    def arm(self, left: int, number: int, is_power: bool) -> None:
        """The next operation that gets so far dies there."""
        self.moment = (left, number, is_power)

    @rule(which=st.integers(1, 3), number=SEEDS, is_power=st.booleans(), forks=st.booleans())
    def a_sync_that_fails(self, which: int, number: int, is_power: bool, forks: bool) -> None:
        """Nothing is changed any more, and no later sync says that all is well; what was synced before is there."""
        self.disk.fail_sync(which)
        try:
            self.fork(True, None, "") if forks and len(self.promises) < MOST else self.overlay.sync()
        except OSError as error:
            assert error.errno == errno.EIO and self.overlay.failed
        else:
            assert not self.overlay.failed  # there was less to sync
            self.disk.fail_sync(0)
            self.promise.sure = len(self.past) - 1
            return
        for refused in (
            lambda: self.overlay.make(0, b"refused", FILE, 0, 0, 0),
            lambda: self.overlay.sync(),
            lambda: self.workspace.commit("refused"),
            lambda: self.workspaces.fork("refused", self.name),
        ):
            with contextlib.suppress(OSError, StorageProblem):
                refused()
                raise AssertionError("this should have been refused")
        assert tree_of(self.overlay) == self.past[-1]
        self.crash(number, is_power)

    @rule(
        number=SEEDS,
        is_power=st.booleans(),
        again=st.lists(st.tuples(MOMENTS, SEEDS, st.booleans()), max_size=3),
    )
    def crash_and_crash_again(self, number: int, is_power: bool, again: list[tuple[int, int, bool]]) -> None:
        """`again`: in recovery."""
        self.crash(number, is_power, *again)


@contextmanager
def patched(owner: object, name: str, value: object) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def changed(machine: Machine) -> None:
    """Files of every sort: stored and changed, new and synced, new and not."""
    overlay = machine.overlay
    place = ([b"a"], b"a")
    machine.begin()
    machine.commit()
    machine.write(place, 100, 1, 4096, "sync")
    machine.write(([], b"c"), 0, 2, 9000, "sync")
    machine.write(place, 5000, 3, 9000, "")
    machine.rename([b"b"], b"b", [], b"moved", False, "")
    machine.attempt(lambda: overlay.write(machine.hold(overlay.make(0, b"new", FILE, 0, 0, 0)), 0, b"new" * 9000))
    machine.remove([], b"c", "")


def shared(machine: Machine) -> None:
    """The same, with a fork that shares it, and changes in both since, some of them synced."""
    changed(machine)
    machine.fork(True, None, "")
    machine.write(([b"a"], b"a"), 200, 5, 4096, "sync")
    machine.write(([], b"moved"), 0, 6, 100, "")
    machine.go_elsewhere(0, "")
    machine.write(([b"a"], b"a"), 300, 7, 4096, "sync")
    machine.write(([], b"new"), 0, 8, 100, "")


class Moment(NamedTuple):
    """What is to be interrupted: `deed`, or a start after a kill or after a power cut."""

    name: str
    prepare: Callable[[Any], object]
    deed: Callable[[Any], object] | None = None
    after_power: bool = False

    def crash_in(self, machine: Machine, left: int, is_power: bool) -> bool:
        """Whether it got as far as to the crash."""
        self.prepare(machine)
        if self.deed is None:
            again = (left, left, is_power)
            folders = machine.folders
            machine.crash(0, self.after_power, again)
            return machine.folders == folders + 2
        machine.moment = (left, left, is_power)
        self.deed(machine)
        return machine.moment is None or machine.moment[0] < 1


MOMENTS_THAT_MATTER = [
    Moment("sync", changed, Machine.sync),
    Moment("commit", changed, Machine.commit),
    Moment("seal", changed, Machine.seal),
    Moment("undo", changed, lambda machine: machine.undo(redo=False)),
    Moment("fork", changed, lambda machine: machine.fork(True, None, "")),
    Moment("settle", shared, lambda machine: machine.settle("")),
    Moment("commit in a fork", shared, Machine.commit),
    Moment("a start after a kill", changed),
    Moment("a start after a power cut", changed, after_power=True),
    Moment("a start with a fork after a kill", shared),
    Moment("a start with a fork after a power cut", shared, after_power=True),
]


def every_moment(step: int, machines: type[Machine], moments: Sequence[Moment]) -> None:
    """Killed and cut off from power at each system call (or each `step`-th) of what matters most."""
    for moment in moments:
        crashes = 0
        for is_power in (False, True):
            for left in itertools.count(1 + random.randrange(step), step):
                machine = machines()
                try:
                    came = moment.crash_in(machine, left, is_power)
                    machine.go_on(left)
                finally:
                    machine.teardown()
                if not came:
                    break
                crashes += 1
        print(f"{moment.name}: {crashes} crashes", flush=True)


def main(words: Sequence[str], machines: type[Machine], moments: Sequence[Moment]) -> None:
    if words[0] == "every":
        every_moment(int(words[1]), machines, moments)
        return
    examples, number = map(int, words)
    checks = list(HealthCheck)
    run_state_machine_as_test(
        seed(number)(machines),
        settings=settings(
            max_examples=examples,
            stateful_step_count=30,
            deadline=None,
            database=None,
            suppress_health_check=checks,
            phases=[Phase.generate, Phase.shrink],
        ),
    )


if __name__ == "__main__":
    main(sys.argv[1:], Machine, MOMENTS_THAT_MATTER)
