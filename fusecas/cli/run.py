"""Commands: run."""

import io
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from fusecas.cli import output
from fusecas.cli.asking import chosen_workspace, deed_of, ws_option
from fusecas.cli.common import check_message, duration, repository_folder, verb
from fusecas.cli.live import serving
from fusecas.cli.missed import missed_text
from fusecas.cli.work import COUNTS, layer_text, names_text
from fusecas.errors import Refused, RepositoryNotFound, UsageError
from fusecas.wire import path_of

if TYPE_CHECKING:
    from fusecas.cli.call import Call
    from fusecas.runner import Came, Program

SECOND = 1_000_000_000


@verb("run", takes_paths=True)
@click.argument("text", nargs=-1, metavar="'CMD' | -- WORD...")
@ws_option
@click.option("-m", "--message", help="What to remember of it.")
@click.option("--no-cache", is_flag=True, help="Run it, and don't remember the result for others.")
@click.option("--refresh", is_flag=True, help="Run it even if the result is known, and remember the new one.")
@click.option("--pure", is_flag=True, help="Serve a known result also if it changes nothing: only the output matters.")
@click.option("--max-age", metavar="TIME", help="A result older than this is not served.")
@click.option("--timeout", metavar="TIME", help="End the command after so long (exit 124).")
@click.option("--umask", "umask", metavar="MASK", default="022", help="The umask of the command (022).")
def run(
    text: tuple[str, ...],
    ws: str | None,
    message: str | None,
    no_cache: bool,
    refresh: bool,
    pure: bool,
    max_age: str | None,
    timeout: str | None,
    umask: str,
    call: "Call",
    repo: Path | None,
    paths: tuple[str, ...] = (),
) -> Any:
    """Run a command in the workspace; what it changes becomes a layer.

    The same command on the same content, with the same variables, is not run again: its result is put in place, and its
    output repeated. 'CMD' is a text for /bin/sh; what follows -- is run as it is. They don't share results.

    Exit: the command's; 124 after --timeout, 125 if fusecas itself fails, 126 and 127 as a shell has them.

    Example: fusecas run 'make test'
    """
    from fusecas import runner
    from fusecas.executor import TIMED_OUT
    from fusecas.runner import Program

    if message is not None:
        check_message(message)
    if len(text) > 1 or (text and paths) or not (text or paths):
        raise UsageError("one command, please", hint="fusecas run 'CMD' for the shell, fusecas run -- WORD... as it is")
    program = Program(os.fsencode(text[0])) if text else Program(argv=[os.fsencode(each) for each in paths])
    mask = _umask(umask)
    limit = None if timeout is None else duration(timeout)
    age = None if max_age is None else int(duration(max_age) * SECOND)
    if runner.RUN_VARIABLE in os.environ:
        return _nested(program)
    folder = _repository(repo)
    chosen = chosen_workspace(ws)
    with serving(folder) as client:
        place = Path(os.fsdecode(path_of(client.call("place", **chosen), "place")))
        runner.refuse_own_files(place)
        outputs = _Outputs(call.as_json)
        came = runner.run(
            client,
            program,
            place=place,
            cwd=Path.cwd(),
            env=os.environb,
            stdout=outputs.stdout,
            stderr=outputs.stderr,
            umask=mask,
            timeout=limit,
            deed=deed_of(call),
            message=message,
            serve=not (no_cache or refresh),
            keep=not no_cache,
            max_age=age,
            pure=pure,
            **chosen,
        )
    if came.cached:
        _replay(folder, came, outputs)
    if not call.as_json:
        _say(came, pure)
        sys.stdout.flush()
        sys.stderr.flush()
        if came.signal is not None and came.exit != TIMED_OUT:
            runner.die_of(came.signal)
    return _as_json(came, outputs), came.exit


class _Outputs:
    """Passed through; kept, if the answer is to be one document."""

    def __init__(self, is_kept: bool) -> None:
        self.kept = (io.BytesIO(), io.BytesIO())
        streams = self.kept if is_kept else (sys.stdout.buffer, sys.stderr.buffer)
        self.stdout: list[BinaryIO] = [streams[0]]
        self.stderr: list[BinaryIO] = [streams[1]]


def _umask(text: str) -> int:
    try:
        mask = int(text, 8)
    except ValueError:
        mask = -1
    if not 0 <= mask <= 0o777:
        raise UsageError(f"{text!r} is no umask", hint="three octal digits, as 022")
    return mask


def _repository(repo: Path | None) -> Path:
    """The one that is there; else a new one, here."""
    try:
        return repository_folder(repo).absolute()
    except RepositoryNotFound:
        if repo is not None:
            raise
    from fusecas.store.adopted import Places, is_repository
    from fusecas.store.repository import FOLDER, Repository

    beside = Places.beside(Path.cwd()).repository
    if is_repository(beside):
        raise Refused(
            f"{beside} is the repository of this folder, which is not adopted now",
            hint="fusecas adopt . goes on with it; fusecas init makes another one here",
        )
    with Repository.create(Path(FOLDER).absolute()) as made:
        output.note(f"made {made.folder}")
        output.note(f"working in {FOLDER}/work (empty), not in this folder; fusecas adopt . takes it over")
        return made.folder


def _nested(program: "Program") -> Any:
    """Part of the run that it is called from: it is executed, and that is all."""
    from fusecas.executor import cannot_start

    words = program.words()
    sys.stdout.flush()
    try:
        os.execvpe(words[0], words, os.environb)
    except OSError as error:
        output.note(f"{os.fsdecode(words[0])}: {error.strerror}")
        sys.exit(cannot_start(error))


def _replay(folder: Path, came: "Came", outputs: _Outputs) -> None:
    from fusecas.store.repository import Repository

    with Repository.open(folder) as repository, repository.store.read() as snapshot:
        for name, streams in (("stdout", outputs.stdout), ("stderr", outputs.stderr)):
            for data in snapshot.iter_content(bytes.fromhex(came.answer[name])):
                for stream in streams:
                    stream.write(data)
    for stream in (*outputs.stdout, *outputs.stderr):
        stream.flush()


# ---- what is said


def _say(came: "Came", is_pure: bool) -> None:
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
        output.note(f"not remembered, since others had a hand in it: {answer['mixed']}")
    took = _seconds(came.done.ended - came.done.started)
    if answer["edits"] is not None:
        output.note(f"what was uncommitted before is layer {layer_text(answer['edits'], sys.stderr)}")
    if answer["layer"] is not None:
        output.note(f"layer {layer_text(answer['layer'], sys.stderr)} ({names_text(answer)}) in {took}")
    elif came.exit:
        why = "timed out" if came.done.timed_out else f"exit {came.exit}"
        changes = sum(answer[each] for each in COUNTS)
        left = f"; what it changed is uncommitted: {names_text(answer)}" if changes else "; nothing changed"
        output.note(f"failed ({why}) in {took}{left}")
    else:
        pure = "" if is_pure or answer["pure"] else "; not marked pure, so it runs each time"
        output.note(f"nothing changed, in {took}{pure}")


def _seconds(ns: int) -> str:
    seconds = ns / SECOND
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def _as_json(came: "Came", outputs: _Outputs) -> dict[str, Any]:
    from fusecas.runner import as_text

    answer = came.answer
    layer = answer["layer"]
    return {
        "run": answer["run"],
        "workspace": answer["workspace"],
        "hash": layer,
        "short": None if layer is None else layer[:12],
        "cached": came.cached,
        "empty": layer is None,
        "exit_code": came.exit,
        "signal": came.signal,
        **as_text(outputs.kept[0].getvalue(), "stdout"),
        **as_text(outputs.kept[1].getvalue(), "stderr"),
        **{each: answer[each] for each in COUNTS},
        "edits": answer.get("edits"),
        "killed": [] if came.done is None else list(came.done.killed),
        "mixed": answer.get("mixed"),
        "missed": answer.get("missed"),
        "refused": answer.get("refused"),
        "timed_out": came.done is not None and came.done.timed_out,
    }


run.allow_interspersed_args = False
COMMANDS = {"run": run}
