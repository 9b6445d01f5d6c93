"""What differs between two states: all of it, nothing else, at the cost of the difference."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from strategies import Planned, folders, make

from fusecas.store import diff as diff_module
from fusecas.store import prolly, trees
from fusecas.store.diff import Change, ChangeKind, apply_changes, diff_states
from fusecas.store.ids import Kind, ObjectId, StateId, TreeId
from fusecas.store.importer import import_tree
from fusecas.store.kinds import Entry, State
from fusecas.store.patch import patch, stat
from fusecas.store.store import Store


@pytest.fixture(scope="module")
def shared() -> Iterator[Store]:
    with Store.in_memory() as store:
        yield store


def state_of(store: Store, folder: Path) -> StateId:
    with store.session() as session:
        found = import_tree(session, folder)
        session.keep()
        return found.state


def changes(store: Store, a: StateId, b: StateId, **options: object) -> list[Change]:
    with store.read() as reader:
        return list(diff_states(reader, a, b, **options))  # type: ignore[arg-type]


def kinds(found: list[Change]) -> dict[str, set[str]]:
    return {os.fsdecode(each.path): set(each.kinds) for each in found}


@given(folders, folders)
@settings(max_examples=40)
def test_a_difference_applied_to_one_state_gives_the_other(shared: Store, one: Planned, two: Planned) -> None:
    with tempfile.TemporaryDirectory() as place:
        make(one, Path(place, "one"))
        make(two, Path(place, "two"))
        a, b = state_of(shared, Path(place, "one")), state_of(shared, Path(place, "two"))
    for renames in (False, True):
        found = changes(shared, a, b, renames=renames)
        with shared.write() as transaction:
            core = trees.read_state(transaction, a)
            after = apply_changes(core, found, transaction.read_node, transaction.put_node)
            assert StateId(transaction.put_node(Kind.STATE, after.encode())) == b


@given(folders)
@settings(max_examples=10)
def test_a_state_does_not_differ_from_itself(shared: Store, plan: Planned) -> None:
    with tempfile.TemporaryDirectory() as place:
        make(plan, Path(place, "one"))
        state = state_of(shared, Path(place, "one"))
    assert changes(shared, state, state) == []


class Pair:
    """A folder before and after something is done to it."""

    def __init__(self, store: Store, folder: Path) -> None:
        self.store = store
        self.folder = folder
        (folder / "dir" / "deep").mkdir(parents=True)
        (folder / "dir" / "file").write_text("one\ntwo\nthree\n")
        (folder / "dir" / "deep" / "below").write_text("below")
        (folder / "link").symlink_to("dir")
        (folder / "other").write_text("other\n")
        self.before = state_of(store, folder)

    def changes(self, **options: object) -> list[Change]:
        return changes(self.store, self.before, state_of(self.store, self.folder), **options)

    def kinds(self, **options: object) -> dict[str, set[str]]:
        return kinds(self.changes(**options))

    def patch(self) -> bytes:
        after = state_of(self.store, self.folder)
        with self.store.read() as reader:
            found = diff_states(reader, self.before, after)
            return b"".join(line for change in found for line in patch(reader, change))


@pytest.fixture
def pair(shared: Store, tmp_path: Path) -> Pair:
    return Pair(shared, tmp_path)


def test_content_mode_owner_and_xattrs_are_told_apart(pair: Pair) -> None:
    file, other, below = (pair.folder / each for each in ("dir/file", "other", "dir/deep/below"))
    file.write_text("changed")
    other.chmod(0o600)
    os.chown(below, 5, 0)
    os.setxattr(pair.folder / "dir", "user.a", b"1")
    assert pair.kinds() == {
        "dir": {"xattr"},
        "dir/deep/below": {"owner"},
        "dir/file": {"modified"},
        "other": {"mode"},
    }


def test_the_root_itself_can_change(pair: Pair) -> None:
    pair.folder.chmod(0o711)
    assert pair.kinds() == {"": {"mode"}}


def test_another_target_of_a_link_is_a_modification(pair: Pair) -> None:
    (pair.folder / "link").unlink()
    (pair.folder / "link").symlink_to("other")
    assert pair.kinds() == {"link": {"modified"}}


def test_another_kind_of_file_is_a_type_change_with_all_that_goes(pair: Pair) -> None:
    for path in ("dir/deep/below", "dir/file"):
        (pair.folder / path).unlink()
    (pair.folder / "dir/deep").rmdir()
    (pair.folder / "dir").rmdir()
    (pair.folder / "dir").write_text("a file now")
    assert pair.kinds() == {
        "dir": {"type"},
        "dir/deep": {"removed"},
        "dir/deep/below": {"removed"},
        "dir/file": {"removed"},
    }


def test_a_new_directory_brings_all_that_is_in_it(pair: Pair) -> None:
    (pair.folder / "new" / "sub").mkdir(parents=True)
    (pair.folder / "new" / "sub" / "file").write_text("new")
    assert pair.kinds() == {"new": {"added"}, "new/sub": {"added"}, "new/sub/file": {"added"}}


def test_a_moved_file_is_a_rename_with_its_new_mode(pair: Pair) -> None:
    (pair.folder / "dir" / "file").rename(pair.folder / "moved")
    (pair.folder / "moved").chmod(0o755)
    [change] = pair.changes()
    assert change.old_path == b"dir/file" and change.kinds == {ChangeKind.RENAMED, ChangeKind.MODE}
    assert kinds(pair.changes(renames=False)) == {"dir/file": {"removed"}, "moved": {"added"}}


def test_a_moved_directory_is_one_rename(pair: Pair) -> None:
    (pair.folder / "dir").rename(pair.folder / "folder")
    [change] = pair.changes()
    assert (change.old_path, change.path, change.kinds) == (b"dir", b"folder", {ChangeKind.RENAMED})


def test_of_several_candidates_the_one_of_the_same_name_is_the_source(pair: Pair) -> None:
    (pair.folder / "a").write_text("same")
    (pair.folder / "name").write_text("same")
    pair.before = state_of(pair.store, pair.folder)
    (pair.folder / "a").unlink()
    (pair.folder / "name").unlink()
    (pair.folder / "dir" / "name").write_text("same")
    assert {each.path: each.old_path for each in pair.changes()} == {b"a": None, b"dir/name": b"name"}


def test_joining_a_group_of_hard_links_is_told(pair: Pair) -> None:
    (pair.folder / "other").unlink()
    os.link(pair.folder / "dir" / "file", pair.folder / "other")
    found = pair.kinds(renames=False)
    assert "links" in found["dir/file"] and "links" in found["other"]


def test_paths_restrict_what_is_compared(pair: Pair) -> None:
    (pair.folder / "dir" / "file").write_text("changed")
    (pair.folder / "dir" / "deep" / "below").write_text("changed")
    (pair.folder / "other").write_text("changed")
    assert set(pair.kinds(paths=[b"dir/deep"])) == {"dir/deep/below"}
    assert set(pair.kinds(paths=[b"dir"])) == {"dir/file", "dir/deep/below"}
    assert set(pair.kinds(paths=[b"nothing"])) == set()


def deep(store: Store, levels: int, mode: int) -> StateId:
    """A file so many directories down."""
    with store.write() as transaction:
        content = transaction.put_content(b"x")
        entry = Entry(b"f", 1, mode, content, 1)
        for below in range(levels):
            tree = prolly.build(Kind.TREE, [tuple(entry)], transaction.put_node)
            entry = Entry(b"d", 2, 0o755, tree, 1, below + 1)
        root = TreeId(ObjectId(entry.target or b""))
        return StateId(transaction.put_node(Kind.STATE, State(root, 0o755, None).encode()))


def test_a_change_thousands_of_directories_down_is_found(shared: Store) -> None:
    a, b = deep(shared, 3000, 0o644), deep(shared, 3000, 0o600)
    [change] = changes(shared, a, b)
    assert change.kinds == {ChangeKind.MODE} and change.path.count(b"/") == 2999
    with shared.write() as transaction:
        nothing = StateId(transaction.put_node(Kind.STATE, State(None, 0o755, None).encode()))
    assert len(changes(shared, nothing, a, renames=False)) == 3000


def test_thousands_of_equal_files_find_their_sources_without_comparing_all(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    for at in range(2000):
        (pair.folder / "dir" / f"{at}").write_text("equal")
    pair.before = state_of(pair.store, pair.folder)
    (pair.folder / "dir").rename(pair.folder / "folder")
    (pair.folder / "folder" / "new").write_text("new")
    compared: list[bytes] = []
    real = diff_module._likeness

    def counted(one: bytes, other: bytes) -> int:
        compared.append(one)
        return real(one, other)

    monkeypatch.setattr(diff_module, "_likeness", counted)
    found = pair.changes()
    renamed = {each.path: each.old_path for each in found if each.old_path is not None}
    assert renamed[b"folder/77"] == b"dir/77" and len(renamed) == 2002
    assert len(compared) < 2 * len(renamed)


def test_a_small_change_in_a_large_tree_reads_little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for directory in range(50):
        (tmp_path / str(directory)).mkdir()
        for at in range(100):
            (tmp_path / str(directory) / str(at)).write_text(str(at))
    with Store.in_memory() as store:
        before = state_of(store, tmp_path)
        (tmp_path / "33" / "44").write_text("changed")
        after = state_of(store, tmp_path)
        with store.read() as reader:
            reads: list[bytes] = []
            real = reader.read_node

            def counted(object_id: ObjectId, kind: Kind | None = None) -> bytes:
                reads.append(object_id)
                return real(object_id, kind)

            monkeypatch.setattr(reader, "read_node", counted)
            assert [each.path for each in diff_states(reader, before, after)] == [b"33/44"]
            assert len(reads) <= 12


# ---- patches


def applied(pair: Pair, tmp_path: Path, words: list[str]) -> None:
    """Apply the patch to a copy of the folder before, with a program of somebody else's."""
    text = pair.patch()
    before = tmp_path / "before"
    from fusecas.store.exporter import export_tree

    export_tree(pair.store, pair.before, before)
    done = subprocess.run(words, input=text, cwd=before, capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr + text
    assert state_of(pair.store, before) == state_of(pair.store, pair.folder), text


@pytest.fixture
def pair_in(shared: Store, tmp_path: Path) -> Pair:
    (tmp_path / "now").mkdir()
    return Pair(shared, tmp_path / "now")


@pytest.mark.parametrize("words", [["git", "apply", "--unsafe-paths"], ["patch", "-s", "-p1"]], ids=["git", "patch"])
def test_other_programs_apply_our_patches(pair_in: Pair, tmp_path: Path, words: list[str]) -> None:
    folder = pair_in.folder
    (folder / "dir" / "file").write_text("zero\none\ntwo\nthree and more\n" + "\n".join(map(str, range(50))))
    (folder / "other").unlink()
    (folder / "new").write_text("without a newline at the end")
    (folder / "dir" / "deep" / "below").write_text("below\nwith a newline now\n")
    applied(pair_in, tmp_path, words)


def test_git_applies_renames_modes_links_and_odd_names(pair_in: Pair, tmp_path: Path) -> None:
    folder = pair_in.folder
    (folder / "other").rename(folder / "moved")
    (folder / "dir" / "file").chmod(0o755)
    (folder / "link").unlink()
    (folder / "link").symlink_to("elsewhere")
    (folder / 'a "quoted"\tname').write_text("odd\n")
    (folder / "umläut").write_text("odd too\n")
    applied(pair_in, tmp_path, ["git", "apply", "--unsafe-paths"])


def become(folder: Path, files: dict[str, bytes | str | None]) -> None:
    """Bytes are a file's, text is a link's target, None takes what is there away."""
    for name, what in files.items():
        path = folder / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        if what is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(what, bytes):
                path.write_bytes(what)
            else:
                path.symlink_to(what)


CHANGES: dict[str, dict[str, bytes | str | None]] = {
    "a directory that becomes a file": {"dir": b"a file now\n"},
    "a file that becomes a directory": {"other": None, "other/below": b"in it\n"},
    "a link that becomes a directory": {"link": None, "link/below": b"in it\n"},
    "a changed binary": {"binary": bytes(range(256)) * 40},
    "a new binary": {"new": b"\0" + bytes(range(250))},
    "a binary that goes": {"binary": None},
    "a binary that becomes text": {"binary": b"text\n"},
    "a link whose target has lines": {"link": "one\ntwo", "new link": "\n"},
    "names with spaces": {"a name": b"with a space\n", " ": b"only that\n"},
    "an empty file": {"empty": b""},
}


@pytest.mark.parametrize("name", CHANGES)
def test_git_applies_what_is_not_just_text(pair_in: Pair, tmp_path: Path, name: str) -> None:
    (pair_in.folder / "binary").write_bytes(b"\0\1\2" * 1000)
    pair_in.before = state_of(pair_in.store, pair_in.folder)
    become(pair_in.folder, CHANGES[name])
    applied(pair_in, tmp_path, ["git", "apply", "--unsafe-paths"])


def test_patch_applies_names_with_spaces(pair_in: Pair, tmp_path: Path) -> None:
    become(pair_in.folder, {"a name": b"with a space\n"})
    applied(pair_in, tmp_path, ["patch", "-s", "-p1"])


def test_git_applies_a_moved_directory(pair_in: Pair, tmp_path: Path) -> None:
    (pair_in.folder / "dir").rename(pair_in.folder / "folder")
    applied(pair_in, tmp_path, ["git", "apply", "--unsafe-paths"])


def test_what_a_diff_can_not_say_stands_in_a_comment(pair_in: Pair, tmp_path: Path) -> None:
    (pair_in.folder / "other").chmod(0o600)
    os.mkfifo(pair_in.folder / "pipe")
    os.chown(pair_in.folder / "dir" / "file", 5, -1)
    assert pair_in.patch() == b"# dir/file: owner\n# other: mode\n# pipe: added\n"


def test_a_binary_patch_can_be_taken_back(pair_in: Pair, tmp_path: Path) -> None:
    (pair_in.folder / "other").write_bytes(b"\0binary")
    subprocess.run(["git", "apply", "-R", "--unsafe-paths"], input=pair_in.patch(), cwd=pair_in.folder, check=True)
    assert (pair_in.folder / "other").read_text() == "other\n"


def test_a_binary_has_no_lines(pair: Pair) -> None:
    (pair.folder / "other").write_bytes(b"\0binary")
    [change] = pair.changes()
    with pair.store.read() as reader:
        assert stat(reader, change).added is None


def test_lines_are_counted(pair: Pair) -> None:
    (pair.folder / "dir" / "file").write_text("one\n2\nthree\nfour\n")
    [change] = pair.changes()
    with pair.store.read() as reader:
        found = stat(reader, change)
    assert (found.added, found.removed) == (2, 1)


@pytest.mark.parametrize("shuffled", [False, True])
def test_long_files_are_compared_without_ado(pair: Pair, shuffled: bool) -> None:
    lines = [f"line {at} {at * 7919 % 1000}\n" for at in range(100_000)]
    (pair.folder / "other").write_text("".join(lines))
    pair.before = state_of(pair.store, pair.folder)
    if shuffled:
        lines = [f"other {at}\n" for at in range(100_000)]
    else:
        lines[50_000] = "changed\n"
        lines.insert(20, "inserted\n")
    (pair.folder / "other").write_text("".join(lines))
    [change] = pair.changes()
    with pair.store.read() as reader:
        found = stat(reader, change)
    assert (found.added, found.removed) == ((100_000, 100_000) if shuffled else (2, 1))
