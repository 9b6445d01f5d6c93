"""What is done in a workspace: status, commit, checkout, undo, redo."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from fusecas.cli import output
from fusecas.cli.asking import live, live_in, wait_option
from fusecas.cli.common import check_message, reading, verb
from fusecas.cli.where import chosen_workspace, paths_of, repository_folder, ws_option
from fusecas.errors import UsageError
from fusecas.wire import path_of

if TYPE_CHECKING:
    from fusecas.cli.call import Call

COUNTS = ("changed", "added", "removed")
SIGNS = {"added": "+", "modified": "~", "deleted": "-", "touched": "t"}
COLOURS = {"+": "green", "~": "yellow", "-": "red", "t": "cyan"}


@verb("status")
@click.option("--porcelain", is_flag=True, help="For scripts: always the same lines, and no others.")
@click.option("-z", "zero", is_flag=True, help="With --porcelain: raw names, each line ended by NUL.")
@click.option("--exit-code", is_flag=True, help="Exit 1 if anything is uncommitted.")
@ws_option
def status(porcelain: bool, zero: bool, exit_code: bool, ws: str | None, call: "Call", repo: Path | None) -> Any:
    """What has changed since the last layer, and where the workspace is mounted.

    A line a path: + added, ~ modified (type: it is another kind of file; mode, owner, xattr: only that), - removed,
    t touched: a file with a new time and nothing else new, which is nothing uncommitted, but make and run see it.

    --porcelain prints a sign, a space and the path from the workspace's root, with no colours, remarks or slashes
    behind directories. A path that has other bytes than printable ASCII is in quotes, as git writes it.

    Example: fusecas status --porcelain -z
    """
    if zero and not porcelain:
        raise UsageError("-z goes with --porcelain")
    found = live(call, repo, ws).status()
    if not call.as_json:
        lines = sorted(_status_lines(found), key=lambda each: each.path)
        if porcelain:
            _print_for_scripts(lines, zero)
        else:
            _print_status(found, lines)
    return found, int(exit_code and not found["clean"])


class StatusLine(NamedTuple):
    """What is said of a path. `note`: more, for people."""

    path: bytes
    sign: str
    note: str = ""


def _status_lines(found: Mapping[str, Any]) -> Iterator[StatusLine]:
    for field, sign in SIGNS.items():
        for each in found[field]:
            kinds = each.get("kinds", ["modified"])
            yield StatusLine(path_of(each), sign, "" if "modified" in kinds else f" ({', '.join(kinds)})")


def _print_status(found: Mapping[str, Any], lines: list[StatusLine]) -> None:
    is_mounted = found["mountpoint"] is not None
    print(f"mounted at {output.path_text(path_of(found, 'mountpoint'))}" if is_mounted else "not mounted")
    if found["failed"]:
        print(output.paint("read-only: the disk has failed to store what was written", "red"))
    directories = {path_of(each) for each in found["changes"] if each["directory"]}
    for path, sign, note in lines:
        name = (output.path_text(path) or ".") + ("/" if path in directories else "")
        print(f"{output.paint(sign, COLOURS[sign])} {name}{note}")
    if found["clean"]:
        print("nothing uncommitted")


def _print_for_scripts(lines: list[StatusLine], zero: bool) -> None:
    from fusecas.store.patch import quoted

    for path, sign, _ in lines:
        name = path or b"."
        output.write_bytes(sign.encode() + b" " + (name + b"\0" if zero else quoted(name) + b"\n"))


@verb("commit")
@click.option("-m", "--message", help="What to remember of it.")
@wait_option
@ws_option
def commit(message: str | None, wait: bool, ws: str | None, call: "Call", repo: Path | None) -> Any:
    """Make a layer of what has changed. Mounted or not; when it returns, it survives power loss.

    Example: fusecas commit -m "before the upgrade"
    """
    if message is not None:
        check_message(message)
    done = live(call, repo, ws, wait=wait).commit(message)
    if not call.as_json:
        print("nothing changed" if done["layer"] is None else f"layer {layer_text(done['layer'])}")
    return {**done, "changed": done["layer"] is not None}


@verb("checkout", takes_paths=True)
@click.argument("words", nargs=-1, metavar="REF [-- PATH...]")
@click.option("--discard", is_flag=True, help="Back to the head: throws away what is uncommitted, of PATHs or all.")
@click.option("--touch", is_flag=True, help="What changes gets present times, in the order that it had.")
@wait_option
@ws_option
def checkout(
    words: tuple[str, ...],
    discard: bool,
    touch: bool,
    wait: bool,
    ws: str | None,
    call: "Call",
    repo: Path | None,
    paths: tuple[str, ...] = (),
) -> Any:
    """Put the layer REF in place, forward or back, whatever it is. What is uncommitted is kept; undo brings it back.

    Open files keep what they have. Layers that no name leads to any more stay: op log has them, and @{1} is the last.

    With PATHs only these are put in place, as uncommitted changes with present times, and what REF has not is removed;
    the workspace stays at its layer. checkout --discard [PATH...] does so from the layer that it is at. PATHs are seen
    from where you are in the workspace, or from its root if you are outside.

    A build folder outside the workspace knows nothing of old times that come back: --touch makes them present ones.

    Example: fusecas checkout @~1 -- src/parser.c
    """
    ref, chosen = _operands(words, paths, discard)
    if not chosen and not discard:
        return go_to(ref, ws, call, repo, touch=touch, wait=wait)
    folder = repository_folder(repo)
    only = paths_of(folder, chosen) if chosen else None
    done = live_in(folder, call, chosen_workspace(ws), wait=wait).checkout(ref, only, touch=touch)
    if not call.as_json:
        _say_what_came(done, ref, discard)
    return done


def go_to(
    ref: str, ws: str | None, call: "Call", repo: Path | None, *, touch: bool = False, wait: bool = False
) -> dict[str, Any]:
    """The workspace is at REF then."""
    done = live(call, repo, ws, wait=wait).checkout(ref, touch=touch)
    if not call.as_json:
        _say_where(done, repo)
    return done


def _operands(words: tuple[str, ...], paths: tuple[str, ...], discard: bool) -> tuple[str, tuple[str, ...]]:
    """(the ref, the paths)."""
    if discard:
        return "@", words + paths
    if not words:
        raise UsageError("checkout takes a layer", hint="fusecas log lists them; @ is the one that you are at")
    if len(words) > 1:
        raise UsageError(f"{words[1]!r} is one word too many", hint=f"paths come after --: {words[0]} -- {words[1]}")
    return words[0], paths


def _say_what_came(done: Mapping[str, Any], ref: str, discard: bool) -> None:
    if not done["moved"]:
        print("nothing to discard" if discard else f"nothing differs from {output.printable(ref)}")
    elif discard:
        print(f"discarded what was uncommitted: {names_text(done)}; fusecas undo brings it back")
    else:
        print(f"from {output.printable(ref)}: {names_text(done)}")


def _say_where(done: Mapping[str, Any], repo: Path | None) -> None:
    where = "@empty" if done["layer"] is None else f"layer {layer_text(done['layer'])}"
    print(f"at {where}: {names_text(done)}" if done["moved"] else f"at {where} already")
    if done["aside"]:
        print("what was uncommitted is set aside; fusecas undo brings it back")
    if done["moved"]:
        _say_what_is_left_behind(done["workspace"], repo)


def _say_what_is_left_behind(name: str, repo: Path | None) -> None:
    from fusecas.workspace.leaving import unnamed_behind

    with reading(repo) as snapshot:
        count, newest = unnamed_behind(snapshot, name)
    if newest is not None:
        print(f"{output.count(count, 'newer layer')} without a name; fusecas tag NAME {output.short(newest)} names it")


@verb("undo")
@click.argument("steps", type=click.IntRange(1, 1 << 31), default=1, metavar="[N]")
@wait_option
@ws_option
def undo(steps: int, wait: bool, ws: str | None, call: "Call", repo: Path | None) -> Any:
    """Take back what was done last (N: the last N steps): one verb, or the edits between two.

    Example: fusecas undo 2
    """
    done = live(call, repo, ws, wait=wait).undo(steps)
    return _say_step(done, "took back", "redo brings it back", call)


@verb("redo")
@click.argument("steps", type=click.IntRange(1, 1 << 31), default=1, metavar="[N]")
@wait_option
@ws_option
def redo(steps: int, wait: bool, ws: str | None, call: "Call", repo: Path | None) -> Any:
    """Do again what undo has taken back, if nothing else was done since.

    Example: fusecas redo
    """
    done = live(call, repo, ws, wait=wait).redo(steps)
    return _say_step(done, "did again", "undo takes it back", call)


def _say_step(done: dict[str, Any], what: str, hint: str, call: "Call") -> dict[str, Any]:
    if not call.as_json:
        paths = sum(done[each] for each in COUNTS)
        deed = f"what was done to {output.count(paths, 'path')}" if paths else "the layer; all files stay as they are"
        print(f"{what} {deed}; {hint}")
        where = "@empty" if done["layer"] is None else f"layer {layer_text(done['layer'])}"
        print(f"at {where}{', with uncommitted changes' if done['uncommitted'] else ''}")
    return done


def layer_text(layer: str, stream: Any = None) -> str:
    return output.paint(output.short(bytes.fromhex(layer)), "yellow", stream)


def names_text(done: Mapping[str, Any]) -> str:
    """`2 changed, 1 added`, of what a move came to."""
    parts = [f"{done[each]} {each}" for each in COUNTS if done[each]]
    return ", ".join(parts) or "no file differs"


COMMANDS = {"status": status, "commit": commit, "checkout": checkout, "undo": undo, "redo": redo}
