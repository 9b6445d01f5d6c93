"""The Python API: `import fusecas`. Blocking, thread-safe; docs/api.md is its guide.

A Repo keeps the store open, and a few connections to the daemon if one runs. What must be a live directory (`run`,
`exec`, `path`) mounts it; all else goes without. Nothing here touches the caller's terminal, signal handlers or
children: commands run under a process of their own (runner_child.py).
"""

import os
import pwd
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

from fusecas import asking, looking, plain, runner, starting
from fusecas.client import Client, NoDaemon
from fusecas.errors import CommandFailed, InUse, RepositoryNotFound, StillRunning, UsageError
from fusecas.executor import Command, Done
from fusecas.opened import STORES, Connection, Connections
from fusecas.outlet import Kept, Sink
from fusecas.plain import Ended
from fusecas.results import Committed, Diff, HistoryEntry, LayerInfo, Missed, Moved, Output, Rebuilt, RunResult, Status
from fusecas.runner import SECOND, Came, Input, Place, Program
from fusecas.runner_child import Child
from fusecas.store import adopted, heads, revisions
from fusecas.store.finding import FOLDER
from fusecas.store.repository import Repository
from fusecas.wire import RUN_VARIABLE, path_of

if TYPE_CHECKING:
    from fusecas.store.snapshot import Snapshot

WORK = "work"
UMASK = 0o022
AnyPath = str | os.PathLike[str]
Instruction = str | Sequence[str]
"""A text for /bin/sh, or words that are run as they are."""
AnyOutput = TypeVar("AnyOutput", bound=Output)


def init(path: AnyPath = ".", *, workdir: AnyPath | None = None, actor: str | None = None) -> "Repo":
    """Make a repository in the folder `path` (which is made, too), with an empty workspace `main`, and open it.

    AlreadyExists if there is one. `workdir` and `actor`: as for `open`.
    """
    folder = Path(path).absolute() / FOLDER
    folder.parent.mkdir(parents=True, exist_ok=True)
    Repository.create(folder, actor=actor or _user()).close()
    return Repo(folder, workdir, actor)


def open_repository(
    path: AnyPath = ".", *, workdir: AnyPath | None = None, create: bool = False, actor: str | None = None
) -> "Repo":
    """Open the repository of the folder `path`: the one that holds `.fusecas`, or that folder itself.

    `create`: make it if there is none; else RepositoryNotFound. `workdir`: where to mount it when that is needed (if
    left out: where it was last, or `.fusecas/work`). `actor`: who is written down for what is done (the user).
    """
    folder = _folder_of(Path(path).absolute())
    if folder is not None:
        return Repo(folder, workdir, actor)
    if not create:
        raise RepositoryNotFound(f"{path} has no repository", hint="fusecas.init(path), or open(path, create=True)")
    return init(path, workdir=workdir, actor=actor)


def _folder_of(path: Path) -> Path | None:
    """Also from within its mount, which leads back, and of an adopted folder, whether that is mounted or not."""
    for each in (path / FOLDER, path / FOLDER / "repo", path):
        if adopted.is_repository(each):
            return each.resolve()
    found = adopted.repository_of(path)
    return None if found is None else found.resolve()


class Repo:
    """A repository that is open. Thread-safe; of the process that opened it. Close it, or use it in a `with`.

    Any number may be open of one folder, in one process and in many.
    """

    def __init__(self, folder: Path, workdir: AnyPath | None, actor: str | None) -> None:
        self.folder = folder
        self.actor = actor or _user()
        self._workdir = None if workdir is None else Path(os.path.realpath(workdir))
        self._pid = os.getpid()
        self._is_open = True
        self._key, self._repository = STORES.take(folder)
        self._connections = Connections(folder)

    def close(self) -> None:
        """Let go of what is open here. What is mounted stays mounted, and what is uncommitted stays so."""
        if self._is_open:
            self._is_open = False
            self._connections.close()
            if self._pid == os.getpid():
                STORES.give_back(self._key)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<fusecas.Repo {str(self.folder)!r}>"

    # workspaces

    def workspace(self, name: str = heads.DEFAULT) -> "Workspace":
        """RefNotFound if there is none of that name."""
        with self._read() as snapshot:
            heads.read_head(snapshot, name)
        return Workspace(self, name)

    def workspaces(self) -> tuple[str, ...]:
        """Their names."""
        with self._read() as snapshot:
            return tuple(heads.names(snapshot))

    def tags(self) -> dict[str, str]:
        """All tags, and the layers that they name."""
        with self._read() as snapshot:
            return looking.tags_of(snapshot)

    # the mount

    def mount(self) -> Path:
        """Mount the repository, if it is not: where its workspace is. What needs that, does so by itself."""
        with self._serving() as connection:
            return self._place(connection, None)

    def umount(self, *, lazy: bool = False) -> bool:
        """Unmount it; what is uncommitted stays, for the next mount. False if it was not mounted.

        InUse while somebody is in it; `lazy`: it then goes when they leave.
        """
        self._check()
        try:
            starting.end(self.folder, lazy=lazy)
        except NoDaemon:
            return False
        return True

    def clear(self, *, purge: bool = False) -> Path | None:
        """Begin again with nothing: unmount, put the repository aside under another name, and make an empty one.

        Returns where it is now; with `purge` it is deleted for good, and the answer is None. InUse while somebody is in
        the mount, or has the repository open in this process.
        """
        from fusecas.clearing import set_aside

        self._check()
        if STORES.users(self._key) > 1:
            raise InUse(f"{self.folder} is open more than once in this process", hint="close the others")
        self.close()
        try:
            aside = set_aside(self.folder, purge=purge)
            Repository.create(self.folder, actor=self.actor).close()
        finally:
            self._key, self._repository = STORES.take(self.folder)
            self._connections, self._is_open = Connections(self.folder), True
        return aside

    # for Workspace

    def _check(self) -> None:
        if not self._is_open:
            raise UsageError(f"{self!r} is closed", hint="fusecas.open opens it again")
        if self._pid != os.getpid():
            raise UsageError(f"{self!r} was opened before a fork", hint="open it again in this process")

    @contextmanager
    def _read(self) -> "Iterator[Snapshot]":
        self._check()
        with self._repository.store.read() as snapshot:
            yield snapshot

    def _deed(self) -> dict[str, Any]:
        return {"argv": [], "actor": self.actor}

    def _ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._check()
        try:
            with self._connections.borrowed() as connection:
                answer: dict[str, Any] = connection.client.call(method, **parameters)
                return answer
        except NoDaemon:
            return asking.ask_here(self._repository, method, parameters)

    @contextmanager
    def _serving(self) -> Iterator[Connection]:
        """A connection to the daemon, which is started if need be."""
        self._check()
        with self._connections.borrowed(self._served) as connection:
            if self._workdir is not None and (place := self._place(connection, None)) != self._workdir:
                raise InUse(f"{self.folder} is mounted at {place}, not at {self._workdir}", hint="Repo.umount first")
            yield connection

    def _served(self, folder: Path) -> Client:
        if self._workdir is None:
            return starting.serving(folder, folder / WORK)
        try:
            return Client(folder)
        except NoDaemon:
            starting.settle(folder)
            starting.mount_at(folder, self._workdir)
            return Client(folder)

    @staticmethod
    def _place(connection: Connection, name: str | None) -> Path:
        key = name or ""
        if key not in connection.places:
            connection.places[key] = runner.place_of(connection.client, name).path
        return connection.places[key]


class Workspace:
    """A workspace of a Repo, and what can be done in it. Thread-safe, as the Repo is, which it needs open.

    What moves it is done one after the other, whoever asks; InUse while a command is running in it. A `ref` is all that
    the command line takes: `@` the head, `@live` what is uncommitted, `@~1`, a tag, the first digits of a hash, `@{2}`.
    """

    def __init__(self, repo: Repo, name: str) -> None:
        self.repo = repo
        self.name = name
        self._live = asking.Live(repo._ask, name, repo._deed)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is to be let go: it is the Repo that has something open."""

    def __repr__(self) -> str:
        return f"<fusecas.Workspace {self.name!r} of {str(self.repo.folder)!r}>"

    @property
    def path(self) -> Path:
        """Where it is as a directory; it is mounted for that, if need be."""
        with self.repo._serving() as connection:
            return self.repo._place(connection, self.name)

    # commands

    def run(
        self,
        command: Instruction,
        *,
        cwd: AnyPath | None = None,
        env: Mapping[str, str] | None = None,
        message: str | None = None,
        cache: bool = True,
        refresh: bool = False,
        pure: bool = False,
        max_age: float | None = None,
        timeout: float | None = None,
        umask: int = UMASK,
        stdin: bytes | None = None,
        retry: bool = False,
        on_failure: Literal["keep", "rollback"] = "keep",
        dirty: Literal["layer", "fail"] = "layer",
        wait: bool = False,
        check: bool = False,
    ) -> RunResult:
        """Run a command; what it changes becomes a layer, and the next time its result is put in place instead.

        `command`: a text for /bin/sh, or a list of words. `cwd`: from the workspace's root. `env`: all variables that
        it sees (those of this process, if left out). `stdin`: what it reads. `cache=False`: run it, and don't remember
        the result; `refresh`: run it, and remember the new one; `max_age` (seconds): an older result is not served;
        `pure`: serve it though it changes nothing, since only its output matters. `timeout` in seconds.

        `dirty="fail"`: Refused if something is uncommitted, which else becomes a layer before it. `on_failure`: what is
        made of what it had changed if it fails. `retry`: put back first what was there before its last run, which
        failed. `wait`: while another command runs here; without it, StillRunning.

        A command that fails is no exception, unless `check` is set: CommandFailed then has the result.
        """
        program = _program(command)
        with self.repo._serving() as connection, _source(self.repo.folder, stdin) as source:
            if RUN_VARIABLE in os.environ and (outer := self._outer(connection)) is not None:
                return _checked(self._run_nested(outer, program, cwd, env, timeout, stdin), check)
            place = self.repo._place(connection, self.name)
            said: list[bytes] = []

            def execute(
                command: Command, logs: Sequence[bytes], limit: int, _sinks: tuple[Sink, Sink], watched: int
            ) -> Done:
                with Child(command.stdin) as child:
                    number = os.fsdecode(command.env[RUN_VARIABLE.encode()])
                    connection.client.call("run.executor", run=number, executor=child.pid)
                    done = child.execute(command, logs, limit, watched)
                said[:] = [Path(os.fsdecode(each)).read_bytes() for each in logs]
                return done

            try:
                came = runner.run(
                    connection.client,
                    program,
                    place=place,
                    cwd=_inside(place, cwd),
                    env=_variables(env),
                    stdout=Kept(0),
                    stderr=Kept(0),
                    umask=umask,
                    timeout=timeout,
                    stdin=source,
                    deed=self.repo._deed(),
                    execute=execute,
                    ws=self.name,
                    message=message,
                    serve=cache and not refresh,
                    keep=cache,
                    max_age=None if max_age is None else int(max_age * SECOND),
                    pure=pure,
                    retry=retry,
                    on_failure=on_failure,
                    dirty=dirty,
                    wait=wait,
                )
            except StillRunning:
                if (outer := self._outer(connection)) is None:
                    raise
                return _checked(self._run_nested(outer, program, cwd, env, timeout, stdin), check)
            except BaseException:
                connection.client.leave()  # the run is over, and the workspace free, before anybody hears of this
                raise
        return _checked(self._result(came, said), check)

    def _outer(self, connection: Connection) -> Place | None:
        """Where it is, if this process is part of a run there."""
        place = runner.place_of(connection.client, self.name)
        return None if place.outer is None else place

    def _result(self, came: Came, said: list[bytes]) -> RunResult:
        if came.cached:
            with self.repo._read() as snapshot:
                said = [_content(snapshot, came.answer[each]) for each in ("stdout", "stderr")]
        return _run_result(runner.told(came), said)

    def _run_nested(
        self,
        outer: Place,
        program: Program,
        cwd: AnyPath | None,
        env: Mapping[str, str] | None,
        timeout: float | None,
        stdin: bytes | None,
    ) -> RunResult:
        """Part of the run that this process belongs to: it is executed, and that is all."""
        ended, said = self._executed(program, cwd, env, timeout, stdin)
        return _run_result(runner.told_nested(outer, ended), said)

    def exec(
        self,
        command: Instruction,
        *,
        cwd: AnyPath | None = None,
        env: Mapping[str, str] | None = None,
        timeout: float | None = None,
        stdin: bytes | None = None,
        check: bool = False,
    ) -> Output:
        """Run a command, and that is all: no layer, no record. What it changes is uncommitted."""
        ended, said = self._executed(_program(command), cwd, env, timeout, stdin)
        output = Output(**_texts(said), exit_code=ended.exit, signal=ended.signal, timed_out=ended.timed_out)
        return _checked(output, check)

    def _executed(
        self,
        program: Program,
        cwd: AnyPath | None,
        env: Mapping[str, str] | None,
        timeout: float | None,
        stdin: bytes | None,
    ) -> tuple[Ended, list[bytes]]:
        place = self.path
        variables = runner.variables_in(place, _variables(env))
        with (
            _source(self.repo.folder, stdin) as source,
            tempfile.TemporaryFile() as stdout,
            tempfile.TemporaryFile() as stderr,
        ):
            streams = (subprocess.DEVNULL if source is None else source.descriptor, stdout, stderr)
            ended = plain.execute(program.words(), _inside(place, cwd), variables, streams, apart=True, timeout=timeout)
            said = []
            for each in (stdout, stderr):
                each.seek(0)
                said.append(each.read())
        return ended, said

    def batch(self, commands: Sequence[Instruction], *, keep_going: bool = False, **options: Any) -> list[RunResult]:
        """Run one after the other, up to the first that fails, or all with `keep_going`. `options`: those of `run`."""
        results: list[RunResult] = []
        for each in commands:
            results.append(self.run(each, **options))
            if not results[-1].ok and not keep_going:
                break
        return results

    # what changes it

    def commit(self, message: str | None = None, *, wait: bool = False) -> Committed:
        """Make a layer of what is uncommitted. When it returns, that survives power loss. `wait`: while a command runs
        here; without it, StillRunning, as of all that moves a workspace."""
        done = self._moving(wait).commit(message)
        return Committed(done["layer"], done["state"], done["new_objects"], done["stored_bytes"])

    def checkout(self, ref: str, *, paths: Sequence[AnyPath] = (), touch: bool = False, wait: bool = False) -> Moved:
        """Put a layer in place, forward or back, whatever it is. What is uncommitted is set aside, for `undo`.

        `paths`, from the workspace's root: only these, which become uncommitted changes; it stays at its layer then.
        `touch`: what changes gets present times.
        """
        only = [os.fsdecode(each) for each in paths] or None
        return _moved(self._moving(wait).checkout(ref, only, touch=touch))

    def undo(self, steps: int = 1, *, wait: bool = False) -> Moved:
        """Take back what was done last: one call each step, or the edits between two."""
        return _moved(self._moving(wait).undo(steps))

    def redo(self, steps: int = 1, *, wait: bool = False) -> Moved:
        """Do again what `undo` has taken back, if nothing else was done since."""
        return _moved(self._moving(wait).redo(steps))

    def fork(self, name: str) -> "Workspace":
        """A new workspace with all that is here now, what is uncommitted included."""
        self._live.fork(name)
        return Workspace(self.repo, name)

    def rebuild(self) -> Rebuilt:
        """Read all layers behind the head again and check them, and what the live tree stands on; what belongs to this
        workspace alone is made anew, if it must be. Damaged if content is; InUse if it is mounted, and must be mended.
        """
        from fusecas.workspace import rebuilding
        from fusecas.workspace.mover import Deed

        self.repo._check()
        deed = Deed((), self.repo.actor)
        done = rebuilding.rebuild(self.repo._repository, self.name, self._live.seal, deed)
        return Rebuilt(done.layers, done.objects, done.repaired, None if done.aside is None else Path(done.aside))

    def remove(self, *, force: bool = False) -> None:
        """Remove this workspace; `force`: even if files are open in it. Refused for `main`, and what is mounted."""
        self._live.remove(self.name, force=force)

    def tag(self, name: str, ref: str = "@", *, force: bool = False) -> str:
        """Name a layer; its hash. AlreadyExists if the name is another layer's, unless `force` moves it."""
        from fusecas.store import tags

        self._seal_live(ref)
        with self.repo._read() as snapshot:
            layer = looking.resolve_layer(snapshot, ref, self.name)
        with self.repo._repository.store.write() as transaction:
            tags.set_tag(transaction, name, layer, (), self.repo.actor, force=force)
        return layer.hex()

    def untag(self, name: str) -> None:
        """Remove a tag; RefNotFound if there is none."""
        from fusecas.store import tags

        self.repo._check()
        with self.repo._repository.store.write() as transaction:
            tags.delete_tag(transaction, name, (), self.repo.actor)

    # what it says

    def status(self) -> Status:
        """What is uncommitted. It costs what has changed, not what the workspace holds."""
        found = self._live.status()
        return Status(*(_paths(found[each]) for each in ("added", "modified", "deleted", "touched")))

    def diff(self, a: str = "@", b: str = "@live", *, paths: Sequence[AnyPath] = (), renames: bool = True) -> Diff:
        """What leads from `a` to `b` (from the head to what is uncommitted), in `paths` if there are any."""
        self._seal_live(a, b)
        with self.repo._read() as snapshot:
            below = [os.fsencode(each) for each in paths]
            return looking.diff_of(snapshot, a, b, self.name, paths=below, renames=renames)

    def head(self) -> str | None:
        """The hash of the layer that it is at; None if there is none yet."""
        with self.repo._read() as snapshot:
            return looking.head_of(snapshot, self.name).hash

    def inspect(self, ref: str = "@") -> LayerInfo:
        """All about one layer."""
        self._seal_live(ref)
        with self.repo._read() as snapshot:
            return looking.layer_info(snapshot, ref, self.name)

    def history(self, ref: str = "@", *, runs: bool = False) -> list[HistoryEntry]:
        """The layers behind `ref`, oldest first; `runs`: without hand edits."""
        self._seal_live(ref)
        with self.repo._read() as snapshot:
            return list(looking.history_of(snapshot, ref, self.name, runs=runs))[::-1]

    def tags(self) -> dict[str, str]:
        """All tags of the repository, and the layers that they name."""
        return self.repo.tags()

    # asking

    def _moving(self, wait: bool) -> asking.Live:
        return self._live.waiting(lambda _: None) if wait else self._live

    def _seal_live(self, *refs: str) -> None:
        if any(map(revisions.is_live, refs)):
            self._live.seal()


def _moved(done: Mapping[str, Any]) -> Moved:
    fields = ("state", "moved", "added", "removed", "changed", "aside", "uncommitted")
    return Moved(hash=done["layer"], **{each: done[each] for each in fields})


def _paths(told: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    return tuple(os.fsdecode(path_of(each)) for each in told)


def _user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def _program(command: Instruction) -> Program:
    if isinstance(command, str):
        return Program(os.fsencode(command))
    words = [os.fsencode(each) for each in command]
    if not words:
        raise UsageError("a command without words")
    return Program(argv=words)


def _variables(env: Mapping[str, str] | None) -> dict[bytes, bytes]:
    if env is None:
        return dict(os.environb)
    return {os.fsencode(name): os.fsencode(value) for name, value in env.items()}


def _inside(place: Path, cwd: AnyPath | None) -> Path:
    found = Path(os.path.normpath(place / (cwd or "")))
    if not found.is_relative_to(place):
        raise UsageError(f"{cwd} is not in the workspace", hint=f"a folder in {place}")
    return found


def _run_result(told: Mapping[str, Any], said: Sequence[bytes]) -> RunResult:
    return RunResult(**_texts(said), **{**told, "killed": tuple(told["killed"]), "missed": _missed(told["missed"])})


def _texts(said: Sequence[bytes]) -> dict[str, Any]:
    stdout, stderr = said
    return {
        "stdout": stdout.decode(errors="replace"),
        "stderr": stderr.decode(errors="replace"),
        "stdout_bytes": stdout,
        "stderr_bytes": stderr,
    }


def _missed(told: Mapping[str, Any] | None) -> Missed | None:
    if told is None:
        return None
    return Missed(tuple(told["env"]), tuple(told["host"]), _paths(told["touched"]), tuple(told["other"]))


def _content(snapshot: "Snapshot", content: str) -> bytes:
    return b"".join(snapshot.iter_content(bytes.fromhex(content)))


def _source(folder: Path, data: bytes | None) -> AbstractContextManager[Input | None]:
    return nullcontext() if data is None else runner.set_apart(folder, [data])


def _checked(output: AnyOutput, check: bool) -> AnyOutput:
    if check and not output.ok:
        said = output.stderr.strip().rpartition("\n")[2]
        raise CommandFailed(
            f"the command ended with exit code {output.exit_code}" + (f": {said}" if said else ""), output
        )
    return output
