"""Checkout, undo and redo under a living mount: nothing of the old state is seen any more, nothing is lost.

FUSECAS_TEST_EFFORT=25 swaps layers a thousand times under readers.
"""

import os
import subprocess
import sys
from pathlib import Path

from fusecas.store import trees
from fusecas.store.repository import Repository
from tests.mount.conftest import Mounted

SWAPS = 40 * int(os.environ.get("FUSECAS_TEST_EFFORT", "1"))


def committed(mounted: Mounted, message: str) -> str:
    return str(mounted.ok("commit", "-m", message, "--json").result["layer"])


def tree(folder: Path) -> dict[str, bytes | None]:
    """All paths with their bytes; None for a directory."""
    found: dict[str, bytes | None] = {}
    for above, directories, files in os.walk(folder):
        found.update({os.path.relpath(os.path.join(above, name), folder): None for name in directories})
        for name in files:
            path = Path(above) / name
            found[os.path.relpath(path, folder)] = path.read_bytes()
    return found


def test_a_checkout_goes_back_and_forth(mounted: Mounted) -> None:
    work = mounted.work
    (work / "kept").write_text("kept")
    (work / "changed").write_text("one")
    (work / "kind").write_text("a file")
    (work / "gone" / "below").mkdir(parents=True)
    (work / "gone" / "below" / "file").write_text("x")
    os.link(work / "kept", work / "gone" / "linked")
    first, before = committed(mounted, "first"), tree(work)
    (work / "changed").write_text("two, and longer")
    (work / "kind").unlink()
    (work / "kind").mkdir()
    (work / "kind" / "inside").write_text("y")
    mounted.shell("rm -r gone; mkdir -p new/deep; echo z > new/deep/file; ln -s kept link")
    second, after = committed(mounted, "second"), tree(work)
    for _ in range(2):
        mounted.ok("checkout", first)
        assert tree(work) == before and not (work / "new").exists() and not (work / "link").is_symlink()
        assert (work / "kept").stat().st_nlink == 2 and mounted.changes() == {}
        mounted.ok("checkout", second)
        assert tree(work) == after and not (work / "gone").exists() and (work / "kept").stat().st_nlink == 1
    mounted.ok("checkout", "@empty")
    assert os.listdir(work) == []
    mounted.ok("verify")


def test_what_is_cached_is_never_stale(mounted: Mounted) -> None:
    work = mounted.work
    (work / "d").mkdir()
    (work / "d" / "file").write_text("one")
    os.utime(work / "d" / "file", ns=(5, 1_000_000_000_000_000_001))
    first = committed(mounted, "first")
    (work / "d" / "file").write_text("second")
    (work / "d" / "file").chmod(0o600)
    (work / "d" / "other").write_text("other")
    second = committed(mounted, "second")
    for layer, text, mode, other in ((first, "one", 0o644, False), (second, "second", 0o600, True)) * 3:
        mounted.ok("checkout", layer)
        for _ in range(2):  # the second time from the kernel's caches, negative entries included
            found = (work / "d" / "file").stat()
            assert (found.st_size, found.st_mode & 0o777) == (len(text), mode)
            assert (work / "d" / "file").read_text() == text
            assert (work / "d" / "other").exists() == other
            assert sorted(os.listdir(work / "d")) == ["file"] + ["other"] * other
    mounted.ok("checkout", first)
    assert (work / "d" / "file").stat().st_mtime_ns == 1_000_000_000_000_000_001


def test_numbers_stay_with_what_stays(mounted: Mounted) -> None:
    work = mounted.work
    (work / "d").mkdir()
    for name in ("same", "mode", "content"):
        (work / "d" / name).write_text("one")
    first = committed(mounted, "first")
    before = {name: (work / "d" / name).stat() for name in ("same", "mode", "content", ".")}
    (work / "d" / "content").write_text("two")
    (work / "d" / "mode").chmod(0o600)
    committed(mounted, "second")
    mounted.ok("checkout", first)
    after = {name: (work / "d" / name).stat() for name in before}
    assert after["same"].st_ino == before["same"].st_ino and after["same"].st_ctime_ns == before["same"].st_ctime_ns
    assert after["mode"].st_ino == before["mode"].st_ino and after["mode"].st_ctime_ns > before["mode"].st_ctime_ns
    assert after["."].st_ino == before["."].st_ino
    assert after["content"].st_ino != before["content"].st_ino
    assert {name: each.st_mtime_ns for name, each in after.items()} == {
        name: each.st_mtime_ns for name, each in before.items()
    }


def test_an_open_file_keeps_what_it_has(mounted: Mounted) -> None:
    (mounted.work / "file").write_text("one")
    first = committed(mounted, "first")
    (mounted.work / "file").write_text("two")
    committed(mounted, "second")
    with (mounted.work / "file").open("r+b") as file:
        mounted.ok("checkout", first)
        assert file.read() == b"two" and os.fstat(file.fileno()).st_nlink == 0
        file.write(b" and more")
        file.flush()
        assert os.pread(file.fileno(), 100, 0) == b"two and more"
        assert (mounted.work / "file").read_text() == "one"
    assert mounted.changes() == {}


def test_a_shell_in_a_directory_that_is_no_more_is_told_so(mounted: Mounted) -> None:
    (mounted.work / "x").write_text("x")
    first = committed(mounted, "first")
    (mounted.work / "d" / "e").mkdir(parents=True)
    committed(mounted, "second")
    script = "import os; input(); os.path.exists('x') or print('no x'); os.getcwd()"
    with subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=mounted.work / "d" / "e",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as shell:
        mounted.ok("checkout", first)
        said, _ = shell.communicate("go\n", timeout=30)
    assert said.startswith("no x") and said.endswith("FileNotFoundError: [Errno 2] No such file or directory\n"), said
    assert os.listdir(mounted.work) == ["x"]


def test_what_was_uncommitted_comes_back_with_undo(mounted: Mounted) -> None:
    work = mounted.work
    (work / "file").write_text("one")
    first = committed(mounted, "first")
    (work / "file").write_text("two")
    committed(mounted, "second")
    (work / "file").write_text("edited")
    (work / "added").write_text("added")
    said = mounted.ok("checkout", first).text
    assert "set aside" in said and "1 newer layer without a name" in said
    assert tree(work) == {"file": b"one"}
    assert "with uncommitted changes" in mounted.ok("undo").text
    assert tree(work) == {"file": b"edited", "added": b"added"}
    assert mounted.changes() == {"file": "M", "added": "A"}
    mounted.ok("undo")
    assert tree(work) == {"file": b"two"} and mounted.changes() == {}
    mounted.ok("redo", "2")
    assert tree(work) == {"file": b"one"}
    (work / "file").write_text("new")
    refused = mounted.run("redo")
    assert (refused.code, "nothing to redo" in refused.stderr) == (4, True)
    mounted.ok("undo")
    assert tree(work) == {"file": b"one"}


def test_undo_of_a_commit_leaves_the_files_and_says_so(mounted: Mounted) -> None:
    (mounted.work / "file").write_text("one")
    committed(mounted, "first")
    assert "the layer; all files stay as they are" in mounted.ok("undo").text
    assert tree(mounted.work) == {"file": b"one"} and mounted.changes() == {"file": "A"}


def test_an_undo_survives_the_death_of_the_daemon(mounted: Mounted) -> None:
    (mounted.work / "file").write_text("one")
    committed(mounted, "first")
    (mounted.work / "file").write_text("edited")
    mounted.ok("undo")
    (mounted.work / "later").write_text("later")
    mounted.kill()
    mounted.mount()
    assert tree(mounted.work) == {"file": b"one", "later": b"later"}
    mounted.umount()
    mounted.ok("undo")
    mounted.ok("undo")
    mounted.mount()
    assert tree(mounted.work) == {"file": b"one"} and mounted.changes() == {"file": "A"}


def test_a_folder_is_imported_under_the_mount(mounted: Mounted) -> None:
    (mounted.work / "mine").write_text("mine")
    source = mounted.folder / "source"
    (source / "d").mkdir(parents=True)
    (source / "d" / "file").write_text("theirs")
    assert "set aside" in mounted.ok("import", "source").text
    assert tree(mounted.work) == {"d": None, "d/file": b"theirs"}
    mounted.ok("undo")
    assert tree(mounted.work) == {"mine": b"mine"} and mounted.changes() == {"mine": "A"}


def test_readers_see_whole_files_of_one_layer_while_layers_are_swapped(mounted: Mounted) -> None:
    work = mounted.work
    layers = []
    for letter in "ab":
        for at in range(8):
            (work / f"d{at}").mkdir(exist_ok=True)
            (work / f"d{at}" / "file").write_text(letter * 20_000)
        (work / f"only-{letter}").write_text(letter)
        (work / f"only-{'ab'.replace(letter, '')}").unlink(missing_ok=True)
        layers.append(committed(mounted, letter))
    script = (
        "import os, sys\n"
        "seen = set()\n"
        "print('ready', flush=True)\n"
        "while not os.path.exists(sys.argv[1]):\n"
        "    for at in range(8):\n"
        "        text = open(f'd{at}/file').read()\n"
        "        assert len(text) == 20000 and len(set(text)) == 1, (at, len(text), set(text))\n"
        "        seen.add(text[0])\n"
        "assert seen == {'a', 'b'}, seen\n"
    )
    stop = mounted.folder / "stop"
    readers = [
        subprocess.Popen([sys.executable, "-c", script, stop], cwd=work, stdout=subprocess.PIPE) for _ in range(2)
    ]
    for each in readers:
        assert each.stdout is not None and each.stdout.readline() == b"ready\n"
    for at in range(SWAPS):
        letter, layer = "ab"[at % 2], layers[at % 2]
        mounted.ok("checkout", layer)
        assert (work / f"only-{letter}").exists() and not (work / f"only-{'ba'[at % 2]}").exists()
        assert sorted(os.listdir(work)) == sorted([f"d{each}" for each in range(8)] + [f"only-{letter}"])
        assert {(work / f"d{each}" / "file").read_text()[0] for each in range(8)} == {letter}
    stop.touch()
    assert [each.wait(60) for each in readers] == [0, 0]
    for each in readers:
        assert each.stdout is not None
        each.stdout.close()


def test_writers_lose_nothing_while_layers_are_swapped(mounted: Mounted) -> None:
    """What was acknowledged is in the state that was set aside, or in the one that was put in place."""
    work = mounted.work
    (work / "base").write_text("a")
    first = committed(mounted, "first")
    (work / "base").write_text("b")
    second = committed(mounted, "second")
    script = (
        "import os, sys\n"
        "done = open(sys.argv[2], 'w', buffering=1)\n"
        "at = 0\n"
        "while not os.path.exists(sys.argv[1]):\n"
        "    with open(f'made{at}', 'w') as file: file.write(str(at))\n"
        "    done.write(f'made{at}\\n')\n"
        "    at += 1\n"
    )
    stop, done = mounted.folder / "stop", mounted.folder / "done"
    with subprocess.Popen([sys.executable, "-c", script, stop, done], cwd=work) as writer:
        for at in range(10):
            mounted.ok("checkout", (first, second)[at % 2])
        stop.touch()
        assert writer.wait(60) == 0
    mounted.ok("commit")
    seen: set[str] = set()
    with Repository.open(mounted.repository) as repository, repository.store.read() as snapshot:
        for operation in snapshot.operations():
            for live in (live for move in operation.moves for live in (move.old_live, move.new_live) if live):
                listed = trees.entries(snapshot, trees.read_state(snapshot, live.state).tree)
                seen |= {each.name.decode() for each in listed}
    made = set(done.read_text().split())
    assert made and made - seen - set(os.listdir(work)) == set()


def test_the_root_keeps_its_times_whatever_is_done_elsewhere(mounted: Mounted) -> None:
    def times() -> tuple[int, int]:
        found = mounted.work.stat()
        return found.st_mtime_ns, found.st_ctime_ns

    before = times()
    mounted.ok("ws", "create", "other")
    mounted.umount()
    mounted.mount()
    assert times() == before
    (mounted.work / "file").write_text("x")
    mounted.work.chmod(0o700)
    layer, before = committed(mounted, "first"), times()
    mounted.ok("tag", "later", layer)
    mounted.umount()
    mounted.mount()
    assert times() == before
