"""Inside a layer: ls, cat, diff."""

import os
import stat as stat_bits
from collections.abc import Iterator
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from fusecas.cli import output
from fusecas.cli.asking import seal_live
from fusecas.cli.common import chosen, list_options, opened, reading, resolve, verb
from fusecas.cli.where import paths_of, repository_folder
from fusecas.errors import PathNotFound, RefNotFound, UsageError
from fusecas.store import trees
from fusecas.store.ids import EMPTY_CONTENT

if TYPE_CHECKING:
    from fusecas.cli.call import Call
    from fusecas.store.diff import Change
    from fusecas.store.ids import TimesId
    from fusecas.store.kinds import Entry
    from fusecas.store.patch import Stat
    from fusecas.store.revisions import Revision
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


class Listed(NamedTuple):
    path: bytes
    entry: "Entry"
    mtime: int | None


def find(snapshot: "Snapshot", where: str) -> "tuple[Revision, bytes, Entry]":
    """The revision and the path that REF:PATH names, and what is there."""
    from fusecas.store import revisions

    ref, at = revisions.split_path(where)
    path = at or b""
    try:
        revision = resolve(snapshot, ref or "@")
    except RefNotFound as error:
        if at is None and trees.lookup(snapshot, resolve(snapshot, "@").state, os.fsencode(ref).strip(b"/")):
            error.hint = f"did you mean @:{ref}?"
        raise
    entry = trees.lookup(snapshot, revision.state, path)
    if entry is None:
        raise _no_path(snapshot, revision, path)
    return revision, path, entry


def _no_path(snapshot: "Snapshot", revision: "Revision", path: bytes) -> PathNotFound:
    """Names the nearest name in the directory where it should be, if that is there."""
    from itertools import islice

    above, _, name = path.rpartition(b"/")
    directory = trees.lookup(snapshot, revision.state, above)
    hint = None
    if directory is not None and directory.is_directory:
        names = [output.path_text(each.name) for each in islice(trees.entries(snapshot, directory.target), 10_000)]
        hint = output.nearest(output.path_text(name), names)
    shown = output.path_text(path)
    return PathNotFound(f"no {shown} in {revision.text}", hint=hint, details=dict(output.path_fields(path)))


def entry_fields(listed: Listed) -> dict[str, Any]:
    path, entry, mtime = listed
    fields = {
        **output.path_fields(path),
        "kind": KIND_NAMES[entry.kind],
        "mode": f"{entry.mode:04o}",
        "size": entry.size if entry.kind in (1, 2) else 0,
        **output.time_fields(mtime, "mtime"),
    }
    if entry.kind == 2:
        fields["entries"] = entry.count
    if entry.kind in (6, 7):
        fields["device"] = [entry.size, entry.count]
    if entry.kind == 3:
        fields.update(output.path_fields(entry.target or b"", "target"))
    elif entry.kind == 1:
        fields["hash"] = (entry.target or EMPTY_CONTENT).hex()
    elif entry.target is not None:
        fields["hash"] = entry.target.hex()
    return fields


@verb("ls")
@click.argument("where", metavar="REF[:PATH]", default="@")
@click.option("-l", "--long", "is_long", is_flag=True, help="Modes, sizes, hashes.")
@click.option("-R", "--recursive", is_flag=True, help="Everything below, too.")
@click.option("-z", "zero", is_flag=True, help="Raw names, each ended by NUL.")
@list_options("name", "size", "kind", "time")
def ls(where: str, is_long: bool, recursive: bool, zero: bool, call: "Call", repo: Path | None, **choice: Any) -> Any:
    """What is in a directory of a layer.

    Example: fusecas ls -l @~1:src
    """
    keys: dict[str, Any] = {
        "name": lambda each: each.path,
        "size": lambda each: each.entry.size,
        "kind": lambda each: each.entry.kind,
        "time": lambda each: each.mtime or 0,
    }
    seal_live(call, repo, where)
    with reading(repo) as snapshot:
        listed = chosen(_listed(snapshot, *find(snapshot, where), recursive=recursive), keys, **choice)
    if zero and not call.as_json:
        output.write_bytes(b"".join(each.path + b"\0" for each in listed))
    elif not call.as_json and is_long:
        output.print_table((_long_row(each) for each in listed), right=(1,))
    elif not call.as_json:
        for each in listed:
            print(_name(each.path, each.entry))
    return [entry_fields(each) for each in listed]


def _listed(
    snapshot: "Snapshot", revision: "Revision", path: bytes, entry: "Entry", recursive: bool
) -> Iterator[Listed]:
    """What is in the directory at `path`; the file itself, if it is one."""
    above, _, name = path.rpartition(b"/")
    if entry.is_directory:
        yield from _in_directory(snapshot, entry.target, _times_at(snapshot, revision.times, path), b"", recursive)
    else:
        times = _times_at(snapshot, revision.times, above)
        yield Listed(name, entry, trees.Times(snapshot, times, name).of(name).mtime)


def _times_at(snapshot: "Snapshot", times: "TimesId | None", path: bytes) -> "TimesId | None":
    for name in path.split(b"/") if path else ():
        times = trees.Times(snapshot, times, name).of(name).child
    return times


def _in_directory(
    snapshot: "Snapshot", tree: bytes | None, times: "TimesId | None", above: bytes, recursive: bool
) -> Iterator[Listed]:
    stack = [(above, trees.entries(snapshot, tree), trees.Times(snapshot, times))]
    while stack:
        above, entries, known = stack[-1]
        entry = next(entries, None)
        if entry is None:
            stack.pop()
            continue
        place, timed = trees.join(above, entry.name), known.of(entry.name)
        yield Listed(place, entry, timed.mtime)
        if recursive and entry.is_directory:
            stack.append((place, trees.entries(snapshot, entry.target), trees.Times(snapshot, timed.child)))


def _name(path: bytes, entry: "Entry") -> str:
    name = output.path_text(path)
    if entry.is_directory:
        return output.paint(name, "blue") + "/"
    if entry.kind == 3:
        return output.paint(name, "cyan")
    return output.paint(name, "green") if entry.is_file and entry.mode & 0o111 else name


def _long_row(listed: Listed) -> list[str]:
    path, entry, mtime = listed
    size = f"{entry.size},{entry.count}" if entry.kind in (6, 7) else str(entry.size)
    name = _name(path, entry)
    if entry.kind == 3:
        name += " -> " + output.path_text(entry.target or b"")
    content = entry.target if entry.kind == 2 else entry.target or EMPTY_CONTENT if entry.kind == 1 else None
    return [
        stat_bits.filemode(KIND_BITS[entry.kind] | entry.mode),
        size,
        output.paint(output.time_text(mtime), "dim"),
        output.paint(output.short(content) or "-" * 12, "dim"),
        name,
    ]


@verb("cat")
@click.argument("where", metavar="REF:PATH")
def cat(where: str, call: "Call", repo: Path | None) -> Any:
    """A file's bytes, as they were in a layer.

    Example: fusecas cat v1.0:config.toml
    """
    from fusecas.store.contents import content_parts
    from fusecas.store.revisions import split_path

    if not split_path(where)[1]:
        raise UsageError(f"{where!r} names no file", hint=f"fusecas cat REF:PATH, such as @:{where.strip(':')}")
    seal_live(call, repo, where)
    with opened(repo) as repository:
        with repository.store.read() as snapshot:
            revision, path, entry = find(snapshot, where)
            if not entry.is_file:
                raise PathNotFound(f"{output.path_text(path)} is a {KIND_NAMES[entry.kind]}, not a file")
            if call.as_json:
                data = b"" if entry.target is None else snapshot.read_content(entry.target)
                (listed,) = _listed(snapshot, revision, path, entry, recursive=False)
                return {**entry_fields(listed._replace(path=path)), **output.path_fields(data, "content")}
        for part in content_parts(repository.store, entry.target or EMPTY_CONTENT):
            output.write_bytes(part)
    return None


@verb("diff", takes_paths=True)
@click.argument("refs", nargs=-1, metavar="[A [B]] [--] [PATH...]")
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
    call: "Call",
    repo: Path | None,
    paths: tuple[str, ...] = (),
) -> Any:
    """What differs between A and B: from the head (@) to what is there now (@live), if one or both are left out.

    PATHs are seen from where you are in the workspace, or from its root if you are outside.

    Letters: A added, D removed, M modified, R renamed, T another kind of file, m only modes, owners, attributes.

    Example: fusecas diff v1.0 @ --stat -- src
    """
    from fusecas import documents
    from fusecas.store.diff import FILES, META, diff_states

    refs, paths = refs[:2], refs[2:] + paths
    a, b = (*refs, *("@", "@live")[len(refs) :]) if len(refs) != 1 else (refs[0], "@live")
    kinds = {"files": FILES, "meta": META, None: FILES | META}[only]
    only_paths = paths_of(repository_folder(repo), paths)
    seal_live(call, repo, a, b)
    with reading(repo) as snapshot:
        found = diff_states(
            snapshot,
            _operand(snapshot, a).state,
            _operand(snapshot, b).state,
            paths=[os.fsencode(each) for each in only_paths],
            renames=not no_renames,
        )
        changes = [each for each in found if each.kinds & kinds]
        if not call.as_json:
            _print_changes(snapshot, changes, show, zero)
    return documents.changes(changes), int(exit_code and bool(changes))


def _operand(snapshot: "Snapshot", text: str) -> "Revision":
    try:
        return resolve(snapshot, text)
    except RefNotFound as error:
        if trees.lookup(snapshot, resolve(snapshot, "@").state, os.fsencode(text).strip(b"/")) is not None:
            error.hint = "paths come after --"
        raise


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
        _print_stat([(_names_text(each), patch.stat(snapshot, each)) for each in changes])
    else:
        for each in changes:
            print(_summary(each))


def _summary(change: "Change") -> str:
    from fusecas.store import patch

    letter = patch.letter(change)
    colour = {"A": "green", "D": "red", "R": "cyan"}.get(letter, "yellow")
    entry = change.new or change.old
    name = _names_text(change) + ("/" if entry is not None and entry.is_directory else "")
    details = patch.attributes(change)
    return f"{output.paint(letter, colour)} {name}" + (f"  ({', '.join(details)})" if details else "")


def _print_patch_line(line: bytes) -> None:
    colours = {b"+": "green", b"-": "red", b"@": "cyan"}
    colour = colours.get(line[:1])
    if colour is None or not output.is_coloured():
        output.write_bytes(line)
        return
    text = line.rstrip(b"\n").decode(errors="replace")
    output.write_bytes((output.paint(text, colour) + "\n").encode())


def _names_text(change: "Change") -> str:
    name = output.path_text(change.path) or "."
    return name if change.old_path is None else f"{output.path_text(change.old_path)} -> {name}"


def _print_stat(stats: "list[tuple[str, Stat]]") -> None:
    widest = max((each.added + (each.removed or 0) for _, each in stats if each.added is not None), default=0)
    scale = min(1.0, 40 / widest) if widest else 1.0
    rows = []
    for name, each in stats:
        if each.added is None or each.removed is None:
            sizes = f"{output.size_text(each.old_size)} -> {output.size_text(each.new_size)}"
            rows.append([name, "|", "", f"binary {sizes}"])
            continue
        plus = output.paint("+" * ceil(each.added * scale), "green")
        minus = output.paint("-" * ceil(each.removed * scale), "red")
        rows.append([name, "|", str(each.added + each.removed), plus + minus])
    output.print_table(rows, right=(2,))
    added = sum(each.added or 0 for _, each in stats)
    removed = sum(each.removed or 0 for _, each in stats)
    if stats:
        print(f"{output.count(len(stats), 'path')} changed, {output.count(added, 'line')} added, {removed} removed")


COMMANDS = {"ls": ls, "cat": cat, "diff": diff}
