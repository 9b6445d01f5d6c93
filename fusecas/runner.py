"""One run from a client's side: ask the daemon, execute the command here, tell what it came to.

A hit executes nothing: what only executing needs is imported when it comes to that.
"""

import os
import re
import signal
import time
from binascii import a2b_base64
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from fusecas.client import Client
from fusecas.errors import EnvironmentProblem, UsageError
from fusecas.wire import RUN_VARIABLE, path_of

if TYPE_CHECKING:
    from fusecas.executor import Command, Done
    from fusecas.outlet import Sink
    from fusecas.plain import Ended

RUN_REPOSITORY, RUN_WORKSPACE = "FUSECAS_RUN_REPOSITORY", "FUSECAS_RUN_WORKSPACE"
NUMBER = re.compile("[0-9a-f]{32}")
SHELL = b"/bin/sh"
SECOND = 1_000_000_000


class Program(NamedTuple):
    """Either a text for the shell, or words."""

    shell: bytes | None = None
    argv: Sequence[bytes] = ()

    def words(self) -> list[bytes]:
        return [SHELL, b"-c", self.shell] if self.shell is not None else list(self.argv)

    def as_parameter(self) -> dict[str, list[str]]:
        if self.shell is not None:
            return {"shell": [os.fsdecode(self.shell)]}
        return {"argv": [os.fsdecode(each) for each in self.argv]}


class Input(NamedTuple):
    """What a command reads: a descriptor, and the id of the content that is there."""

    descriptor: int
    id: bytes


class Place(NamedTuple):
    """Where a workspace is as a directory. `outer`: the number of the run there that this process is part of."""

    workspace: str
    path: Path
    outer: str | None


def place_of(client: Client, ws: str | None = None) -> Place:
    """None: the one that is mounted."""
    said = os.environ.get(RUN_VARIABLE, "")
    run = said if NUMBER.fullmatch(said) else None  # who sets it by hand to something else is in no run
    found = client.call("place", ws=ws, pid=os.getpid(), run=run)
    return Place(found["workspace"], Path(os.fsdecode(path_of(found, "place"))), found["run"])


def variables_in(place: Path, env: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """What any command there sees: git must not take a repository around the workspace for its own."""
    return {**env, b"GIT_CEILING_DIRECTORIES": os.fsencode(place.parent)}


@contextmanager
def set_apart(folder: Path, parts: Iterable[bytes]) -> Iterator[Input]:
    """What a command will read, where nothing can change it any more: the content that is in the key is what it gets.
    `folder`: of the repository."""
    from tempfile import TemporaryFile

    from blake3 import blake3

    digest = blake3()
    with TemporaryFile(dir=folder / "run") as apart:
        for each in parts:
            digest.update(each)
            apart.write(each)
        apart.flush()
        descriptor = os.open(f"/proc/self/fd/{apart.fileno()}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            yield Input(descriptor, digest.digest())
        finally:
            os.close(descriptor)


Execute = Callable[["Command", Sequence[bytes], int, "tuple[Sink, Sink]", int], "Done"]
"""(command, its two log files, how much of each is recorded, where its stdout and stderr go beside them, a descriptor
whose readability ends it)."""


class Came(NamedTuple):
    """What a run came to. `stdout`, `stderr`: ids of what is to be replayed, of a hit."""

    exit: int
    signal: int | None
    cached: bool
    answer: Mapping[str, Any]
    done: "Done | None"


def told(came: Came) -> dict[str, Any]:
    """What it came to, as `--json` and RunResult both have it, but for what the command has said."""
    answer, done = came.answer, came.done
    recorded = int(answer["recorded_ns"]) if came.cached else None
    return {
        "hash": answer["layer"],
        "cached": came.cached,
        "exit_code": came.exit,
        "signal": came.signal,
        "timed_out": done is not None and done.timed_out,
        "state": answer["state"],
        "age": None if recorded is None else max(0.0, (time.time_ns() - recorded) / SECOND),
        "run": answer["run"],
        "workspace": answer["workspace"],
        **{each: answer[each] for each in ("added", "removed", "changed")},
        "edits": answer.get("edits"),
        "mixed": answer.get("mixed"),
        "killed": [] if done is None else list(done.killed),
        "missed": answer.get("missed"),
        "refused": answer.get("refused"),
        "put_back": answer.get("put_back", False),
        "truncated": done is not None and done.is_long,
        "nested": False,
    }


def told_nested(place: Place, ended: "Ended") -> dict[str, Any]:
    """The same of a command that was part of the run around it: that one has the layer and the record."""
    nothing = {"hash": None, "state": None, "age": None, "edits": None, "mixed": None, "missed": None, "refused": None}
    return {
        **nothing,
        "cached": False,
        "exit_code": ended.exit,
        "signal": ended.signal,
        "timed_out": ended.timed_out,
        "run": place.outer,
        "workspace": place.workspace,
        **dict.fromkeys(("added", "removed", "changed"), 0),
        "killed": [],
        "put_back": False,
        "truncated": False,
        "nested": True,
    }


def run(
    client: Client,
    program: Program,
    *,
    place: Path,
    cwd: Path,
    env: Mapping[bytes, bytes],
    stdout: "Sink",
    stderr: "Sink",
    umask: int = 0o022,
    timeout: float | None = None,
    stdin: Input | None = None,
    began: Callable[[Mapping[str, Any]], None] = lambda _: None,
    deed: Mapping[str, Any],
    execute: Execute | None = None,
    **options: Any,
) -> Came:
    """`place`: where the workspace is, in which `cwd` lies. `stdout`, `stderr`: where the output goes,
    beside the record. `began`: told what the daemon says before the command begins. `options`: of `run.begin`.

    `execute`: who executes it, if not this process; it tells the daemon first what the command descends from
    (run.executor)."""
    begun = client.call(
        "run.begin",
        program=program.as_parameter(),
        cwd=[os.fsdecode(os.fsencode(cwd))],
        executable=_executable(program, cwd, env),
        env=[[os.fsdecode(name), os.fsdecode(value)] for name, value in env.items()],
        umask=umask,
        privileged=os.geteuid() == 0,
        executor=os.getpid() if execute is None else 0,
        stdin=None if stdin is None else stdin.id.hex(),
        **options,
        **deed,
    )
    began(begun)
    if begun["cached"]:
        return Came(begun["exit"], None, True, begun, None)
    seen = {
        **variables_in(place, env),
        RUN_VARIABLE.encode(): begun["run"].encode(),
        RUN_REPOSITORY.encode(): os.fsencode(client.folder),
        RUN_WORKSPACE.encode(): begun["workspace"].encode(),
        **({b"HOME": os.fsencode(place)} if begun["home"] == "workspace" else {}),
    }
    from fusecas.executor import Command, executed

    descriptor = None if stdin is None else stdin.descriptor
    command = Command(program.words(), os.fsencode(cwd), seen, umask, timeout, descriptor)
    logs = [path_of(each) for each in begun["logs"]]
    done = (execute or executed)(command, logs, begun["output_limit"], (stdout, stderr), client.fileno())
    if done.abandoned:
        raise EnvironmentProblem("the daemon has gone: the command was ended", hint="what it did is uncommitted")
    ended = client.call(
        "run.end",
        run=begun["run"],
        exit=done.exit,
        signal=done.signal,
        started=done.started,
        ended=done.ended,
        killed=list(done.killed),
        keep=not (done.cut or done.timed_out or done.is_long),
        **deed,
    )
    return Came(done.exit, done.signal, False, {**begun, **ended}, done)


def said(folder: Path, answer: Mapping[str, Any]) -> Iterator[tuple[int, bytes]]:
    """What a hit has said: (1 for stdout or 2 for stderr, some of it)."""
    if answer["said"] is not None:
        yield from enumerate(map(a2b_base64, answer["said"]), 1)
        return
    from fusecas.store.contents import content_parts
    from fusecas.store.repository import Repository

    with Repository.open(folder) as repository:
        for stream, name in enumerate(("stdout", "stderr"), 1):
            for data in content_parts(repository.store, bytes.fromhex(answer[name])):
                yield stream, data


def _executable(program: Program, cwd: Path, env: Mapping[bytes, bytes]) -> list[str]:
    """[the file that will run], as execvp finds it; none if there is none."""
    name = os.fsdecode(program.words()[0])
    path = os.fsdecode(env.get(b"PATH", os.fsencode(os.defpath)))
    folders = [""] if "/" in name else path.split(os.pathsep)
    places = (os.path.join(cwd, folder, name) for folder in folders)
    found = next((each for each in places if os.access(each, os.X_OK) and not os.path.isdir(each)), None)
    return [] if found is None else [os.path.realpath(found)]


def refuse_own_files(place: Path, *, reads: bool = False) -> None:
    """A descriptor on a file of the workspace would be input and result at once. `reads`: what is on stdin is read
    before the command begins, which does no harm."""
    workspace = os.stat(place).st_dev
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        if descriptor == 0 and reads:
            continue
        found = os.fstat(descriptor)
        if found.st_dev == workspace and os.path.isfile(f"/proc/self/fd/{descriptor}"):
            raise UsageError(
                f"{name} is a file of this workspace: it would be part of what is run, and of its result",
                hint="redirect inside of the command, or to a file elsewhere",
            )


def die_of(number: int) -> None:
    """As the command did: whoever waits for us is to see the same."""
    if number in (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
