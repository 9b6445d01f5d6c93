"""What is asked for when a command is to be run, and the key that is made of it."""

import platform
from collections.abc import Sequence
from typing import Any, NamedTuple

from fusecas import _native
from fusecas.run import times
from fusecas.run.environment import digest_of, digests
from fusecas.run.host import Host
from fusecas.store.ids import Kind, ObjectId
from fusecas.store.kinds import Action, Program, to_ref
from fusecas.store.rows import Live
from fusecas.store.snapshot import Snapshot

RUN = "run"


class Request(NamedTuple):
    """`program`: {shell: text} or {argv: words}. `cwd`: from the workspace's root. `place`: where the workspace is.
    `executable`: the file that runs, as the caller finds it.

    `pure`: whether all that it is run for is its output and exit code: then it may be served though it changes nothing.
    `serve`: whether a result that is known may be put in place; `keep`: whether this one may be, later.
    `stdin`: the id of what it reads, if anything. `retry`: from where its last run began, which failed. `rollback`: if
    it fails, what was there before is put back. `refuse_dirty`: not if anything is uncommitted.
    """

    program: Program
    cwd: bytes
    place: bytes
    env: Sequence[tuple[bytes, bytes]]
    executable: bytes | None
    umask: int
    privileged: bool
    message: str | None = None
    serve: bool = True
    keep: bool = True
    max_age: int | None = None
    pure: bool = False
    stdin: bytes | None = None
    retry: bool = False
    rollback: bool = False
    refuse_dirty: bool = False


class Key(NamedTuple):
    """An action, and what it is made of that moves: the state and the times it is for."""

    id: ObjectId
    data: bytes
    live: Live


def key_of(snapshot: Snapshot, live: Live, request: Request, host: Host) -> Key:
    domain, secret = snapshot.domain()
    # Results may hold the path of the workspace (a venv does): until that is looked for, it is part of every key.
    here = {"host": host.of(request.executable, request.place), "place": digest_of(request.place, secret)}
    action = Action(
        kind=RUN,
        program=request.program,
        cwd=request.cwd,
        inputs=((b"/", "state", to_ref(live.state)),),
        touched=times.touched(snapshot, live),
        env=digests(request.env, request.place, secret),
        stdin=None if request.stdin is None else digest_of(request.stdin, secret),
        tty=False,
        umask=request.umask,
        privileged=request.privileged,
        platform={**this_platform(), **here},
        domain=domain,
    )
    data = action.encode()
    return Key(ObjectId(_native.node_id(Kind.ACTION, data)), data, live)


def this_platform() -> dict[str, Any]:
    return {"os": platform.system().lower(), "arch": platform.machine()}
