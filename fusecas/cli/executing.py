"""What run, exec, shell and batch share: where a command is executed, what it sees, and where its output goes."""

import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import click

from fusecas.cli import output
from fusecas.cli.live import serving
from fusecas.cli.where import around, chosen_workspace, repository_folder
from fusecas.errors import PathNotFound, Refused, RepositoryNotFound, UsageError
from fusecas.wire import line_of, path_fields

if TYPE_CHECKING:
    from fusecas.client import Client
    from fusecas.outlet import Sink
    from fusecas.plain import Ended
    from fusecas.runner import Place, Program

Function = Callable[..., Any]
PIECE = 1 << 16
MOST_IN_JSON = 64 << 20
IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)
"""Which a command must not inherit: `yes | head` would not end as it does."""
PIPE_OR_SOCKET = (0o010000, 0o140000)


def where_options(function: Function) -> Function:
    """--cwd, --env, --unset."""
    options = (
        click.option(
            "--cwd", metavar="DIR", type=click.Path(path_type=Path), help="A folder of the workspace to run it in."
        ),
        click.option("--env", "-e", "env", metavar="NAME=VALUE", multiple=True, help="A variable for the command."),
        click.option("--unset", metavar="NAME", multiple=True, help="A variable that it does not see."),
    )
    for option in reversed(options):
        function = option(function)
    return function


class Site(NamedTuple):
    """Where commands are executed: in `cwd`, which lies in a workspace. If we are part of a run there (`place.outer`),
    then what is executed is, too."""

    client: "Client"
    place: "Place"
    cwd: Path
    env: Mapping[bytes, bytes]


@contextmanager
def site(
    repo: Path | None, ws: str | None, cwd: Path | None, env: tuple[str, ...], unset: tuple[str, ...]
) -> Iterator[Site]:
    from fusecas.runner import place_of

    variables = _variables(env, unset)
    folder, is_outer = _repository(repo)
    with serving(folder) as client:
        place = place_of(client, _chosen(ws, is_outer))
        yield Site(client, place, _folder_in(place.path, cwd, client), variables)


def _repository(repo: Path | None) -> tuple[Path, bool]:
    """The one that is there, else that of the run around us, else a new one, here; and whether it is the run's."""
    from fusecas.runner import RUN_REPOSITORY

    outer = os.environ.get(RUN_REPOSITORY)
    try:
        folder = repository_folder(repo).absolute()
        return folder, outer is not None and os.path.isdir(outer) and os.path.samefile(folder, outer)
    except RepositoryNotFound:
        if repo is not None:
            raise
        if outer is not None:
            return Path(outer), True
    return _new_repository(), False


def _new_repository() -> Path:
    from fusecas.store.adopted import Places, is_repository
    from fusecas.store.finding import FOLDER
    from fusecas.store.repository import Repository

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


def _chosen(ws: str | None, is_outer: bool) -> str | None:
    from fusecas.runner import RUN_WORKSPACE

    return chosen_workspace(ws) or (os.environ.get(RUN_WORKSPACE) if is_outer else None) or None


def _folder_in(place: Path, named: Path | None, client: "Client") -> Path:
    """The folder that is named, from where we are if that is in the workspace, else from its root. Without one: where
    we are, or the same place in this workspace if we are in another one of the repository; else the root."""
    here = _same_place(place, client)
    if named is None:
        return here
    folder = Path(os.path.realpath(here / named))
    if not folder.is_relative_to(place):
        raise UsageError(f"{named} is not in the workspace", hint=f"the workspace is {place}")
    if not folder.is_dir():
        raise PathNotFound(f"{named} is no folder of the workspace")
    return folder


def _same_place(place: Path, client: "Client") -> Path:
    from fusecas.runner import place_of

    here = Path.cwd()
    root = around(here)
    if root is None:
        root = place_of(client).path
    elif not os.path.samefile(root.parent.parent / "repo", client.folder):
        return place
    there = place / here.relative_to(root) if here.is_relative_to(root) else place
    return there if there.is_dir() else place


def _variables(env: tuple[str, ...], unset: tuple[str, ...]) -> dict[bytes, bytes]:
    variables = dict(os.environb)
    for name in unset:
        variables.pop(_name(name), None)
    for each in env:
        name, equals, value = each.partition("=")
        if not equals:
            raise UsageError(f"--env {each} has no value", hint=f"--env {each}=VALUE, or --unset {each}")
        variables[_name(name)] = os.fsencode(value)
    return variables


def _name(name: str) -> bytes:
    if not name or "=" in name:
        raise UsageError(f"{name!r} is no name of a variable")
    return os.fsencode(name)


def program_of(text: tuple[str, ...], words: tuple[str, ...], verb: str) -> "Program":
    """'CMD' or -- WORD..."""
    from fusecas.runner import Program

    if len(text) > 1 or bool(text) == bool(words):
        hint = f"fusecas {verb} 'CMD' for the shell, fusecas {verb} -- WORD... as it is"
        raise UsageError("one command, please", hint=hint)
    return Program(os.fsencode(text[0])) if text else Program(argv=[os.fsencode(each) for each in words])


# ---- output


class Outputs:
    """Passed through; kept, if the answer is to be one document; or as lines of JSON."""

    def __init__(self, as_json: bool, as_lines: bool = False) -> None:
        from fusecas.outlet import Kept, Lines, Outlet, outlets

        sys.stdout.flush()
        sys.stderr.flush()
        self.kept = (Kept(MOST_IN_JSON), Kept(MOST_IN_JSON))
        self._events = Outlet(sys.stdout.fileno()) if as_lines else None
        both: tuple[Sink, Sink] = self.kept if as_json else outlets(sys.stdout.fileno(), sys.stderr.fileno())
        if self._events is not None:
            both = Lines("stdout", self._events), Lines("stderr", self._events)
        self.stdout, self.stderr = both

    def tell(self, event: str, **what: Any) -> None:
        if self._events is not None:
            self._events.offer(line_of({"event": event, **what}))

    def finish(self, patience: float | None = None) -> None:
        """Wait for whoever reads it."""
        for each in (self.stdout, self.stderr):
            if not each.finish(patience):
                output.note("whoever reads the output does not: the rest is dropped")

    def raise_error(self) -> None:
        for each in (self.stdout, self.stderr):
            if each.error is not None:
                raise each.error

    def as_json(self) -> dict[str, str]:
        """What was kept, if it was."""
        if self._events is not None:
            return {}
        return {**path_fields(self.kept[0].data, "stdout"), **path_fields(self.kept[1].data, "stderr")}


def become(there: Site, program: "Program") -> NoReturn:
    """This process becomes the command: it has our terminal, our signals and our exit code."""
    from fusecas.executor import cannot_start

    words = program.words()
    sys.stdout.flush()
    os.chdir(there.cwd)
    try:
        for each in IGNORED_BY_PYTHON:
            signal.signal(each, signal.SIG_DFL)
        os.execvpe(words[0], words, variables_in(there))
    except OSError as error:
        output.note(f"{os.fsdecode(words[0])}: {error.strerror}")
        sys.exit(cannot_start(error))


def execute_here(there: Site, program: "Program", outputs: Outputs) -> "Ended":
    """Execute it as it is: no layer, no record. We wait for it, not for what it leaves."""
    from tempfile import TemporaryFile

    from fusecas import plain

    with TemporaryFile() as stdout, TemporaryFile() as stderr:
        ended = plain.execute(program.words(), there.cwd, variables_in(there), (None, stdout, stderr))
        for file, sink in ((stdout, outputs.stdout), (stderr, outputs.stderr)):
            file.seek(0)
            while data := file.read(PIECE):
                sink.offer(data)
    return ended


def variables_in(there: Site) -> dict[bytes, bytes]:
    """What a command sees that is not a run of its own."""
    from fusecas import runner

    return runner.variables_in(there.place.path, there.env)


def warn_of_unused_stdin() -> None:
    """Somebody has piped something to us, and the command did not get it."""
    import fcntl
    import stat
    import struct
    import termios

    if stat.S_IFMT(os.fstat(0).st_mode) not in PIPE_OR_SOCKET:
        return
    waiting = struct.unpack("i", fcntl.ioctl(0, termios.FIONREAD, bytes(4)))[0]
    if waiting:
        output.note("stdin not passed; use --stdin -")
