"""Near misses: what alone keeps a command from being served the result that it had before."""

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple

from fusecas import _native
from fusecas.run import times
from fusecas.run.request import CHOSEN, PLACE
from fusecas.store.kinds import Action
from fusecas.store.run_rows import DONE
from fusecas.store.snapshot import Snapshot

OPTIONS = ("cwd", "stdin", "tty", "umask", "privileged")
LOOKED_AT = 200
"""So many records back; a miss must not take longer than that."""


class Missed(NamedTuple):
    """What differs from the nearest earlier run of the same command on the same content. `env`: names of variables;
    `host`: of what is installed; `touched`: paths whose times differ in their order; `other`: of options."""

    env: tuple[str, ...] = ()
    host: tuple[str, ...] = ()
    touched: tuple[bytes, ...] = ()
    other: tuple[str, ...] = ()


def missed(snapshot: Snapshot, action: Action) -> Missed | None:
    """None if there was no such run."""
    found = [_differences(earlier, action) for earlier in _earlier(snapshot, action)]
    return min(found, key=lambda each: sum(map(len, each)), default=None)


def _earlier(snapshot: Snapshot, action: Action) -> Iterator[Action]:
    program = _native.cbor_encode(dict(action.program))  # most of them are of other commands, which that tells at once
    for _, record in islice(snapshot.records_back(), LOOKED_AT):
        if program in record.action and record.status == DONE and record.exit == 0 and record.mixed is None:
            earlier = Action.decode(record.action)
            if (earlier.program, earlier.inputs) == (action.program, action.inputs):
                yield earlier


def _differences(old: Action, new: Action) -> Missed:
    other = [name for name in OPTIONS if getattr(old, name) != getattr(new, name)]
    if old.platform.get(PLACE) != new.platform.get(PLACE):
        other.append("path")
    other += [name for name in CHOSEN if old.platform.get(name) != new.platform.get(name)]
    return Missed(
        env=tuple(name.decode(errors="replace") for name in sorted(_differing(dict(old.env), dict(new.env)))),
        host=tuple(sorted(_differing(old.platform["host"], new.platform["host"]))),
        touched=_retimed(old, new),
        other=tuple(other),
    )


def _differing(old: Mapping[Any, Any], new: Mapping[Any, Any]) -> set[Any]:
    return {name for name in {*old, *new} if old.get(name) != new.get(name)}


def _retimed(old: Action, new: Action) -> tuple[bytes, ...]:
    if old.touched == new.touched:
        return ()
    return tuple(sorted({*times.paths_of(old.touched), *times.paths_of(new.touched)})) or (b"many files",)
