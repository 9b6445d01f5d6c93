"""Folders into the store and out again: everything that can be seen of them, and nothing else touched."""

import errno
import os
import resource
import shutil
import stat
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from strategies import Planned, folders, make, observe

from fusecas import _native
from fusecas.errors import (
    AlreadyExists,
    ChangedWhileRead,
    CorruptObject,
    InvalidObject,
    PathNotFound,
    UsageError,
)
from fusecas.store import exporter, importer, packs, prolly, trees
from fusecas.store.exporter import Exported, export_tree
from fusecas.store.ids import Kind, LinksId, ObjectId, StateId, TreeId
from fusecas.store.importer import Imported, Progress, import_tree
from fusecas.store.kinds import EntryKind, State
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


def test_short_holes_stay_holes_too(shared: Store, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    with (source / "gaps").open("wb") as file:
        for i in range(200):
            file.seek(i * 16_384)
            file.write(b"x")
    (source / "nothing").touch()
    os.truncate(source / "nothing", 50_000)
    exported(shared, imported(shared, source), tmp_path / "out")
    for name in ("gaps", "nothing"):
        was, became = (source / name).stat(), (tmp_path / "out" / name).stat()
        assert (became.st_size, became.st_blocks) == (was.st_size, was.st_blocks)


def test_acls_come_back(shared: Store, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    (source / "file").write_text("x")
    subprocess.run(["setfacl", "-m", "u:1000:rw,g:7:r", source / "file"], check=True)
    subprocess.run(["setfacl", "-d", "-m", "u:1000:rwx", source / "sub"], check=True)
    (source / "sub" / "heir").write_text("x")
    (source / "sub" / "plain").write_text("x")
    subprocess.run(["setfacl", "-b", source / "sub" / "plain"], check=True)
    exported(shared, imported(shared, source), tmp_path / "out")
    assert observe(tmp_path / "out") == observe(source)
    assert "system.posix_acl_default" in os.listxattr(tmp_path / "out" / "sub")


def test_capabilities_survive_a_change_of_owner(shared: Store, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "ping").write_text("x")
    os.chown(source / "ping", 12, 34)
    os.setxattr(source / "ping", "security.capability", struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0))
    exported(shared, imported(shared, source), tmp_path / "out")
    assert observe(tmp_path / "out") == observe(source)
    assert os.listxattr(tmp_path / "out" / "ping") == ["security.capability"]


def test_only_the_xattrs_that_a_state_keeps_are_taken(shared: Store, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    os.setxattr(tmp_path / "file", "user.kept", b"1")
    os.setxattr(tmp_path / "file", "trusted.asked", b"2")
    names = []
    for trusted in (False, True):
        found = imported(shared, tmp_path, trusted_xattrs=trusted)
        with shared.read() as reader:
            entry = trees.needed(reader, found.state, b"file")
            names.append([name for name, _ in entry.xattrs])
    assert names == [[b"user.kept"], [b"trusted.asked", b"user.kept"]]


def test_links_to_all_kinds_of_files_come_back(shared: Store, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    (source / "symlink").symlink_to("nowhere")
    os.mkfifo(source / "fifo")
    os.mknod(source / "device", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    for name in ("symlink", "fifo", "device"):
        os.link(source / name, source / "sub" / name, follow_symlinks=False)
    exported(shared, imported(shared, source), tmp_path / "out")
    assert observe(tmp_path / "out") == observe(source)


def test_times_beyond_the_format_become_its_first_and_last() -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as place, Store.in_memory() as store:
        for name, year in {"old": "1500", "late": "3000", "far": "2400"}.items():
            subprocess.run(["touch", "-d", f"{year}-01-01 00:00:00 UTC", Path(place, name)], check=True)
        found = imported(store, Path(place))
        with store.read() as reader:
            times = trees.Times(reader, found.times)
            assert times.of(b"far").mtime == 13_569_465_600_000_000_000
            assert times.of(b"late").mtime == 2**64 - 1
            assert times.of(b"old").mtime == -(2**63)


def test_progress_grows_to_what_is_reported(shared: Store, tmp_path: Path) -> None:
    (tmp_path / "in" / "sub").mkdir(parents=True)
    for i in range(3000):
        (tmp_path / "in" / "sub" / str(i)).write_text("x")
    seen: list[Progress] = []
    found = imported(shared, tmp_path / "in", progress=seen.append)
    assert seen == sorted(seen) and seen[-1] == (3000, 2, 3000) == (found.files, found.directories, found.size)
    seen.clear()
    report = exported(shared, found, tmp_path / "out", progress=seen.append)
    assert seen == sorted(seen) and seen[-1] == (3000, 2, 3000) == (report.files, report.directories, report.size)


def test_large_files_come_back_with_mode_and_time(shared: Store, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    data = os.urandom(1 << 20) * 20
    (source / "large").write_bytes(data)
    (source / "large").chmod(0o4711)
    os.utime(source / "large", ns=(5, 1_234_567_890_123_456_789))
    exported(shared, imported(shared, source), tmp_path / "out")
    assert observe(tmp_path / "out") == observe(source)


def anonymous_memory() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) << 10


def test_a_hundred_thousand_files_in_one_directory_take_little_memory(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for i in range(100_000):
        os.close(os.open(source / f"file{i}", os.O_CREAT | os.O_WRONLY))
    repository = tmp_path / "repository"
    repository.mkdir()
    with Store.create(repository) as store:
        seen: list[int] = []
        start = anonymous_memory()
        found = imported(store, source, progress=lambda progress: seen.append(anonymous_memory()))
        assert found.files == 100_000
        with store.read() as reader:
            assert trees.root_entry(reader, found.state).count == 100_000
        assert max(seen) - start < 48 << 20
        seen.clear()
        start = anonymous_memory()
        exported(store, found, tmp_path / "out", progress=lambda progress: seen.append(anonymous_memory()))
        assert len(os.listdir(tmp_path / "out")) == 100_000
        assert max(seen) - start < 48 << 20


def test_a_tree_may_be_deeper_than_the_number_of_open_files(shared: Store, deep: Path) -> None:
    """Also deeper than a path may be long."""
    source = deep / "source"
    source.mkdir()
    make_deep(source, 1500)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    found = imported(shared, source)
    assert found.directories == 1501
    exported(shared, found, deep / "out")
    assert imported(shared, deep / "out").state == found.state


@pytest.fixture
def deep(tmp_path: Path) -> Iterator[Path]:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield tmp_path
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    subprocess.run(["rm", "-rf", *tmp_path.iterdir()], check=True)


def make_deep(place: Path, levels: int) -> None:
    descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(levels):
        os.mkdir("deeper", dir_fd=descriptor)
        below = os.open("deeper", os.O_RDONLY | os.O_DIRECTORY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=descriptor))
    os.close(descriptor)


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


def test_a_file_that_is_replaced_while_it_is_read_is_looked_at_again(
    shared: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("old")
    real_read = _native.read_files

    def replace_then_read(*arguments: Any) -> Any:
        (tmp_path / "new").write_text("new one")
        (tmp_path / "new").chmod(0o700)
        (tmp_path / "new").replace(tmp_path / "file")
        return real_read(*arguments)

    monkeypatch.setattr(importer._native, "read_files", replace_then_read)
    found = imported(shared, tmp_path)
    with shared.read() as reader:
        entry = trees.needed(reader, found.state, b"file")
        assert entry.target is not None and reader.read_content(entry.target) == b"new one"
        assert entry.mode == 0o700


def test_a_file_that_is_gone_when_it_is_read_is_not_there(
    shared: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("x")
    real_read = _native.read_files

    def remove_then_read(*arguments: Any) -> Any:
        (tmp_path / "file").unlink()
        return real_read(*arguments)

    monkeypatch.setattr(importer._native, "read_files", remove_then_read)
    found = imported(shared, tmp_path)
    assert (found.files, found.skipped) == (0, ())


def test_a_directory_that_becomes_a_link_does_not_lead_outside(shared: Store, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text("secret")
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)

    def swap(progress: Progress) -> None:
        if not (source / "sub").is_symlink():
            (source / "sub").rmdir()
            (source / "sub").symlink_to(tmp_path / "outside")

    found = imported(shared, source, progress=swap)
    with shared.read() as reader:
        core = trees.read_state(reader, found.state)
        assert [(each.path, each.entry.kind) for each in trees.walk(reader, core.tree)] == [(b"sub", EntryKind.SYMLINK)]


@pytest.mark.parametrize("skip_changed", [False, True])
def test_a_directory_that_is_never_what_was_listed_is_named(
    shared: Store, tmp_path: Path, skip_changed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sub").mkdir()
    real = os.open

    def never_the_same(path: Any, flags: int, *rest: Any, **options: Any) -> int:
        if path == b"sub":
            os.rename(tmp_path / "sub", tmp_path / "old")
            os.mkdir(tmp_path / "sub")
            os.rmdir(tmp_path / "old")
        return real(path, flags, *rest, **options)

    monkeypatch.setattr(importer.os, "open", never_the_same)
    if skip_changed:
        assert [path for path, _ in imported(shared, tmp_path, skip_changed=True).skipped] == [b"sub"]
    else:
        with pytest.raises(ChangedWhileRead, match="sub"):
            imported(shared, tmp_path)


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


def test_a_file_in_the_place_of_the_stores_folder_is_left_out_too(shared: Store, tmp_path: Path) -> None:
    (tmp_path / ".fusecas").write_text("elsewhere")
    assert imported(shared, tmp_path).skipped == ((b".fusecas", "belongs to fusecas"),)


def test_our_own_store_is_recognised_under_another_name(shared: Store, tmp_path: Path) -> None:
    own = tmp_path / "in" / "renamed"
    (own / "store").mkdir(parents=True)
    (own / "store" / "lock.mdb").write_text("x")
    identity = own.stat().st_dev, own.stat().st_ino

    def is_own(device: int, inode: int) -> bool:
        return (device, inode) == identity

    assert imported(shared, tmp_path, skip=is_own).skipped == ((b"in/renamed", "belongs to fusecas"),)
    for inside in (own, own / "store"):
        with pytest.raises(UsageError, match="belongs to a repository itself"):
            imported(shared, inside, skip=is_own)


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


def first_then(first: str, script: str) -> str:
    return script.replace("store = ", f"{first}\nstore = ", 1)


def as_ordinary_user(source: Path, target: Path, first: str = "") -> str:
    words = [sys.executable, "-c", first_then(first, ORDINARY), os.fspath(source), os.fspath(target)]
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


def test_a_folder_that_can_not_be_entered_is_named(open_tmp: Path) -> None:
    source = open_tmp / "source"
    source.mkdir()
    (source / "file").write_text("x")
    os.chown(source, 1000, 1000)
    source.chmod(0o400)
    assert as_ordinary_user(source, open_tmp / "out") == f"permission-problem {source}: Permission denied"


def test_set_id_bits_are_not_given_to_another_owner(open_tmp: Path) -> None:
    source = open_tmp / "source"
    source.mkdir()
    for name in ("theirs", "mine"):
        (source / name).write_text("x")
    for path in (source, source / "mine"):
        os.chown(path, 1000, 1000)
    for name in ("theirs", "mine"):
        (source / name).chmod(0o6755)
    said = as_ordinary_user(source, open_tmp / "out")
    assert said == "[('theirs', 'mode 6755'), ('theirs', 'owner 0:0')]"
    assert stat.S_IMODE((open_tmp / "out" / "theirs").stat().st_mode) == 0o755
    assert stat.S_IMODE((open_tmp / "out" / "mine").stat().st_mode) == 0o6755


def test_an_ordinary_user_gets_closed_files_whole(open_tmp: Path) -> None:
    """Modes that would forbid what is still to be done, under the strictest umask."""
    source = open_tmp / "source"
    (source / "closed" / "deeper").mkdir(parents=True)
    (source / "closed" / "deeper" / "read-only").write_text("x")
    os.setxattr(source / "closed" / "deeper" / "read-only", "user.note", b"y" * 300)
    os.link(source / "closed" / "deeper" / "read-only", source / "zz")
    for path in (source / "zz", source / "closed" / "deeper", source / "closed", source):
        os.chown(path, 1000, 1000)
        path.chmod(0o555 if path.is_dir() else 0o444)
    assert as_ordinary_user(source, open_tmp / "out", "os.umask(0o777)") == "[]"
    assert observe(open_tmp / "out") == observe(source)


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


def test_a_directory_that_becomes_a_link_while_exporting_is_not_followed(
    shared: Store, simple: Imported, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    target = tmp_path / "target"

    def swap(progress: Progress) -> None:
        if (target / "sub").is_dir() and not (target / "sub").is_symlink():
            (target / "sub").rmdir()
            (target / "sub").symlink_to(outside)

    with pytest.raises(PathNotFound, match="sub"):
        exported(shared, simple, target, progress=swap)
    assert os.listdir(outside) == []


def test_a_link_in_the_place_of_a_directory_is_refused_unless_told(
    shared: Store, simple: Imported, tmp_path: Path
) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (target / "sub").write_text("a file")
    with pytest.raises(AlreadyExists):
        exported(shared, simple, target)
    exported(shared, simple, target, overwrite=True)
    assert (target / "sub" / "below").read_text() == "ours too"


def test_an_overwritten_directory_has_the_states_attributes_only(
    shared: Store, simple: Imported, tmp_path: Path
) -> None:
    target = tmp_path / "target"
    (target / "sub").mkdir(parents=True)
    for path in (target, target / "sub"):
        subprocess.run(["setfacl", "-d", "-m", "u:1000:rwx", path], check=True)
        os.setxattr(path, "user.old", b"x")
        os.chown(path, 0, 7)
        path.chmod(0o2700)
    exported(shared, simple, target, overwrite=True)
    assert observe(target) == observe(tmp_path / "source")


def test_names_that_can_not_be_links_become_files_of_their_own(
    shared: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "one").write_text("shared")
    (source / "one").chmod(0o640)
    os.link(source / "one", source / "two")

    def too_many(*arguments: object) -> None:
        raise OSError(errno.EMLINK, "Too many links")

    monkeypatch.setattr(exporter, "link", too_many)
    report = exported(shared, imported(shared, source), tmp_path / "out")
    assert report.unset == ((b"two", "hard link to one", "Too many links"),)
    two = tmp_path / "out" / "two"
    assert (two.read_text(), stat.S_IMODE(two.stat().st_mode)) == ("shared", 0o640)


def made_state(store: Store, entries: list[tuple[Any, ...]], links: list[tuple[bytes, bytes]]) -> StateId:
    with store.session() as session:
        tree = prolly.build(Kind.TREE, entries, session.put_node)
        groups = prolly.build(Kind.LINKS, links, session.put_node)
        assert tree is not None
        state = State(TreeId(tree), 0o755, None if groups is None else LinksId(groups))
        made = StateId(session.put_node(Kind.STATE, state.encode()))
        session.keep()
        return made


def test_links_that_are_not_the_same_file_are_refused(shared: Store, tmp_path: Path) -> None:
    with shared.session() as session:
        one, two = session.put_content(b"one"), session.put_content(b"two")
        session.keep()
    entries = [(b"a", 1, 0o644, one, 3, 0, {"L": True}), (b"b", 1, 0o644, two, 3, 0, {"L": True})]
    state = made_state(shared, entries, [(b"a", b"a"), (b"b", b"a")])
    with pytest.raises(InvalidObject, match="b and a should be one file"):
        export_tree(shared, state, tmp_path / "out")


@pytest.mark.parametrize("size", [2, 4, 70_000, 20 << 20])
def test_a_size_that_is_not_the_contents_is_refused(shared: Store, tmp_path: Path, size: int) -> None:
    with shared.session() as session:
        content = session.put_content(b"one")
        session.keep()
    state = made_state(shared, [(b"wrong", 1, 0o644, content, size, 0, None)], [])
    with pytest.raises(InvalidObject, match="wrong"):
        export_tree(shared, state, tmp_path / "out")
    assert os.listdir(tmp_path / "out") == []


def test_a_full_disk_is_said(tmp_path: Path) -> None:
    script = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from fusecas.errors import DiskFull\n"
        "from fusecas.store.store import Store\n"
        "from fusecas.store.importer import import_tree\n"
        "from fusecas.store.exporter import export_tree\n"
        "store = Store.in_memory()\n"
        "session = store.session()\n"
        "found = import_tree(session, Path(sys.argv[1]))\n"
        "session.keep()\n"
        "try: export_tree(store, found.state, Path(sys.argv[2], 'out'))\n"
        "except DiskFull as error: print(error.message)\n"
    )
    source, small = tmp_path / "source", tmp_path / "small"
    source.mkdir()
    small.mkdir()
    for i in range(4):
        (source / f"file{i}").write_bytes(os.urandom(1 << 20))
    shell = f'mount -t tmpfs -o size=2m none {small} && exec "$@"'
    words = ["unshare", "--mount", "sh", "-c", shell, "sh", sys.executable, "-c", script, str(source), str(small)]
    said = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    assert "no space left; what was exported so far is incomplete" in said
