"""Many workspaces of one repository: fork, ws list, ws create, ws rm."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fusecas.cli import output
from fusecas.cli.asking import live
from fusecas.cli.common import chosen, list_options, reading, verb
from fusecas.cli.operations import VerbGroup
from fusecas.cli.where import ws_option
from fusecas.wire import path_of

if TYPE_CHECKING:
    from fusecas.cli.call import Call


@verb("fork")
@click.argument("name")
@ws_option
def fork(name: str, ws: str | None, call: "Call", repo: Path | None) -> Any:
    """A new workspace NAME with all that is here now, what is uncommitted included.

    While the repository is mounted it lives at .fusecas/ws/NAME of the mount.

    Example: fusecas fork attempt-2
    """
    done = live(call, repo, ws).fork(name)
    if not call.as_json:
        print(f"workspace {output.printable(name)}{_place(done)}")
    return done


def _place(done: dict[str, Any]) -> str:
    return f" at {output.path_text(path_of(done))}" if "path" in done else ""


@click.command("ws", cls=VerbGroup, invoke_without_command=True)
@click.pass_context
def ws(ctx: click.Context) -> None:
    """The workspaces of this repository."""
    from fusecas.cli.program import explain

    if ctx.invoked_subcommand is None:
        explain(ctx)


@verb("ws list")
@list_options("name")
def ws_list(call: "Call", repo: Path | None, **choice: Any) -> Any:
    """All workspaces, and where each stands.

    Example: fusecas ws list
    """
    from fusecas.store import heads

    with reading(repo) as snapshot:
        keys: dict[str, Any] = {"name": lambda head: head.name}
        found = chosen(heads.all_heads(snapshot), keys, **choice)
    if not call.as_json:
        output.print_table(
            [output.printable(each.name), output.paint(output.short(each.workspace.layer) or "nothing yet", "yellow")]
            for each in found
        )
    return [
        {
            "name": each.name,
            "id": each.workspace.id.hex(),
            "layer": output.hex_or_none(each.workspace.layer),
            "state": each.live.state.hex(),
            "status": each.workspace.status,
        }
        for each in found
    ]


@verb("ws create")
@click.argument("name")
def ws_create(name: str, call: "Call", repo: Path | None) -> Any:
    """A new workspace NAME with nothing in it; fusecas fork makes one with all that is here.

    Example: fusecas ws create scratch
    """
    done = live(call, repo).create(name)
    if not call.as_json:
        print(f"workspace {output.printable(name)}{_place(done)}")
    return done


@verb("ws rm")
@click.argument("name")
@click.option("--force", is_flag=True, help="Even if files are open in it.")
def ws_rm(name: str, force: bool, call: "Call", repo: Path | None) -> Any:
    """Remove the workspace NAME. Its operation keeps what was in it for as long as it can be undone.

    Example: fusecas ws rm attempt-2
    """
    done = live(call, repo).remove(name, force=force)
    if not call.as_json:
        print(f"removed workspace {output.printable(name)}")
    return done


for each, name in ((ws_list, "list"), (ws_create, "create"), (ws_rm, "rm")):
    ws.add_command(each, name)
COMMANDS = {"fork": fork, "ws": ws}
