"""What there is to be told, as JSON: by `--json`, and by the daemon on its socket."""

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from fusecas.wire import hex_or_none, instruction_fields, path_fields, time_fields

if TYPE_CHECKING:
    from fusecas.results import Head, HistoryEntry, LayerInfo
    from fusecas.store.diff import Change
    from fusecas.store.rows import Operation
    from fusecas.store.run_rows import Record
    from fusecas.store.snapshot import Snapshot


def head(found: "Head") -> dict[str, Any]:
    return {
        "workspace": found.workspace,
        "layer": found.hash,
        "short": found.short,
        "state": found.state,
        "kind": found.kind,
        **instruction_fields(found.instruction),
    }


def entry(found: "HistoryEntry", size: int, changes: int) -> dict[str, Any]:
    """`size`, `changes`: against its parent."""
    return {
        "hash": found.hash,
        "short": found.short,
        **instruction_fields(found.instruction),
        "kind": found.kind,
        "parent": found.parent,
        "parent_short": found.parent_short,
        "parents": list(found.parents),
        "state": found.state,
        "message": found.message,
        "exit_code": found.exit_code,
        "size": size,
        "changes": changes,
        "tags": list(found.tags),
        **time_fields(found.time_ns),
    }


def layer(found: "LayerInfo") -> dict[str, Any]:
    return {
        **entry(found, found.size, found.changes),
        "signal": found.signal,
        **({"cwd": None} if found.cwd is None else path_fields(os.fsencode(found.cwd), "cwd")),
        "planes": list(found.planes),
        "entries": found.entries,
        "bytes": found.bytes,
    }


def operation(found: "Operation") -> dict[str, Any]:
    return {
        "number": found.number,
        "verb": found.verb,
        "argv": [each.decode(errors="replace") for each in found.argv],
        "actor": found.actor,
        **time_fields(found.time),
        "moves": [
            {"ref": each.ref, "old": hex_or_none(each.old), "new": hex_or_none(each.new)} for each in found.moves
        ],
    }


def tag(name: str, layer: bytes | None, done: "Operation | None") -> dict[str, Any]:
    """`layer`: what it names now. `done`: None if it did so before."""
    old = None if done is None else done.moves[0].old
    number = None if done is None else done.number
    return {"name": name, "layer": hex_or_none(layer), "old": hex_or_none(old), "operation": number}


def changes(found: "Iterable[Change]") -> dict[str, Any]:
    from fusecas.store.diff import grouped

    return {name: [_change(each) for each in group] for name, group in grouped(list(found))._asdict().items()}


def _change(found: "Change") -> dict[str, Any]:
    old = {} if found.old_path is None else path_fields(found.old_path, "old_path")
    return {**path_fields(found.path), "kinds": sorted(found.kinds), **old}


def record(snapshot: "Snapshot", number: bytes, found: "Record") -> dict[str, Any]:
    """Of an execution. `hits`: how often its result was served since."""
    from fusecas import _native
    from fusecas.records import command
    from fusecas.store.ids import Kind, ObjectId

    result = snapshot.result(ObjectId(_native.node_id(Kind.ACTION, found.action)))
    is_kept = result is not None and result.record == number
    return {
        "run": number.hex(),
        "status": found.status,
        **time_fields(found.started),
        "took_ms": None if found.ended is None else (found.ended - found.started) // 1_000_000,
        "exit": found.exit,
        "signal": found.signal,
        "layer": hex_or_none(found.layer),
        "kept": is_kept,
        "hits": result.hits if result is not None and is_kept else 0,
        "mixed": found.mixed,
        **instruction_fields(command(found)),
    }
