"""The workspace as a directory: mounted, changed, committed, killed, and found again."""

import mmap
import os
import subprocess
import sys

from tests.mount.conftest import Mounted


def test_what_is_written_can_be_read(mounted: Mounted) -> None:
    (mounted.work / "d").mkdir()
    (mounted.work / "d" / "file").write_bytes(b"hello" * 10_000)
    os.symlink("file", mounted.work / "d" / "link")
    assert (mounted.work / "d" / "link").read_bytes() == b"hello" * 10_000
    assert sorted(os.listdir(mounted.work / "d")) == ["file", "link"]
    assert [each for each in mounted.shell("ls -a d").split() if each.startswith(".")] == [".", ".."]


def test_status_and_commit_tell_the_same_story(mounted: Mounted) -> None:
    (mounted.work / "kept").write_text("kept")
    (mounted.work / "gone").write_text("gone")
    (mounted.work / "mode").write_text("mode")
    mounted.ok("commit", "-m", "first")
    assert mounted.changes() == {}
    (mounted.work / "gone").unlink()
    (mounted.work / "new").mkdir()
    (mounted.work / "new" / "below").write_text("below")
    (mounted.work / "kept").write_text("changed")
    (mounted.work / "mode").chmod(0o600)
    assert mounted.changes() == {"gone": "D", "kept": "M", "mode": "m", "new": "A", "new/below": "A"}
    mounted.ok("commit", "-m", "second")
    assert mounted.changes() == {}
    assert mounted.ok("diff", "@~1", "@", "--name-only").lines == ["gone", "kept", "mode", "new", "new/below"]
    assert mounted.ok("commit").text == "nothing changed\n"


def test_an_imported_layer_is_what_is_mounted(place: Mounted) -> None:
    source = place.folder / "source"
    source.mkdir()
    (source / "large").write_bytes(os.urandom(3_000_000))
    (source / "program").write_text("#!/bin/sh\necho runs\n")
    (source / "program").chmod(0o755)
    os.link(source / "program", source / "same")
    os.utime(source / "large", ns=(5, 1_000_000_000_123_456_789))
    place.ok("import", "source", "-m", "base")
    place.mount()
    assert (place.work / "large").read_bytes() == (source / "large").read_bytes()
    assert (place.work / "large").stat().st_mtime_ns == 1_000_000_000_123_456_789
    assert place.shell("./same") == "runs\n"
    assert (place.work / "same").stat().st_ino == (place.work / "program").stat().st_ino
    assert (place.work / "same").stat().st_nlink == 2
    with (place.work / "large").open("r+b") as file:
        file.seek(1_500_001)
        file.write(b"changed")
    expected = bytearray((source / "large").read_bytes())
    expected[1_500_001:1_500_008] = b"changed"
    assert (place.work / "large").read_bytes() == expected
    place.ok("commit")
    assert place.ok("get", place.ok("ls", "--json", "@:large").result[0]["hash"]).stdout == bytes(expected)


def test_what_was_acknowledged_survives_the_death_of_the_daemon(mounted: Mounted) -> None:
    (mounted.work / "committed").write_text("committed")
    mounted.ok("commit")
    (mounted.work / "d").mkdir()
    for at in range(50):
        (mounted.work / "d" / f"{at}").write_text(f"{at}\n" * 100)
    (mounted.work / "committed").rename(mounted.work / "d" / "moved")
    numbers = {name: (mounted.work / "d" / name).stat().st_ino for name in ("3", "moved")}
    (mounted.work / "last").mkdir()  # so that the kernel has nothing of the root cached
    (mounted.work / "last").rmdir()
    mounted.kill()
    mounted.mount()
    assert sorted(os.listdir(mounted.work)) == ["d"] and len(os.listdir(mounted.work / "d")) == 51
    assert all((mounted.work / "d" / f"{at}").read_text() == f"{at}\n" * 100 for at in range(50))
    assert {name: (mounted.work / "d" / name).stat().st_ino for name in ("3", "moved")} == numbers
    mounted.ok("commit")
    assert mounted.ok("verify").code == 0


def test_what_is_uncommitted_stays_over_an_umount(mounted: Mounted) -> None:
    (mounted.work / "uncommitted").write_text("here")
    mounted.umount()
    assert mounted.changes() == {"uncommitted": "A"}
    source = mounted.folder / "source"
    source.mkdir()
    (source / "other").write_text("other")
    assert "set aside" in mounted.ok("import", "source").text
    mounted.ok("undo")
    mounted.mount()
    assert (mounted.work / "uncommitted").read_text() == "here"


def test_a_commit_needs_no_mount(mounted: Mounted) -> None:
    (mounted.work / "file").write_text("here")
    mounted.umount()
    mounted.ok("commit", "-m", "later")
    assert mounted.ok("cat", "@:file").text == "here"


def test_a_second_daemon_is_refused_with_the_pid_of_the_first(mounted: Mounted) -> None:
    answer = mounted.run("mount", str(mounted.folder / "other"))
    assert answer.code == 4 and f"process {mounted.pid()}" in answer.stderr


def test_a_folder_that_is_not_empty_is_not_mounted_over(place: Mounted) -> None:
    place.work.mkdir()
    (place.work / "something").write_text("x")
    answer = place.run("mount", str(place.work))
    assert (answer.code, "is not empty" in answer.stderr) == (4, True)


def test_an_umount_is_refused_while_somebody_is_in_it(mounted: Mounted) -> None:
    with subprocess.Popen(["sleep", "60"], cwd=mounted.work) as sleeper:
        answer = mounted.run("umount")
        assert answer.code == 4 and "can't be unmounted" in answer.stderr
        sleeper.kill()
    mounted.umount()


def test_a_store_through_a_mapping_is_in_the_commit_right_after(mounted: Mounted) -> None:
    with (mounted.work / "mapped").open("w+b") as file:
        file.truncate(10_000)
        with mmap.mmap(file.fileno(), 10_000) as mapped:
            mapped[5000:5006] = b"stored"
            mounted.ok("commit")
            assert mounted.ok("cat", "@:mapped").stdout[5000:5006] == b"stored"
            mapped[0:5] = b"later"
    assert (mounted.work / "mapped").read_bytes()[:5] == b"later"


def test_a_file_that_is_open_and_has_no_name_any_more_works(mounted: Mounted) -> None:
    with (mounted.work / "file").open("w+b") as file:
        file.write(b"before")
        file.flush()
        (mounted.work / "file").unlink()
        mounted.ok("commit")
        file.write(b" and after")
        file.seek(0)
        assert file.read() == b"before and after" and os.fstat(file.fileno()).st_nlink == 0


def test_appends_of_many_processes_do_not_overwrite_each_other(mounted: Mounted) -> None:
    script = (
        "import os; f = os.open('log', os.O_WRONLY | os.O_APPEND | os.O_CREAT)\n"
        "for _ in range(200): os.write(f, b'0123456789abcde\\n')\n"
    )
    writers = [subprocess.Popen([sys.executable, "-c", script], cwd=mounted.work) for _ in range(4)]
    assert [each.wait() for each in writers] == [0] * 4
    lines = (mounted.work / "log").read_bytes().splitlines()
    assert len(lines) == 800 and set(lines) == {b"0123456789abcde"}


def test_default_acls_are_handed_on(mounted: Mounted) -> None:
    mounted.shell("mkdir d && setfacl -d -m u:1000:rwx,g::r-x,o::--- d && umask 077 && touch d/f && mkdir d/sub")
    assert "user:1000:rwx" in mounted.shell("getfacl -cn d/f") and "default:user:1000:rwx" in mounted.shell(
        "getfacl -cn d/sub"
    )
    assert (mounted.work / "d" / "f").stat().st_mode & 0o777 == 0o660


def test_what_did_not_change_looks_the_same_after_a_commit_and_a_new_mount(place: Mounted) -> None:
    """Tools that keep numbers and times of files (git, make, rsync) need not look again."""
    source = place.folder / "source"
    (source / "d").mkdir(parents=True)
    for name in ("a", "b", "d/c"):
        (source / name).write_text(name)
    place.ok("import", "source")
    place.mount()

    def seen() -> dict[str, tuple[int, int, int]]:
        found = {name: (place.work / name).stat() for name in ("b", "d/c")}
        return {name: (each.st_ino, each.st_mtime_ns, each.st_ctime_ns) for name, each in found.items()}

    before = seen()
    (place.work / "a").write_text("changed")
    place.ok("commit")
    assert seen() == before
    place.umount()
    place.ok("tag", "later")
    place.mount()
    assert seen() == before
