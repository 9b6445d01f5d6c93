"""Layers: import, export, log, history, head, inspect, tag, tags."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fusecas.cli import output
from fusecas.cli.common import (
    chosen,
    deed,
    hold_back_stop,
    list_options,
    opened,
    progress,
    reading,
    resolve,
    resolve_layer,
    verb,
)
from fusecas.errors import UsageError

if TYPE_CHECKING:
    from fusecas.store.history import HistoryEntry
    from fusecas.store.snapshot import Snapshot
    from fusecas.store.tables import Operation


@verb("import")
@click.argument("folder", type=click.Path(path_type=Path), metavar="DIR")
@click.option("-m", "--message", help="What to remember of it.")
@click.option("--owner", metavar="UID:GID", help="The owner that is not recorded (default: that of DIR).")
@click.option("--no-head", is_flag=True, help="Only make the layer; the workspace stays where it is.")
@click.option("--trusted-xattrs", is_flag=True, help="Keep extended attributes trusted.* too.")
@click.option("--skip-changed", is_flag=True, help="Leave out files that keep changing while they are read.")
def import_folder(
    folder: Path,
    message: str | None,
    owner: str | None,
    no_head: bool,
    trusted_xattrs: bool,
    skip_changed: bool,
    as_json: bool,
    repo: Path | None,
) -> Any:
    """Make a layer with the files of DIR on the workspace's head.

    Example: fusecas import src -m "vendor drop 4.2"
    """
    from fusecas.store.layers import Deed, import_layer

    with opened(repo) as repository, progress("importing") as tell:
        hold_back_stop(repository)
        found = import_layer(
            repository,
            folder,
            message=message,
            owner=None if owner is None else parse_owner(owner),
            trusted_xattrs=trusted_xattrs,
            skip_changed=skip_changed,
            move_head=not no_head,
            deed=Deed(*deed()),
            progress=tell,
        )
    imported = found.imported
    for path, why in imported.skipped:
        output.note(f"left out {output.path_text(path)}: {why}")
    if not as_json:
        if found.layer is None:
            print("nothing changed")
        else:
            print(found.layer.hex() if no_head else f"layer {output.paint(output.short(found.layer), 'yellow')}")
            new = f"{output.size_text(found.stored_bytes)} new in the store"
            if not no_head:
                print(f"{imported.files} files, {output.size_text(imported.size)}; {new}")
    return {
        "layer": output.hex_or_none(found.layer),
        "short": output.short(found.layer) or None,
        "state": imported.state.hex(),
        "changed": found.layer is not None,
        "files": imported.files,
        "directories": imported.directories,
        "size": imported.size,
        "new_objects": found.new_objects,
        "new_bytes": found.new_bytes,
        "stored_bytes": found.stored_bytes,
        "skipped": [{**output.path_fields(path), "why": why} for path, why in imported.skipped],
    }


def parse_owner(text: str) -> tuple[int, int]:
    uid, _, gid = text.partition(":")
    if not uid.isdecimal() or not gid.isdecimal():
        raise UsageError(f"{text!r} is not UID:GID", hint="numbers, such as 1000:1000")
    return int(uid), int(gid)


@verb("export")
@click.argument("ref")
@click.argument("destination", type=click.Path(path_type=Path), metavar="DEST")
@click.option("--overwrite", is_flag=True, help="Replace what is in the way in a DEST that is not empty.")
@click.option("--owner", metavar="UID:GID", help="Who owns what has no owner recorded (default: you).")
def export(ref: str, destination: Path, overwrite: bool, owner: str | None, as_json: bool, repo: Path | None) -> Any:
    """Write the files of REF into the folder DEST, which must be new or empty.

    Example: fusecas export @~1 /tmp/before
    """
    from fusecas.store.exporter import export_tree

    with opened(repo) as repository, progress("exporting") as tell:
        with repository.store.read() as snapshot:
            revision = resolve(snapshot, ref)
        found = export_tree(
            repository.store,
            revision.state,
            destination,
            times=revision.times,
            owner=None if owner is None else parse_owner(owner),
            overwrite=overwrite,
            progress=tell,
        )
    if not as_json:
        print(f"{found.files} files, {found.directories} directories, {output.size_text(found.size)}")
    for path, what, why in found.unset[:20]:
        output.note(f"could not set {what} of {output.path_text(path) or '/'}: {why}")
    if len(found.unset) > 20:
        output.note(f"and {len(found.unset) - 20} more")
    return {
        "files": found.files,
        "directories": found.directories,
        "size": found.size,
        "unset": [{**output.path_fields(path), "what": what, "why": why} for path, what, why in found.unset],
    }


# ---- history


def entry_fields(entry: "HistoryEntry") -> dict[str, Any]:
    parent = entry.parents[0] if entry.parents else None
    return {
        "hash": entry.layer.hex(),
        "short": output.short(entry.layer),
        "instruction": entry.instruction,
        "kind": entry.kind,
        "parent": output.hex_or_none(parent),
        "parent_short": output.short(parent) or None,
        "parents": [each.hex() for each in entry.parents],
        "state": entry.state.hex(),
        "message": entry.message,
        **output.time_fields(entry.time),
    }


SORT_KEYS: dict[str, Any] = {
    "time": lambda entry: entry.time or 0,
    "instruction": lambda entry: entry.instruction,
    "kind": lambda entry: entry.kind,
    "hash": lambda entry: entry.layer,
}


def list_layers(
    ref: str, oldest_first: bool, as_json: bool, repo: Path | None, choice: dict[str, Any], runs: bool = False
) -> Any:
    from fusecas.store import history

    with reading(repo) as snapshot:
        layer = resolve(snapshot, ref).layer
        found: Iterator[HistoryEntry] = history.entries(snapshot, layer)
        if runs:
            found = (each for each in found if each.kind != "edits")
        if oldest_first:
            found = iter(list(found)[::-1])
        listed = chosen(found, SORT_KEYS, **choice)
    if not as_json:
        output.print_table(
            [
                output.paint(output.short(each.layer), "yellow"),
                output.paint(output.time_text(each.time), "dim"),
                each.kind,
                output.printable(each.instruction),
            ]
            for each in listed
        )
    return [entry_fields(each) for each in listed]


@verb("log")
@click.argument("ref", default="@")
@click.option("--runs", is_flag=True, help="Leave out hand edits.")
@list_options(*SORT_KEYS)
def log(ref: str, runs: bool, as_json: bool, repo: Path | None, **choice: Any) -> Any:
    """The layers behind REF, newest first."""
    return list_layers(ref, False, as_json, repo, choice, runs)


@verb("history")
@click.argument("ref", default="@")
@click.option("--runs", is_flag=True, help="Leave out hand edits.")
@list_options(*SORT_KEYS)
def history_verb(ref: str, runs: bool, as_json: bool, repo: Path | None, **choice: Any) -> Any:
    """The layers behind REF, oldest first."""
    return list_layers(ref, True, as_json, repo, choice, runs)


@verb("head")
def head(as_json: bool, repo: Path | None) -> Any:
    """Where the workspace stands: its layer, or nothing yet."""
    from fusecas.store import heads
    from fusecas.store.history import describe
    from fusecas.store.ids import Kind
    from fusecas.store.kinds import Layer

    with reading(repo) as snapshot:
        found = heads.read_head(snapshot)
        layer = found.workspace.layer
        core = None if layer is None else Layer.decode(snapshot.read_node(layer, Kind.LAYER))
    kind, instruction = ("empty", "") if core is None else describe(core)
    if not as_json:
        print("nothing yet" if layer is None else f"{output.paint(output.short(layer), 'yellow')}  {instruction}")
    return {
        "workspace": found.name,
        "layer": output.hex_or_none(layer),
        "short": output.short(layer) or None,
        "state": found.live.state.hex(),
        "kind": kind,
        "instruction": instruction,
    }


@verb("inspect")
@click.argument("ref", default="@")
def inspect(ref: str, as_json: bool, repo: Path | None) -> Any:
    """All about the layer REF: what made it, from what, how large it is."""
    from fusecas.store import history, tags, trees
    from fusecas.store.ids import LayerId, ObjectId

    with reading(repo) as snapshot:
        layer = LayerId(ObjectId(resolve_layer(snapshot, ref)))
        entry = next(history.entries(snapshot, layer))
        root = trees.root_entry(snapshot, entry.state)
        changed, changes = _change_from_parent(snapshot, entry)
        names = [name for name, target in tags.list_tags(snapshot) if target == layer]
    result = {
        **entry_fields(entry),
        "exit_code": entry.exit,
        "size": changed,
        "changes": changes,
        "entries": root.count,
        "bytes": root.size,
        "tags": names,
    }
    if not as_json:
        rows = [
            ["layer", output.paint(entry.layer.hex(), "yellow")],
            ["made by", f"{entry.kind}: {output.printable(entry.instruction)}"],
            ["parents", ", ".join(map(output.short, entry.parents)) or "none"],
            ["state", entry.state.hex()],
            ["when", output.time_text(entry.time)],
            ["holds", f"{root.count} entries, {output.size_text(root.size)}"],
            ["changed", f"{changes} paths, {output.size_text(changed)}"],
        ]
        if entry.message:
            rows.insert(2, ["message", output.printable(entry.message)])
        if names:
            rows.append(["tags", ", ".join(names)])
        output.print_table(rows)
    return result


def _change_from_parent(snapshot: "Snapshot", entry: "HistoryEntry") -> tuple[int, int]:
    """(bytes of changed content, changed paths) against the first parent."""
    from fusecas.store import revisions
    from fusecas.store.diff import ChangeKind, diff_states

    text = "@empty" if not entry.parents else "hash:" + entry.parents[0].hex()
    before = revisions.resolve(snapshot, text).state
    size = count = 0
    for change in diff_states(snapshot, before, entry.state, renames=False):
        count += 1
        content = change.kinds & {ChangeKind.ADDED, ChangeKind.MODIFIED, ChangeKind.TYPE}
        if content and change.new is not None and change.new.is_file:
            size += change.new.size
    return size, count


# ---- tags


@verb("tag")
@click.argument("name")
@click.argument("ref", default="@")
@click.option("-f", "--force", is_flag=True, help="Move a tag that is there.")
@click.option("-d", "--delete", is_flag=True, help="Remove the tag.")
def tag(name: str, ref: str, force: bool, delete: bool, as_json: bool, repo: Path | None) -> Any:
    """Name the layer REF (default: the head).

    Exit 4 if the tag names another layer already, unless -f says to move it.
    """
    from fusecas.store import tags
    from fusecas.store.ids import LayerId, ObjectId

    with opened(repo) as repository, repository.store.write() as transaction:
        if delete:
            operation: Operation | None = tags.delete_tag(transaction, name, *deed())
            layer = None
        else:
            layer = LayerId(ObjectId(resolve_layer(transaction, ref)))
            operation = tags.set_tag(transaction, name, layer, *deed(), force=force)
    if not as_json:
        print(f"removed tag {name}" if layer is None else f"{name} is {output.short(layer)}")
    number = None if operation is None else operation.number
    return {"name": name, "layer": output.hex_or_none(layer), "operation": number}


@verb("tags")
@list_options("name", "hash")
def tags_verb(as_json: bool, repo: Path | None, **choice: Any) -> Any:
    """All tags and the layers that they name."""
    from fusecas.store import tags

    keys: dict[str, Any] = {"name": lambda each: each[0], "hash": lambda each: each[1]}
    with reading(repo) as snapshot:
        listed = chosen(tags.list_tags(snapshot), keys, **choice)
    if not as_json:
        output.print_table([name, output.paint(output.short(layer), "yellow")] for name, layer in listed)
    return {name: layer.hex() for name, layer in listed}


COMMANDS = {
    "import": import_folder,
    "export": export,
    "log": log,
    "history": history_verb,
    "head": head,
    "inspect": inspect,
    "tag": tag,
    "tags": tags_verb,
}
