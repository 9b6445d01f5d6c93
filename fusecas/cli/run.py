"""Commands: run."""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from fusecas.cli import output
from fusecas.cli.asking import deed_of, say_that_it_waits, wait_option
from fusecas.cli.common import check_message, duration, verb
from fusecas.cli.executing import (
    Function,
    Outputs,
    Site,
    become,
    execute_here,
    program_of,
    site,
    warn_of_unused_stdin,
    where_options,
)
from fusecas.cli.missed import missed_text
from fusecas.cli.where import ws_option
from fusecas.cli.work import COUNTS, layer_text, names_text
from fusecas.errors import StillRunning, UsageError

if TYPE_CHECKING:
    from fusecas.cli.call import Call
    from fusecas.runner import Came, Input, Program

SECOND = 1_000_000_000
PIECE = 1 << 20


def run_options(function: Function) -> Function:
    """What `run` and `batch` know."""
    options = (
        click.option("--no-cache", is_flag=True, help="Run it, and don't remember the result for others."),
        click.option("--refresh", is_flag=True, help="Run it even if the result is known, and remember the new one."),
        click.option(
            "--pure", is_flag=True, help="Serve a known result also if it changes nothing: only the output matters."
        ),
        click.option("--max-age", metavar="TIME", help="A result older than this is not served."),
        click.option("--timeout", metavar="TIME", help="End the command after so long (exit 124)."),
        click.option("--umask", metavar="MASK", default="022", help="The umask of the command (022)."),
        click.option(
            "--on-failure",
            type=click.Choice(("keep", "rollback")),
            default="keep",
            help="What it changed stays, uncommitted (keep), or is taken back.",
        ),
        click.option(
            "--dirty",
            type=click.Choice(("layer", "fail")),
            default="layer",
            help="What is uncommitted before it becomes a layer of its own (layer), or it is refused.",
        ),
        wait_option,
    )
    for option in reversed(options):
        function = option(function)
    return function


class Wishes(NamedTuple):
    """The options of a run, as they were understood."""

    umask: int
    timeout: float | None
    options: Mapping[str, Any]
    wait: bool
    pure: bool


def wishes(
    *,
    no_cache: bool,
    refresh: bool,
    pure: bool,
    max_age: str | None,
    timeout: str | None,
    umask: str,
    on_failure: str,
    dirty: str,
    wait: bool,
) -> Wishes:
    options = {
        "serve": not (no_cache or refresh),
        "keep": not no_cache,
        "max_age": None if max_age is None else int(duration(max_age) * SECOND),
        "pure": pure,
        "on_failure": on_failure,
        "dirty": dirty,
    }
    return Wishes(_umask(umask), None if timeout is None else duration(timeout), options, wait, pure)


def _umask(text: str) -> int:
    try:
        mask = int(text, 8)
    except ValueError:
        mask = -1
    if not 0 <= mask <= 0o777:
        raise UsageError(f"{text!r} is no umask", hint="three octal digits, as 022")
    return mask


@verb("run", takes_paths=True, has_lines=True)
@click.argument("text", nargs=-1, metavar="'CMD' | -- WORD...")
@ws_option
@where_options
@click.option("-m", "--message", help="What to remember of it.")
@click.option("--stdin", metavar="FILE|-", help="What the command reads; without it, nothing.")
@click.option("--retry", is_flag=True, help="Put back what was there before its last run, which failed; then run it.")
@run_options
def run(
    text: tuple[str, ...],
    ws: str | None,
    cwd: Path | None,
    env: tuple[str, ...],
    unset: tuple[str, ...],
    message: str | None,
    stdin: str | None,
    retry: bool,
    call: "Call",
    repo: Path | None,
    paths: tuple[str, ...] = (),
    **choice: Any,
) -> Any:
    """Run a command in the workspace; what it changes becomes a layer.

    The same command on the same content, with the same variables, is not run again: its result is put in place, and its
    output repeated. 'CMD' is a text for /bin/sh; what follows -- is run as it is. They don't share results.

    --json=lines: one JSON document a line: {event: start}, then stdout and stderr as they come, then what --json says.

    Exit: the command's; 124 after --timeout, 125 if fusecas itself fails, 126 and 127 as a shell has them.

    Example: fusecas run 'make test'
    """
    from fusecas.runner import refuse_own_files

    if message is not None:
        check_message(message)
    program = program_of(text, paths, "run")
    wished = wishes(**choice)
    wished = wished._replace(options={**wished.options, "message": message, "retry": retry})
    with site(repo, ws, cwd, env, unset) as there, _input(stdin, there) as source:
        outputs = Outputs(call.as_json, call.json_lines)
        if there.place.outer is not None:
            if source is not None:
                os.dup2(source.descriptor, 0)
            if not call.as_json:
                become(there, program)
            result = run_nested(there, program, outputs)
            return result, result["exit_code"]
        refuse_own_files(there.place.path, reads=stdin == "-")
        came = run_one(there, program, wished, outputs, call, source)
    if source is None:
        warn_of_unused_stdin()
    if not call.as_json:
        say(came, wished)
        outputs.raise_error()
        end_as(came)
    return as_json(came, outputs), came.exit


def _input(named: str | None, there: Site) -> "AbstractContextManager[Input | None]":
    from fusecas.runner import set_apart

    return nullcontext() if named is None else set_apart(there.client.folder, _parts(named))


def _parts(named: str) -> Iterator[bytes]:
    from fusecas.cli.objects import opened_file

    with opened_file(named) as source:
        while data := source.read(PIECE):
            yield data


def run_one(
    there: Site, program: "Program", wished: Wishes, outputs: Outputs, call: "Call", source: "Input | None" = None
) -> "Came":
    """All of it but what is said about it."""
    from fusecas import runner

    def began(begun: Mapping[str, Any]) -> None:
        fields = {name: begun[name] for name in ("run", "workspace", "cached")}
        outputs.tell("start", **fields)

    def once(wait: bool) -> "Came":
        return runner.run(
            there.client,
            program,
            place=there.place.path,
            cwd=there.cwd,
            env=there.env,
            stdout=outputs.stdout,
            stderr=outputs.stderr,
            umask=wished.umask,
            timeout=wished.timeout,
            stdin=source,
            began=began,
            deed=deed_of(call),
            wait=wait,
            **wished.options,
            ws=there.place.workspace,
        )

    try:
        came = once(wait=False)
    except StillRunning as error:
        if not wished.wait:
            raise
        say_that_it_waits(error)
        came = once(wait=True)
    if came.cached:
        _replay(there.client.folder, came, outputs)
    outputs.finish(_patience(came))
    return came


def _patience(came: "Came") -> float | None:
    """With whoever reads the output."""
    if came.done is None or not (came.done.timed_out or came.done.signal is not None):
        return None
    from fusecas.executor import GRACE

    return GRACE


def run_nested(there: Site, program: "Program", outputs: Outputs) -> dict[str, Any]:
    """As part of the run around us, which records what it does."""
    from fusecas.runner import told_nested

    outputs.tell("start", run=there.place.outer, nested=True)
    ended = execute_here(there, program, outputs)
    outputs.finish()
    return _as_json(told_nested(there.place, ended), outputs)


def _replay(folder: Path, came: "Came", outputs: Outputs) -> None:
    from fusecas.runner import said

    for stream, data in said(folder, came.answer):
        sink = outputs.stdout if stream == 1 else outputs.stderr
        if not sink.has_room():
            sink.finish()
        sink.offer(data)


# ---- what is said


def say(came: "Came", wished: Wishes) -> None:
    """On stderr: stdout is the command's."""
    answer = came.answer
    if came.done is not None and came.done.killed:
        output.note(f"it had left running, and was made to end: {', '.join(came.done.killed)}")
    if came.cached:
        ago = output.age_text(int(answer["recorded_ns"]))
        took = _seconds(int(answer["took_ns"]))
        layer = answer["layer"]
        what = "nothing changed" if layer is None else f"layer {layer_text(layer, sys.stderr)} ({names_text(answer)})"
        output.note(f"cached: {what}, run {ago} in {took}")
        return
    assert came.done is not None
    if (why := missed_text(answer)) is not None:
        output.note(why)
    if answer["mixed"] is not None:
        output.note(f"not remembered: {answer['mixed']}")
    if came.done.is_long:
        output.note(f"not remembered, since it said more than {output.size_text(answer['output_limit'])}")
    took = _seconds(came.done.ended - came.done.started)
    if answer["edits"] is not None:
        output.note(f"what was uncommitted before is layer {layer_text(answer['edits'], sys.stderr)}")
    if answer["layer"] is not None:
        output.note(f"layer {layer_text(answer['layer'], sys.stderr)} ({names_text(answer)}) in {took}")
    elif came.exit:
        why = "timed out" if came.done.timed_out else f"exit {came.exit}"
        output.note(f"failed ({why}) in {took}{_left(answer)}")
    else:
        pure = "" if wished.pure or answer["pure"] else "; not marked pure, so it runs each time"
        output.note(f"nothing changed, in {took}{pure}")


def _left(answer: Mapping[str, Any]) -> str:
    if not any(answer[each] for each in COUNTS):
        return "; nothing changed"
    if answer["put_back"]:
        return f"; what it changed is taken back: {names_text(answer)}; undo brings it back"
    return f"; what it changed is uncommitted: {names_text(answer)}"


def _seconds(ns: int) -> str:
    seconds = ns / SECOND
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def end_as(came: "Came") -> None:
    """Of the signal that the command died of, if it did: whoever waits for us is to see the same."""
    from fusecas import runner
    from fusecas.executor import TIMED_OUT

    if came.signal is not None and came.exit != TIMED_OUT:
        sys.stdout.flush()
        sys.stderr.flush()
        runner.die_of(came.signal)


def as_json(came: "Came", outputs: Outputs) -> dict[str, Any]:
    from fusecas.runner import told

    return _as_json(told(came), outputs)


def _as_json(told: Mapping[str, Any], outputs: Outputs) -> dict[str, Any]:
    layer = told["hash"]
    return {"short": None if layer is None else layer[:12], "empty": layer is None, **told, **outputs.as_json()}


run.allow_interspersed_args = False
COMMANDS = {"run": run}
