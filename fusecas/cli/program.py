"""The program: its verbs, found when they are called, and what is said when a call fails."""

import os
import sys
from pathlib import Path

import click

from fusecas.cli import drop_output, output
from fusecas.cli.call import Call
from fusecas.cli.where import come_back
from fusecas.errors import FusecasError, InternalError, PathNotFound, UsageError, of_system

VERBS = {
    "init": ("repository", "Make a repository here."),
    "mount": ("live", "Mount the workspace as a directory."),
    "umount": ("live", "Unmount it; what is uncommitted stays."),
    "path": ("live", "Where the workspace is mounted."),
    "adopt": ("adopt", "Make a workspace of a folder that is there."),
    "release": ("adopt", "Make a plain folder of it again."),
    "run": ("run", "Run a command; its changes become a layer."),
    "exec": ("exec", "Run a command without recording it."),
    "shell": ("exec", "A shell in the workspace; its changes become a layer."),
    "batch": ("batch", "Run commands one after the other."),
    "runs": ("runs", "What was run: when, how long, what it came to."),
    "logs": ("runs", "What a command has said."),
    "status": ("work", "What has changed since the last layer."),
    "commit": ("work", "Make a layer of what has changed."),
    "checkout": ("work", "Put a layer in place, forward or back."),
    "undo": ("work", "Take back what was done last."),
    "redo": ("work", "Do it again."),
    "reset": ("reset", "Other names of checkout; --all removes the repository."),
    "fork": ("workspaces", "A new workspace with all that is here."),
    "ws": ("workspaces", "All workspaces of this repository."),
    "import": ("layers", "Make a layer from a plain folder."),
    "export": ("layers", "Write a layer's files into a folder."),
    "log": ("layers", "Layers, newest first."),
    "history": ("layers", "Layers, oldest first."),
    "head": ("layers", "Where the workspace stands."),
    "inspect": ("layers", "All about one layer."),
    "tag": ("layers", "Name a layer."),
    "tags": ("layers", "All tags."),
    "op": ("operations", "What was done to this repository."),
    "ls": ("tree", "What is in a directory of a layer."),
    "cat": ("tree", "A file of a layer."),
    "diff": ("tree", "What differs between two layers."),
    "put": ("objects", "Store bytes; prints their id."),
    "get": ("objects", "An object's bytes."),
    "has": ("objects", "Whether an object is there (exit 1: no)."),
    "hash": ("objects", "The id that bytes would have."),
    "abbrev": ("objects", "The shortest prefix that names an object."),
    "closure": ("objects", "Everything that an object needs."),
    "refs": ("objects", "What an object refers to."),
    "rebuild": ("rebuild", "Check the layers behind the workspace, and mend it."),
    "verify": ("repository", "Check stored bytes."),
    "gc": ("repository", "Remove what nothing needs."),
    "stats": ("repository", "Sizes and counts."),
    "completion": ("completion", "What makes a shell complete our words."),
    "doctor": ("doctor", "What is missing on this machine, and how to get it."),
}
SECTIONS = {
    "Start": ("init", "adopt", "release", "mount", "umount", "path", "import", "export", "completion"),
    "Work": ("run", "batch", "exec", "shell", "status", "commit", "checkout", "undo", "redo", "reset"),
    "Fork": ("fork", "ws"),
    "Look": ("runs", "logs", "head", "log", "history", "inspect", "ls", "cat", "diff"),
    "Name": ("tag", "tags"),
    "Keep": ("op", "rebuild", "verify", "gc", "stats", "doctor"),
    "Objects": ("put", "get", "has", "hash", "abbrev", "closure", "refs"),
}
OF_THEIR_COMMAND = ("run", "exec", "shell", "batch")
"""Verbs whose exit code is their command's: what goes wrong here has one of its own."""
OUR_FAILURE = 125
COMPLETION = "_FUSECAS_COMPLETE"


class Verbs(click.Group):
    """Finds a verb's code when it is called, not before."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        from importlib import import_module

        module = import_module(f"fusecas.cli.{VERBS[cmd_name][0]}")
        command: click.Command = module.COMMANDS[cmd_name]
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in VERBS:
            near = output.nearest(args[0], VERBS)
            raise UsageError(f"no verb {args[0]!r}", hint=near or "fusecas --help lists the verbs")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for section, verbs in SECTIONS.items():
            with formatter.section(section):
                formatter.write_dl([(verb, VERBS[verb][1]) for verb in verbs])


def print_version(ctx: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if value:
        from fusecas import __version__

        click.echo(f"fusecas {__version__}")
        ctx.exit()


@click.command(
    cls=Verbs,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--repo", metavar="DIR", type=click.Path(path_type=Path, readable=False), help="The .fusecas folder itself."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
@click.option("--debug", is_flag=True, help="Show the traceback of what fails.")
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=print_version, help="And exit.")
@click.pass_context
def fusecas(ctx: click.Context, repo: Path | None, as_json: bool, debug: bool) -> None:
    """A versioned workspace that is a real directory.

    These options may also follow the verb; fusecas VERB --help says more about one.

    Exit codes: 0 done, 1 the answer is no, 2 wrong usage, 3 not found, 4 refused, 5 damaged, 6 environment,
    70 a bug.
    """
    call = Call.of(ctx)
    call.repo, call.json_before = repo, as_json
    if ctx.invoked_subcommand is None:
        explain(ctx)


def explain(ctx: click.Context) -> None:
    """A call that names no verb: JSON gets an error, people get the help."""
    if Call.of(ctx).as_json:
        raise UsageError(f"{ctx.command_path}: which verb?", hint=f"{ctx.command_path} --help lists the verbs")
    click.echo(ctx.get_help(), err=True)
    ctx.exit(UsageError.exit_code)


def run(words: list[str]) -> int:
    """One command. KeyboardInterrupt and BrokenPipeError are left to the caller."""
    call = Call(words)
    output.never_fail_to_encode()
    try:
        come_back()
        code = _answer(call)
        sys.stdout.flush()
        return code
    except FusecasError as error:
        return _failed(call, error, error)
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.ClickException as error:
        return _failed(call, _usage_error(error), error)
    except BrokenPipeError:
        raise
    except OSError as error:
        drop_output_if_full()
        return _failed(call, _without_a_folder() or of_system(error), error)
    except Exception as error:  # noqa: BLE001 - the last resort: it is written down, and the exit code says so
        return _bug(call, error)


def _without_a_folder() -> FusecasError | None:
    """If the folder that we are in is gone: what asks for it is told nothing but that."""
    try:
        os.getcwd()
    except OSError:
        return PathNotFound("the folder that this was called in is gone", hint="cd to one that is there")
    return None


def _answer(call: Call) -> int:
    if COMPLETION in os.environ:
        fusecas.main(call.words, prog_name="fusecas", obj=call)
    with fusecas.make_context("fusecas", list(call.words), obj=call) as context:
        result = fusecas.invoke(context)
    return result if isinstance(result, int) else 0


def _failed(call: Call, error: FusecasError, cause: Exception) -> int:
    if call.debug:
        import traceback

        traceback.print_exception(cause)
    try:
        output.report_error(call, error)
        sys.stdout.flush()
        sys.stderr.flush()
    except BrokenPipeError:
        raise
    except OSError:  # the answer can't be written anywhere: what is left of it is the exit code
        drop_output(errors=True)
    return OUR_FAILURE if call.verb in OF_THEIR_COMMAND else error.exit_code


def _usage_error(error: click.ClickException) -> UsageError:
    context = getattr(error, "ctx", None)
    help_line = None if context is None else f"{context.command_path} --help"
    near = getattr(error, "possibilities", None)
    message = error.message if near else error.format_message()
    message = " ".join(message.split())  # click gives what can be chosen a line each
    message = message[:1].lower() + message[1:].rstrip(".")
    return UsageError(message, hint=f"did you mean {near[0]}?" if near else help_line)


def drop_output_if_full() -> None:
    """What could not be written is tried again at exit, and would fail again."""
    try:
        sys.stdout.flush()
    except OSError:
        drop_output()


def _bug(call: Call, error: Exception) -> int:
    import tempfile
    import traceback

    text = "".join(traceback.format_exception(error))
    if call.debug:
        where = None
    else:
        with tempfile.NamedTemporaryFile("w", prefix="fusecas-bug-", suffix=".txt", delete=False) as file:
            file.write(text)
        where = file.name
    told = InternalError(
        f"this is a bug in fusecas: {type(error).__name__}: {error}",
        hint=f"its traceback is in {where}" if where else None,
        details={"traceback": where} if where else None,
    )
    return _failed(call, told, error)
