"""What the API answers: frozen, with the field names of `--json`.

Ids are 64 hex digits, `short` is their first 12. A path is text as Python's own functions have it: bytes that are not
UTF-8 are lone surrogates in it, and `os.fsencode` gives them back.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

SHORT = 12
EPOCH = datetime.fromtimestamp(0, UTC)


def short(digits: str | None) -> str | None:
    return None if digits is None else digits[:SHORT]


@dataclass(frozen=True, slots=True)
class Output:
    """What a command has said, and how it ended.

    `exit_code` is as a shell has it (128 and the number of a `signal`, 124 after a timeout, 126 and 127 if it could not
    be started). `stdout` and `stderr` are UTF-8; what is not is U+FFFD there, and `stdout_bytes` has it as it was.
    """

    exit_code: int
    stdout: str
    stderr: str
    signal: int | None
    timed_out: bool
    stdout_bytes: bytes = field(repr=False)
    stderr_bytes: bytes = field(repr=False)

    @property
    def ok(self) -> bool:
        return self.exit_code == 0


@dataclass(frozen=True, slots=True)
class Missed:
    """What alone was different from a run whose result is known: the names of variables, what of the machine, files
    that were touched, parts of the key."""

    env: tuple[str, ...]
    host: tuple[str, ...]
    touched: tuple[str, ...]
    other: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RunResult(Output):
    """What a run came to.

    `hash` is its layer; None if it has failed or changed nothing (`empty`). `cached`: it was not executed, its result
    was put in place; `age` is then how many seconds ago that was recorded. `state`: all content after it. `edits`: the
    layer of what was uncommitted before it. `mixed`: who else changed something meanwhile; such a result is never
    served. `killed`: what it left running, and was made to end. `run`: the number of the execution (`fusecas logs`).
    `missed`: what alone was different when a result of the same command on this content became known; `refused`: why
    one that is known was not served. `put_back`: it failed, and what was there before is there again. `truncated`: it
    said more than is kept. `nested`: it was part of the run that this process belongs to, and has no layer of its own.
    """

    hash: str | None
    cached: bool
    state: str | None
    age: float | None
    run: str
    workspace: str
    added: int
    removed: int
    changed: int
    edits: str | None
    mixed: str | None
    killed: tuple[str, ...]
    missed: Missed | None
    refused: str | None
    put_back: bool
    truncated: bool
    nested: bool

    @property
    def short(self) -> str | None:
        return short(self.hash)

    @property
    def empty(self) -> bool:
        return self.hash is None


@dataclass(frozen=True, slots=True)
class Status:
    """What is uncommitted. `modified` has what became another kind of file, or other modes and attributes, too;
    `touched` what differs from the last run in its time alone, which `clean` ignores."""

    added: tuple[str, ...]
    modified: tuple[str, ...]
    deleted: tuple[str, ...]
    touched: tuple[str, ...]

    @property
    def clean(self) -> bool:
        return not (self.added or self.modified or self.deleted)


class Renamed(NamedTuple):
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Diff:
    """What leads from one state to another."""

    added: tuple[str, ...]
    modified: tuple[str, ...]
    deleted: tuple[str, ...]
    renamed: tuple[Renamed, ...]

    @property
    def same(self) -> bool:
        return not (self.added or self.modified or self.deleted or self.renamed)


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One layer. `instruction`: the command, else the message, else `(edits)`, `(import)` and so on, with the `kind`
    beside it. `time_ns`: of the last operation that brought it to the head of the workspace; None if none did."""

    hash: str
    instruction: str
    kind: str
    parents: tuple[str, ...]
    state: str
    message: str | None
    exit_code: int | None
    tags: tuple[str, ...]
    time_ns: int | None

    @property
    def short(self) -> str:
        return self.hash[:SHORT]

    @property
    def parent(self) -> str | None:
        """The first one."""
        return self.parents[0] if self.parents else None

    @property
    def parent_short(self) -> str | None:
        return short(self.parent)

    @property
    def time(self) -> datetime | None:
        return None if self.time_ns is None else EPOCH + timedelta(microseconds=self.time_ns // 1000)


@dataclass(frozen=True, slots=True)
class LayerInfo(HistoryEntry):
    """All about one layer. `size`: bytes of changed content against its first parent, in `changes` paths. `entries` and
    `bytes`: what all of it holds. `cwd`: where the command ran, from the workspace's root."""

    size: int
    changes: int
    entries: int
    bytes: int
    signal: int | None
    cwd: str | None
    planes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Head:
    """Where a workspace stands. `state` is what it was when it was stored last, with what was uncommitted then."""

    workspace: str
    hash: str | None
    state: str
    kind: str
    instruction: str

    @property
    def short(self) -> str | None:
        return short(self.hash)


@dataclass(frozen=True, slots=True)
class Committed:
    """`hash` is None if nothing had changed."""

    hash: str | None
    state: str
    new_objects: int
    stored_bytes: int

    @property
    def short(self) -> str | None:
        return short(self.hash)


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """How many layers and objects were read and found good; what was made anew; where the journal is that could not be
    read any more, if there was one."""

    layers: int
    objects: int
    repaired: tuple[str, ...]
    aside: Path | None


@dataclass(frozen=True, slots=True)
class Moved:
    """What a checkout, an undo or a redo came to: the layer that the workspace is at (None: at nothing), and how many
    paths differ from before. `aside`: what was uncommitted is set aside, and undo brings it back. `uncommitted`: what
    is there now is not all in a layer."""

    hash: str | None
    state: str
    moved: bool
    added: int
    removed: int
    changed: int
    aside: bool
    uncommitted: bool

    @property
    def short(self) -> str | None:
        return short(self.hash)
