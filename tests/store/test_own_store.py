"""Import and export leave every open repository alone, under whatever name they meet it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fusecas.errors import Refused, UsageError
from fusecas.store.exporter import export_tree
from fusecas.store.repository import Repository, own_files
from fusecas.store.revisions import Revision, resolve
from fusecas.store.verify import verify
from fusecas.workspace.importing import import_layer

LOCKS = """
import os, sys
from pathlib import Path
from fusecas.workspace.importing import import_layer
from fusecas.store.repository import Repository

def locks(folder):
    inode = (folder / "store" / "lock.mdb").stat().st_ino
    return sum(f":{inode} " in line and "POSIX" in line for line in Path("/proc/locks").read_text().splitlines())

place = Path(sys.argv[1])
with Repository.open(place / ".fusecas") as repository, repository.store.read():
    before = locks(place / ".fusecas")
    skipped = import_layer(repository, place / "src").imported.skipped
    print(before, locks(place / ".fusecas"), sorted(path.decode() for path, _ in skipped))
"""


def named(repository: Repository, text: str) -> Revision:
    with repository.store.read() as reader:
        return resolve(reader, text)


def made(place: Path) -> None:
    (place / "src").mkdir(parents=True)
    (place / "src" / "file").write_text("x")
    Repository.create(place / ".fusecas").close()


@pytest.mark.parametrize("how", ["a bind mount of the store", "a hard link of the lock", "a bind mount of the lock"])
def test_an_import_never_opens_the_locks_that_it_holds(tmp_path: Path, how: str) -> None:
    made(tmp_path)
    own, other = tmp_path / ".fusecas/store", tmp_path / "src/s"
    if how == "a hard link of the lock":
        os.link(own / "lock.mdb", other)
        before: list[str] = []
    else:
        target = own if "store" in how else own / "lock.mdb"
        other.mkdir() if target.is_dir() else other.touch()
        before = ["unshare", "-m", "sh", "-c", f'mount --bind {target} {other} && exec "$@"', "sh"]
    done = subprocess.run([*before, sys.executable, "-c", LOCKS, tmp_path], capture_output=True, text=True)
    assert done.stderr == ""
    held, left, *skipped = done.stdout.split(maxsplit=2)
    assert held == left != "0" and skipped == ["['s']\n"]


def test_another_repository_that_is_open_here_is_left_alone(tmp_path: Path) -> None:
    made(tmp_path)
    made(tmp_path / "src" / "inner")
    with Repository.open(tmp_path / "src/inner/.fusecas"), Repository.open(tmp_path / ".fusecas") as repository:
        found = import_layer(repository, tmp_path / "src").imported
        assert [path for path, _ in found.skipped] == [b"inner/.fusecas/store/lock.mdb"]


def test_an_export_never_replaces_the_store(tmp_path: Path) -> None:
    """A backup of a folder with a repository in it, exported over that folder."""
    made(tmp_path / "home")
    (tmp_path / "backup" / ".fusecas2").mkdir(parents=True)
    (tmp_path / "backup" / "file").write_text("new")
    (tmp_path / "home" / ".fusecas").rename(tmp_path / "home" / ".fusecas2")
    with Repository.open(tmp_path / "home/.fusecas2") as repository:
        layer = import_layer(repository, tmp_path / "backup").layer
        state = named(repository, "@").state
        own = own_files(repository.folder)
        for target in ("home", "home/.fusecas2", "home/.fusecas2/store"):
            with pytest.raises(Refused, match="repository"):
                export_tree(repository.store, state, tmp_path / target, overwrite=True, skip=own)
        assert named(repository, "@").layer == layer
        assert verify(repository.store).clean


def test_an_import_from_within_the_store_is_refused(tmp_path: Path) -> None:
    made(tmp_path)
    with Repository.open(tmp_path / ".fusecas") as repository:
        for place in (repository.folder, repository.folder / "store"):
            with pytest.raises(UsageError, match="belongs to a repository itself"):
                import_layer(repository, place)
