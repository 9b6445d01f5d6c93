"""Commands that are not recorded: exec, shell."""

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fusecas.cli import output
from fusecas.cli.asking import live_in
from fusecas.cli.common import check_message, verb
from fusecas.cli.executing import Outputs, become, execute_here, program_of, site, variables_in, where_options
from fusecas.cli.where import REPOSITORY_VARIABLES, WORKSPACE_VARIABLE, ws_option
from fusecas.cli.work import layer_text
from fusecas.errors import StillRunning

if TYPE_CHECKING:
    from fusecas.asking import Live
    from fusecas.cli.call import Call

SHELL_LAYER = "(shell)"


@verb("exec", takes_paths=True)
@click.argument("text", nargs=-1, metavar="'CMD' | -- WORD...")
@ws_option
@where_options
def execute(
    text: tuple[str, ...],
    ws: str | None,
    cwd: Path | None,
    env: tuple[str, ...],
    unset: tuple[str, ...],
    call: "Call",
    repo: Path | None,
    paths: tuple[str, ...] = (),
) -> Any:
    """Run a command in the workspace as it is: with this terminal, and without a layer or a record.

    What it changes is uncommitted, as if it were done by hand. While a command of `run` is on in the workspace, it
    counts as somebody else's. In a run it is part of it.

    Exit: the command's; 125 if fusecas itself fails, 126 and 127 as a shell has them.

    Example: fusecas exec 'git status'
    """
    program = program_of(text, paths, "exec")
    with site(repo, ws, cwd, env, unset) as there:
        if not call.as_json:
            become(there, program)
        outputs = Outputs(as_json=True)
        ended = execute_here(there, program, outputs)
    told = {"workspace": there.place.workspace, "exit_code": ended.exit, "signal": ended.signal}
    return {**told, **outputs.as_json()}, ended.exit


@verb("shell")
@ws_option
@where_options
@click.option("-m", "--message", default=SHELL_LAYER, help="What to remember of what was done in it.")
def shell(
    ws: str | None,
    cwd: Path | None,
    env: tuple[str, ...],
    unset: tuple[str, ...],
    message: str,
    call: "Call",
    repo: Path | None,
) -> Any:
    """Start $SHELL in the workspace. When it ends, what was changed meanwhile and is uncommitted becomes a layer.

    `fusecas run` in it makes layers as everywhere. Other verbs find the workspace, wherever one goes in it.

    Exit: the shell's.

    Example: fusecas shell --ws experiment
    """
    check_message(message)
    with site(repo, ws, cwd, env, unset) as there:
        found = {REPOSITORY_VARIABLES[0]: there.client.folder, WORKSPACE_VARIABLE: there.place.workspace}
        before = there.client.call("changes", ws=there.place.workspace)["last"]
    variables = variables_in(there) | {name.encode(): os.fsencode(str(value)) for name, value in found.items()}
    program = os.fsdecode(variables.get(b"SHELL") or b"/bin/sh")
    sys.stdout.flush()
    code = _executed(program, there.cwd, variables)
    layer = None
    if there.place.outer is None and _has_changed(there.client.folder, before, there.place.workspace):
        layer = _committed(live_in(there.client.folder, call, there.place.workspace), message)
    return {"workspace": there.place.workspace, "exit_code": code, "layer": layer}, code


def _has_changed(folder: Path, since: int, workspace: str) -> bool:
    from fusecas.client import Client, NoDaemon

    try:
        with Client(folder) as client:
            return bool(client.call("changes", since=since, ws=workspace)["changes"] != [])
    except NoDaemon:  # whoever has unmounted it meanwhile: nobody can tell any more
        return True


def _committed(live: "Live", message: str) -> str | None:
    try:
        layer: str | None = live.commit(message)["layer"]
    except StillRunning as error:
        output.note(f"{error.message}: what was changed is uncommitted")
        return None
    if layer is not None:
        output.note(f"layer {layer_text(layer, sys.stderr)}")
    return layer


def _executed(program: str, cwd: Path, variables: dict[bytes, bytes]) -> int:
    """Its exit code. The terminal is the shell's until it has ended."""
    from subprocess import Popen

    from fusecas.executor import cannot_start

    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGQUIT)}
    try:
        process = Popen([program], cwd=cwd, env=variables)
        for number in (signal.SIGTERM, signal.SIGHUP):
            before[number] = signal.signal(number, lambda number, _: process.send_signal(number))
        return _ended(process.pid)
    except OSError as error:
        output.note(f"{program}: {error.strerror}")
        return cannot_start(error)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _ended(pid: int) -> int:
    while True:
        _, status = os.waitpid(pid, os.WUNTRACED)
        if not os.WIFSTOPPED(status):
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code
        os.kill(os.getpid(), signal.SIGSTOP)  # as the shell, which was told to suspend; who wakes us wakes it
        os.kill(pid, signal.SIGCONT)


execute.allow_interspersed_args = False
COMMANDS = {"exec": execute, "shell": shell}
