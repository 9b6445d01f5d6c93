"""The store beside restic, and its own costs as the tree grows. Needs Debian's package restic.

Parts: files (many small files), binaries, edited (a large file changed in places), refill, small (20 000 files),
stream (2 GiB through `put`), byte (one byte of 1 GiB), commit (one file of a million), start (whole processes), mark (a
gc of a million objects).
"""

import json
import os
import random
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

from fusecas import _native
from fusecas.store import prolly, trees
from fusecas.store.gc import collect
from fusecas.store.heads import advance, read_head
from fusecas.store.ids import Kind, LayerId, ObjectId, StateId, TreeId
from fusecas.store.kinds import Entry, EntryKind, Layer, State
from fusecas.store.repository import Repository
from fusecas.store.rows import Live
from fusecas.store.transaction import Transaction
from tests.bench.measure import (
    Bench,
    program,
    run,
    settle,
    size_of,
    timed,
    written_bytes,
)

SECRET = {"RESTIC_PASSWORD": "x"}
GIB = 1 << 30


class Peers:
    """A repository of ours and one of restic's, made anew for each import."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench

    def ours(self, source: Path) -> float:
        place = self.bench.fresh("ours")
        place.mkdir()
        run(program(), "init", place)
        settle()
        return timed(lambda: run(program(), "import", source, "--repo", place / ".fusecas"))

    def restic(self, source: Path) -> float:
        place = self.bench.fresh("restic")
        run("restic", "init", "-q", "-r", place, **SECRET)
        settle()
        return timed(lambda: run("restic", "-q", "-r", place, "backup", source, **SECRET))

    def again_ours(self, source: Path) -> float:
        return timed(lambda: run(program(), "import", source, "--repo", self.bench.folder / "ours" / ".fusecas"))

    def again_restic(self, source: Path) -> float:
        return timed(lambda: run("restic", "-q", "-r", self.bench.folder / "restic", "backup", source, **SECRET))

    def stored(self) -> tuple[int, int]:
        return (self.bench.folder / "ours/.fusecas/store/data.mdb").stat().st_size, size_of(
            self.bench.folder / "restic"
        )

    def export_ours(self) -> float:
        target = self.bench.fresh("out")
        settle()
        return timed(lambda: run(program(), "export", "@", target, "--repo", self.bench.folder / "ours" / ".fusecas"))

    def restore_restic(self) -> float:
        target = self.bench.fresh("out")
        settle()
        return timed(
            lambda: run(
                "restic", "-q", "-r", self.bench.folder / "restic", "restore", "latest", "--target", target, **SECRET
            )
        )


def compare_with_restic(bench: Bench, source: Path) -> None:
    peers = Peers(bench)
    bench.compare("import", lambda: peers.ours(source), lambda: peers.restic(source), "restic", "x0.5")
    ours, theirs = peers.stored()
    bench.note(
        "bytes stored", f"{ours / 1e6:.1f} MB", f"restic {theirs / 1e6:.1f} MB", f"x{ours / theirs:.3f}", "x1.05"
    )
    bench.compare("import again", lambda: peers.again_ours(source), lambda: peers.again_restic(source), "restic", "-")
    bench.compare("export", peers.export_ours, peers.restore_restic, "restic restore", "x1.0")


def files(bench: Bench) -> None:
    source = bench.folder / "source"
    source.mkdir()
    for place in [*Path("/usr/lib").glob("python3*"), Path("/usr/include")]:
        shutil.copytree(place, source / place.name, symlinks=True)
    compare_with_restic(bench, source)


def programs_of_this_machine() -> Iterator[Path]:
    for root in ("/usr/lib", "/usr/bin", "/usr/libexec", "/usr/local", "/opt", os.path.expanduser("~/.rustup")):
        for directory, _, names in os.walk(root):
            for name in sorted(names):
                path = Path(directory, name)
                if path.is_file() and not path.is_symlink() and path.stat().st_size > 200_000:
                    yield path


def gather(target: Path, size: int) -> None:
    """Different programs and libraries, up to that many bytes."""
    target.mkdir()
    total = 0
    for at, path in enumerate(programs_of_this_machine()):
        if total >= size:
            break
        shutil.copyfile(path, target / f"{at}-{path.name}")
        total += path.stat().st_size


def binaries(bench: Bench) -> None:
    source = bench.folder / "source"
    gather(source, GIB)
    compare_with_restic(bench, source)


def edited(bench: Bench) -> None:
    gather(bench.folder / "parts", GIB // 2)
    source = bench.folder / "source"
    source.mkdir()
    path = source / "large"
    with path.open("wb") as file:
        for part in sorted((bench.folder / "parts").iterdir()):
            file.write(part.read_bytes())
        file.truncate(GIB // 2)
    peers, rng = Peers(bench), random.Random(1)
    peers.ours(source)
    peers.restic(source)
    before = peers.stored()
    with path.open("r+b") as file:
        for _ in range(100):
            file.seek(rng.randrange(GIB // 2 - 20))
            file.write(rng.randbytes(20))
    bench.compare(
        "import of the edited file", lambda: peers.again_ours(source), lambda: peers.again_restic(source), "restic", "-"
    )
    ours, theirs = (after - old for after, old in zip(peers.stored(), before, strict=True))
    share = 100 * ours / (GIB // 2)
    bench.note(
        "bytes stored for 100 edits",
        f"{ours / 1e6:.2f} MB",
        f"restic {theirs / 1e6:.2f} MB",
        f"{share:.2f}% of the file",
        "1.5%",
    )


def refill(bench: Bench) -> None:
    """Delete half of what is stored and import as much again: the file should not grow."""
    source = bench.folder / "source"
    gather(source, GIB)
    halves = [bench.folder / "one", bench.folder / "two", bench.folder / "three"]
    for half in halves:
        half.mkdir()
    sizes = [0, 0, 0]
    movable = (path for path in source.iterdir() if path.stat().st_size < 8 << 20)
    for path in sorted(movable, key=lambda path: -path.stat().st_size):
        least = sizes.index(min(sizes))
        sizes[least] += path.stat().st_size
        path.rename(halves[least] / path.name)
    place = bench.folder / "ours"
    place.mkdir()
    run(program(), "init", place)
    folder = place / ".fusecas"
    for half in halves[:2]:
        printed = run(program(), "import", half, "--no-head", "--repo", folder)
        run(program(), "tag", half.name, printed.split()[0], "--repo", folder)
    before = stats_of(folder)
    run(program(), "tag", "-d", "one", "--repo", folder)
    run(program(), "gc", "--min-age", "0", "--expire", "0", "--repo", folder)
    run(program(), "import", halves[2], "--no-head", "--repo", folder)
    after = stats_of(folder)
    # What comes compresses better or worse than what went: so the file is compared with what is stored in it.
    shares = [each["file_size"] / each["stored"] for each in (before, after)]
    bench.note(
        "file after delete and refill, for each stored byte",
        f"{shares[1]:.3f}",
        f"before {shares[0]:.3f}",
        f"x{shares[1] / shares[0]:.3f} ({after['file_size'] / 1e6:.0f} MB)",
        "x1.05",
    )


def stats_of(folder: Path) -> dict[str, int]:
    found: dict[str, int] = json.loads(run(program(), "stats", "--json", "--repo", folder))["result"]
    return found


def small(bench: Bench) -> None:
    source = bench.folder / "source"
    source.mkdir()
    rng = random.Random(1)
    for directory in range(20):
        (source / str(directory)).mkdir()
        for at in range(1000):
            (source / str(directory) / str(at)).write_bytes(rng.randbytes(512).hex().encode())
    peers = Peers(bench)
    bench.compare(
        "import of 20 000 files of 1 KiB", lambda: peers.ours(source), lambda: peers.restic(source), "restic", "1.5 s"
    )


def stream(bench: Bench) -> None:
    """2 GiB through one session: the most memory of its own that the process ever has."""
    place = bench.folder / "repository"
    place.mkdir()
    run(program(), "init", place)
    before, most = memory_of("put", place / ".fusecas", str(2 * GIB))
    bench.note(
        "put of a stream of 2 GiB: RssAnon at most",
        f"{most / 1e6:.1f} MB",
        f"before it {before / 1e6:.1f} MB",
        f"x{most / before:.1f}",
        "200 MB",
    )


def memory_of(*words: str | Path) -> tuple[int, int]:
    """(RssAnon before, at most) of a process of its own that does this."""
    before, most = run(sys.executable, "-m", "tests.bench.memory", *words).split()
    return int(before), int(most)


def byte(bench: Bench) -> None:
    path = bench.folder / "large"
    with path.open("wb") as file:
        for seed in range(1024):
            file.write(random.Random(seed).randbytes(1 << 20))
    descriptor = os.open(path, os.O_RDWR)
    writer, batch = _native.ContentWriter(), _native.Batch()
    while writer.feed_file(batch, descriptor, 32 << 20):
        keep = _native.Batch()
        batch = keep
    content, size = writer.finish(batch)
    packed = batch.compress(range(len(batch)))
    found = {
        batch.ids()[i]: _native.decompress(packed.data[at : at + stored], codec, full)
        for i, codec, at, stored, full in packed.rows
    }
    _, items, groups = _native.decode_recipe(content, found[content])

    def update() -> float:
        at = random.randrange(size)
        os.pwrite(descriptor, os.urandom(1), at)
        dirty = [(at, 1)]

        def work() -> bytes:
            batch = _native.Batch()
            return _native.update_content(batch, descriptor, size, size, items, groups, dirty, found.__getitem__)

        return timed(work) * 1000

    def anew() -> float:
        def whole() -> None:
            os.lseek(descriptor, 0, os.SEEK_SET)
            writer = _native.ContentWriter()
            while writer.feed_file(_native.Batch(), descriptor, 32 << 20):
                pass

        return timed(whole) * 1000

    bench.compare("one byte of 1 GiB: new id", update, anew, "cutting anew", "5 ms", "ms")
    os.close(descriptor)


def tree_of(transaction_save: Callable[[Kind, bytes], ObjectId], count: int) -> ObjectId:
    """Directories of 1 000 files each."""
    entries = []
    for directory in range(count // 1000):
        below = prolly.build(
            Kind.TREE,
            (
                tuple(Entry(b"file%03d" % at, EntryKind.FILE, 0o644, directory.to_bytes(16) + at.to_bytes(16), 100))
                for at in range(1000)
            ),
            transaction_save,
        )
        entries.append(tuple(Entry(b"dir%06d" % directory, EntryKind.DIRECTORY, 0o755, below, 100_000, 1000)))
    root = prolly.build(Kind.TREE, entries, transaction_save)
    assert root is not None
    return root


class Fleet:
    """A repository whose head holds that many files (of contents that are not there)."""

    def __init__(self, bench: Bench, count: int) -> None:
        self.repository = Repository.create(bench.folder / f"of-{count}")
        self.count = count
        self.at = 0
        store = self.repository.store
        with store.session() as session:
            contents = [_native.Batch()]
            for number in range(count):
                fake = (number // 1000).to_bytes(16) + (number % 1000).to_bytes(16)
                contents[-1].add(Kind.CHUNK, fake, b"x")
                if len(contents[-1]) >= 4096:
                    session.put_batch(contents.pop())
                    contents.append(_native.Batch())
            session.put_batch(contents.pop())
            tree = tree_of(session.put_node, count)
            state = StateId(session.put_node(Kind.STATE, State(TreeId(tree), 0o755, None).encode()))
            layer = LayerId(session.put_node(Kind.LAYER, Layer((), state).encode()))
            session.publish(lambda transaction: self._advance(transaction, layer, state))

    def _advance(self, transaction: Transaction, layer: LayerId, state: StateId) -> None:
        head = read_head(transaction)
        advance(transaction, head, layer, Live(layer, state, None), "commit", (), "bench")

    def change(self, core: State, load: prolly.Loader, save: prolly.Saver) -> State:
        self.at += 7919
        number = self.at % self.count
        path = b"dir%06d/file%03d" % (number // 1000, number % 1000)
        entry = Entry(b"", EntryKind.FILE, 0o755, number.to_bytes(32), 100)
        entry = entry._replace(
            target=(number // 1000).to_bytes(16) + (number % 1000).to_bytes(16), mode=0o600 + self.at % 64
        )
        return trees.edit(core, {path: entry}, {}, load, save)

    def tree_only(self) -> float:
        """Milliseconds for the new tree, its nodes hashed, nothing stored."""
        with self.repository.store.read() as reader:
            core = trees.read_state(reader, read_head(reader).live.state)
            save = lambda kind, data: ObjectId(_native.node_id(kind, data))  # noqa: E731
            return timed(lambda: self.change(core, reader.read_node, save)) * 1000

    def commit(self) -> float:
        """Milliseconds for a whole commit."""

        def work() -> None:
            with self.repository.store.write() as transaction:
                head = read_head(transaction)
                core = self.change(
                    trees.read_state(transaction, head.live.state), transaction.read_node, transaction.put_node
                )
                state = StateId(transaction.put_node(Kind.STATE, core.encode()))
                parents = () if head.workspace.layer is None else (head.workspace.layer,)
                layer = LayerId(transaction.put_node(Kind.LAYER, Layer(parents, state).encode()))
                self._advance(transaction, layer, state)

        return timed(work) * 1000

    def written(self, rounds: int) -> list[int]:
        sizes = []
        for _ in range(rounds):
            before = written_bytes()
            self.commit()
            sizes.append(written_bytes() - before)
        return sorted(sizes)


def commit(bench: Bench) -> None:
    small_tree, large_tree = Fleet(bench, 1000), Fleet(bench, 1_000_000)
    rounds, bench.rounds = bench.rounds, bench.rounds * 15
    bench.compare(
        "one file of 1 000 000: new tree", large_tree.tree_only, small_tree.tree_only, "of 1 000", "5 ms", "ms"
    )
    bench.compare("one file of 1 000 000: whole commit", large_tree.commit, small_tree.commit, "of 1 000", "x1.5", "ms")
    bench.rounds = rounds
    many, few = large_tree.written(60), small_tree.written(60)
    bench.note(
        "bytes passed to write() by a commit",
        f"{many[30] / 1024:.0f} KiB",
        f"of 1 000: {few[30] / 1024:.0f} KiB",
        f"max {many[-1] / 1024:.0f} KiB",
        "128 KiB",
    )


def start(bench: Bench) -> None:
    place = bench.folder / "repository"
    place.mkdir()
    run(program(), "init", place)
    python = Path(program()).parent / "python"
    bench.rounds *= 5
    bench.compare(
        "fusecas head",
        lambda: timed(lambda: run(program(), "head", "--repo", place / ".fusecas")) * 1000,
        lambda: timed(lambda: run(python, "-I", "-c", "import click")) * 1000,
        "python -c 'import click'",
        "80 ms",
        "ms",
    )
    script = Path(__file__).parents[2] / "scripts" / "fusecas"
    bare, through = [], []
    for _ in range(bench.rounds):
        bare.append(timed(lambda: run(program(), "--version")) * 1000)
        through.append(timed(lambda: run(script, "--version")) * 1000)
    more = sorted(b - a for a, b in zip(bare, through, strict=True))
    bench.note(
        "scripts/fusecas, set up already: more than",
        f"{median(more):.1f} ms",
        f"the bare command {median(bare):.1f} ms",
        f"({more[0]:.1f}-{more[-1]:.1f})",
        "20 ms",
    )


def mark(bench: Bench) -> None:
    fleet = Fleet(bench, 1_000_000)
    store = fleet.repository.store
    longest = [0.0]
    environment = store.environment
    real = environment.write

    def watched():  # type: ignore[no-untyped-def]
        from contextlib import contextmanager

        @contextmanager
        def wrapped():  # type: ignore[no-untyped-def]
            context = real()
            kv = context.__enter__()
            began = time.perf_counter()
            try:
                yield kv
            finally:
                context.__exit__(None, None, None)
                longest[0] = max(longest[0], time.perf_counter() - began)

        return wrapped()

    environment.write = watched  # type: ignore[method-assign]
    seconds = timed(lambda: collect(store, min_age=0.0))
    bench.note("gc of 1 000 000 objects: longest write transaction", f"{longest[0] * 1000:.1f} ms", "-", "-", "20 ms")
    fleet.repository.close()
    before, most = memory_of("gc", fleet.repository.folder)
    grown = f"{(most - before) / 1e6:.1f} MB"
    bench.note(
        "gc of 1 000 000 objects: RssAnon at most", grown, f"over {before / 1e6:.1f} MB", f"{seconds:.1f} s", "50 MB"
    )


PARTS = {
    "files": files,
    "binaries": binaries,
    "edited": edited,
    "refill": refill,
    "small": small,
    "stream": stream,
    "byte": byte,
    "commit": commit,
    "start": start,
    "mark": mark,
}
