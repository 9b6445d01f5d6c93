"""What a client of the socket reads of layers, tags, operations and runs is what --json says."""

import os
from typing import Any

import pytest

from tests.cli.calling import NOT_UTF8
from tests.daemon.conftest import Working


@pytest.fixture
def worked(working: Working) -> Working:
    """Three layers, a tag, a failed run, something uncommitted."""
    working.ok("run", "mkdir d; echo a > d/a; echo said; printf '\\377'; echo worse >&2")
    working.ok("tag", "v1")
    (working.work / "edited").write_text("by hand")
    with open(os.fsencode(working.work) + b"/" + NOT_UTF8, "wb"):
        pass
    working.ok("run", "mv d/a moved; chmod 600 edited")
    assert working.run("run", "echo left > left; exit 3").code == 3
    return working


@pytest.mark.parametrize(
    ("words", "method", "params"),
    [
        (["head"], "head", {}),
        (["log"], "log", {}),
        (["log", "--limit", "1", "--offset", "1"], "log", {"limit": 1, "offset": 1}),
        (["history"], "history", {"ref": "@"}),
        (["history", "--runs", "v1"], "history", {"ref": "v1", "runs": True}),
        (["inspect"], "inspect", {}),
        (["inspect", "@~1"], "inspect", {"ref": "@~1"}),
        (["diff"], "diff", {}),
        (["diff", "@empty", "@"], "diff", {"a": "@empty", "b": "@"}),
        (["diff", "v1", "@"], "diff", {"a": "v1", "b": "@"}),
        (
            ["diff", "--no-renames", "v1", "@", "--", "d"],
            "diff",
            {"a": "v1", "b": "@", "renames": False, "paths": ["d"]},
        ),
        (["tags"], "tags", {}),
        (["op", "log"], "op.log", {}),
        (["op", "log", "v1"], "op.log", {"ref": "v1"}),
        (["op", "log", "@", "--limit", "2"], "op.log", {"ref": "@", "limit": 2}),
        (["runs"], "runs", {}),
        (["runs", "--exit", "3"], "runs", {"exit": 3}),
        (["runs", "--grep", "mv", "--limit", "5"], "runs", {"grep": "mv", "limit": 5}),
        (["runs", "--output", "worse"], "runs", {"output": "worse"}),
        (["logs", "v1"], "logs", {"run": "v1"}),
    ],
)
def test_what_a_client_reads_is_what_json_says(
    worked: Working, words: list[str], method: str, params: dict[str, Any]
) -> None:
    told = worked.daemon.call(method, **params)
    assert told and told == worked.ok("--json", *words).result


def test_a_client_tags(worked: Working) -> None:
    call = worked.daemon.call
    first = call("log", limit=1, offset=2)[0]["hash"]
    made = call("tag", name="first", ref=first, actor="me", argv=["my", "tool"])
    assert (made["layer"], made["old"]) == (first, None) and call("tags")["first"] == first
    with pytest.raises(RuntimeError, match="already-exists"):
        call("tag", name="first")
    assert call("tag", name="first", force=True)["old"] == first
    assert call("tag", name="first", delete=True)["layer"] is None and set(call("tags")) == {"v1"}
    newest = worked.ok("op", "log", "first", "--json").result
    assert [each["verb"] for each in newest] == ["tag"] * 3 and newest[2]["actor"] == "me"


def test_a_client_that_asks_for_what_is_not_there_is_told(worked: Working) -> None:
    call = worked.daemon.call
    for method, params, code in (
        ("inspect", {"ref": "nothing"}, "ref-not-found"),
        ("inspect", {"ref": "@live"}, "ref-not-found"),
        ("logs", {"run": "ffffffffffff"}, "object-not-found"),
        ("op.log", {"ref": "nobody"}, "ref-not-found"),
        ("diff", {"paths": ["../x"]}, "usage-error"),
        ("log", {"limit": -1}, "usage-error"),
        ("tag", {"name": "../x"}, "bad-name"),
        ("head", {"ws": "nobody"}, "ref-not-found"),
    ):
        with pytest.raises(RuntimeError, match=code):
            call(method, **params)
    assert call("status")["added"] == [{"path": "left"}]
