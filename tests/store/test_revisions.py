"""What names stand for, and what history tells."""

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fusecas.errors import (
    AlreadyExists,
    AmbiguousPrefix,
    BadName,
    Conflict,
    NotFound,
    RefNotFound,
    RepositoryNotFound,
    UsageError,
)
from fusecas.store import heads, history, tags
from fusecas.store.finding import find
from fusecas.store.ids import LayerId
from fusecas.store.names import check_name, check_ref
from fusecas.store.repository import Repository
from fusecas.store.revisions import Revision, parse_time, resolve, split_path
from fusecas.workspace.importing import import_layer
from tests.store.making import collect, in_an_hour


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    with Repository.create(tmp_path / ".fusecas") as made:
        yield made


@pytest.fixture
def layers(repository: Repository, tmp_path: Path) -> list[LayerId]:
    """Four layers on the head, oldest first."""
    source = tmp_path / "source"
    source.mkdir()
    found = []
    for at in range(4):
        (source / "file").write_text(str(at))
        layer = import_layer(repository, source, message=f"number {at}").layer
        assert layer is not None
        found.append(layer)
    return found


def named(repository: Repository, text: str) -> Revision:
    with repository.store.read() as reader:
        return resolve(reader, text)


@pytest.mark.parametrize(
    ("text", "at"),
    [("@", 3), ("@~", 2), ("@~1", 2), ("@~3", 0), ("@~1~1", 1), ("main", 3), ("ws:main", 3), ("ws:main~2", 1),
     ("main@{0}", 3), ("main@{1}", 2), ("@{2}", 1), ("main@{1}~1", 1), ("@live", 3)],
)  # fmt: skip
def test_names_stand_for_layers(repository: Repository, layers: list[LayerId], text: str, at: int) -> None:
    assert named(repository, text).layer == layers[at]


@pytest.mark.parametrize("text", ["@empty", "@~4", "main@{4}"])
def test_before_the_first_layer_there_is_nothing(repository: Repository, layers: list[LayerId], text: str) -> None:
    assert named(repository, text).layer is None
    assert named(repository, text).state == named(repository, "@empty").state


@pytest.mark.parametrize("text", ["@~5", "nothing", "main@{99}", "ws:nothing", "beef", "hash:beef0000"])
def test_what_is_not_there_is_not_found(repository: Repository, layers: list[LayerId], text: str) -> None:
    with pytest.raises(NotFound):
        named(repository, text)


@pytest.mark.parametrize("text", ["main@{not a time}", "main~1@{1}"])
def test_what_makes_no_sense_is_a_usage_error(repository: Repository, layers: list[LayerId], text: str) -> None:
    with pytest.raises(UsageError):
        named(repository, text)


def test_prefixes_and_times_and_operations(repository: Repository, layers: list[LayerId]) -> None:
    assert named(repository, layers[1].hex()[:10]).layer == layers[1]
    assert named(repository, f"hash:{layers[2].hex()}").layer == layers[2]
    with repository.store.read() as reader:
        operations = list(reader.ref_operations_back("heads/main"))
    moment = datetime.fromtimestamp(operations[1].time / 1e9 + 1e-5, UTC).isoformat()
    assert named(repository, f"main@{{{moment}}}").layer == layers[2]
    assert named(repository, f"main@op:{operations[2].number}").layer == layers[1]


def test_a_tag_wins_over_a_prefix_and_says_so(repository: Repository, layers: list[LayerId]) -> None:
    prefix = layers[0].hex()[:6]
    with repository.store.write() as transaction:
        tags.set_tag(transaction, prefix, layers[3], (), "")
    warnings: list[str] = []
    with repository.store.read() as reader:
        assert resolve(reader, prefix, warn=warnings.append).layer == layers[3]
        assert resolve(reader, f"hash:{prefix}").layer == layers[0]
    assert len(warnings) == 1


def test_an_ambiguous_prefix_lists_its_candidates(repository: Repository, tmp_path: Path) -> None:
    """Among all objects: four digits collide soon enough."""
    with repository.store.session() as session:
        ids = [session.put_content(b"%d" % at).hex() for at in range(1200)]
        session.keep()
    prefixes = [each[:4] for each in ids]
    prefix = next(each for each in prefixes if prefixes.count(each) > 1)
    with repository.store.read() as reader, pytest.raises(AmbiguousPrefix) as caught:
        reader.resolve_prefix(prefix)
    assert sorted(caught.value.candidates) == sorted(each for each in ids if each.startswith(prefix))


@pytest.mark.parametrize(
    ("text", "expected"),
    [("@", ("@", None)), ("@:src/a", ("@", b"src/a")), ("v1:", ("v1", b"")), ("ws:main:a:b", ("ws:main", b"a:b")),
     ("hash:beef:x", ("hash:beef", b"x")), ("main@op:3:x", ("main@op:3", b"x")), ("@:/src/", ("@", b"src"))],
)  # fmt: skip
def test_a_path_begins_at_the_first_colon(text: str, expected: tuple[str, bytes | None]) -> None:
    assert split_path(text) == expected


def test_times_are_read_as_people_write_them() -> None:
    now = datetime(2026, 11, 24, 12, tzinfo=UTC)
    assert parse_time("2h", now).hour == 10
    assert parse_time("90s ago", now).minute == 58
    assert parse_time("yesterday", now).day == 23
    assert parse_time("2026-01-02T03:04:05+00:00", now).second == 5


def test_tags_move_only_by_force(repository: Repository, layers: list[LayerId]) -> None:
    with repository.store.write() as transaction:
        tags.set_tag(transaction, "v1", layers[0], (), "")
        assert tags.set_tag(transaction, "v1", layers[0], (), "") is None
    with pytest.raises(AlreadyExists), repository.store.write() as transaction:
        tags.set_tag(transaction, "v1", layers[1], (), "")
    assert named(repository, "v1").layer == layers[0]
    with repository.store.write() as transaction:
        tags.set_tag(transaction, "v1", layers[1], (), "", force=True)
    assert named(repository, "v1@{1}").layer == layers[0]
    with repository.store.write() as transaction:
        tags.delete_tag(transaction, "v1", (), "")
    with pytest.raises(RefNotFound):
        named(repository, "v1")
    assert named(repository, "v1@{1}").layer == layers[1]


@pytest.mark.parametrize(
    "name",
    ["", "a:b", "a~1", "a^", "@", "a{b", "a*", "a?", "a[", "a\\b", "a b", "a\n", "-a", "a//b", "/a", "a/", ".",
     "a/../b", "ws", "hash", "0" * 64, "x" * 256, "\udcff"],
)  # fmt: skip
def test_names_that_would_be_misread_are_refused(name: str) -> None:
    with pytest.raises(BadName):
        check_name(name)


@pytest.mark.parametrize("name", ["v1", "release/1.0", "umläut", "a.b-c_d", "0" * 63])
def test_other_names_are_fine(name: str) -> None:
    assert check_ref("tags/" + name) == "tags/" + name


def test_history_says_what_made_each_layer_and_when(repository: Repository, layers: list[LayerId]) -> None:
    with repository.store.read() as reader:
        found = list(history.entries(reader, layers[-1]))
    assert [each.layer for each in found] == layers[::-1]
    assert [each.instruction for each in found] == [f"number {at}" for at in (3, 2, 1, 0)]
    times = [each.time for each in found if each.time is not None]
    assert len(times) == 4 and times == sorted(times, reverse=True)


def test_importing_the_same_again_changes_nothing(repository: Repository, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    assert import_layer(repository, source).layer is not None
    with repository.store.read() as reader:
        before = heads.read_head(reader)
    assert import_layer(repository, source).layer is None
    with repository.store.read() as reader:
        after = heads.read_head(reader)
        assert (after.id, after.live.pair) == (before.id, before.live.pair)


def test_an_import_beside_the_head_leaves_it_where_it_is(
    repository: Repository, layers: list[LayerId], tmp_path: Path
) -> None:
    (tmp_path / "source" / "file").write_text("beside")
    beside = import_layer(repository, tmp_path / "source", move_head=False).layer
    assert named(repository, "@").layer == layers[3]
    assert beside is not None and named(repository, beside.hex()).layer == beside


def test_layer_ids_are_the_same_everywhere(repository: Repository, layers: list[LayerId], tmp_path: Path) -> None:
    source = tmp_path / "source"
    with Repository.create(tmp_path / "elsewhere") as other:
        for at in range(4):
            (source / "file").write_text(str(at))
            os.utime(source / "file", ns=(at, at))
            layer = import_layer(other, source, message=f"number {at}").layer
        assert layer == layers[-1]


def test_a_second_repository_in_the_same_place_is_refused(repository: Repository, tmp_path: Path) -> None:
    with pytest.raises(AlreadyExists):
        Repository.create(tmp_path / ".fusecas")
    assert sorted(os.listdir(tmp_path)) == [".fusecas"]


def test_a_repository_is_private(repository: Repository) -> None:
    for place in [repository.folder, *repository.folder.rglob("*")]:
        if place.name != ".gitignore":
            assert place.stat().st_mode & 0o077 == 0, place


def test_a_repository_is_found_from_below(repository: Repository, tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    assert find(tmp_path / "a" / "b") == tmp_path / ".fusecas"
    with pytest.raises(RepositoryNotFound):
        find(Path("/"))


def test_a_killed_init_leaves_no_repository(tmp_path: Path) -> None:
    script = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from fusecas.store import repository\n"
        "repository.sync_folder = lambda folder: os.kill(os.getpid(), 9)\n"
        "repository.os.rename = lambda one, other: os.kill(os.getpid(), 9)\n"
        "repository.Repository.create(Path(sys.argv[1]))\n"
    )
    target = tmp_path / ".fusecas"
    done = subprocess.run([sys.executable, "-c", script, os.fspath(target)], check=False)
    assert done.returncode == -9
    assert not target.exists()
    Repository.create(target).close()


# ---- where people look, and where there is nothing


def test_a_layer_that_was_a_head_is_found_by_its_past_after_the_grace_time(
    repository: Repository, layers: list[LayerId]
) -> None:
    collect(repository.store, grace=0.0, now=in_an_hour)
    assert named(repository, "main@{1}").layer == layers[-2]


def test_a_colon_within_a_time_is_not_where_the_path_begins() -> None:
    assert split_path("main@{2026-11-24T10:00}") == ("main@{2026-11-24T10:00}", None)
    assert split_path("main@{2026-11-24T10:00}:a/b") == ("main@{2026-11-24T10:00}", b"a/b")


@pytest.mark.parametrize("text", ["main@{99999999999999d}", "main@{0001-01-01}", "main@{9999-12-31T23:59}~1@{0}"])
def test_times_beyond_all_calendars_are_usage_errors(repository: Repository, layers: list[LayerId], text: str) -> None:
    with pytest.raises(UsageError):
        named(repository, text)


@pytest.mark.parametrize("text", ["@~", "@op:", "main@{"])
def test_a_number_of_thousands_of_digits_leads_nowhere(
    repository: Repository, layers: list[LayerId], text: str
) -> None:
    with pytest.raises(NotFound):
        named(repository, text + "9" * 5000 + ("}" if "{" in text else ""))


def test_what_is_no_utf8_names_nothing(repository: Repository, layers: list[LayerId]) -> None:
    for text in ("\udcff", "\udcff@{1}", "tag\udcff~1"):
        with pytest.raises(NotFound):
            named(repository, text)


def test_a_workspace_by_its_sign_is_never_a_tag(repository: Repository, layers: list[LayerId]) -> None:
    with repository.store.write() as transaction:
        tags.set_tag(transaction, "v1", layers[0], (), "")
    with pytest.raises(NotFound):
        named(repository, "ws:v1@{0}")


def test_a_workspace_named_like_a_hash_is_found_if_no_layer_is(repository: Repository, layers: list[LayerId]) -> None:
    with repository.store.write() as transaction:
        heads.create_head(transaction, "face", b"f" * 16, (0, 0), (), "")
    assert named(repository, "face").layer is None


@pytest.mark.parametrize("name", ["x\x9b31m", "a\u202eb", "a\u00a0b", "a\u2028b"])
def test_names_hold_nothing_that_a_terminal_acts_on(name: str) -> None:
    with pytest.raises(BadName):
        check_name(name)


def test_a_head_does_not_move_over_a_live_row_that_has(repository: Repository, layers: list[LayerId]) -> None:
    """What was sealed meanwhile is not lost without a word."""
    with repository.store.read() as snapshot:
        head = heads.read_head(snapshot)
    with repository.store.write() as transaction:
        transaction.set_live(head.workspace.id, head.live)
    with pytest.raises(Conflict), repository.store.write() as transaction:
        heads.advance(transaction, head, layers[0], head.live, "commit", (), "")
