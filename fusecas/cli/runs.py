"""What was run: runs, logs."""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fusecas.cli import output
from fusecas.cli.common import chosen, list_options, reading, verb, workspace_of

if TYPE_CHECKING:
    from fusecas.cli.call import Call

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
    from fusecas import documents
    from fusecas.records import Wanted, records

    keys: dict[str, Any] = {
        "time": lambda each: each["time"],
        "took": lambda each: each["took_ms"] or 0,
        "exit": lambda each: -1 if each["exit"] is None else each["exit"],
    }
    wanted = Wanted(exit_code, grep, None if said is None else os.fsencode(said))
    with reading(repo) as snapshot:
        found = (documents.record(snapshot, *each) for each in records(snapshot, wanted))
        listed = chosen(found, keys, **choice)
    if not call.as_json:
        output.print_table([_row(each) for each in listed], right=(2,))
    return listed


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

    from fusecas import records
    from fusecas.wire import path_fields

    with reading(repo) as snapshot:
        number, record = records.record_of(snapshot, run, workspace_of(run), output.note)
        stdout, stderr = records.said_by(snapshot, record)
    if not call.as_json:
        output.write_bytes(stdout)
        sys.stderr.flush()
        sys.stderr.buffer.write(stderr)
    return {"run": number.hex(), **path_fields(stdout, "stdout"), **path_fields(stderr, "stderr")}


COMMANDS = {"runs": runs, "logs": logs}
