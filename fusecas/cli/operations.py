"""Operations: what somebody did to this repository."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fusecas.cli import output
from fusecas.cli.asking import live
from fusecas.cli.common import MOST_NUMBER, chosen, list_options, reading, this_workspace, verb
from fusecas.errors import UsageError

if TYPE_CHECKING:
    from fusecas.cli.call import Call
    from fusecas.store.rows import Operation
    from fusecas.store.snapshot import Snapshot


class VerbGroup(click.Group):
    """A verb of several words: it names the nearest one if it does not know the second."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in self.commands:
            near = output.nearest(args[0], self.commands)
            raise UsageError(f"no verb '{self.name} {args[0]}'", hint=near or f"fusecas {self.name} --help lists them")
        return super().resolve_command(ctx, args)


@click.command("op", cls=VerbGroup, invoke_without_command=True)
@click.pass_context
def op(ctx: click.Context) -> None:
    """What was done to this repository, by whom and when."""
    from fusecas.cli.program import explain

    if ctx.invoked_subcommand is None:
        explain(ctx)


def words(operation: "Operation") -> str:
    return shlex.join(each.decode(errors="surrogateescape") for each in operation.argv) or operation.verb


@verb("op log")
@click.argument("ref", required=False)
@list_options("number", "time", "verb", "actor")
def log(ref: str | None, call: "Call", repo: Path | None, **choice: Any) -> Any:
    """Operations, newest first; of one workspace or tag only, if REF names it.

    Example: fusecas op log main --limit 5
    """
    from fusecas import documents

    keys: dict[str, Any] = {
        "number": lambda each: each.number,
        "time": lambda each: each.time,
        "verb": lambda each: each.verb,
        "actor": lambda each: each.actor,
    }
    with reading(repo) as snapshot:
        found = snapshot.operations_back() if ref is None else snapshot.ref_operations_back(_name(snapshot, ref))
        listed = chosen(found, keys, **choice)
    if not call.as_json:
        output.print_table(
            (
                [
                    output.paint(str(each.number), "cyan"),
                    output.paint(output.time_text(each.time), "dim"),
                    output.printable(each.actor),
                    each.verb,
                    output.first_line(words(each)),
                ]
                for each in listed
            ),
            right=(0,),
        )
    return [documents.operation(each) for each in listed]


def _name(snapshot: "Snapshot", ref: str) -> str:
    from fusecas import looking

    return looking.ref_name(snapshot, ref, this_workspace() if ref == "@" else "")


@verb("op revert")
@click.argument("number", type=click.IntRange(1, MOST_NUMBER), metavar="N")
def revert(number: int, call: "Call", repo: Path | None) -> Any:
    """Take back the operation N, as op log numbers them, if all that it moved is where it has left it; else exit 4.

    What is uncommitted in a workspace that goes back is set aside; undo brings it back. To take back the last steps of
    a workspace one by one is undo.

    Example: fusecas op revert 12
    """
    done = live(call, repo).revert(number)
    if not call.as_json:
        print(f"took back {done['verb']} (operation {number}): {_came_to(done)}")
        if done.get("aside"):
            print("what was uncommitted is set aside; fusecas undo brings it back")
    return done


def _came_to(done: Mapping[str, Any]) -> str:
    if done["workspace"] is None:
        return ", ".join(output.printable(ref.replace("/", " ", 1).replace("tags", "tag")) for ref in done["refs"])
    name = f"workspace {output.printable(done['workspace'])}"
    if done["removed_workspace"] or done["restored_workspace"]:
        return f"{name} is {'gone' if done['removed_workspace'] else 'there again'}"
    where = "@empty" if done["layer"] is None else f"layer {output.short(bytes.fromhex(done['layer']))}"
    return f"{name} is at {where}"


op.add_command(log, "log")
op.add_command(revert, "revert")
COMMANDS = {"op": op}
