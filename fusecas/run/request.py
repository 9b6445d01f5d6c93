"""What is asked for when a command is to be run, and the keys that are made of it."""

import platform
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from fusecas import _native
from fusecas.run import times
from fusecas.run.environment import digest_of, digests
from fusecas.run.host import Host
from fusecas.run.policy import Policy
from fusecas.store import bound
from fusecas.store.ids import Kind, ObjectId
from fusecas.store.kinds import Action, Program, command_of, to_ref
from fusecas.store.rows import Live
from fusecas.store.snapshot import Snapshot
from fusecas.store.stat_caches import StatCaches

RUN = "run"
PLACE = "place"
CHOSEN = ("times", "home")
"""Of the policy: what makes another result, or another question, of the same run. In its key if it is not as usual."""


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

    @property
    def command(self) -> str:
        return command_of(self.program)


class Key(NamedTuple):
    """An action, and its node."""

    id: ObjectId
    data: bytes

    @classmethod
    def of(cls, action: Action) -> "Key":
        data = action.encode()
        return cls(ObjectId(_native.node_id(Kind.ACTION, data)), data)


class Keys(NamedTuple):
    """`here`: with the path of the workspace, for results that hold it; `anywhere`: without, if what it runs on does
    not hold it already. `live`: the state and the times that they are for."""

    here: Key
    anywhere: Key | None
    action: Action
    live: Live

    @property
    def plain(self) -> Key:
        return self.anywhere or self.here

    @property
    def all(self) -> list[Key]:
        return [self.here] if self.anywhere is None else [self.here, self.anywhere]


class KeyMaker:
    """Remembers what takes long to find out. Thread-safe."""

    def __init__(self) -> None:
        self.stat_caches = StatCaches()
        self._host = Host()
        self._times = times.InKeys()

    def keys_of(self, snapshot: Snapshot, live: Live, request: Request, policy: Policy) -> Keys:
        domain, secret = snapshot.domain()
        caches = policy.stat_cache_paths
        usual = Policy._field_defaults
        chosen = {name: value for name in CHOSEN if (value := getattr(policy, name)) != usual[name]}
        of_host = self._host.of(request.executable, request.place, policy.host, dict(request.env).get(b"PATH", b""))
        action = Action(
            kind=RUN,
            program=request.program,
            cwd=request.cwd,
            inputs=((b"/", "state", to_ref(self.stat_caches.key_state(snapshot, live.state, caches))),),
            touched=self._times.of(snapshot, live, policy.times, caches, time.time_ns()),
            env=digests(request.env, policy.ignore_env, request.place, secret),
            stdin=None if request.stdin is None else digest_of(request.stdin, secret),
            tty=False,
            umask=request.umask,
            privileged=request.privileged,
            platform={**this_platform(), "host": of_host, **chosen},
            domain=domain,
        )
        place = digest_of(request.place, secret)
        here = Key.of(action._replace(platform={**action.platform, PLACE: place}))
        return Keys(here, None if bound.is_bound(snapshot, live.state) else Key.of(action), action, live)


def this_platform() -> dict[str, Any]:
    return {"os": platform.system().lower(), "arch": platform.machine()}
