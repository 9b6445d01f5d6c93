"""`--json`: one document with a stable schema, whatever happens."""

import base64
import json
from pathlib import Path

import pytest
from blake3 import blake3

from tests.cli.calling import NOT_UTF8, Place

ENTRY = {
    "hash", "short", "instruction", "kind", "parent", "parent_short", "parents", "state", "message",
    "exit_code", "size", "changes", "tags", "time", "time_ns",
}  # fmt: skip
LISTED = {"path", "kind", "mode", "size", "mtime", "mtime_ns"}
CHANGES = {"added", "modified", "deleted", "renamed"}
IDS = {"hash", "kind"}
STATS = {"kinds", "objects", "size", "stored", "ratio", "layers", "refs", "operations", "file_size", "free"}
IMPORTED = {
    "layer", "short", "state", "changed", "files", "directories", "size", "new_objects", "new_bytes",
    "stored_bytes", "skipped",
}  # fmt: skip

READING = {
    "log": ("log", ENTRY),
    "history": ("history @~1", ENTRY),
    "head": ("head", {"workspace", "layer", "short", "state", "kind", "instruction"}),
    "inspect": ("inspect", ENTRY | {"signal", "cwd", "planes", "entries", "bytes"}),
    "tags": ("tags", {"old"}),
    "op log": ("op log", {"number", "verb", "argv", "actor", "time", "time_ns", "moves"}),
    "ls": ("ls @:b.txt", LISTED | {"hash"}),
    "cat": ("cat @:b.txt", LISTED | {"hash", "content"}),
    "diff": ("diff @~1 @", CHANGES),
    "get": ("get @", {"hash", "node"}),
    "has": ("has @", {"has", "hash"}),
    "hash": ("hash source/b.txt", {"hash", "size"}),
    "abbrev": ("abbrev @", {"hash", "abbrev"}),
    "closure": ("closure @", IDS),
    "refs": ("refs @", IDS),
    "verify": ("verify", {"ok", "corrupted", "invalid", "missing", "problems"}),
    "stats": ("stats", STATS),
    "doctor": ("doctor", {"repository", "ok", "checks"}),
    "export": ("export @ {new}", {"files", "directories", "size", "unset"}),
}
WRITING = {
    "import": ("import source", IMPORTED),
    "tag": ("tag new", {"name", "layer", "old", "operation"}),
    "put": ("put source/b.txt", {"hash", "size", "new"}),
    "gc": ("gc --min-age 0", {"deleted", "partial", "retained", "skipped_young", "bytes", "dry_run"}),
    "init": ("init {new}", {"repository"}),
}
ALL = {**READING, **WRITING}


def check(place: Place, verb: str, call: str, keys: set[str], new: Path) -> None:
    new.mkdir()
    answer = place.ok(*call.format(new=new).split(), "--json")
    assert answer.stderr == ""
    document = json.loads(answer.stdout)
    assert set(document) == {"v", "verb", "ok", "result"}
    assert (document["v"], document["verb"], document["ok"]) == (1, verb, True)
    result = document["result"]
    for each in result if isinstance(result, list) else [result]:
        assert set(each) == keys


@pytest.mark.parametrize("verb", READING)
def test_a_verb_that_reads_answers_in_one_document(shared: Place, tmp_path: Path, verb: str) -> None:
    check(shared, verb, *READING[verb], tmp_path / "new")


@pytest.mark.parametrize("verb", WRITING)
def test_a_verb_that_writes_answers_in_one_document(place: Place, tmp_path: Path, verb: str) -> None:
    check(place, verb, *WRITING[verb], tmp_path / "new")


@pytest.mark.parametrize("verb", ALL)
def test_a_usage_error_is_a_document_too(shared: Place, verb: str) -> None:
    answer = shared.run(*verb.split(), "--no-such-option", "--json")
    document = json.loads(answer.stdout)
    assert answer.code == 2
    assert set(document) == {"v", "verb", "ok", "error"}
    assert (document["v"], document["verb"], document["ok"]) == (1, verb, False)
    assert set(document["error"]) == {"code", "message", "hint", "exit", "details"}
    assert (document["error"]["code"], document["error"]["exit"]) == ("usage-error", 2)
    assert answer.stderr == ""


@pytest.mark.parametrize("verb", sorted(ALL.keys() - {"hash", "init"}))
def test_without_a_repository_every_verb_says_so(shared: Place, tmp_path: Path, verb: str) -> None:
    call = ALL[verb][0].format(new=tmp_path)
    answer = shared.run(*call.split(), "--json", "--repo", str(tmp_path / "none"))
    assert (answer.code, answer.error["code"]) == (3, "repository-not-found")


def test_no_verb_at_all_is_a_document(shared: Place) -> None:
    answer = shared.run("--json")
    assert (answer.code, answer.error["code"]) == (2, "usage-error")


def test_an_unknown_verb_is_a_document(shared: Place) -> None:
    answer = shared.run("haed", "--json")
    assert json.loads(answer.stdout)["verb"] is None
    assert answer.error["hint"] == "did you mean head?"


def test_json_may_stand_before_the_verb(shared: Place) -> None:
    assert shared.ok("--json", "head").result == shared.ok("head", "--json").result


def test_json_after_two_dashes_is_a_path(shared: Place) -> None:
    assert shared.ok("diff", "old", "@", "--", "--json").stdout == b""


def test_times_are_milliseconds_and_nanoseconds_as_text(shared: Place) -> None:
    entry = shared.ok("log", "--json").result[0]
    assert entry["time"] == int(entry["time_ns"]) // 1_000_000


def test_a_path_that_is_not_utf8_brings_its_bytes(shared: Place) -> None:
    strange = [each for each in shared.ok("ls", "--json").result if "path_b64" in each]
    assert [base64.b64decode(each["path_b64"]) for each in strange] == [NOT_UTF8]
    assert strange[0]["path"] == "caf\ufffd"


def test_content_that_is_not_utf8_brings_its_bytes(shared: Place) -> None:
    result = shared.ok("cat", "@:bin", "--json").result
    assert base64.b64decode(result["content_b64"]) == bytes(range(256))


def test_an_argument_that_is_not_utf8_gives_valid_json(shared: Place) -> None:
    answer = shared.run("cat", b"@:" + NOT_UTF8 + b"/x", "--json")
    assert answer.code == 3
    assert base64.b64decode(answer.error["details"]["path_b64"]) == NOT_UTF8 + b"/x"


def test_an_answer_of_no_is_no_error(shared: Place) -> None:
    answer = shared.run("has", "0" * 64, "--json")
    assert (answer.code, answer.result) == (1, {"has": False, "hash": None})


def test_an_ambiguous_prefix_lists_its_candidates(place: Place) -> None:
    one, two = (place.ok("put", "-", input=each).text.strip() for each in two_of_one_prefix())
    answer = place.run("get", one[:4], "--json")
    assert (answer.code, answer.error["code"]) == (4, "ambiguous-prefix")
    assert {one, two} <= set(answer.error["details"]["candidates"])
    for_people = place.run("get", one[:4]).stderr
    assert one[:12] in for_people and two[:12] in for_people


def two_of_one_prefix() -> tuple[bytes, bytes]:
    """Contents whose ids begin with the same four digits."""
    seen: dict[str, bytes] = {}
    for number in range(10_000):
        data = b"%d" % number
        prefix = blake3(data).hexdigest()[:4]
        if prefix in seen:
            return seen[prefix], data
        seen[prefix] = data
    raise AssertionError("ten thousand ids, and no two that begin alike")


def test_the_entry_of_a_layer_says_how_much_it_changed(shared: Place) -> None:
    second, first = shared.ok("log", "--json").result
    assert second["size"] == len("one\ntwo\nthree\n") + len("hello, this is a\n") + 256
    assert first["tags"] == ["old"] and second["tags"] == []
    assert second["parent"] == first["hash"] and first["parent"] is None


def test_a_node_is_shown_with_its_references(shared: Place) -> None:
    node = shared.ok("get", "@", "--json").result["node"]
    assert node["kind"] == "layer"
    assert node["value"]["parents"] == [{"ref": shared.ok("log", "old", "--json").result[0]["hash"]}]
