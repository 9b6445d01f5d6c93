"""What verbs share: options, how the repository is found, sorting, progress, numbers with units."""

import functools
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from fusecas.cli import output
from fusecas.errors import UsageError

if TYPE_CHECKING:
    from fusecas.store.repository import Repository
    from fusecas.store.revisions import Revision
    from fusecas.store.snapshot import Snapshot

REPOSITORY_VARIABLES = ("FUSECAS_DIR", "STATEKIT_DIR", "E3_REPO")
DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|h|d|w|)$")
SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
PROGRESS_AFTER = 1.0

T = TypeVar("T")
Function = Callable[..., Any]


def verb(name: str, **settings: Any) -> Callable[[Function], click.Command]:
    """A command with `--repo` and `--json`. It returns what is printed as JSON; without `--json` it prints itself.

    The function gets `as_json` and `repo`; it may return (result, exit code).
    """

    def decorate(function: Function) -> click.Command:
        @functools.wraps(function)
        def run(as_json: bool, **arguments: Any) -> int:
            answer = function(as_json=as_json, **arguments)
            result, code = answer if isinstance(answer, tuple) else (answer, 0)
            if as_json:
                output.print_json(name, result)
            return int(code)

        options = (
            click.option("--repo", metavar="DIR", type=click.Path(path_type=Path), help="The .fusecas folder itself."),
            click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout."),
        )
        decorated: Any = run
        for option in options:
            decorated = option(decorated)
        make: Any = click.command(name.split(" ")[-1], **settings)
        command: click.Command = make(decorated)
        return command

    return decorate


def repository_folder(repo: Path | None) -> Path:
    """--repo, else the environment, else the nearest `.fusecas` upward."""
    from fusecas.store.repository import find

    if repo is not None:
        return repo
    for variable in REPOSITORY_VARIABLES:
        if value := os.environ.get(variable):
            return Path(value)
    return find(Path.cwd())


@contextmanager
def opened(repo: Path | None) -> Iterator["Repository"]:
    from fusecas.store.repository import Repository

    with Repository.open(repository_folder(repo)) as repository:
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

    return revisions.resolve(snapshot, text, warn=output.note)


def resolve_layer(snapshot: "Snapshot", text: str) -> bytes:
    revision = resolve(snapshot, text)
    if revision.layer is None:
        from fusecas.errors import RefNotFound

        raise RefNotFound(f"{text} is no layer: there is none yet", hint="fusecas import DIR makes one")
    return revision.layer


def resolve_object(snapshot: "Snapshot", text: str) -> bytes:
    """An object by hash or prefix, or what a ref names."""
    from fusecas.store.ids import EMPTY_CONTENT
    from fusecas.store.snapshot import HEX_DIGITS

    prefix = text.removeprefix("hash:")
    if set(prefix) <= HEX_DIGITS and len(prefix) >= 4:
        if prefix == EMPTY_CONTENT.hex():
            return EMPTY_CONTENT
        return snapshot.resolve_prefix(prefix)
    return resolve_layer(snapshot, text)


def deed() -> tuple[tuple[bytes, ...], str]:
    """(argv, actor) for an operation: what was typed, and by whom."""
    import getpass

    try:
        actor = getpass.getuser()
    except (KeyError, OSError):
        actor = str(os.getuid())
    return tuple(os.fsencode(each) for each in sys.argv[1:]), actor


# ---- lists


def list_options(*fields: str) -> Callable[[Function], Function]:
    """--sort (one of the fields), --desc, --limit, --offset."""

    def decorate(function: Function) -> Function:
        options = (
            click.option("--sort", metavar="FIELD", help=f"One of {', '.join(fields)}."),
            click.option("--desc", is_flag=True, help="The other way round."),
            click.option("--limit", "-n", type=click.IntRange(0), metavar="N", help="At most so many."),
            click.option("--offset", type=click.IntRange(0), default=0, metavar="N", help="Leave out the first N."),
        )
        for option in reversed(options):
            function = option(function)
        return function

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
        if sort not in keys:
            raise UsageError(f"can't sort by {sort!r}: {', '.join(keys)}")
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


# ---- progress


@contextmanager
def progress(title: str) -> Iterator[Callable[[Any], None] | None]:
    """A line on the terminal for what takes longer than a second; None when nobody is looking."""
    if not output.is_terminal(sys.stderr):
        yield None
        return
    import time

    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    bar = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
        refresh_per_second=8,
    )
    began = time.monotonic()
    task = bar.add_task(title)
    state = {"shown": False, "last": 0.0}

    def tell(found: Any) -> None:
        now = time.monotonic()
        if now - state["last"] < 0.1:
            return
        state["last"] = now
        if not state["shown"] and now - began > PROGRESS_AFTER:
            state["shown"] = True
            bar.start()
        if state["shown"]:
            bar.update(task, description=f"{title}: {found.files} files, {output.size_text(found.size)}")

    try:
        yield tell
    finally:
        if state["shown"]:
            bar.stop()
