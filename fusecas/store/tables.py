"""The tables of a repository: their names and the encoding of their keys and values (docs/format.md, "Tables")."""

import struct
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple, Self

from fusecas import _native
from fusecas.errors import DamagedEnvironment
from fusecas.store.ids import InodesId, LayerId, ObjectId, StateId, TimesId


class Table(StrEnum):
    META = "meta"
    DATA = "data"
    PACKS = "packs"
    INDEX = "index"
    YOUNG = "young"
    LAYERS = "layers"
    BY_TYPE = "by_type"
    REFS = "refs"
    OPS = "ops"
    REF_OPS = "ref_ops"
    LIVE = "live"
    LAYER_TIMES = "layer_times"
    SESSIONS = "sessions"
    GC = "gc"
    ACTIONS = "actions"
    BY_PROGRAM = "by_program"
    BY_FAMILY = "by_family"
    NORM = "norm"
    BOUND = "bound"
    ALIAS = "alias"


U64 = struct.Struct(">Q")
SESSION_KEY = struct.Struct(">QQ")


def u64(number: int) -> bytes:
    return U64.pack(number)


def to_u64(key: bytes | memoryview) -> int:
    try:
        return int(U64.unpack(key)[0])
    except struct.error as error:
        raise unreadable("a key", error) from error


def unreadable(what: str, error: Exception) -> DamagedEnvironment:
    """A row that nobody can have written."""
    return DamagedEnvironment(f"{what} can't be read: {error}", hint="restore the store from a backup or a bundle")


UNREADABLE = (ValueError, TypeError, KeyError)  # what decoding gives for bytes that were not encoded by us


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
    def decode(cls, value: bytes | memoryview) -> Self:
        try:
            return cls._make(_native.unpack_row(value))
        except UNREADABLE as error:
            raise unreadable("a row of the index", error) from error


class RefRow(NamedTuple):
    """Where a ref points, since which serial, and the operation that moved it there (0: none)."""

    target: ObjectId
    serial: int
    operation: int

    def encode(self) -> bytes:
        return _native.cbor_encode(list(self))

    @classmethod
    def decode(cls, value: bytes | memoryview) -> Self:
        try:
            return cls._make(_native.cbor_decode(value))
        except UNREADABLE as error:
            raise unreadable("a ref", error) from error


class LivePair(NamedTuple):
    """Where a workspace stands: its layer, its live state and the times of that state."""

    layer: LayerId | None
    state: StateId
    times: TimesId | None


@dataclass(frozen=True)
class Live:
    """The live row of a workspace: local, moved in the same transaction as its head."""

    layer: LayerId | None
    state: StateId
    times: TimesId | None
    inodes: InodesId | None = None
    baseline: TimesId | None = None
    ranges: tuple[Any, ...] = ()
    needs: tuple[ObjectId, ...] = ()
    owner: tuple[int, int] = (0, 0)
    serial: int = 0

    @property
    def pair(self) -> LivePair:
        return LivePair(self.layer, self.state, self.times)

    def roots(self) -> list[ObjectId]:
        """What this row keeps alive."""
        named = [self.layer, self.state, self.times, self.inodes, self.baseline, *self.needs]
        return [each for each in named if each is not None]

    def encode(self) -> bytes:
        return _native.cbor_encode(
            {
                "layer": self.layer,
                "state": self.state,
                "times": self.times,
                "inodes": self.inodes,
                "baseline": self.baseline,
                "ranges": list(self.ranges),
                "needs": list(self.needs),
                "owner": list(self.owner),
                "serial": self.serial,
            }
        )

    @classmethod
    def decode(cls, value: bytes | memoryview) -> Self:
        try:
            fields = _native.cbor_decode(value)
            for name in ("ranges", "needs", "owner"):
                fields[name] = tuple(fields[name])
            return cls(**fields)
        except UNREADABLE as error:
            raise unreadable("a live row", error) from error


class Move(NamedTuple):
    """What one operation did to one ref. For a head, `old_live` and `new_live` say where its workspace stood."""

    ref: str
    old: ObjectId | None
    new: ObjectId | None
    old_live: LivePair | None = None
    new_live: LivePair | None = None

    def roots(self) -> list[ObjectId]:
        named = [self.old, self.new, *(self.old_live or ()), *(self.new_live or ())]
        return [each for each in named if each is not None]


@dataclass(frozen=True)
class Operation:
    """What somebody did: one verb and every ref that it moved. Its number is its serial."""

    number: int
    verb: str
    argv: tuple[bytes, ...]
    actor: str
    time: int
    moves: tuple[Move, ...]

    def encode(self) -> bytes:
        return _native.cbor_encode(
            {
                "verb": self.verb,
                "argv": list(self.argv),
                "actor": self.actor,
                "time": self.time,
                "moves": [
                    [
                        move.ref,
                        move.old,
                        move.new,
                        None if move.old_live is None else list(move.old_live),
                        None if move.new_live is None else list(move.new_live),
                    ]
                    for move in self.moves
                ],
            }
        )

    @classmethod
    def decode(cls, number: int, value: bytes | memoryview) -> Self:
        try:
            fields = _native.cbor_decode(value)
            moves = tuple(
                Move(ref, old, new, old_live and LivePair(*old_live), new_live and LivePair(*new_live))
                for ref, old, new, old_live, new_live in fields["moves"]
            )
            return cls(number, fields["verb"], tuple(fields["argv"]), fields["actor"], fields["time"], moves)
        except UNREADABLE as error:
            raise unreadable(f"operation {number}", error) from error
