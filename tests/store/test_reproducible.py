"""The same tree has the same ids, whoever imports it, where, when and in whatever order it came about."""

import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from strategies import Planned, folders, make

from fusecas.store.importer import Imported, import_tree
from fusecas.store.store import Store

ALONE = """
import os, sys; os.umask(0o077)
from pathlib import Path
from fusecas.store.store import Store
from fusecas.store.importer import import_tree
with Store.in_memory() as store, store.session() as session:
    print(import_tree(session, Path(sys.argv[1])).state.hex())
    session.keep()
"""


def imported(folder: Path) -> Imported:
    with Store.in_memory() as store, store.session() as session:
        found = import_tree(session, folder)
        session.keep()
        return found


@given(folders)
@settings(max_examples=10)
def test_ids_do_not_depend_on_the_time_zone_the_umask_or_the_hash_seed(plan: Planned) -> None:
    with tempfile.TemporaryDirectory() as place:
        source = Path(place, "source")
        make(plan, source)
        environment = {**os.environ, "TZ": "Pacific/Apia", "PYTHONHASHSEED": "7", "LC_ALL": "C"}
        words = [sys.executable, "-c", ALONE, os.fspath(source)]
        other = subprocess.run(words, env=environment, check=True, capture_output=True, text=True)
        assert other.stdout.strip() == imported(source).state.hex()


def fill(folder: Path, seed: int) -> None:
    """The same 600 files in 40 directories, whatever the seed: it only shuffles the order in which they are made."""
    files = [(f"d{number % 40}/e{number % 7}", f"file-{number}", b"%d\n" % number * 50) for number in range(600)]
    random.Random(seed).shuffle(files)
    for directory, name, data in files:
        (folder / directory).mkdir(parents=True, exist_ok=True)
        (folder / directory / name).write_bytes(data)
        os.utime(folder / directory / name, (1, 1))
    for directory, _, _ in os.walk(folder, topdown=False):
        os.utime(directory, (2, 2))


def as_user(user: int, act: Callable[[], bytes]) -> bytes:
    """What this gives in a process of that user and group."""
    receiving, sending = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.setgroups([])
            os.setgid(user)
            os.setuid(user)
            os.write(sending, act())
            status = 0
        finally:
            os._exit(status)
    os.close(sending)
    with os.fdopen(receiving, "rb") as answers:
        answer = answers.read()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    return answer


@pytest.fixture
def open_place() -> object:
    """A folder that every user can reach."""
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o755)
        yield Path(place)


def test_ids_do_not_depend_on_the_user_or_the_order_of_work(open_place: Path) -> None:
    def ids(folder: Path) -> bytes:
        found = imported(folder)
        assert found.times is not None
        return found.state + found.times

    answers = set()
    for seed, user in enumerate((0, 1000, 65534)):
        folder = open_place / str(user)
        folder.mkdir()
        fill(folder, seed)
        for directory, _, names in os.walk(folder):
            for path in (directory, *(os.path.join(directory, name) for name in names)):
                os.chown(path, user, user)
        answers.add(as_user(user, lambda: ids(folder)))  # noqa: B023
    assert len(answers) == 1


def test_the_owner_of_the_folder_does_not_matter_but_differences_do(tmp_path: Path) -> None:
    states = []
    for owner in (0, 1000):
        folder = tmp_path / str(owner)
        folder.mkdir()
        (folder / "file").write_text("x")
        for path in (folder, folder / "file"):
            os.chown(path, owner, owner)
        states.append(imported(folder).state)
    os.chown(tmp_path / "1000" / "file", 5, 1000)
    states.append(imported(tmp_path / "1000").state)
    assert states[0] == states[1] != states[2]


def test_a_state_in_two_repositories_on_disk_has_one_id(tmp_path: Path) -> None:
    fill(tmp_path / "one", 3)
    fill(tmp_path / "two", 4)
    states = set()
    for name in ("one", "two"):
        (tmp_path / f"repository-{name}").mkdir()
        with Store.create(tmp_path / f"repository-{name}") as store, store.session() as session:
            states.add(import_tree(session, tmp_path / name).state)
            session.keep()
    assert len(states) == 1
