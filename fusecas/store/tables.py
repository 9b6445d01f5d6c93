"""The tables of a repository: their names and the encoding of their keys (docs/format.md, "Tables")."""

import struct
from enum import StrEnum

from fusecas.errors import DamagedEnvironment


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
    RECENT = "recent"
    SESSIONS = "sessions"
    GC = "gc"
    ACTIONS = "actions"
    BY_PROGRAM = "by_program"
    BY_FAMILY = "by_family"
    RECORDS = "records"
    NORM = "norm"
    BOUND = "bound"
    ALIAS = "alias"


ROOT_TABLES = (Table.REFS, Table.LIVE, Table.LAYER_TIMES, Table.OPS, Table.RECORDS)
"""Whose rows make roots, and are noted in `recent`: there each goes by its place here."""

U64 = struct.Struct(">Q")
SESSION_KEY = struct.Struct(">QQ")


def u64(number: int) -> bytes:
    return U64.pack(number)


def to_u64(key: bytes | memoryview) -> int:
    try:
        return int(U64.unpack(key)[0])
    except struct.error as error:
        raise unreadable("a key", error) from error


def to_session_key(key: bytes | memoryview) -> tuple[int, int]:
    """(session, serial; 0 is the row of the session itself)."""
    try:
        session, serial = SESSION_KEY.unpack(key)
    except struct.error as error:
        raise unreadable("a session's key", error) from error
    return session, serial


def unreadable(what: str, error: Exception) -> DamagedEnvironment:
    """A row that nobody can have written."""
    return DamagedEnvironment(f"{what} can't be read: {error}", hint="restore the store from a backup or a bundle")
