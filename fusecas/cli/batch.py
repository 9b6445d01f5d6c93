"""Several commands: batch."""

import json
import os
import re
import shlex
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fusecas.cli import output
from fusecas.cli.common import verb
from fusecas.cli.executing import Outputs, Site, site, where_options
from fusecas.cli.run import Wishes, as_json, end_as, run_nested, run_one, run_options, say, wishes
from fusecas.cli.where import ws_option
from fusecas.errors import FusecasError, UsageError

if TYPE_CHECKING:
    from fusecas.cli.call import Call
    from fusecas.runner import Came, Program

LOOKS_LIKE_JSON = re.compile(rb'\s*\[\s*["\[\]]')
BY_THE_USER = (signal.SIGINT, signal.SIGQUIT)


@verb("batch")
@click.argument("file", metavar="FILE|-")
@ws_option
@where_options
@click.option("--keep-going", "-k", is_flag=True, help="Go on after a command that fails.")
@run_options
def batch(
    file: str,
    ws: str | None,
    cwd: Path | None,
    env: tuple[str, ...],
    unset: tuple[str, ...],
    keep_going: bool,
    call: "Call",
    repo: Path | None,
    **choice: Any,
) -> Any:
    """Run the commands in FILE one after the other, each as `run` does: those whose results are known are not run.

    FILE: one command a line (for /bin/sh; blank lines and those that begin with # are left out), or a JSON array of
    commands: texts, or arrays of words. It stops at the first one that fails.

    Exit: that of the first command that failed.

    Example: fusecas batch steps.txt
    """
    from fusecas.runner import refuse_own_files

    wished = wishes(**choice)
    programs = _programs(_read(file))
    with site(repo, ws, cwd, env, unset) as there:
        if there.place.outer is None:
            refuse_own_files(there.place.path, reads=file == "-")
        done = _Batch(there, wished, call, len(programs))
        for program in programs:
            done.add(program)
            if done.is_over or (done.exit and not keep_going):
                break
    if not call.as_json:
        output.note(done.summary())
        if done.failed is not None:
            end_as(done.failed)
    return done.results, done.exit


class _Batch:
    """What has been run so far. `exit`, `failed`: of the first one that failed."""

    def __init__(self, there: Site, wished: Wishes, call: "Call", total: int) -> None:
        self.results: list[dict[str, Any]] = []
        self.exit = 0
        self.failed: Came | None = None
        self.is_over = False
        self._first_failure = ""
        self._there = there
        self._wished = wished
        self._call = call
        self._total = total

    def add(self, program: "Program") -> None:
        text = _text(program)
        if not self._call.as_json:
            output.note(f"[{len(self.results) + 1}/{self._total}] {output.first_line(text)}")
        came: Came | None = None
        try:
            came, result = self._run(program)
        except FusecasError as error:
            from fusecas.cli.program import OUR_FAILURE

            result = {"exit_code": OUR_FAILURE, "error": output.problem_fields(error)}
            if not self._call.as_json:
                output.say_error(error)
        self.results.append({**output.instruction_fields(text), **result})
        if result["exit_code"] and not self.exit:
            self.exit, self.failed = result["exit_code"], came
            self._first_failure = f"{len(self.results)}: {output.first_line(text)} (exit {self.exit})"
        self.is_over = result.get("signal") in BY_THE_USER

    def _run(self, program: "Program") -> "tuple[Came | None, dict[str, Any]]":
        outputs = Outputs(self._call.as_json)
        if self._there.place.outer is not None:
            result = run_nested(self._there, program, outputs)
            outputs.raise_error()
            return None, result
        came = run_one(self._there, program, self._wished, outputs, self._call)
        if not self._call.as_json:
            say(came, self._wished)
        outputs.raise_error()
        return came, as_json(came, outputs)

    def summary(self) -> str:
        cached = sum(bool(each.get("cached")) for each in self.results)
        failed = sum(bool(each["exit_code"]) for each in self.results)
        parts = [f"{len(self.results) - cached} run", f"{cached} cached"]
        parts += [f"{failed} failed, first {self._first_failure}"] if failed else []
        left = self._total - len(self.results)
        return f"{output.count(self._total, 'command')}: {', '.join(parts)}" + (f"; {left} not run" if left else "")


def _read(file: str) -> bytes:
    from fusecas.cli.objects import opened_file

    with opened_file(file) as source:
        return source.read()


def _programs(data: bytes) -> "list[Program]":
    from fusecas.runner import Program

    if not LOOKS_LIKE_JSON.match(data):
        lines = (line.strip() for line in data.split(b"\n"))
        return [Program(line) for line in lines if line and not line.startswith(b"#")]
    try:
        commands = json.loads(data)
    except ValueError as error:
        hint = "if it is meant as lines of shell: write test instead of ["
        raise UsageError(f"it begins as a JSON array, and is none: {error}", hint=hint) from error
    return [_program(number, each) for number, each in enumerate(commands, 1)]


def _program(number: int, command: Any) -> "Program":
    from fusecas.runner import Program

    if isinstance(command, str) and command.strip():
        return Program(_bytes(command))
    if isinstance(command, list) and command and all(isinstance(word, str) for word in command):
        return Program(argv=[_bytes(word) for word in command])
    raise UsageError(f"command {number} is neither a text nor an array of words", hint='["make", ["cc", "a.c"]]')


def _bytes(text: str) -> bytes:
    try:
        data = text.encode()
    except UnicodeEncodeError as error:
        raise UsageError("a command has half a character in it") from error
    if b"\0" in data:
        raise UsageError("a command has a NUL in it")
    return data


def _text(program: "Program") -> str:
    return os.fsdecode(program.shell) if program.shell is not None else shlex.join(map(os.fsdecode, program.argv))


COMMANDS = {"batch": batch}
