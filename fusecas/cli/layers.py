"""Layers: import, export, log, history, head, inspect, tag, tags."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fusecas.cli import output
from fusecas.cli.asking import live_of, seal_live
from fusecas.cli.common import (
    FOLDER_PATH,
    check_message,
    chosen,
    dates_option,
    list_options,
    opened,
    reading,
    resolve,
    resolve_layer,
    this_workspace,
    verb,
    workspace_of,
    writing,
)
from fusecas.cli.progress import files, progress
from fusecas.cli.where import chosen_workspace
from fusecas.errors import UsageError

if TYPE_CHECKING:
    from fusecas.cli.call import Call
    from fusecas.results import HistoryEntry, LayerInfo
    from fusecas.store.importer import Imported
    from fusecas.store.repository import Repository
    from fusecas.store.rows import Operation
    from fusecas.workspace.importing import Placed


OWNER = re.compile("[0-9]{1,10}")
MOST_OWNERS = (1 << 32) - 1


@verb("import")
@click.argument("folder", type=FOLDER_PATH, metavar="DIR")
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
    call: "Call",
    repo: Path | None,
) -> Any:
    """Make a layer with the files of DIR on the workspace's head.

    Example: fusecas import src -m "vendor drop 4.2"
    """
    from fusecas.workspace.importing import import_layer

    if message is not None:
        check_message(message)
    with writing(repo) as repository, progress("importing", files) as tell:
        found = import_layer(
            repository,
            folder,
            message=message,
            owner=None if owner is None else parse_owner(owner),
            trusted_xattrs=trusted_xattrs,
            skip_changed=skip_changed,
            move_head=not no_head,
            place=lambda imported: _place(repository, imported, message, call),
            progress=tell,
        )
    imported = found.imported
    for path, why in imported.skipped:
        output.note(f"left out {output.path_text(path)}: {why}")
    if not call.as_json:
        if found.layer is None:
            print("nothing changed")
        else:
            new = f"{output.size_text(found.stored_bytes)} new in the store"
            if no_head:
                print(found.layer.hex())
            else:
                print(f"layer {output.paint(output.short(found.layer), 'yellow')}")
                print(f"{output.count(imported.files, 'file')}, {output.size_text(imported.size)}; {new}")
    if found.aside and not call.as_json:
        print("what was uncommitted is set aside; fusecas undo brings it back")
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


def _place(repository: "Repository", imported: "Imported", message: str | None, call: "Call") -> "Placed":
    """Through whoever has the workspace open."""
    from fusecas.store.ids import LayerId, ObjectId
    from fusecas.workspace.importing import Placed

    done = live_of(repository, call, chosen_workspace(None)).put_layer(
        verb="import",
        state=imported.state.hex(),
        times=output.hex_or_none(imported.times),
        owner=list(imported.owner),
        message=message,
    )
    return Placed(LayerId(ObjectId(bytes.fromhex(done["layer"]))) if done["made"] else None, done["aside"])


def parse_owner(text: str) -> tuple[int, int]:
    uid, _, gid = text.partition(":")
    if not all(OWNER.fullmatch(each) and int(each) < MOST_OWNERS for each in (uid, gid)):
        raise UsageError(f"{text!r} is not UID:GID", hint="numbers, such as 1000:1000")
    return int(uid), int(gid)


@verb("export")
@click.argument("ref")
@click.argument("destination", type=FOLDER_PATH, metavar="DEST")
@click.option("--overwrite", is_flag=True, help="Replace what is in the way in a DEST that is not empty.")
@click.option("--owner", metavar="UID:GID", help="Who owns what has no owner recorded (default: you).")
def export(ref: str, destination: Path, overwrite: bool, owner: str | None, call: "Call", repo: Path | None) -> Any:
    """Write the files of REF into the folder DEST, which must be new or empty.

    Example: fusecas export @~1 /tmp/before
    """
    from fusecas.store.exporter import export_tree
    from fusecas.store.repository import own_files

    seal_live(call, repo, ref)
    with opened(repo) as repository, progress("exporting", files) as tell:
        with repository.store.read() as snapshot:
            revision = resolve(snapshot, ref)
        found = export_tree(
            repository.store,
            revision.state,
            destination,
            times=revision.times,
            owner=None if owner is None else parse_owner(owner),
            overwrite=overwrite,
            skip=own_files(repository.folder),
            progress=tell,
        )
    if not call.as_json:
        directories = "1 directory" if found.directories == 1 else f"{found.directories} directories"
        print(f"{output.count(found.files, 'file')}, {directories}, {output.size_text(found.size)}")
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


SORT_KEYS: dict[str, Any] = {
    "time": lambda entry: entry.time_ns or 0,
    "instruction": lambda entry: entry.instruction,
    "kind": lambda entry: entry.kind,
    "hash": lambda entry: entry.hash,
}


def list_layers(
    ref: str, oldest_first: bool, call: "Call", repo: Path | None, choice: dict[str, Any], runs: bool = False
) -> Any:
    from fusecas import documents
    from fusecas.looking import change_from_parent, history_of

    seal_live(call, repo, ref)
    with reading(repo) as snapshot:
        found: Iterator[HistoryEntry] = history_of(snapshot, ref, workspace_of(ref), runs=runs, warn=output.note)
        if oldest_first:
            found = iter(list(found)[::-1])
        listed = chosen(found, SORT_KEYS, **choice)
        if call.as_json:
            return [documents.entry(each, *change_from_parent(snapshot, each)) for each in listed]
        is_empty = not listed and resolve(snapshot, ref).layer is None
    if is_empty:
        output.note(NO_LAYER)
    output.print_table(
        [
            output.paint(each.short, "yellow"),
            output.paint(output.time_text(each.time_ns), "dim"),
            each.kind,
            output.first_line(each.instruction) + _names_text(each.tags),
        ]
        for each in listed
    )
    return None


NO_LAYER = "no layer yet; fusecas import DIR makes one"


def _names_text(names: Sequence[str]) -> str:
    return "  " + output.paint(f"({', '.join(names)})", "cyan") if names else ""


@verb("log")
@click.argument("ref", default="@")
@click.option("--runs", is_flag=True, help="Leave out hand edits.")
@list_options(*SORT_KEYS)
def log(ref: str, runs: bool, call: "Call", repo: Path | None, **choice: Any) -> Any:
    """The layers behind REF (default: the head), newest first.

    Example: fusecas log --limit 10
    """
    return list_layers(ref, False, call, repo, choice, runs)


@verb("history")
@click.argument("ref", default="@")
@click.option("--runs", is_flag=True, help="Leave out hand edits.")
@list_options(*SORT_KEYS)
def history_verb(ref: str, runs: bool, call: "Call", repo: Path | None, **choice: Any) -> Any:
    """The layers behind REF (default: the head), oldest first.

    Example: fusecas history --json
    """
    return list_layers(ref, True, call, repo, choice, runs)


@verb("head")
def head(call: "Call", repo: Path | None) -> Any:
    """Where the workspace stands: its layer, or nothing yet.

    Example: fusecas head --json
    """
    from fusecas import documents
    from fusecas.looking import head_of

    with reading(repo) as snapshot:
        found = head_of(snapshot, this_workspace())
    if not call.as_json:
        at = f"{output.paint(found.short, 'yellow')}  {output.first_line(found.instruction)}" if found.short else None
        print(at or "nothing yet")
    return documents.head(found)


@verb("inspect")
@click.argument("ref", default="@")
@dates_option
def inspect(ref: str, call: "Call", repo: Path | None) -> Any:
    """All about the layer REF (default: the head): what made it, from what, how large it is.

    Example: fusecas inspect v1.0
    """
    from fusecas import documents
    from fusecas.looking import layer_info

    seal_live(call, repo, ref)
    with reading(repo) as snapshot:
        found = layer_info(snapshot, ref, workspace_of(ref), warn=output.note)
    if not call.as_json:
        output.print_table(_inspected(found))
    return documents.layer(found)


def _inspected(layer: "LayerInfo") -> Iterator[list[str]]:
    yield ["layer", output.paint(layer.hash, "yellow")]
    made_by_message = layer.message is not None and layer.instruction == layer.message
    instruction = layer.instruction.strip("()")
    yield ["made by", layer.kind if made_by_message or instruction == layer.kind else output.printable(instruction)]
    if layer.message:
        for at, line in enumerate(layer.message.strip().split("\n")):
            yield ["message" if at == 0 else "", output.printable(line)]
    if layer.cwd is not None:
        yield ["in", output.printable(layer.cwd)]
    if layer.exit_code is not None or layer.signal is not None:
        yield ["ended", f"exit {layer.exit_code}" if layer.signal is None else f"signal {layer.signal}"]
    yield ["when", output.time_text(layer.time_ns)]
    yield ["parents", ", ".join(each[:12] for each in layer.parents) or "none"]
    yield ["state", layer.state]
    yield ["holds", f"{_entries_text(layer.entries)}, {output.size_text(layer.bytes)}"]
    yield ["changed", f"{output.count(layer.changes, 'path')}, {output.size_text(layer.size)}"]
    if layer.planes:
        yield ["planes", ", ".join(layer.planes)]
    if layer.tags:
        yield ["tags", ", ".join(layer.tags)]


def _entries_text(number: int) -> str:
    return "1 entry" if number == 1 else f"{number} entries"


# ---- tags


@verb("tag")
@click.argument("name")
@click.argument("ref", required=False)
@click.option("-f", "--force", is_flag=True, help="Move a tag that is there.")
@click.option("-d", "--delete", is_flag=True, help="Remove the tag.")
def tag(name: str, ref: str | None, force: bool, delete: bool, call: "Call", repo: Path | None) -> Any:
    """Name the layer REF (default: the head).

    Exit 4 if the tag names another layer already, unless -f says to move it.

    Example: fusecas tag v1.0 @~1
    """
    from fusecas import documents
    from fusecas.store import tags

    if delete and (ref is not None or force):
        raise UsageError("tag -d takes a name only")
    seal_live(call, repo, ref or "@")
    with writing(repo) as repository:
        layer = None
        if not delete:
            with repository.store.read() as snapshot:
                layer = resolve_layer(snapshot, ref or "@")
        with repository.store.write() as transaction:
            operation: Operation | None
            if layer is None:
                operation = tags.delete_tag(transaction, name, *call.deed())
            else:
                operation = tags.set_tag(transaction, name, layer, *call.deed(), force=force)
    old = None if operation is None else operation.moves[0].old
    if not call.as_json:
        was = "" if old is None else f" (was {output.short(old)})"
        print(f"removed tag {name}{was}" if layer is None else f"{name} is {output.short(layer)}{was}")
    return documents.tag(name, layer, operation)


@verb("tags")
@list_options("name", "hash")
def tags_verb(call: "Call", repo: Path | None, **choice: Any) -> Any:
    """All tags and the layers that they name.

    Example: fusecas tags --sort name --desc
    """
    from fusecas.looking import tags_of

    keys: dict[str, Any] = {"name": lambda each: each[0], "hash": lambda each: each[1]}
    with reading(repo) as snapshot:
        listed = chosen(iter(tags_of(snapshot).items()), keys, **choice)
    if not call.as_json:
        output.print_table([name, output.paint(layer[:12], "yellow")] for name, layer in listed)
    return dict(listed)


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
