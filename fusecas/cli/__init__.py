"""The command line: parses, calls the library, prints. Each file here holds a group of verbs.

What a verb does not need is not imported: `fusecas head` must start fast.
"""

import sys
from collections.abc import Sequence

import click

from fusecas.cli.output import report_error, wants_json
from fusecas.errors import FusecasError, UsageError

VERBS = {
    "init": ("repository", "Make a repository here."),
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
    "verify": ("repository", "Check stored bytes."),
    "gc": ("repository", "Remove what nothing needs."),
    "stats": ("repository", "Sizes and counts."),
}
SECTIONS = {
    "Start": ("init", "import", "export"),
    "Look": ("head", "log", "history", "inspect", "ls", "cat", "diff"),
    "Name": ("tag", "tags"),
    "Keep": ("op", "verify", "gc", "stats"),
    "Objects": ("put", "get", "has", "hash", "abbrev", "closure", "refs"),
}


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
        if args and args[0] not in VERBS and not args[0].startswith("-"):
            from difflib import get_close_matches

            near = get_close_matches(args[0], VERBS, 1)
            hint = f"did you mean {near[0]}?" if near else "fusecas --help lists the verbs"
            raise UsageError(f"no verb {args[0]!r}", hint=hint)
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


@click.command(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=print_version, help="And exit.")
def fusecas() -> None:
    """A versioned workspace that is a real directory.

    Exit codes: 0 done, 1 the answer is no, 2 wrong usage, 3 not found, 4 refused, 5 damaged, 6 environment.
    """


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code. No traceback leaves here for what a user or a machine did."""
    words = list(sys.argv[1:] if argv is None else argv)
    as_json = wants_json(words)
    try:
        result = fusecas.main(words, prog_name="fusecas", standalone_mode=False)
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except FusecasError as error:
        return report_error(error, words, as_json)
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.ClickException as error:
        return report_error(UsageError(error.format_message(), hint=_usage_hint(error)), words, as_json)
    except (click.Abort, KeyboardInterrupt):
        return 130
    except BrokenPipeError:
        return _reader_is_gone()


def _usage_hint(error: click.ClickException) -> str | None:
    context = getattr(error, "ctx", None)
    return None if context is None else f"{context.command_path} --help"


def _reader_is_gone() -> int:
    """`fusecas log | head`: nothing more can be said, not even when the interpreter flushes at exit."""
    import os

    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 141
