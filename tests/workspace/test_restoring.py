"""Any paths of any state into any other, against a model: entries, hard links, times."""

import os
import tempfile
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fusecas.errors import PathNotFound, Refused
from fusecas.store import prolly, trees
from fusecas.store.ids import Kind, StateId, TimesId
from fusecas.store.importer import import_tree
from fusecas.store.kinds import Entry
from fusecas.store.repository import Repository
from fusecas.store.snapshot import Snapshot
from fusecas.store.verify import verify_here
from fusecas.workspace.restoring import Restoring
from fusecas.workspace.stamping import Stamps
from fusecas.workspace.storing import Saved

NAMES = ("a", "b", "c")
NOW = 2 * 10**18
steps = st.tuples(
    st.sampled_from(["file", "file", "folder", "link", "mode"]),
    st.lists(st.sampled_from(NAMES), min_size=1, max_size=3).map("/".join),
    st.lists(st.sampled_from(NAMES), min_size=1, max_size=3).map("/".join),
    st.integers(0, 1),
)
chosen_paths = st.lists(
    st.lists(st.sampled_from(NAMES), max_size=3).map(lambda names: "/".join(names).encode()), min_size=1, max_size=3
)


def make(folder: Path, plan: list[tuple[str, str, str, int]]) -> None:
    """What of a plan is possible; every file has a time of its own."""
    for number, (what, name, other, choice) in enumerate(plan):
        place = folder / name
        try:
            if what == "file":
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_text("xy"[choice])
                os.utime(place, ns=(0, 10**18 + number * 10**9))
            elif what == "folder":
                place.mkdir(parents=True, exist_ok=True)
            elif what == "link":
                place.parent.mkdir(parents=True, exist_ok=True)
                os.link(folder / other, place)
            else:
                place.chmod(0o700 + choice)
        except (FileExistsError, NotADirectoryError, FileNotFoundError, PermissionError, IsADirectoryError):
            continue


def imported(repository: Repository, plan: list[tuple[str, str, str, int]]) -> tuple[StateId, TimesId | None]:
    with tempfile.TemporaryDirectory() as folder, repository.store.session() as session:
        make(Path(folder), plan)
        Path(folder).chmod(0o755)
        found = import_tree(session, Path(folder), owner=(os.geteuid(), os.getegid()))
        session.keep()
        return found.state, found.times


def look(entry: Entry) -> tuple[object, ...]:
    ext = {key: value for key, value in (entry.ext or {}).items() if key != "L"}
    return entry.kind, entry.mode, None if entry.is_directory else entry.target, ext


def walked(reader: Snapshot, state: StateId) -> dict[bytes, Entry]:
    return {b"": trees.root_entry(reader, state), **dict(trees.walk(reader, trees.read_state(reader, state).tree))}


def groups(reader: Snapshot, state: StateId) -> dict[bytes, bytes]:
    return dict(prolly.entries(Kind.LINKS, trees.read_state(reader, state).links, reader.read_node))


def is_chosen(path: bytes, paths: list[bytes]) -> bool:
    return any(not each or path == each or path.startswith(each + b"/") for each in paths)


def above(path: bytes) -> Iterator[bytes]:
    while path:
        path = path.rpartition(b"/")[0]
        yield path


@settings(max_examples=150, deadline=None)
@given(st.lists(steps, max_size=14), st.lists(steps, max_size=14), st.booleans(), chosen_paths)
def test_a_part_of_a_state_in_another(
    live_plan: list[tuple[str, str, str, int]],
    source_plan: list[tuple[str, str, str, int]],
    goes_on: bool,
    paths: list[bytes],
) -> None:
    with tempfile.TemporaryDirectory() as folder, Repository.create(Path(folder) / ".fusecas") as repository:
        source, source_times = imported(repository, source_plan)
        live, live_times = imported(repository, source_plan + live_plan if goes_on else live_plan)
        with repository.store.read() as snapshot:
            a, b = walked(snapshot, source), walked(snapshot, live)
            linked_a, linked_b = groups(snapshot, source), groups(snapshot, live)
            try:
                restoring = Restoring(snapshot, live, source, paths)
            except PathNotFound:
                assert any(each not in a and each not in b for each in paths)
                return
            except Refused:
                tops = {top for each in paths if each in a for top in above(each)}
                assert any(top in b and not b[top].is_directory for top in tops)
                return
            recorded = {each.path: trees.time_at(snapshot, source_times, each.path) for each in restoring.changes}
        assume(all(each in a or each in b for each in paths))
        with repository.store.write() as transaction:
            saved = Saved(transaction, transaction.read_node)
            made = restoring.state(saved.load, saved.save)
            tree = trees.read_state(transaction, live).tree
            times = Stamps(restoring.changes, recorded, NOW).over(tree, live_times, 5, saved.load, saved.save)
        expected = {path: look(entry) for path, entry in b.items() if not is_chosen(path, paths)}
        expected |= {path: look(entry) for path, entry in a.items() if is_chosen(path, paths)}
        for path in [each for each in paths if each in a]:
            for top in above(path):
                expected.setdefault(top, look(a[top]))
        with repository.store.read() as snapshot:
            done, linked = walked(snapshot, made), groups(snapshot, made)
            assert {path: look(entry) for path, entry in done.items()} == expected
            check_links(done, linked)
            for one, other in combinations(done, 2):
                together = linked.get(one, one) == linked.get(other, other)
                in_a = one in linked_a and linked_a[one] == linked_a.get(other)
                in_b = one in linked_b and linked_b[one] == linked_b.get(other)
                chosen = [is_chosen(each, paths) for each in (one, other)]
                if all(chosen):
                    assert together == in_a
                elif not any(chosen):
                    assert together == in_b
                else:
                    same_group = in_a and in_b and linked_a[one] == linked_b[one]
                    if same_group and look(a[one]) == look(b[one]):
                        assert together
                    elif together:
                        assert in_a and in_b
            check_times(snapshot, made, times, {each: trees.time_at(snapshot, live_times, each) for each in b}, a, b)
        named = [each for each in (made, times) if each is not None]
        assert verify_here(repository.store, named, None).clean


def check_links(entries: dict[bytes, Entry], linked: dict[bytes, bytes]) -> None:
    assert {path for path, entry in entries.items() if entry.linked} == linked.keys()
    for group in set(linked.values()):
        members = sorted(path for path, each in linked.items() if each == group)
        assert len(members) > 1 and members[0] == group
        assert all(look(entries[each]) == look(entries[group]) for each in members)


def check_times(
    snapshot: Snapshot,
    state: StateId,
    times: TimesId | None,
    before: dict[bytes, int | None],
    a: dict[bytes, Entry],
    b: dict[bytes, Entry],
) -> None:
    """Every name has one; what is as it was has its own, but for folders; what is new has a present one."""
    done = walked(snapshot, state)
    for path, entry in done.items():
        time = trees.time_at(snapshot, times, path)
        assert time is not None, path
        is_same = path in b and look(b[path])[::2] == look(entry)[::2]
        if is_same and not entry.is_directory:
            assert time == before[path]
        elif not is_same:
            assert NOW - 10**6 < time <= NOW
        else:
            assert time == before[path] or NOW - 10**6 < time <= NOW
    stack: list[tuple[bytes | None, bytes | None]] = [(trees.read_state(snapshot, state).tree, times)]
    while stack:
        tree, side = stack.pop()
        names = {each.name: each for each in trees.entries(snapshot, tree)}  # type: ignore[arg-type]
        timed = {each[0]: each[2] for each in prolly.entries(Kind.TIMES, side, snapshot.read_node)}
        assert timed.keys() - {b""} == names.keys()
        stack += [(entry.target, timed[name]) for name, entry in names.items() if entry.is_directory]
