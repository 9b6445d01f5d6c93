"""The processes that the crash tests start, kill and starve. Run as `python -m tests.crash.actors ACT JSON`.

An actor that will be killed writes down what it tries and what was acknowledged; `Journal.allowed` tells what the
store may hold afterwards. Actors are forked from a process that has everything imported, but no store open.
"""

import ctypes
import json
import os
import random
import resource
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from fusecas import errors
from fusecas.store import gc, packs
from fusecas.store.gc_roots import open_sessions
from fusecas.store.ids import ContentId, ObjectId
from fusecas.store.rows import Live, Move
from fusecas.store.store import Store
from fusecas.store.tables import Table
from fusecas.store.verify import page_problems, verify_here
from fusecas.store.walk import closure
from tests.store.making import ANYTHING, in_an_hour, layer_over, node_over, noise

FAIL, KILL_BEFORE, KILL_AFTER, TEAR = 1, 2, 3, 4


def say(**what: Any) -> None:
    print(json.dumps(what), flush=True)


class Journal:
    """What one actor tried and what it was told, in a file that outlives it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def note(self, *what: Any) -> None:
        os.write(self._descriptor, json.dumps(what).encode() + b"\n")

    def setting(self, name: str, target: ObjectId | None, act: Callable[[], object]) -> None:
        """Do what moves a ref; note it before and after."""
        value = None if target is None else target.hex()
        self.note("try", name, value)
        act()
        self.note("done", name, value)

    def lines(self) -> list[list[Any]]:
        return [json.loads(line) for line in self.path.read_text().splitlines()]

    def allowed(self) -> dict[str, set[str | None]]:
        """For each ref, the values that it may have: the last one acknowledged, and what was tried since."""
        found: dict[str, set[str | None]] = {}
        for verb, name, value in (line for line in self.lines() if line[0] in ("try", "done")):
            if verb == "done":
                found[name] = {value}
            else:
                found.setdefault(name, {None}).add(value)
        return found


def in_child(act: Callable[[], object]) -> int:
    """The exit status of a forked process that does this: negative if a signal killed it, 99 for an exception."""
    child = os.fork()
    if child == 0:
        become(act)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def become(act: Callable[[], object]) -> None:
    """Do this as a forked process, and end."""
    status = 99
    try:
        act()
        status = 0
    except BaseException:  # noqa: BLE001 - the parent sees the status
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


# ---- what a store must be after anything


def check(folder: Path, allowed: dict[str, set[str | None]]) -> None:
    """It opens, is clean, holds everything acknowledged, loses nothing reachable, and works; its garbage goes."""
    assert page_problems(folder / "store" / "data.mdb") == []
    with Store.open(folder) as store:
        assert_clean(store)
        with store.read() as snapshot:
            for name, values in allowed.items():
                row = snapshot.get_ref(name)
                assert (None if row is None else row.target.hex()) in values, (name, row, values)
        with store.write() as transaction:
            layer = layer_over(transaction, noise(50_000, 77))
            transaction.set_ref("pins/afterwards", layer, ANYTHING)
        gc.collect(store, grace=0.0, expire=0.0, now=in_an_hour)
        assert_clean(store)
        with store.read() as snapshot:
            roots = [row.target for _, row in snapshot.list_refs()]
            roots += [each for _, live in snapshot.list_live() for each in live.roots()]
            assert {each for each, _ in packs.rows(snapshot.kv)} == set(closure(snapshot, roots))
            assert list(open_sessions(snapshot.kv)) == []
            assert snapshot.kv.count(Table.SESSIONS) == 0


def assert_clean(store: Store) -> None:
    report = verify_here(store, None, None)
    assert report.clean, report


# ---- every write and flush fails once in turn


def scenario(folder: Path, journal: Journal) -> None:
    """Everything that writes, one step after the other; a step that fails leaves the next ones to go on."""
    for step in (
        commit,
        import_big,
        move_by_operation,
        delete,
        collect,
        import_again,
        many_small,
        abandon,
        thin_out,
        keep,
    ):
        try:
            with Store.open(folder) as store:
                step(store, journal)
        except errors.EnvironmentProblem as error:
            journal.note("failed", step.__name__, error.code)
        except errors.NotFound:
            journal.note("failed", step.__name__, "an earlier step did")


def commit(store: Store, journal: Journal) -> None:
    content = noise(20_000, 1)
    with store.read() as snapshot:
        assert not list(snapshot.list_refs())

    def act() -> None:
        with store.write() as transaction:
            layer = layer_over(transaction, content)
            transaction.set_ref("pins/a", layer, None)

    journal.setting("pins/a", id_of(lambda putter: layer_over(putter, content)), act)


def id_of(put: Callable[[Any], ObjectId]) -> ObjectId:
    with Store.in_memory() as store, store.write() as transaction:
        return put(transaction)


def big(putter: Any) -> ObjectId:
    return node_over(putter, [putter.put_content(noise(150_000, seed)) for seed in (2, 3)])


def import_big(store: Store, journal: Journal, name: str = "pins/b") -> None:
    def act() -> None:
        with store.session() as session:
            session.put_content(noise(150_000, 2))
            session.flush()
            node = big(session)
            session.publish(lambda transaction: transaction.set_ref(name, node, None))

    journal.setting(name, id_of(big), act)


def move_by_operation(store: Store, journal: Journal) -> None:
    content = noise(5_000, 4)
    old = target_of(store, "pins/a")

    def act() -> None:
        with store.write() as transaction:
            layer = layer_over(transaction, content)
            transaction.operate("tag", [], "me", [Move("pins/a", old, layer)])

    journal.setting("pins/a", id_of(lambda putter: layer_over(putter, content)), act)


def target_of(store: Store, name: str) -> ObjectId:
    with store.read() as snapshot:
        row = snapshot.get_ref(name)
    if row is None:
        raise errors.RefNotFound(name)
    return row.target


def delete(store: Store, journal: Journal) -> None:
    old = target_of(store, "pins/b")

    def act() -> None:
        with store.write() as transaction:
            transaction.set_ref("pins/b", None, old)

    journal.setting("pins/b", None, act)


def collect(store: Store, journal: Journal) -> None:
    gc.collect(store, grace=0.0, expire=0.0, now=in_an_hour)


def import_again(store: Store, journal: Journal) -> None:
    import_big(store, journal, "pins/c")


def many_small(store: Store, journal: Journal) -> None:
    def act() -> None:
        with store.write() as transaction:
            contents = [transaction.put_content(noise(700, 100 + i)) for i in range(120)]
            for i in range(0, 120, 4):
                transaction.set_ref(f"pins/small/{i}", contents[i], None)

    for i in range(0, 120, 4):
        journal.note("try", f"pins/small/{i}", small_id(i).hex())
    act()
    for i in range(0, 120, 4):
        journal.note("done", f"pins/small/{i}", small_id(i).hex())


def small_id(i: int) -> ContentId:
    from fusecas import _native

    return ContentId(ObjectId(_native.content_hash(noise(700, 100 + i))))


def abandon(store: Store, journal: Journal) -> None:
    with suppress(ZeroDivisionError), store.session() as session:
        session.put_content(noise(100_000, 9))
        session.flush()
        raise ZeroDivisionError


def thin_out(store: Store, journal: Journal) -> None:
    with store.write() as transaction:
        live = Live(None, transaction.refs_of(target_of(store, "pins/a"))[0], None)  # type: ignore[arg-type]
        transaction.set_live(b"w" * 16, live)
    collect(store, journal)


def keep(store: Store, journal: Journal) -> None:
    with store.session() as session:
        session.put_content(noise(30_000, 11))
        session.keep()


def calls_of(journal: Journal) -> int:
    """How many calls a run made that came to its end."""
    verb, calls = journal.lines()[-1]
    assert verb == "calls"
    return int(calls)


def faults(folder: str, action: int, code: int, first: int, step: int) -> None:
    """Let the calls number first, first + step, … fail, each in a run of its own over a new store."""
    packs.YOUNG_ROWS = 64
    shim = ctypes.CDLL(None)
    top = Path(folder)
    template = top / "template"
    template.mkdir(parents=True)
    assert in_child(lambda: Store.create(template).close()) == 0

    def run(name: str, at: int) -> tuple[int, Journal]:
        shutil.copytree(template, top / name)
        journal = Journal(top / f"{name}.journal")

        def act() -> None:
            shim.fault_arm(ctypes.c_long(at), action, code)
            scenario(top / name, journal)
            journal.note("calls", shim.fault_calls())

        return in_child(act), journal

    status, journal = run("whole", 0)
    calls = calls_of(journal)
    assert status == 0
    assert not [line for line in journal.lines() if line[0] == "failed"]
    assert in_child(lambda: check(top / "whole", journal.allowed())) == 0
    failed = survived = 0
    for at in count(first, step):
        status, journal = run(str(at), at)
        if status == 0 and calls_of(journal) < at:
            # How many calls a run makes depends a little on time: gc's transactions are bounded by it.
            assert at > 0.9 * calls, (at, calls)
            break
        assert status == (0 if action == FAIL else -signal.SIGKILL), (at, status)
        failed += any(line[0] == "failed" for line in journal.lines())
        survived += 1
        if in_child(lambda at=at, journal=journal: check(top / str(at), journal.allowed())) != 0:  # type: ignore[misc]
            raise AssertionError(f"after call {at}: {journal.lines()}")
        shutil.rmtree(top / str(at))
    say(calls=calls, runs=survived, failed=failed)


# ---- many processes, killed at random


POOL = [noise(size, size) for size in (900, 4_000, 17_000, 30_000, 66_000, 90_000, 120_000, 150_000)]


def importer(folder: Path, journal: Journal, name: str, rounds: int) -> None:
    """Sessions over shared contents: every one may hit what another one, or gc, has under its hands."""
    chance = random.Random(os.getpid())
    with Store.open(folder) as store:
        for i in range(rounds):
            ref = f"pins/{name}/{i % 3}"
            with suppress(errors.SessionLost), store.session() as session:
                parts = []
                for content in chance.sample(POOL, 3):
                    parts.append(session.put_content(content))
                    session.flush()
                low = node_over(session, parts)
                session.flush()
                node = node_over(session, [low, session.put_content(b"%d" % chance.randrange(10**9))])
                session.flush()
                publish = lambda node=node: session.publish(lambda txn: txn.set_ref(ref, node, ANYTHING))  # noqa: E731, B023
                journal.setting(ref, node, publish)


def editor(folder: Path, journal: Journal, name: str, rounds: int) -> None:
    """Single transactions: commits, deletions, and tags on ids that were seen a while ago."""
    chance = random.Random(os.getpid())
    with Store.open(folder) as store:
        seen: list[ObjectId] = []
        for i in range(rounds):
            ref = f"pins/{name}/{i % 3}"
            content = chance.choice(POOL)
            try:
                if i % 3 == 0:
                    new = id_of(lambda putter, content=content: node_over(putter, [putter.put_content(content)]))  # type: ignore[misc]
                    seen.append(new)
                    journal.setting(ref, new, lambda: _commit(store, ref, content))  # noqa: B023
                elif i % 3 == 1:
                    journal.setting(ref, None, lambda: _set(store, ref, None))  # noqa: B023
                else:
                    old = chance.choice(seen)
                    journal.setting(ref, old, lambda: _set(store, ref, old))  # noqa: B023
            except errors.MissingObject:
                journal.note("gone", ref)


def _commit(store: Store, ref: str, content: bytes) -> None:
    with store.write() as transaction:
        transaction.set_ref(ref, node_over(transaction, [transaction.put_content(content)]), ANYTHING)


def _set(store: Store, ref: str, target: ObjectId | None) -> None:
    with store.write() as transaction:
        transaction.set_ref(ref, target, ANYTHING)


def collector(folder: Path, journal: Journal, name: str, rounds: int) -> None:
    """gc for which every session is older than min-age: only its lock keeps it."""
    with Store.open(folder) as store:
        for _ in range(rounds):
            with suppress(errors.InUse):
                gc.collect(store, min_age=0.0, grace=0.0, expire=0.0)


def chaos(folder: str, seed: int, kills: int, rounds: int) -> None:
    top = Path(folder)
    assert in_child(lambda: Store.create(top).close()) == 0
    chance = random.Random(seed)
    casts = {
        "i1": importer, "i2": importer, "e1": editor, "e2": editor, "gc1": collector, "gc2": collector,
    }  # fmt: skip
    journals = {name: Journal(top / f"{name}.journal") for name in casts}
    playing: dict[str, int] = {}

    def start(name: str) -> None:
        child = os.fork()
        if child == 0:
            become(lambda: casts[name](top, journals[name], name, rounds))
        playing[name] = child

    for name in casts:
        start(name)
    killed = 0
    while killed < kills:
        time.sleep(chance.uniform(0.005, 0.12))
        name = chance.choice(list(casts))
        os.kill(playing[name], signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(playing[name], 0)[1])
        assert status in (0, -signal.SIGKILL), (name, status)
        killed += status != 0
        start(name)
    for name, child in playing.items():
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert status == 0, (name, status)
    allowed: dict[str, set[str | None]] = {}
    for journal in journals.values():
        allowed.update(journal.allowed())
    assert in_child(lambda: check(top, allowed)) == 0
    done = sum(line[0] == "done" for journal in journals.values() for line in journal.lines())
    gone = sum(line[0] == "gone" for journal in journals.values() for line in journal.lines())
    say(killed=killed, acknowledged=done, gone=gone)


# ---- a disk that is really full


def full_disk(folder: str) -> None:
    """Fill a small filesystem; free some of it; go on."""
    top = Path(folder)
    ballast = top / "ballast"
    ballast.write_bytes(bytes(3 << 20))
    store = Store.create(top)
    acknowledged: dict[str, set[str | None]] = {}
    refused: set[str] = set()

    def fill(name: str) -> None:
        with store.session() as session:
            node = node_over(session, [session.put_content(noise(300_000, hash(name) & 0xFFFF))])
            session.publish(lambda txn: txn.set_ref(name, node, None))
        acknowledged[name] = {node.hex()}

    for i in range(40):
        try:
            fill(f"pins/{i}")
        except errors.FusecasError as error:
            refused.add(type(error).__name__)
    with suppress(errors.DiskFull):
        gc.collect(store, now=in_an_hour)
    assert_clean(store)
    store.close()
    store = Store.open(top)
    assert_clean(store)
    with store.read() as snapshot:
        for name, values in acknowledged.items():
            row = snapshot.get_ref(name)
            assert row is not None and row.target.hex() in values
    ballast.unlink()
    fill("pins/again")
    store.close()
    check_small(top, acknowledged)
    say(refused=sorted(refused), acknowledged=len(acknowledged))


def check_small(top: Path, allowed: dict[str, set[str | None]]) -> None:
    assert in_child(lambda: check(top, allowed)) == 0


# ---- one byte that is not what it was


def flips(folder: str, first: int, step: int) -> None:
    """Flip the bytes number first, first + step, … of a small store, one at a time, and read everything."""
    top = Path(folder)
    # The names differ in more than one byte: a name that turns into another one is nobody's content.
    contents = {"pins/a": noise(10, 1), "pins/two": noise(500, 2), "pins/third": noise(3_000, 3)}

    def make() -> None:
        with Store.create(top) as store:
            for name, content in contents.items():
                with store.write() as transaction:
                    layer_over(transaction, content)
                    transaction.set_ref(name, transaction.put_content(content), None)

    assert in_child(make) == 0
    path = top / "store" / "data.mdb"
    original = path.read_bytes()
    values = in_values(original, top)
    outcomes = dict.fromkeys(("right", "told", "died"), 0)
    places = range(first, len(original), step)
    while places:
        told, last, status = flip_until_death(path, original, places, contents)
        for at, what in told:
            assert what in outcomes, f"byte {at}: {what}"
            outcomes[what] += 1
        if status == 0:
            break
        assert last not in values, f"byte {last} of a value: death by {-status}"
        assert status < 0, status
        outcomes["died"] += 1
        path.write_bytes(original)
        places = range(last + step, len(original), step)
    say(size=len(original), values=len(values), **outcomes)


def flip_until_death(
    path: Path, original: bytes, places: range, contents: dict[str, bytes]
) -> tuple[list[tuple[int, str]], int, int]:
    """What each flip came to; the place of the last one; how the process that flipped and read has ended."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        become(partial(flip_each, path, original, places, contents, writing))
    os.close(writing)
    with os.fdopen(reading) as lines:
        said = [json.loads(line) for line in lines]
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return [(at, what) for at, what in said if what], said[-1][0], status


def flip_each(path: Path, original: bytes, places: range, contents: dict[str, bytes], writing: int) -> None:
    descriptor = os.open(path, os.O_RDWR)
    for at in places:
        os.write(writing, json.dumps([at, ""]).encode() + b"\n")
        signal.alarm(20)
        os.pwrite(descriptor, bytes([original[at] ^ (0x01 if at & 1 else 0xFF)]), at)
        try:
            what = read_all(path.parent.parent, contents)
        finally:
            os.pwrite(descriptor, original[at : at + 1], at)
        os.write(writing, json.dumps([at, what]).encode() + b"\n")


def read_all(folder: Path, contents: dict[str, bytes]) -> str:
    try:
        with Store.open(folder) as store, store.read() as snapshot:
            names = {name for name, _ in snapshot.list_refs()}
            list(snapshot.operations())
            for name in contents.keys() & names:
                row = snapshot.get_ref(name)
                if row is None:
                    raise errors.RefNotFound(name)
                if snapshot.read_content(row.target) != contents[name]:
                    return "wrong content"
            for object_id, _ in packs.rows(snapshot.kv):
                snapshot.refs_of(object_id)
    except errors.FusecasError:
        return "told"
    except Exception as error:  # noqa: BLE001 - the parent tells
        return repr(error)
    return "right"


def in_values(original: bytes, top: Path) -> set[int]:
    """The places of bytes of objects."""
    found: set[int] = set()
    reading, writing = os.pipe()

    def tell() -> None:
        with Store.open(top) as store, store.read() as snapshot:
            for _, value in snapshot.kv.scan(Table.DATA):
                os.write(writing, bytes(value).hex().encode() + b"\n")

    assert in_child(tell) == 0
    os.close(writing)
    with os.fdopen(reading) as lines:
        for line in lines:
            value = bytes.fromhex(line)
            at = original.find(value)
            assert at >= 0
            while at >= 0:
                found.update(range(at, at + len(value)))
                at = original.find(value, at + 1)
    return found


# ---- stopped, starved, confused


def stopping(folder: str) -> None:
    """An import that gets Ctrl-Z within each of its write transactions."""
    with Store.open(Path(folder)) as store:
        environment: Any = store.environment
        environment.hold_back_stop()
        touch = packs.set_meta

        def stop_then_touch(kv: Any, name: str, number: int) -> None:
            os.kill(os.getpid(), signal.SIGTSTP)
            touch(kv, name, number)

        packs.set_meta = stop_then_touch
        with store.session() as session:
            node = node_over(session, [session.put_content(noise(100_000, i)) for i in range(3)])
            session.publish(lambda transaction: transaction.set_ref("pins/stopped", node, None))
    say(ended=True)


def reading(folder: str) -> None:
    """Hold a snapshot until killed, or until standard input ends."""
    try:
        with Store.open(Path(folder)) as store, store.read() as snapshot:
            list(snapshot.list_refs())
            say(pid=os.getpid())
            sys.stdin.read()
    except errors.FusecasError as error:
        say(error=type(error).__name__, exit=error.exit_code)


def starved(folder: str, gibibytes: int) -> None:
    """Open a store with so much address space."""
    resource.setrlimit(resource.RLIMIT_AS, (gibibytes << 30, gibibytes << 30))
    try:
        with Store.open(Path(folder)) as store:
            with store.write() as transaction:
                transaction.set_ref("pins/starved", transaction.put_content(b"x"), ANYTHING)
            environment: Any = store.environment
            say(map=environment.info()["map_size"] >> 30)
    except errors.FusecasError as error:
        say(error=type(error).__name__, exit=error.exit_code)


ACTS: dict[str, Callable[..., None]] = {
    each.__name__: each for each in (faults, chaos, full_disk, flips, stopping, reading, starved)
}

if __name__ == "__main__":
    ACTS[sys.argv[1]](*json.loads(sys.argv[2]))
