"""Hits: whether a known result may be served, and how it is put in place."""

import time
from typing import NamedTuple

from fusecas.run.policy import Policy
from fusecas.run.request import Request
from fusecas.store import prolly, trees
from fusecas.store.diff import diff_states
from fusecas.store.ids import Kind, LayerId, StateId
from fusecas.store.kinds import Entry, State
from fusecas.store.prolly import Loader, Saver
from fusecas.store.rows import Live
from fusecas.store.run_rows import Result
from fusecas.store.snapshot import Snapshot
from fusecas.store.stat_caches import StatCaches

LITTLE = 64 << 10


class Served(NamedTuple):
    """A hit: the result of `record`, put in place. `layer` is None if it had changed nothing. `state`: what is there
    now. `said`: on stdout and stderr, if that is little."""

    layer: LayerId | None
    state: StateId
    result: Result
    said: tuple[bytes, bytes] | None = None
    added: int = 0
    removed: int = 0
    changed: int = 0


def said_by(snapshot: Snapshot, result: Result) -> tuple[bytes, bytes] | None:
    outputs = (result.stdout, result.stderr)
    if any(snapshot.content_size(each) > LITTLE for each in outputs):
        return None
    return snapshot.read_content(outputs[0]), snapshot.read_content(outputs[1])


def why_not(result: Result, request: Request, policy: Policy) -> str | None:
    """Why a known result is not served, if it isn't. Not one that has changed nothing, unless that is not what the
    command is run for: `git push` would say done, and do nothing."""
    if request.max_age is not None and time.time_ns() - result.window.end > request.max_age:
        return "it is too old"
    if request.pure:
        return None
    if policy.is_never_served(request.command):
        return "it is never to be served"
    if result.state == result.base and not policy.is_pure(request.command):
        return "it changed nothing, and is not marked pure"
    return None


def delta(
    snapshot: Snapshot, result: Result, live: Live, policy: Policy, stat_caches: StatCaches, load: Loader, save: Saver
) -> StateId:
    """What the run has changed, done to a state that its key is for, too: that differs from the run's in stat caches at
    most. Costs what was changed."""
    if live.state == result.base:
        return result.state
    before, after = (trees.read_state(snapshot, each) for each in (result.base, result.state))
    changes: dict[bytes, Entry | None] = {}
    whole = b"\0"  # a directory that comes or goes, with all that is in it
    for change in diff_states(snapshot, result.base, result.state, renames=False):
        path, new = change.path, change.new
        if path.startswith(whole + b"/"):
            continue
        was, will = (each is not None and each.is_directory for each in (change.old, new))
        if was != will:
            whole = path
        elif path in policy.stat_cache_paths and stat_caches.says_the_same(snapshot, change.old, new):
            continue
        elif was and new is not None and path:
            here = trees.needed(snapshot, live.state, path)
            new = here._replace(mode=new.mode, ext=new.ext)
        changes[path] = new
    links = {
        path: None if new is None else new[1]
        for path, _, new in prolly.diff(Kind.LINKS, before.links, after.links, load)
    }
    core: State = trees.edit(trees.read_state(snapshot, live.state), changes, links, load, save)
    return StateId(save(Kind.STATE, core.encode()))
