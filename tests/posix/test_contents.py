"""What is in files: holes, sizes over 4 GiB, growing and cutting, appending, and the flags of open."""

import errno
import mmap
import os
import resource
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.posix.calls import fails, in_child, touch

GIB = 1 << 30


def test_a_hole_reads_as_zeros_and_takes_no_room(folder: Path) -> None:
    with (folder / "f").open("w+b") as file:
        file.write(b"head")
        file.seek(1_000_000)
        file.write(b"tail")
        file.seek(0)
        data = file.read()
    assert data == b"head" + bytes(999_996) + b"tail"
    assert (folder / "f").stat().st_blocks * 512 < 100_000


def test_a_file_may_be_larger_than_4_gib(folder: Path) -> None:
    places = [0, 2 * GIB - 3, 4 * GIB - 3, 5 * GIB + 123, 100 * GIB]
    descriptor = os.open(folder / "f", os.O_CREAT | os.O_RDWR)
    for place in places:
        assert os.pwrite(descriptor, b"%012d" % place, place) == 12
    for place in places:
        assert os.pread(descriptor, 12, place) == b"%012d" % place
        assert os.pread(descriptor, 12, place + 12) in (bytes(12), b"")
    found = os.fstat(descriptor)
    assert found.st_size == 100 * GIB + 12 and found.st_blocks * 512 < 1 << 20
    os.ftruncate(descriptor, 4 * GIB - 1)
    assert os.pread(descriptor, 100, 4 * GIB - 3) == (b"%012d" % (4 * GIB - 3))[:2]
    os.close(descriptor)


def test_growing_shows_zeros_also_where_something_was_cut_off(folder: Path) -> None:
    path = touch(folder / "f", b"x" * 10_000)
    for size in (5000, 4096, 100, 0):
        os.truncate(path, size)
        os.truncate(path, 12_000)
        assert path.read_bytes() == b"x" * size + bytes(12_000 - size)
        path.write_bytes(b"x" * 10_000)


def test_a_write_behind_the_end_shows_zeros_between(folder: Path) -> None:
    path = touch(folder / "f", b"x" * 100)
    with path.open("r+b") as file:
        file.seek(5000)
        file.write(b"y")
    assert path.read_bytes() == b"x" * 100 + bytes(4900) + b"y"


def test_truncate_to_less_than_nothing_is_einval(folder: Path) -> None:
    with fails(errno.EINVAL):
        os.truncate(touch(folder / "f"), -1)


def test_ftruncate_of_what_is_open_for_reading_is_einval(folder: Path) -> None:
    with touch(folder / "f").open("rb") as file:
        with fails(errno.EINVAL):
            os.ftruncate(file.fileno(), 0)
        with fails(errno.EBADF):
            os.write(file.fileno(), b"x")


def test_a_file_larger_than_a_file_can_be_is_efbig(folder: Path) -> None:
    path = touch(folder / "f")
    with fails(errno.EFBIG):
        os.truncate(path, 1 << 62)
    descriptor = os.open(path, os.O_WRONLY)
    with fails(errno.EFBIG):
        os.pwrite(descriptor, b"x", 1 << 62)
    os.close(descriptor)
    assert path.stat().st_size == 0


def test_a_limit_on_sizes_cuts_a_write_and_then_refuses(folder: Path) -> None:
    def limited() -> tuple[int, int]:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        descriptor = os.open(folder / "f", os.O_CREAT | os.O_WRONLY)
        written = os.write(descriptor, b"x" * 1500)
        try:
            os.write(descriptor, b"x")
        except OSError as error:
            return written, error.errno or 0
        return written, 0

    assert in_child(limited) == (1000, errno.EFBIG)


def test_o_trunc_empties_and_moves_the_times(folder: Path) -> None:
    path = touch(folder / "f", b"something")
    before = path.stat()
    os.close(os.open(path, os.O_WRONLY | os.O_TRUNC))
    after = path.stat()
    assert after.st_size == 0 and after.st_mtime_ns > before.st_mtime_ns and after.st_ctime_ns > before.st_ctime_ns


def test_o_excl_refuses_a_link_even_if_it_leads_nowhere(folder: Path) -> None:
    (folder / "link").symlink_to("nowhere")
    with fails(errno.EEXIST):
        os.open(folder / "link", os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    os.close(os.open(folder / "link", os.O_CREAT | os.O_WRONLY))
    assert (folder / "nowhere").exists()


def test_o_nofollow_refuses_links(folder: Path) -> None:
    (folder / "link").symlink_to("file")
    touch(folder / "file")
    with fails(errno.ELOOP):
        os.open(folder / "link", os.O_RDONLY | os.O_NOFOLLOW)
    os.close(os.open(folder / "file", os.O_RDONLY | os.O_NOFOLLOW))


def test_o_creat_makes_a_file_with_exactly_the_mode_that_is_left_by_the_umask(folder: Path) -> None:
    os.umask(0o027)
    os.close(os.open(folder / "f", os.O_CREAT | os.O_WRONLY, 0o6777))
    assert (folder / "f").stat().st_mode & 0o7777 == 0o6750


def test_a_file_made_without_write_permission_can_be_written_by_who_made_it(folder: Path) -> None:
    descriptor = os.open(folder / "f", os.O_CREAT | os.O_RDWR, 0o400)
    os.write(descriptor, b"x")
    os.close(descriptor)
    assert (folder / "f").read_bytes() == b"x"


def test_appends_of_many_processes_are_all_there_and_whole(folder: Path) -> None:
    path = touch(folder / "log")
    line = 63

    def append(letter: int) -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)
        for _ in range(100):
            os.write(descriptor, bytes([letter]) * line + b"\n")

    children = []
    for letter in b"abcd":
        child = os.fork()
        if child == 0:
            try:
                append(letter)
            finally:
                os._exit(0)
        children.append(child)
    for child in children:
        assert os.waitpid(child, 0)[1] == 0
    lines = path.read_bytes().splitlines()
    assert sorted(lines) == sorted(bytes([letter]) * line for letter in b"abcd" for _ in range(100))


def test_an_append_goes_to_the_end_wherever_the_place_is(folder: Path) -> None:
    descriptor = os.open(touch(folder / "f", b"0123"), os.O_RDWR | os.O_APPEND)
    os.lseek(descriptor, 0, os.SEEK_SET)
    os.write(descriptor, b"45")
    assert os.pread(descriptor, 10, 0) == b"012345" and os.lseek(descriptor, 0, os.SEEK_CUR) == 6
    os.close(descriptor)


def test_what_one_writes_another_reads_at_once(folder: Path) -> None:
    path = touch(folder / "f", b"before")
    reader, writer = os.open(path, os.O_RDONLY), os.open(path, os.O_WRONLY)
    for number in range(20):
        os.pwrite(writer, b"%06d" % number, 0)
        assert os.pread(reader, 6, 0) == b"%06d" % number
        assert in_child(lambda: path.read_bytes()) == b"%06d" % number
    os.close(reader)
    os.close(writer)


def test_reading_behind_the_end_gives_nothing(folder: Path) -> None:
    with touch(folder / "f", b"abc").open("rb") as file:
        assert os.pread(file.fileno(), 10, 2) == b"c" and os.pread(file.fileno(), 10, 3) == b""


@pytest.mark.parametrize("flag", [os.O_SYNC, os.O_DSYNC])
def test_synchronous_writes_and_syncs_answer(folder: Path, flag: int) -> None:
    descriptor = os.open(folder / "f", os.O_CREAT | os.O_WRONLY | flag)
    assert os.write(descriptor, b"x" * 5000) == 5000
    os.fsync(descriptor)
    os.fdatasync(descriptor)
    os.close(descriptor)


def test_direct_reads_and_writes_see_the_same_bytes(folder: Path) -> None:
    with mmap.mmap(-1, 4096) as page:
        page[:] = b"d" * 4096
        descriptor = os.open(folder / "f", os.O_CREAT | os.O_RDWR | os.O_DIRECT)
        assert os.pwritev(descriptor, [page], 0) == 4096
        assert (folder / "f").read_bytes() == b"d" * 4096
        (folder / "f").write_bytes(b"e" * 4096)
        assert os.preadv(descriptor, [page], 0) == 4096 and page[:] == b"e" * 4096
        os.close(descriptor)


def test_a_file_without_a_name_keeps_its_bytes_and_can_be_changed(folder: Path) -> None:
    with (folder / "f").open("w+b") as file:
        file.write(b"before")
        file.flush()
        (folder / "f").unlink()
        os.ftruncate(file.fileno(), 3)
        os.pwrite(file.fileno(), b"later", 5000)
        os.fchmod(file.fileno(), 0o600)
        os.utime(file.fileno(), ns=(1, 2))
        found = os.fstat(file.fileno())
        assert (found.st_nlink, found.st_size, found.st_mode & 0o777, found.st_mtime_ns) == (0, 5005, 0o600, 2)
        assert os.pread(file.fileno(), 10_000, 0) == b"bef" + bytes(4997) + b"later"
    assert os.listdir(folder) == []


def test_an_open_file_follows_its_rename(folder: Path) -> None:
    with (folder / "a").open("wb") as file:
        os.rename(folder / "a", folder / "b")
        file.write(b"x")
    assert (folder / "b").read_bytes() == b"x"


def test_a_name_that_is_taken_again_is_another_file(folder: Path) -> None:
    with touch(folder / "f", b"old").open("rb") as file:
        (folder / "f").unlink()
        touch(folder / "f", b"new")
        assert file.read() == b"old" and (folder / "f").read_bytes() == b"new"
        assert os.fstat(file.fileno()).st_ino != (folder / "f").stat().st_ino


def test_a_running_program_can_not_be_written(folder: Path) -> None:
    program = folder / "program"
    shutil.copy("/bin/sleep", program)
    with subprocess.Popen([program, "60"]) as running:
        with fails(errno.ETXTBSY):
            os.open(program, os.O_WRONLY)
        running.kill()
    os.close(os.open(program, os.O_WRONLY))


def test_bytes_are_copied_between_files_in_the_kernel(folder: Path) -> None:
    touch(folder / "a", bytes(range(256)) * 1000)
    with (folder / "a").open("rb") as source, (folder / "b").open("wb") as target:
        left = 256_000
        while left:
            left -= os.copy_file_range(source.fileno(), target.fileno(), left)
    with (folder / "a").open("rb") as source, (folder / "c").open("wb") as target:
        assert os.sendfile(target.fileno(), source.fileno(), 0, 256_000) == 256_000
    assert (folder / "a").read_bytes() == (folder / "b").read_bytes() == (folder / "c").read_bytes()
