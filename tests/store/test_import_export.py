"""Folders into the store and out again: everything that can be seen of them, and nothing else touched."""

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from strategies import Planned, folders, make, observe

from fusecas import _native
from fusecas.errors import AlreadyExists, ChangedWhileRead, CorruptObject, PathNotFound
from fusecas.store import importer, packs, trees
from fusecas.store.exporter import Exported, export_tree
from fusecas.store.ids import ObjectId
from fusecas.store.importer import Imported, import_tree
from fusecas.store.kinds import EntryKind
from fusecas.store.store import Store


@pytest.fixture(scope="module")
def shared() -> Iterator[Store]:
    with Store.in_memory() as store:
        yield store


def imported(store: Store, folder: Path, **options: object) -> Imported:
    with store.session() as session:
        found = import_tree(session, folder, **options)  # type: ignore[arg-type]
        session.keep()
        return found


def exported(store: Store, found: Imported, target: Path, **options: object) -> Exported:
    return export_tree(store, found.state, target, times=found.times, owner=found.owner, **options)  # type: ignore[arg-type]


@given(folders)
def test_a_folder_comes_back_as_it_was(shared: Store, plan: Planned) -> None:
    with tempfile.TemporaryDirectory() as place:
        source, target = Path(place, "source"), Path(place, "target")
        make(plan, source)
        found = imported(shared, source)
        report = exported(shared, found, target)
        assert report.unset == ()
        assert observe(target) == observe(source)
        assert imported(shared, target).state == found.state


@given(folders)
@settings(max_examples=10)
def test_ids_are_the_same_in_another_store_time_zone_and_umask(plan: Planned) -> None:
    script = (
        "import os, sys; os.umask(0o077)\n"
        "from pathlib import Path\n"
        "from fusecas.store.store import Store\n"
        "from fusecas.store.importer import import_tree\n"
        "store = Store.in_memory()\n"
        "session = store.session()\n"
        "print(import_tree(session, Path(sys.argv[1])).state.hex())\n"
        "session.keep()\n"
    )
    with tempfile.TemporaryDirectory() as place, Store.in_memory() as store:
        source = Path(place, "source")
        make(plan, source)
        environment = {**os.environ, "TZ": "Pacific/Apia", "PYTHONHASHSEED": "7", "LC_ALL": "C"}
        words = [sys.executable, "-c", script, os.fspath(source)]
        other = subprocess.run(words, env=environment, check=True, capture_output=True, text=True)
        assert other.stdout.strip() == imported(store, source).state.hex()


def test_the_owner_of_the_folder_does_not_matter_but_differences_do(shared: Store, tmp_path: Path) -> None:
    states = []
    for owner in (0, 1000):
        folder = tmp_path / str(owner)
        folder.mkdir()
        (folder / "file").write_text("x")
        for path in (folder, folder / "file"):
            os.chown(path, owner, owner)
        states.append(imported(shared, folder).state)
    os.chown(tmp_path / "1000" / "file", 5, 1000)
    states.append(imported(shared, tmp_path / "1000").state)
    assert states[0] == states[1] != states[2]


def test_hard_links_across_directories_are_one_file_again(shared: Store, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "b").mkdir(parents=True)
    (source / "z").write_text("shared")
    os.link(source / "z", source / "b" / "y")
    os.link(source / "z", source / "a.b")
    found = imported(shared, source)
    exported(shared, found, tmp_path / "out")
    names = [tmp_path / "out" / each for each in ("z", "b/y", "a.b")]
    assert len({each.stat().st_ino for each in names}) == 1 and names[0].stat().st_nlink == 3
    with shared.read() as reader:
        links = trees.read_state(reader, found.state).links
        assert trees.group_of(reader, links, b"z") == b"a.b"


def test_a_file_with_a_name_elsewhere_is_like_any_other(shared: Store, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name / "deep" / "down").mkdir(parents=True)
        (tmp_path / name / "deep" / "down" / "file").write_text("x")
        (tmp_path / name / "deep" / "other").write_text("y")
    os.link(tmp_path / "one" / "deep" / "down" / "file", tmp_path / "elsewhere")
    assert imported(shared, tmp_path / "one").state == imported(shared, tmp_path / "two").state


def test_holes_stay_holes(shared: Store, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    with (source / "sparse").open("wb") as file:
        file.write(b"start")
        file.seek(5 << 30)
        file.write(b"end")
    found = imported(shared, source)
    exported(shared, found, tmp_path / "out")
    copy = tmp_path / "out" / "sparse"
    assert copy.stat().st_size == (5 << 30) + 3
    assert copy.stat().st_blocks * 512 < 1 << 20
    with copy.open("rb") as file:
        assert file.read(10) == b"start" + bytes(5)
        file.seek(5 << 30)
        assert file.read() == b"end"


def test_large_files_come_back_with_mode_and_time(shared: Store, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    data = os.urandom(1 << 20) * 20
    (source / "large").write_bytes(data)
    (source / "large").chmod(0o4711)
    os.utime(source / "large", ns=(5, 1_234_567_890_123_456_789))
    exported(shared, imported(shared, source), tmp_path / "out")
    assert observe(tmp_path / "out") == observe(source)


def test_a_hundred_thousand_files_in_one_directory(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for i in range(100_000):
        os.close(os.open(source / f"file{i}", os.O_CREAT | os.O_WRONLY))
    with Store.in_memory() as store:
        found = imported(store, source)
        assert found.files == 100_000
        with store.read() as reader:
            assert trees.root_entry(reader, found.state).count == 100_000


def test_a_file_that_keeps_changing_is_named_and_nothing_is_published(
    shared: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "quiet").write_text("x")
    path = tmp_path / "busy"
    path.write_bytes(bytes(3 << 20))
    real_fstat = os.fstat

    def fstat_then_write(descriptor: int) -> os.stat_result:
        status = real_fstat(descriptor)
        if stat.S_ISREG(status.st_mode) and status.st_ino == path.stat().st_ino:
            with path.open("r+b") as file:
                file.write(os.urandom(8))
            os.utime(path)
        return status

    monkeypatch.setattr(importer.os, "fstat", fstat_then_write)
    with pytest.raises(ChangedWhileRead, match="busy"):
        imported(shared, tmp_path)
    found = imported(shared, tmp_path, skip_changed=True)
    assert [each for each, _ in found.skipped] == [b"busy"]
    with shared.read() as reader:
        assert trees.lookup(reader, found.state, b"quiet") is not None
        assert trees.lookup(reader, found.state, b"busy") is None


def test_a_small_file_under_a_writer_is_whole_or_refused(shared: Store, tmp_path: Path) -> None:
    """A process replaces the bytes all the time, each time by others of another length."""
    path = tmp_path / "busy"
    path.write_bytes(b"a" * 500_000)
    script = (
        "import sys\n"
        "i = 0\n"
        "print('up', flush=True)\n"
        "while True:\n"
        "    i = (i + 1) % 26\n"
        "    with open(sys.argv[1], 'wb') as file: file.write(bytes([97 + i]) * (300_000 + i * 5000))\n"
    )
    words = [sys.executable, "-c", script, os.fspath(path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        try:
            for _ in range(20):
                _import_whole_or_refused(shared, tmp_path)
        finally:
            writer.kill()


def _import_whole_or_refused(shared: Store, folder: Path) -> None:
    try:
        found = imported(shared, folder)
    except ChangedWhileRead:
        return
    with shared.read() as reader:
        entry = trees.needed(reader, found.state, b"busy")
        assert entry.target is None or len(set(reader.read_content(entry.target))) == 1


def test_the_stores_own_folder_is_left_out_and_said(shared: Store, tmp_path: Path) -> None:
    (tmp_path / ".fusecas").mkdir()
    (tmp_path / ".fusecas" / "secret").write_text("x")
    (tmp_path / "deep" / ".fusecas").mkdir(parents=True)
    (tmp_path / "deep" / ".fusecas" / "kept").write_text("x")
    found = imported(shared, tmp_path)
    assert [path for path, _ in found.skipped] == [b".fusecas"]
    with shared.read() as reader:
        assert trees.lookup(reader, found.state, b"deep/.fusecas/kept") is not None
        assert trees.lookup(reader, found.state, b".fusecas") is None


def test_importing_what_is_not_there_is_an_error(shared: Store, tmp_path: Path) -> None:
    with pytest.raises(PathNotFound):
        imported(shared, tmp_path / "nothing")
    (tmp_path / "file").write_text("x")
    with pytest.raises(PathNotFound):
        imported(shared, tmp_path / "file")


ORDINARY = """
import os, sys
from pathlib import Path
from fusecas.errors import FusecasError
from fusecas.store.store import Store
from fusecas.store.importer import import_tree
from fusecas.store.exporter import export_tree
os.setgroups([]); os.setgid(1000); os.setuid(1000)
store = Store.in_memory()
try:
    with store.session() as session:
        found = import_tree(session, Path(sys.argv[1]))
        session.keep()
    report = export_tree(store, found.state, Path(sys.argv[2]), times=found.times, owner=found.owner)
    print(sorted((os.fsdecode(path), what) for path, what, why in report.unset))
except FusecasError as error:
    print(error.code, error.message)
"""


def as_ordinary_user(source: Path, target: Path) -> str:
    words = [sys.executable, "-c", ORDINARY, os.fspath(source), os.fspath(target)]
    return subprocess.run(words, check=True, capture_output=True, text=True, cwd="/").stdout.strip()


@pytest.fixture
def open_tmp() -> Iterator[Path]:
    """A folder that every user may use."""
    place = Path(tempfile.mkdtemp())
    place.chmod(0o777)
    yield place
    shutil.rmtree(place)


def test_an_ordinary_user_is_told_what_could_not_be_set(open_tmp: Path) -> None:
    source = open_tmp / "source"
    source.mkdir()
    (source / "mine").write_text("x")
    (source / "theirs").write_text("x")
    os.mknod(source / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    for path in (source, source / "mine", source / "null"):
        os.chown(path, 1000, 1000)
    said = as_ordinary_user(source, open_tmp / "out")
    assert said == "[('null', 'character device'), ('theirs', 'owner 0:0')]"
    assert (open_tmp / "out" / "mine").stat().st_uid == 1000


def test_an_unreadable_file_is_named(open_tmp: Path) -> None:
    source = open_tmp / "source"
    source.mkdir()
    (source / "secret").write_text("x")
    (source / "secret").chmod(0o600)
    assert as_ordinary_user(source, open_tmp / "out") == "permission-problem secret: Permission denied"


def test_a_fifo_never_blocks(shared: Store, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    found = imported(shared, tmp_path)
    with shared.read() as reader:
        assert trees.needed(reader, found.state, b"fifo").kind == EntryKind.FIFO


# ---- exporting over what is there


@pytest.fixture
def simple(shared: Store, tmp_path: Path) -> Imported:
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    (source / "file").write_text("ours")
    (source / "sub" / "below").write_text("ours too")
    return imported(shared, source)


def test_a_folder_that_is_not_empty_is_refused(shared: Store, simple: Imported, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (target / "theirs").write_text("kept")
    with pytest.raises(AlreadyExists):
        exported(shared, simple, target)
    assert os.listdir(target) == ["theirs"]


def test_overwriting_replaces_what_is_in_the_way_and_keeps_the_rest(
    shared: Store, simple: Imported, tmp_path: Path
) -> None:
    target = tmp_path / "target"
    (target / "sub").mkdir(parents=True)
    (target / "file").write_text("theirs")
    (target / "other").write_text("kept")
    exported(shared, simple, target, overwrite=True)
    assert (target / "file").read_text() == "ours" and (target / "other").read_text() == "kept"


def test_a_link_in_the_target_is_replaced_and_never_followed(shared: Store, simple: Imported, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "below").write_text("precious")
    (outside / "victim").write_text("precious")
    target = tmp_path / "target"
    target.mkdir()
    (target / "sub").symlink_to(outside)
    (target / "file").symlink_to(outside / "victim")
    exported(shared, simple, target, overwrite=True)
    assert (outside / "below").read_text() == (outside / "victim").read_text() == "precious"
    assert not (target / "sub").is_symlink() and (target / "sub" / "below").read_text() == "ours too"


def test_a_target_that_is_a_link_is_refused(shared: Store, simple: Imported, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(AlreadyExists):
        exported(shared, simple, tmp_path / "link", overwrite=True)


def test_a_full_folder_in_the_way_of_a_file_is_not_removed(shared: Store, simple: Imported, tmp_path: Path) -> None:
    target = tmp_path / "target"
    (target / "file" / "inside").mkdir(parents=True)
    with pytest.raises(AlreadyExists):
        exported(shared, simple, target, overwrite=True)
    assert (target / "file" / "inside").is_dir()


def test_the_target_does_not_inherit_from_its_parent(shared: Store, simple: Imported, tmp_path: Path) -> None:
    parent = tmp_path / "parent"
    parent.mkdir()
    os.chown(parent, 0, 7)
    parent.chmod(0o2777)
    subprocess.run(["setfacl", "-d", "-m", "u:1000:rwx", parent], check=True)
    target = parent / "out"
    exported(shared, simple, target)
    assert observe(target) == observe(tmp_path / "source")


def test_corrupt_content_is_named_and_leaves_no_file(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "good").write_text("good")
    (source / "bad").write_bytes(b"x" * 50)
    with Store.in_memory() as store:
        found = imported(store, source)
        content = ObjectId(_native.content_hash(b"x" * 50))
        with store.environment.write() as kv:
            row = packs.find_row(kv, content)
            assert row is not None
            packs.delete_row(kv, content, row)
            packs.append_objects(kv, [packs.NewObject(content, 0, 0, 50, memoryview(b"y" * 50))], 0)
        with pytest.raises(CorruptObject, match="bad"):
            exported(store, found, tmp_path / "out")
        assert not (tmp_path / "out" / "bad").exists()
