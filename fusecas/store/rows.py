"""The values in the tables of a repository (docs/format.md, "Tables").

Each `decode` accepts what `encode` can give, and raises DamagedEnvironment for anything else: a flipped byte in a value
must never be more than a typed error.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import IntEnum
from types import MappingProxyType
from typing import Any, NamedTuple, Self, TypeVar

from fusecas import _native
from fusecas.store.environment import Value
from fusecas.store.ids import InodesId, LayerId, ObjectId, StateId, TimesId
from fusecas.store.tables import unreadable

HIT_BYTES = 5
ID_BYTES = 32

NOTHING: Mapping[str, Any] = MappingProxyType({})

T = TypeVar("T")


@contextmanager
def reading(what: str) -> Iterator[None]:
    """What decoding gives for bytes that were not encoded by us, as a typed error."""
    try:
        yield
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise unreadable(what, error) from error


def fields_of(value: Value, *names: str, later: Mapping[str, Any] = NOTHING) -> dict[str, Any]:
    """Exactly these. `later`: what rows of earlier versions lack, and what that means."""
    fields = _native.cbor_decode(value)
    if isinstance(fields, dict):
        fields = {**later, **fields}
    if not isinstance(fields, dict) or fields.keys() != set(names):
        raise ValueError("other fields than it should have")
    return fields


def items_of(value: Any, count: int) -> list[Any]:
    if not isinstance(value, list) or len(value) != count:
        raise ValueError(f"not a list of {count}")
    return value


def an_id(value: Any) -> ObjectId:
    if not isinstance(value, bytes) or len(value) != ID_BYTES:
        raise ValueError("not an id")
    return ObjectId(value)


def id_or_none(value: Any, kind: Callable[[ObjectId], T]) -> T | None:
    return None if value is None else kind(an_id(value))


def a_number(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError("not a number")
    return value


def some_bytes(value: Any) -> bytes:
    if not isinstance(value, bytes):
        raise ValueError("not a byte string")
    return value


class Range(NamedTuple):
    """A stretch of a journal: its stream, where it begins, and where it ends, if it has ended. `source`: the workspace
    whose journal it is, if not the row's own: a fork's, until what it shares with its source is stored."""

    stream: int
    start: int
    end: int | None = None
    source: bytes | None = None

    def as_list(self) -> list[Any]:
        return list(self if self.source is not None else self[:3])

    @classmethod
    def of(cls, value: Any) -> Self:
        has_source = isinstance(value, list) and len(value) == 4
        stream, start, end, source = items_of(value, 4) if has_source else [*items_of(value, 3), None]
        numbers = a_number(stream), a_number(start), None if end is None else a_number(end)
        return cls(*numbers, None if source is None else some_bytes(source))


def a_text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("not a text")
    return value


class Row(NamedTuple):
    """What the index keeps of an object. `n` never changes and is never given out twice; the place may change."""

    kind: int
    codec: int
    n: int
    pack: int
    offset: int
    stored: int
    size: int
    created: int

    def encode(self) -> bytes:
        return _native.pack_row(*self)

    @classmethod
    def decode(cls, value: Value) -> Self:
        try:
            return cls._make(_native.unpack_row(value))
        except _native.FormatError as error:
            raise unreadable("a row of the index", error) from error


def encode_count(count: int) -> bytes:
    """How many bytes of a pack are live."""
    return _native.pack_varints([count])


def decode_count(value: Value) -> int:
    with reading("the count of a pack"):
        (count,) = _native.unpack_varints(value)
        return count


class RefRow(NamedTuple):
    """Where a ref points, since which serial, and the operation that moved it there (0: none)."""

    target: ObjectId
    serial: int
    operation: int

    def encode(self) -> bytes:
        return _native.cbor_encode(list(self))

    @classmethod
    def decode(cls, value: Value) -> Self:
        with reading("a ref"):
            target, serial, operation = items_of(_native.cbor_decode(value), 3)
            return cls(an_id(target), a_number(serial), a_number(operation))


class Baseline(NamedTuple):
    """What the times of a workspace are measured by: the times and the state that it had when a run, an import or the
    like had left it, and when that was (ns since 1970)."""

    times: TimesId | None
    state: StateId
    at: int

    @classmethod
    def of(cls, value: Any) -> Self:
        times, state, at = items_of(value, 3)
        return cls(id_or_none(times, TimesId), StateId(an_id(state)), a_number(at))

    def roots(self) -> list[ObjectId]:
        return [self.state] if self.times is None else [self.times, self.state]


def baseline_or_none(value: Any) -> Baseline | None:
    return None if value is None else Baseline.of(value)


def _baseline_of_row(value: Any, state: Any) -> Baseline | None:
    """Earlier versions had its times and its state in two fields, and did not say when it was."""
    if isinstance(value, list) or state is None:
        return baseline_or_none(value)
    return Baseline.of([value, state, 0])


class LayerTimes(NamedTuple):
    """The times of the files of a layer, since which serial. `baseline`: what they were measured by when it was made;
    it keeps nothing alive."""

    times: TimesId
    serial: int
    baseline: Baseline | None = None

    def encode(self) -> bytes:
        return _native.cbor_encode([self.times, self.serial, None if self.baseline is None else list(self.baseline)])

    @classmethod
    def decode(cls, value: Value) -> Self:
        with reading("the times of a layer"):
            fields = _native.cbor_decode(value)
            earlier = isinstance(fields, list) and len(fields) == 2
            times, serial, baseline = items_of([*fields, None] if earlier else fields, 3)
            return cls(TimesId(an_id(times)), a_number(serial), baseline_or_none(baseline))


class LivePair(NamedTuple):
    """Where a workspace stands: its layer, its live state and the times of that state. `baseline`: what those are
    measured by; it keeps nothing alive."""

    layer: LayerId | None
    state: StateId
    times: TimesId | None
    baseline: Baseline | None = None

    def as_list(self) -> list[Any]:
        return [*self[:3], None if self.baseline is None else list(self.baseline)]

    @classmethod
    def of(cls, value: Any) -> Self:
        earlier = isinstance(value, list) and len(value) == 3
        layer, state, times, baseline = items_of([*value, None] if earlier else value, 4)
        ids = id_or_none(layer, LayerId), StateId(an_id(state)), id_or_none(times, TimesId)
        return cls(*ids, baseline_or_none(baseline))

    def roots(self) -> list[ObjectId]:
        return [each for each in self[:3] if each is not None]


class Live(NamedTuple):
    """The live row of a workspace: local, moved in the same transaction as its head.

    `ranges`: what of the journal stands on the state; `boot`: the boot of the machine in which they were begun.
    `first_inode`: the number of the first thing below the root, where `inodes` says nothing; `next_inode`: the first
    that was never given out.
    """

    layer: LayerId | None
    state: StateId
    times: TimesId | None
    inodes: InodesId | None = None
    baseline: Baseline | None = None
    ranges: tuple[Range, ...] = ()
    needs: tuple[ObjectId, ...] = ()
    owner: tuple[int, int] = (0, 0)
    first_inode: int = 1
    next_inode: int = 1
    boot: bytes | None = None
    serial: int = 0

    @property
    def pair(self) -> LivePair:
        return LivePair(self.layer, self.state, self.times, self.baseline)

    def roots(self) -> list[ObjectId]:
        """What this row keeps alive."""
        baseline = () if self.baseline is None else self.baseline.roots()
        named = [self.layer, self.state, self.times, self.inodes, *baseline, *self.needs]
        return [each for each in named if each is not None]

    def encode(self) -> bytes:
        return _native.cbor_encode(
            {
                "layer": self.layer,
                "state": self.state,
                "times": self.times,
                "inodes": self.inodes,
                "baseline": None if self.baseline is None else list(self.baseline),
                "ranges": [each.as_list() for each in self.ranges],
                "needs": list(self.needs),
                "owner": list(self.owner),
                "first_inode": self.first_inode,
                "next_inode": self.next_inode,
                "boot": self.boot,
                "serial": self.serial,
            }
        )

    @classmethod
    def decode(cls, value: Value) -> Self:
        with reading("a live row"):
            fields = fields_of(value, *cls._fields, "baseline_state", later={"baseline_state": None})
            uid, gid = items_of(fields["owner"], 2)
            if not isinstance(fields["ranges"], list) or not isinstance(fields["needs"], list):
                raise ValueError("ranges or needs that are no lists")
            return cls(
                layer=id_or_none(fields["layer"], LayerId),
                state=StateId(an_id(fields["state"])),
                times=id_or_none(fields["times"], TimesId),
                inodes=id_or_none(fields["inodes"], InodesId),
                baseline=_baseline_of_row(fields["baseline"], fields["baseline_state"]),
                ranges=tuple(Range.of(each) for each in fields["ranges"]),
                needs=tuple(an_id(each) for each in fields["needs"]),
                owner=(a_number(uid), a_number(gid)),
                first_inode=a_number(fields["first_inode"]),
                next_inode=a_number(fields["next_inode"]),
                boot=None if fields["boot"] is None else some_bytes(fields["boot"]),
                serial=a_number(fields["serial"]),
            )


class Move(NamedTuple):
    """What one operation did to one ref. For a head, `old_live` and `new_live` say where its workspace stood."""

    ref: str
    old: ObjectId | None
    new: ObjectId | None
    old_live: LivePair | None = None
    new_live: LivePair | None = None

    def roots(self) -> list[ObjectId]:
        lives = [each for live in (self.old_live, self.new_live) if live is not None for each in live.roots()]
        return [each for each in (self.old, self.new, *lives) if each is not None]

    def as_list(self) -> list[Any]:
        lives = [None if each is None else each.as_list() for each in (self.old_live, self.new_live)]
        return [self.ref, self.old, self.new, *lives]

    @classmethod
    def of(cls, value: Any) -> Self:
        ref, old, new, old_live, new_live = items_of(value, 5)
        return cls(
            a_text(ref),
            id_or_none(old, ObjectId),
            id_or_none(new, ObjectId),
            None if old_live is None else LivePair.of(old_live),
            None if new_live is None else LivePair.of(new_live),
        )


class Position(NamedTuple):
    """Where a workspace stood: before or after an operation."""

    operation: int
    after: bool

    @classmethod
    def of(cls, value: Any) -> Self:
        operation, after = items_of(value, 2)
        if not isinstance(after, bool):
            raise ValueError("neither before nor after")
        return cls(a_number(operation), after)


class Cursor(NamedTuple):
    """Where undo and redo have gone to: the end of what can be redone, and the place within it."""

    top: Position
    at: Position

    @classmethod
    def of(cls, value: Any) -> Self:
        top, at = items_of(value, 2)
        return cls(Position.of(top), Position.of(at))


class Operation(NamedTuple):
    """What somebody did: one verb and every ref that it moved. Its number is its serial.

    `cursor`: of an undo or a redo, which only move it; in it the number 0 means this operation itself.
    """

    number: int
    verb: str
    argv: tuple[bytes, ...]
    actor: str
    time: int
    moves: tuple[Move, ...]
    cursor: Cursor | None = None

    def encode(self) -> bytes:
        return _native.cbor_encode(
            {
                "verb": self.verb,
                "argv": list(self.argv),
                "actor": self.actor,
                "time": self.time,
                "moves": [move.as_list() for move in self.moves],
                "cursor": None if self.cursor is None else [list(each) for each in self.cursor],
            }
        )

    @classmethod
    def decode(cls, number: int, value: Value) -> Self:
        with reading(f"operation {number}"):
            fields = fields_of(value, "verb", "argv", "actor", "time", "moves", "cursor")
            argv = fields["argv"]
            if not isinstance(argv, list) or not all(isinstance(each, bytes) for each in argv):
                raise ValueError("argv is not a list of byte strings")
            if not isinstance(fields["moves"], list):
                raise ValueError("moves is no list")
            moves = tuple(Move.of(each) for each in fields["moves"])
            time = a_number(fields["time"])
            cursor = None if fields["cursor"] is None else Cursor.of(fields["cursor"])
            return cls(number, a_text(fields["verb"]), tuple(argv), a_text(fields["actor"]), time, moves, cursor)

    def move_of(self, ref: str) -> Move | None:
        return next((each for each in self.moves if each.ref == ref), None)


class Recent(NamedTuple):
    """Which row got a serial: so that a collector finds what is new without reading what is old."""

    table: int
    key: bytes

    def encode(self) -> bytes:
        return bytes([self.table]) + self.key

    @classmethod
    def decode(cls, value: Value) -> Self:
        data = bytes(value)
        if len(data) < 2:
            raise unreadable("a row of recent", ValueError("cut short"))
        return cls(data[0], data[1:])


class SessionRow(NamedTuple):
    """When a session last wrote (ns since 1970), and the serial of its last hold."""

    last_write: int
    last_hold: int

    def encode(self) -> bytes:
        return _native.cbor_encode(list(self))

    @classmethod
    def decode(cls, value: Value) -> Self:
        with reading("a session"):
            last_write, last_hold = items_of(_native.cbor_decode(value), 2)
            return cls(a_number(last_write), a_number(last_hold))


class HoldKind(IntEnum):
    """The first byte of a hold says what its numbers or ids are."""

    PUT = 1
    HIT = 2
    NODES = 3


class Hold(NamedTuple):
    """What a session has put or hit: runs of leaves (first number, count), or ids of nodes and recipes."""

    leaves: list[tuple[int, int]]
    nodes: list[ObjectId]

    @staticmethod
    def of_put(runs: list[int]) -> bytes:
        """Of runs of leaves: first number, count, first number, count…"""
        return bytes([HoldKind.PUT]) + _native.pack_varints(runs)

    @staticmethod
    def of_hits(numbers: list[int]) -> bytes:
        return bytes([HoldKind.HIT]) + b"".join(n.to_bytes(HIT_BYTES, "big") for n in numbers)

    @staticmethod
    def of_nodes(ids: list[ObjectId]) -> bytes:
        return bytes([HoldKind.NODES]) + b"".join(ids)

    @classmethod
    def decode(cls, value: Value) -> Self:
        with reading("a hold"):
            data = bytes(value)
            kind, body = HoldKind(data[0] if data else 0), data[1:]
            if kind == HoldKind.PUT:
                numbers = _native.unpack_varints(body)
                return cls(list(zip(numbers[::2], numbers[1::2], strict=True)), [])
            width = HIT_BYTES if kind == HoldKind.HIT else ID_BYTES
            if len(body) % width:
                raise ValueError("cut short")
            pieces = [body[at : at + width] for at in range(0, len(body), width)]
            if kind == HoldKind.HIT:
                return cls([(int.from_bytes(piece, "big"), 1) for piece in pieces], [])
            return cls([], [ObjectId(piece) for piece in pieces])


class GcState(NamedTuple):
    """What the last gc published beside its marks.

    k: its number. next_n: the first row's number that it did not judge. undoable_since: operations from that time on
    (ns since 1970) have kept all that they name.
    """

    k: int
    next_n: int
    undoable_since: int

    def encode(self) -> bytes:
        return _native.cbor_encode(list(self))

    @classmethod
    def decode(cls, value: Value) -> Self:
        with reading("the state of gc"):
            return cls._make(a_number(each) for each in items_of(_native.cbor_decode(value), 3))
