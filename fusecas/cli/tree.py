"""Inside a layer: ls, cat, diff."""

import os
import stat as stat_bits
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fusecas.cli import output
from fusecas.cli.common import chosen, list_options, reading, resolve, verb
from fusecas.errors import PathNotFound, UsageError

if TYPE_CHECKING:
    from fusecas.store.diff import Change
    from fusecas.store.kinds import Entry
    from fusecas.store.snapshot import Snapshot

KIND_NAMES = ("", "file", "directory", "symlink", "fifo", "socket", "character", "block")
KIND_BITS = (
    0,
    stat_bits.S_IFREG,
    stat_bits.S_IFDIR,
    stat_bits.S_IFLNK,
    stat_bits.S_IFIFO,
    stat_bits.S_IFSOCK,
    stat_bits.S_IFCHR,
    stat_bits.S_IFBLK,
)


def at_path(text: str) -> tuple[str, bytes]:
    from fusecas.store.revisions import split_path

    ref, path = split_path(text)
    return ref or "@", path or b""


def entry_fields(path: bytes, entry: "Entry") -> dict[str, Any]:
    fields = {
        **output.path_fields(path),
        "kind": KIND_NAMES[entry.kind],
        "mode": f"{entry.mode:04o}",
        "size": entry.size if entry.kind in (1, 2) else 0,
    }
    if entry.kind == 2:
        fields["entries"] = entry.count
    if entry.kind == 3:
        fields.update(output.path_fields(entry.target or b"", "target"))
    elif entry.target is not None:
        fields["hash"] = entry.target.hex()
    return fields


@verb("ls")
@click.argument("where", metavar="REF[:PATH]", default="@")
@click.option("-l", "--long", "is_long", is_flag=True, help="Modes, sizes, hashes.")
@click.option("-R", "--recursive", is_flag=True, help="Everything below, too.")
@click.option("-z", "zero", is_flag=True, help="Raw names, each ended by NUL.")
@list_options("name", "size", "kind")
def ls(where: str, is_long: bool, recursive: bool, zero: bool, as_json: bool, repo: Path | None, **choice: Any) -> Any:
    """What is in a directory of a layer.

    Example: fusecas ls -l @~1:src
    """
    from fusecas.store import trees

    keys: dict[str, Any] = {
        "name": lambda each: each.path,
        "size": lambda each: each.entry.size,
        "kind": lambda each: each.entry.kind,
    }
    ref, path = at_path(where)
    with reading(repo) as snapshot:
        entry = trees.needed(snapshot, resolve(snapshot, ref).state, path)
        if not entry.is_directory:
            found = iter([trees.Placed(path.rpartition(b"/")[2], entry)])
        elif recursive:
            found = trees.walk(snapshot, entry.target)
        else:
            found = (trees.Placed(each.name, each) for each in trees.entries(snapshot, entry.target))
        listed = chosen(found, keys, **choice)
    if zero:
        output.write_bytes(b"".join(each.path + b"\0" for each in listed))
    elif not as_json and is_long:
        output.print_table((_long_row(path, entry) for path, entry in listed), right=(1,))
    elif not as_json:
        for each in listed:
            print(_name(each.path, each.entry))
    return [entry_fields(each.path, each.entry) for each in listed]


def _name(path: bytes, entry: "Entry") -> str:
    name = output.path_text(path)
    if entry.is_directory:
        return output.paint(name, "blue") + "/"
    if entry.kind == 3:
        return output.paint(name, "cyan")
    return output.paint(name, "green") if entry.is_file and entry.mode & 0o111 else name


def _long_row(path: bytes, entry: "Entry") -> list[str]:
    size = f"{entry.size},{entry.count}" if entry.kind in (6, 7) else str(entry.size)
    name = _name(path, entry)
    if entry.kind == 3:
        name += " -> " + output.path_text(entry.target or b"")
    has_id = entry.target is not None and entry.kind in (1, 2)
    return [
        stat_bits.filemode(KIND_BITS[entry.kind] | entry.mode),
        size,
        output.paint(output.short(entry.target) if has_id else "-" * 12, "dim"),
        name,
    ]


@verb("cat")
@click.argument("where", metavar="REF:PATH")
def cat(where: str, as_json: bool, repo: Path | None) -> Any:
    """A file's bytes, as they were in a layer.

    Example: fusecas cat v1.0:config.toml
    """
    from fusecas.store import trees

    ref, path = at_path(where)
    if not path:
        raise UsageError(f"{where!r} names no file", hint="fusecas cat REF:PATH")
    with reading(repo) as snapshot:
        entry = trees.needed(snapshot, resolve(snapshot, ref).state, path)
        if not entry.is_file:
            raise PathNotFound(f"{output.path_text(path)} is a {KIND_NAMES[entry.kind]}, not a file")
        if as_json:
            data = b"" if entry.target is None else snapshot.read_content(entry.target)
            return {**entry_fields(path, entry), **output.path_fields(data, "content")}
        if entry.target is not None:
            for part in snapshot.iter_content(entry.target):
                output.write_bytes(part)
    return None


@verb("diff")
@click.argument("refs", nargs=-1, metavar="[A [B]] [-- PATH...]", type=click.UNPROCESSED)
@click.option("--stat", "show", flag_value="stat", help="How many lines of each path changed.")
@click.option("--name-only", "show", flag_value="name", help="Only the paths.")
@click.option("-p", "--patch", "show", flag_value="patch", help="The changed lines, as git apply wants them.")
@click.option("--only", type=click.Choice(["files", "meta"]), help="Content and names, or modes, owners, attributes.")
@click.option("--exit-code", is_flag=True, help="Exit 1 if there are differences.")
@click.option("--no-renames", is_flag=True, help="A moved file is one removed and one added.")
@click.option("-z", "zero", is_flag=True, help="With --name-only: raw names, each ended by NUL.")
def diff(
    refs: tuple[str, ...],
    show: str | None,
    only: str | None,
    exit_code: bool,
    no_renames: bool,
    zero: bool,
    as_json: bool,
    repo: Path | None,
) -> Any:
    """What differs between A and B (default: from the head to what is uncommitted).

    Letters: A added, D removed, M modified, R renamed, T another kind of file, m only modes, owners, attributes.

    Example: fusecas diff v1.0 @ --stat -- src
    """
    from fusecas.store.diff import FILES, META, diff_states

    a, b, paths = _operands(refs)
    kinds = {"files": FILES, "meta": META, None: FILES | META}[only]
    with reading(repo) as snapshot:
        found = diff_states(
            snapshot,
            resolve(snapshot, a).state,
            resolve(snapshot, b).state,
            paths=[os.fsencode(each) for each in paths],
            renames=not no_renames,
        )
        changes = [each for each in found if each.kinds & kinds]
        if not as_json:
            _print_changes(snapshot, changes, show, zero)
        result = {
            "added": [_change_fields(each) for each in changes if "added" in each.kinds],
            "modified": [_change_fields(each) for each in changes if not each.kinds & {"added", "removed", "renamed"}],
            "deleted": [_change_fields(each) for each in changes if "removed" in each.kinds],
            "renamed": [_change_fields(each) for each in changes if "renamed" in each.kinds],
        }
    return result, int(exit_code and bool(changes))


def _operands(words: tuple[str, ...]) -> tuple[str, str, tuple[str, ...]]:
    """A, B and paths. What follows the second word are paths; before it, `--` may end the refs."""
    import sys

    typed = sys.argv[1:]
    refs: tuple[str, ...] = words
    paths: tuple[str, ...] = ()
    if "--" in typed:
        count = len(typed) - typed.index("--") - 1
        refs, paths = words[: len(words) - count], words[len(words) - count :]
    if len(refs) > 2:
        refs, paths = refs[:2], refs[2:] + paths
    a, b = (*refs, *("@", "@live")[len(refs) :]) if len(refs) != 1 else (refs[0], "@live")
    return a, b, paths


def _change_fields(change: "Change") -> dict[str, Any]:
    fields: dict[str, Any] = {**output.path_fields(change.path), "kinds": sorted(change.kinds)}
    if change.old_path is not None:
        fields.update(output.path_fields(change.old_path, "old_path"))
    return fields


def _print_changes(snapshot: "Snapshot", changes: "list[Change]", show: str | None, zero: bool) -> None:
    from fusecas.store import patch

    if show == "name" and zero:
        output.write_bytes(b"".join(each.path + b"\0" for each in changes))
    elif show == "name":
        for each in changes:
            print(output.path_text(each.path) or ".")
    elif show == "patch":
        for each in changes:
            for line in patch.patch(snapshot, each):
                _print_patch_line(line)
    elif show == "stat":
        _print_stat([patch.stat(snapshot, each) for each in changes])
    else:
        for each in changes:
            print(_summary(each))


def _summary(change: "Change") -> str:
    from fusecas.store import patch

    letter = patch.letter(change)
    colour = {"A": "green", "D": "red", "R": "cyan"}.get(letter, "yellow")
    entry = change.new or change.old
    name = (output.path_text(change.path) or ".") + ("/" if entry is not None and entry.is_directory else "")
    if change.old_path is not None:
        name = f"{output.path_text(change.old_path)} -> {name}"
    details = patch.attributes(change)
    return f"{output.paint(letter, colour)} {name}" + (f"  ({', '.join(details)})" if details else "")


def _print_patch_line(line: bytes) -> None:
    colours = {b"+": "green", b"-": "red", b"@": "cyan"}
    colour = colours.get(line[:1])
    if colour is None or not output.is_terminal() or os.environ.get("NO_COLOR"):
        output.write_bytes(line)
        return
    text = line.rstrip(b"\n").decode(errors="replace")
    output.write_bytes((output.paint(text, colour) + "\n").encode())


def _print_stat(stats: "list[Any]") -> None:
    widest = max((each.added + each.removed for each in stats if each.added is not None), default=0)
    scale = min(1.0, 40 / widest) if widest else 1.0
    rows = []
    for each in stats:
        name = output.path_text(each.path) or "."
        if each.added is None:
            sizes = f"{output.size_text(each.old_size)} -> {output.size_text(each.new_size)}"
            rows.append([name, "|", "", f"binary {sizes}"])
            continue
        plus = output.paint("+" * round(each.added * scale), "green")
        minus = output.paint("-" * round(each.removed * scale), "red")
        rows.append([name, "|", str(each.added + each.removed), plus + minus])
    output.print_table(rows, right=(2,))
    added = sum(each.added or 0 for each in stats)
    removed = sum(each.removed or 0 for each in stats)
    print(f"{len(stats)} paths changed, {added} lines added, {removed} removed")


COMMANDS = {"ls": ls, "cat": cat, "diff": diff}
