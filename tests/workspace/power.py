"""Random operations on a workspace, killed and cut off from power at any of its system calls, in recovery too.

    python -m tests.workspace.power EXAMPLES SEED      with tests/crash/disk.c preloaded
    python -m tests.workspace.power every STEP

Promised: after a kill, all that was acknowledged; after a power cut, a state that was there once, not older than the
last sync or commit that was acknowledged; it verifies, and goes on working.
"""

import contextlib
import errno
import itertools
import random
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from fusecas.errors import Conflict, Refused, StorageProblem
from fusecas.store import heads, trees
from fusecas.store.repository import Repository
from fusecas.store.verify import verify_here
from fusecas.workspace import workspace as workspace_module
from fusecas.workspace import workspace as workspaces
from fusecas.workspace.workspace import OVERLAYS, Workspace
from tests.workspace.disk import Disk, Image, Memory, Told, put

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

Place = tuple[list[bytes], bytes]
Tree = dict[bytes, tuple[Any, ...]]
told = Told()


def is_roomy(folder: Path) -> bool:
    return folder.is_dir() and shutil.disk_usage(folder).free > 1 << 30


class Cut(NamedTuple):
    """What a crash left: the overlay's files, the store's; and, unless the machine itself went down, what the disk
    had not got."""

    overlay: Image
    store: Image
    memory: Memory | None

    @property
    def is_power(self) -> bool:
        return self.memory is None


def tree_of(overlay: Any) -> Tree:
    found: Tree = {}

    def walk(path: bytes, ino: int) -> None:
        for name, _ in overlay.names(ino)[0]:
            there, mode, links, uid, gid, _, size, _, _, mtime, ctime = overlay.lookup(ino, name)
            where = path + b"/" + name
            if stat.S_ISDIR(mode):
                found[where] = (there, mode, uid, gid, mtime, ctime)
                walk(where, there)
            else:
                content = overlay.read(there, 0, size + 1)
                found[where] = (there, mode, links, uid, gid, mtime, ctime, content)
            overlay.forget(there, 1)

    walk(b"", 0)
    return found


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
        folder = self.new_folder()
        self.repository = Repository.create(folder)
        self.use(folder, None, None)
        self.past: list[Tree] = [tree_of(self.overlay)]
        self.sure = 0

    def teardown(self) -> None:
        self.disk.close()
        vars(self.workspace).clear()  # lets its files go at once
        self.repository.close()
        self._scratch.cleanup()

    def new_folder(self) -> Path:
        self.folders += 1
        return self.top / f"{self.folders}"

    @property
    def overlay(self) -> Any:
        return self.workspace.overlay

    def use(self, folder: Path, memory: Memory | None, armed: tuple[int, int, bool] | None) -> Cut | None:
        """Open what is in a folder; the cut that was made meanwhile, if `armed` for one came due."""
        workspaces.boot_id = lambda: self.boot
        overlays = folder / OVERLAYS
        if not overlays.exists():
            Workspace(self.repository)
        (self.place,) = overlays.iterdir()
        self.disk = Disk(self.place, told, memory)
        self.moment, self.cuts = armed, []
        with self.watched():
            self.workspace = Workspace(self.repository)
        self.moment, cuts = None, self.cuts
        self.cuts = []
        return cuts[0] if cuts else None

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

    def cut_now(self, number: int, is_power: bool) -> Cut:
        files = self.disk.after_power_cut(random.Random(number)) if is_power else self.disk.now()
        store = self.repository.folder / "store"
        memory = None if is_power else self.disk.memory()
        return Cut(files, {"data.mdb": (store / "data.mdb").read_bytes()}, memory)

    def restart(self, cut: Cut, armed: tuple[int, int, bool] | None = None) -> Cut | None:
        """The program starts again on what a crash left."""
        self.held.clear()
        self.disk.close()
        vars(self.workspace).clear()  # lets its files go at once
        self.repository.close()
        old, new = self.repository.folder, self.new_folder()
        put(new / "store", cut.store)
        put(new / OVERLAYS / self.place.name, cut.overlay)
        shutil.rmtree(old)
        if cut.is_power:
            self.boot = b"boot %d" % self.folders
        self.repository = Repository.open(new)
        return self.use(new, cut.memory, armed)

    def recovered(self, allowed: list[Tree]) -> None:
        """It is one of these; from now on that is certain, and it goes on working."""
        now = tree_of(self.overlay)
        at = next((at for at in reversed(range(len(allowed))) if allowed[at] == now), None)
        if at is None:
            raise AssertionError(f"recovered:\n{shown(now)}\nallowed:\n" + "\n".join(map(shown, allowed)))
        self.past = [now]
        self.sure = 0
        report = verify_here(self.repository.store, None, None)
        assert report.clean, report

    def act(self, what: Callable[[], object], *, sure: bool = False) -> None:
        """Do something; if a moment was armed, the crash at that moment must leave what was before or what is after."""
        before = len(self.past) - 1
        with self.watched():
            what()
        for ino in self.held:
            self.overlay.forget(ino, 1)
        self.held.clear()
        now = tree_of(self.overlay)
        if now != self.past[-1]:
            self.past.append(now)
        cuts, self.cuts = self.cuts, []
        for cut in cuts:
            self.recover(cut, self.past[self.sure :] if cut.is_power else self.past[before:])
            return
        if sure:
            self.sure = len(self.past) - 1

    def recover(self, cut: Cut, allowed: list[Tree], *armed: tuple[int, int, bool]) -> None:
        """Start again; each of `armed` is a crash in that recovery, after which it runs again."""
        for each in armed:
            again = self.restart(cut, each)
            if again is None:
                break
            cut = again
        else:
            self.restart(cut)
        self.recovered(allowed)

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
            self.act(lambda: self.overlay.write(ino, offset, bytes([byte]) * length))
        self.after(then)

    @rule(place=PLACES)
    def write_much(self, place: Place) -> None:
        """So that it gets a segment of its own."""
        ino = self.file(*place)
        if ino is not None:
            self.act(lambda: self.overlay.write(ino, 0, b"much" * 400_000))

    @rule(place=PLACES, size=OFFSETS, then=THEN)
    def truncate(self, place: Place, size: int, then: str) -> None:
        ino = self.file(*place)
        if ino is not None:
            self.act(lambda: self.overlay.setattr(ino, size=size))
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
        self.recover(self.cut_now(number, is_power), self.past[self.sure if powers else -1 :], *again)

    @rule()
    def sync(self) -> None:
        self.act(lambda: self.overlay.sync(), sure=True)

    @rule()
    def commit(self) -> None:
        self.store(lambda: self.workspace.commit("step"))

    @rule()
    def seal(self) -> None:
        self.store(lambda: self.workspace.seal())

    def store(self, seal: Callable[[], object]) -> None:
        before = self.past[-1]
        self.act(seal, sure=True)
        if self.past[-1] is before:  # else there was a crash
            self.check_stored(before)

    def check_stored(self, expected: Tree) -> None:
        with self.repository.store.read() as snapshot:
            live = heads.read_head(snapshot).live
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

        self.act(move, sure=True)

    @rule(place=PLACES, other=NAMES, is_early=st.booleans(), fails=st.booleans(), then=THEN)
    def change_while_it_is_sealed(self, place: Place, other: bytes, is_early: bool, fails: bool, then: str) -> None:
        """What is done after the freeze, before or after it was stored; the seal then succeeds or fails."""
        store = workspace_module.store_frozen
        before = self.past[-1]

        def change() -> None:
            ino = self.file(*place)
            if ino is not None:
                self.overlay.write(ino, 100, b"late" * 1500)
            parent = self.folder(place[0])
            there = self.overlay.lookup(parent, other)
            if there is None:
                made = self.overlay.make(parent, other, FILE, 0, 0, 0)[0]
                self.overlay.write(made, 0, b"brief" * 250_000)
                self.overlay.forget(made, 1)
                self.overlay.unlink(parent, other)
            elif stat.S_ISREG(there[1]):
                self.hold(there)
                self.overlay.unlink(parent, other)
            else:
                self.hold(there)
            self.past.append(tree_of(self.overlay))

        def late(*arguments: Any) -> Any:
            if is_early:
                change()
            stored = store(*arguments)
            if not is_early:
                change()
            if fails:
                raise Conflict("moved meanwhile")
            return stored

        self.overlay.setattr(0, mode=0o755)  # so that there is something to freeze
        self.past.append(tree_of(self.overlay))
        workspace_module.store_frozen = late
        try:
            self.workspace.seal()
            assert not fails
            self.sure = len(self.past) - 2
            self.check_stored(before)
        except Conflict:
            assert fails
        finally:
            workspace_module.store_frozen = store
        for ino in self.held:
            self.overlay.forget(ino, 1)
        self.held.clear()
        assert tree_of(self.overlay) == self.past[-1]
        self.after(then)

    # faults

    @rule(number=SEEDS)
    def write_back(self, number: int) -> None:
        self.disk.write_back(random.Random(number))

    @rule(left=MOMENTS, number=SEEDS, is_power=st.booleans())
    def arm(self, left: int, number: int, is_power: bool) -> None:
        """The next operation that gets so far dies there."""
        self.moment = (left, number, is_power)

    @rule(which=st.integers(1, 3), number=SEEDS, is_power=st.booleans())
    def a_sync_that_fails(self, which: int, number: int, is_power: bool) -> None:
        """Nothing is changed any more, and no later sync says that all is well; what was synced before is there."""
        self.disk.fail_sync(which)
        try:
            self.overlay.sync()
        except OSError as error:
            assert error.errno == errno.EIO and self.overlay.failed
        else:
            assert not self.overlay.failed  # there was less to sync
            self.disk.fail_sync(0)
            self.sure = len(self.past) - 1
            return
        for refused in (
            lambda: self.overlay.make(0, b"refused", FILE, 0, 0, 0),
            lambda: self.overlay.sync(),
            lambda: self.workspace.commit("refused"),
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


def shown(tree: Tree) -> str:
    lines = [f"  {path.decode()} {what[:-1]} {short(what[-1])}" for path, what in sorted(tree.items())]
    return "\n".join(lines) or "  (empty)"


def short(content: Any) -> str:
    if not isinstance(content, bytes):
        return ""
    runs: list[tuple[int, int]] = []
    for byte in content:
        if runs and runs[-1][0] == byte:
            runs[-1] = (byte, runs[-1][1] + 1)
        else:
            runs.append((byte, 1))
    return " ".join(f"{byte}x{count}" for byte, count in runs[:12])


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


def every_moment(step: int) -> None:
    """Killed and cut off from power at each system call (or each `step`-th) of what matters most."""
    deeds: dict[str, Callable[[Machine], object]] = {
        "sync": Machine.sync,
        "commit": Machine.commit,
        "seal": Machine.seal,
        "undo": lambda machine: machine.undo(redo=False),
        "a start after a kill": lambda machine: machine.restart(machine.cut_now(0, False), machine.moment),
        "a start after a power cut": lambda machine: machine.restart(machine.cut_now(0, True), machine.moment),
    }
    for name, deed in deeds.items():
        moments = 0
        for is_power in (False, True):
            for left in itertools.count(1 + random.randrange(step), step):
                machine = Machine()
                try:
                    changed(machine)
                    if name.startswith("a start"):
                        powers = is_power or "power" in name
                        allowed = machine.past[machine.sure if powers else -1 :]
                        machine.moment = (left, left, is_power)
                        cut = deed(machine)
                        came = isinstance(cut, Cut)
                        if isinstance(cut, Cut):
                            machine.recover(cut, allowed)
                    else:
                        machine.moment = (left, left, is_power)
                        deed(machine)
                        came = machine.moment is None or machine.moment[0] < 1
                    machine.write(([b"a"], b"a"), 0, 4, 9000, "sync")
                    machine.commit()
                    machine.crash(left, True)
                finally:
                    machine.teardown()
                if not came:
                    break
                moments += 1
        print(f"{name}: {moments} crashes", flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "every":
        every_moment(int(sys.argv[2]))
        sys.exit()
    examples, number = map(int, sys.argv[1:])
    checks = list(HealthCheck)
    run_state_machine_as_test(
        seed(number)(Machine),
        settings=settings(
            max_examples=examples,
            stateful_step_count=30,
            deadline=None,
            database=None,
            suppress_health_check=checks,
            phases=[Phase.generate, Phase.shrink],
        ),
    )
