"""Operations: what somebody did to this repository."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fusecas.cli import output
from fusecas.cli.common import chosen, list_options, reading, verb
from fusecas.errors import RefNotFound

if TYPE_CHECKING:
    from fusecas.store.tables import Operation


@click.group("op")
def op() -> None:
    """What was done to this repository, by whom and when."""


def words(operation: "Operation") -> str:
    return shlex.join(each.decode(errors="surrogateescape") for each in operation.argv) or operation.verb


def fields(operation: "Operation") -> dict[str, Any]:
    return {
        "number": operation.number,
        "verb": operation.verb,
        "argv": [each.decode(errors="replace") for each in operation.argv],
        "actor": operation.actor,
        **output.time_fields(operation.time),
        "moves": [
            {"ref": move.ref, "old": output.hex_or_none(move.old), "new": output.hex_or_none(move.new)}
            for move in operation.moves
        ],
    }


@verb("op log")
@click.argument("ref", required=False)
@list_options("number", "time", "verb", "actor")
def log(ref: str | None, as_json: bool, repo: Path | None, **choice: Any) -> Any:
    """Operations, newest first; of one workspace or tag only, if REF names it."""
    keys: dict[str, Any] = {
        "number": lambda each: each.number,
        "time": lambda each: each.time,
        "verb": lambda each: each.verb,
        "actor": lambda each: each.actor,
    }
    with reading(repo) as snapshot:
        if ref is None:
            found = snapshot.operations_back()
        else:
            name = ref.removeprefix("ws:")
            full = next(
                (
                    each
                    for each in (f"tags/{name}", f"heads/{name}")
                    if next(snapshot.ref_operations_back(each), None) is not None
                ),
                None,
            )
            if full is None:
                raise RefNotFound(f"no workspace or tag {name!r} has ever been here")
            found = snapshot.ref_operations_back(full)
        listed = chosen(found, keys, **choice)
    if not as_json:
        output.print_table(
            (
                [
                    output.paint(str(each.number), "cyan"),
                    output.paint(output.time_text(each.time), "dim"),
                    output.printable(each.actor),
                    each.verb,
                    output.printable(words(each)),
                ]
                for each in listed
            ),
            right=(0,),
        )
    return [fields(each) for each in listed]


op.add_command(log, "log")
COMMANDS = {"op": op}
