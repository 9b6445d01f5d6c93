"""What verbs share: options, how the repository is opened, lists, numbers with units."""

import functools
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from fusecas.cli import output
from fusecas.cli.call import Call
from fusecas.cli.where import current_workspace, repository_folder
from fusecas.errors import UsageError

if TYPE_CHECKING:
    from fusecas.store.ids import LayerId, ObjectId
    from fusecas.store.repository import Repository
    from fusecas.store.revisions import Revision
    from fusecas.store.snapshot import Snapshot

DURATION = re.compile(r"(\d{1,12}(?:\.\d{1,9})?)\s*(s|m|h|d|w|)$")
FOLDER_PATH = click.Path(path_type=Path, readable=False)
"""A folder that is not looked at yet: what is wrong with it is for the library to say."""
MOST_ROWS = 1 << 62
MOST_NUMBER = (1 << 63) - 1
"""Of an operation."""
SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}

T = TypeVar("T")
Function = Callable[..., Any]


class Verb(click.Command):
    """Says which verb it is before its words are parsed; may take what follows `--` apart, as paths."""

    name_in_full = ""
    takes_paths = False
    has_lines = False

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        if parent is not None:
            Call.of(parent).verb = self.name_in_full
        return super().make_context(info_name, args, parent, **extra)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if self.has_lines and Call.of(ctx).json_lines:  # click has no options whose value may be left out
            lines = args.index("--json=lines")
            args = [*args[:lines], "--json", *args[lines + 1 :]]
        if not self.takes_paths or "--" not in args:
            return super().parse_args(ctx, args)
        at = args.index("--")
        rest = super().parse_args(ctx, args[:at])
        ctx.params["paths"] = tuple(args[at + 1 :])
        return rest


def verb(name: str, *, takes_paths: bool = False, has_lines: bool = False) -> Callable[[Function], click.Command]:
    """A command with `--repo`, `--json`, `--debug`. It returns what is printed as JSON; without it prints itself.

    The function gets `call` and `repo`; it may return (result, exit code).
    """

    def decorate(function: Function) -> click.Command:
        @functools.wraps(function)
        def run(as_json: bool, debug: bool, repo: Path | None, **arguments: Any) -> int:
            call = Call.of(click.get_current_context())
            call.as_json = as_json or call.json_before
            call.json_lines = call.json_lines and call.as_json
            call.repo = repo if repo is not None else call.repo
            answer = function(call=call, repo=call.repo, **arguments)
            result, code = answer if isinstance(answer, tuple) else (answer, 0)
            if call.as_json:
                output.print_json(call, result)
            return int(code)

        options = (
            click.option("--repo", metavar="DIR", type=FOLDER_PATH, help="The .fusecas folder itself."),
            click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout."),
            click.option("--debug", is_flag=True, hidden=True),
        )
        decorated: Any = run
        for option in options:
            decorated = option(decorated)
        command = click.command(name.split(" ")[-1], cls=Verb)(decorated)
        command.name_in_full, command.takes_paths, command.has_lines = name, takes_paths, has_lines
        return command

    return decorate


@contextmanager
def opened(repo: Path | None) -> Iterator["Repository"]:
    from fusecas.store.repository import Repository

    with Repository.open(repository_folder(repo)) as repository:
        yield repository


@contextmanager
def writing(repo: Path | None) -> Iterator["Repository"]:
    """For verbs that write: Ctrl-Z waits for the end of a transaction."""
    with opened(repo) as repository:
        hold_back_stop(repository)
        yield repository


@contextmanager
def reading(repo: Path | None) -> Iterator["Snapshot"]:
    with opened(repo) as repository, repository.store.read() as snapshot:
        yield snapshot


def hold_back_stop(repository: "Repository") -> None:
    """Ctrl-Z must not stop this process while it holds the lock that every other writer waits for."""
    from fusecas.store.lmdb_environment import LmdbEnvironment

    environment = repository.store.environment
    if isinstance(environment, LmdbEnvironment):
        environment.hold_back_stop()


def resolve(snapshot: "Snapshot", text: str) -> "Revision":
    from fusecas.store import revisions

    return revisions.resolve(snapshot, text, workspace_of(text), warn=output.note)


def workspace_of(ref: str) -> str:
    """The name of the workspace from which a ref is seen."""
    from fusecas.store import heads

    return this_workspace() if ref.startswith("@") and ref != "@empty" else heads.DEFAULT


def this_workspace() -> str:
    """The name of the one that `@` stands for."""
    call = Call.of(click.get_current_context())
    return current_workspace(call, repository_folder(call.repo))


def resolve_layer(snapshot: "Snapshot", text: str) -> "LayerId":
    from fusecas import looking

    return looking.resolve_layer(snapshot, text, workspace_of(text), output.note)


def resolve_object(snapshot: "Snapshot", text: str) -> "ObjectId":
    """An object by hash or prefix, or what a ref names."""
    from fusecas.store.ids import EMPTY_CONTENT
    from fusecas.store.snapshot import HEX_DIGITS, SHORTEST_PREFIX
    from fusecas.store.tags import NAMESPACE

    prefix = text.removeprefix("hash:")
    is_tag = prefix == text and snapshot.get_ref(NAMESPACE + text) is not None
    if not is_tag and set(prefix) <= HEX_DIGITS and len(prefix) >= SHORTEST_PREFIX:
        if prefix == EMPTY_CONTENT.hex():
            return EMPTY_CONTENT
        return snapshot.resolve_prefix(prefix)
    return resolve_layer(snapshot, text)


def check_message(message: str) -> None:
    try:
        message.encode()
    except UnicodeEncodeError as error:
        raise UsageError("the message is not UTF-8") from error


# ---- lists


def _want_dates(context: click.Context, _parameter: click.Parameter, value: bool) -> None:
    Call.of(context).wants_dates = value


dates_option = click.option(
    "--dates", is_flag=True, expose_value=False, callback=_want_dates, help="When, not how long ago."
)


def list_options(*fields: str) -> Callable[[Function], Function]:
    """--sort (one of the fields), --desc, --limit, --offset; --dates."""

    def decorate(function: Function) -> Function:
        options = (
            click.option("--sort", type=click.Choice(fields), help="By which field."),
            click.option("--desc", is_flag=True, help="The other way round."),
            click.option("--limit", "-n", type=click.IntRange(0, MOST_ROWS), metavar="N", help="At most so many."),
            click.option(
                "--offset", type=click.IntRange(0, MOST_ROWS), default=0, metavar="N", help="Leave out the first N."
            ),
        )
        for option in reversed(options):
            function = option(function)
        return dates_option(function)

    return decorate


def chosen(
    items: Iterator[T],
    keys: dict[str, Callable[[T], Any]],
    sort: str | None,
    desc: bool,
    limit: int | None,
    offset: int,
) -> list[T]:
    """What the list options choose; reads no more than it needs to."""
    from itertools import islice

    if sort is not None:
        items = iter(sorted(items, key=keys[sort], reverse=desc))
    elif desc:
        items = iter(list(items)[::-1])
    return list(islice(items, offset, None if limit is None else offset + limit))


# ---- numbers


def duration(text: str) -> float:
    """Seconds of `90`, `10m`, `2h`, `3d`, `1w`."""
    found = DURATION.match(text.strip())
    if found is None:
        raise UsageError(f"{text!r} is not a time span", hint="90 (seconds), 10m, 2h, 3d, 1w")
    return float(found.group(1)) * SECONDS[found.group(2)]
