"""What was run: runs, logs."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fusecas.cli import output
from fusecas.cli.common import chosen, list_options, reading, resolve_layer, verb
from fusecas.errors import AmbiguousPrefix, RefNotFound

if TYPE_CHECKING:
    from fusecas.cli.call import Call
    from fusecas.store.ids import LayerId
    from fusecas.store.run_rows import Record
    from fusecas.store.snapshot import Snapshot

DIGITS = re.compile("[0-9a-f]{6,32}")
SHORT = 16
"""Digits of a run's number that are shown: they begin with the time, so that fewer don't tell runs apart."""


@verb("runs")
@click.option("--exit", "exit_code", type=int, metavar="CODE", help="Only those that ended so.")
@click.option("--grep", metavar="TEXT", help="Only commands that contain this.")
@click.option("--output", "said", metavar="TEXT", help="Only those that have said this, on stdout or stderr.")
@list_options("time", "took", "exit")
def runs(
    exit_code: int | None, grep: str | None, said: str | None, call: "Call", repo: Path | None, **choice: Any
) -> Any:
    """The commands that were executed, newest first: when, how long, how they ended, and the layers that they made.

    A result that was served again is not listed again; `hits` counts how often that was.

    Example: fusecas runs --exit 1 --limit 5
    """
    keys: dict[str, Any] = {
        "time": lambda each: each["time"],
        "took": lambda each: each["took_ms"] or 0,
        "exit": lambda each: -1 if each["exit"] is None else each["exit"],
    }
    wanted_bytes = None if said is None else os.fsencode(said)
    with reading(repo) as snapshot:
        records = (
            (number, record)
            for number, record in snapshot.records_back()
            if wanted_bytes is None or _has_said(snapshot, record, wanted_bytes)
        )
        found = (fields(snapshot, number, record) for number, record in records)
        wanted = (
            each
            for each in found
            if exit_code in (None, each["exit"]) and (grep is None or grep in each["instruction"])
        )
        listed = chosen(wanted, keys, **choice)
    if not call.as_json:
        output.print_table([_row(each) for each in listed], right=(2,))
    return listed


def _has_said(snapshot: "Snapshot", record: "Record", text: bytes) -> bool:
    for content in (record.stdout, record.stderr):
        end = b""
        for data in () if content is None else snapshot.iter_content(content):
            if text in (both := end + data):
                return True
            end = both[-len(text) :]
    return False


def fields(snapshot: "Snapshot", number: bytes, record: "Record") -> dict[str, Any]:
    from fusecas import _native
    from fusecas.store.ids import Kind, ObjectId
    from fusecas.store.kinds import Action, command_of

    text = command_of(Action.decode(record.action).program)
    result = snapshot.result(ObjectId(_native.node_id(Kind.ACTION, record.action)))
    is_kept = result is not None and result.record == number
    return {
        "run": number.hex(),
        "status": record.status,
        **output.time_fields(record.started),
        "took_ms": None if record.ended is None else (record.ended - record.started) // 1_000_000,
        "exit": record.exit,
        "signal": record.signal,
        "layer": output.hex_or_none(record.layer),
        "kept": is_kept,
        "hits": result.hits if result is not None and is_kept else 0,
        "mixed": record.mixed,
        **output.instruction_fields(text),
    }


def _row(each: dict[str, Any]) -> list[str]:
    from fusecas.store.run_rows import RUNNING

    came = each["status"] if each["exit"] is None else f"exit {each['exit']}"
    colour = "green" if each["exit"] == 0 else "yellow" if each["status"] == RUNNING else "red"
    took = "" if each["took_ms"] is None else f"{each['took_ms'] / 1000:.2f} s"
    return [
        output.paint(each["run"][:SHORT], "cyan"),
        output.time_text(int(each["time_ns"])),
        took,
        output.paint(came, colour),
        output.paint("" if each["layer"] is None else each["layer"][:12], "yellow"),
        f"{output.count(each['hits'], 'hit')}" if each["hits"] else "",
        output.first_line(each["instruction"]),
    ]


@verb("logs")
@click.argument("run", metavar="RUN|REF")
def logs(run: str, call: "Call", repo: Path | None) -> Any:
    """What a command has said: of a run by its number (`fusecas runs` lists them), or of the one that made a layer, or
    whose result was put in place as that layer.

    Its stdout goes to stdout, its stderr to stderr.

    Example: fusecas logs @
    """
    import sys

    from fusecas.runner import as_text

    with reading(repo) as snapshot:
        number, record = _found(snapshot, run)
        said = {
            name: b"" if content is None else b"".join(snapshot.iter_content(content))
            for name, content in (("stdout", record.stdout), ("stderr", record.stderr))
        }
    if not call.as_json:
        output.write_bytes(said["stdout"])
        sys.stderr.flush()
        sys.stderr.buffer.write(said["stderr"])
    return {"run": number.hex(), **as_text(said["stdout"], "stdout"), **as_text(said["stderr"], "stderr")}


def _found(snapshot: "Snapshot", text: str) -> "tuple[bytes, Record]":
    if DIGITS.fullmatch(text):
        found = list(_with_prefix(snapshot, text))
        if len(found) > 1:
            raise AmbiguousPrefix.among(text, [number.hex() for number, _ in found[:20]])
        if found:
            return found[0]
    layer = resolve_layer(snapshot, text)
    for number, record in snapshot.records_back():
        if record.layer == layer:
            return number, record
    origin = _origin(snapshot, layer)
    if origin is not None:
        return origin
    raise RefNotFound(f"no run has made layer {layer.hex()[:12]}", hint="fusecas runs lists them")


def _origin(snapshot: "Snapshot", layer: "LayerId") -> "tuple[bytes, Record] | None":
    """The run that did what a hit has put in place: the newest one of the same program that came to the same state."""
    from fusecas.store.ids import Kind
    from fusecas.store.kinds import Action, Layer

    core = Layer.decode(snapshot.read_node(layer, Kind.LAYER))
    for number, record in snapshot.records_back():
        if record.state == core.state and record.exit == core.exit:
            action = Action.decode(record.action)
            if (action.program, action.cwd) == (core.program, core.cwd):
                return number, record
    return None


def _with_prefix(snapshot: "Snapshot", digits: str) -> "Iterator[tuple[bytes, Record]]":
    return ((number, record) for number, record in snapshot.records_back() if number.hex().startswith(digits))


COMMANDS = {"runs": runs, "logs": logs}
