"""Ids and kinds. Each id is 32 bytes; distinct types, so that one in the wrong place does not type-check."""

from enum import IntEnum
from typing import NewType

ObjectId = NewType("ObjectId", bytes)
ContentId = NewType("ContentId", ObjectId)
TreeId = NewType("TreeId", ObjectId)
StateId = NewType("StateId", ObjectId)
LinksId = NewType("LinksId", ObjectId)
TimesId = NewType("TimesId", ObjectId)
InodesId = NewType("InodesId", ObjectId)
MapId = NewType("MapId", ObjectId)
LogId = NewType("LogId", ObjectId)
LayerId = NewType("LayerId", ObjectId)
ActionId = NewType("ActionId", ObjectId)
WorkspaceNodeId = NewType("WorkspaceNodeId", ObjectId)

SHORT = 12


class Kind(IntEnum):
    """What an object is; part of the id of every node."""

    CHUNK = 0
    TREE = 1
    STATE = 2
    LINKS = 3
    TIMES = 4
    INODES = 5
    MAP = 6
    LOG = 7
    LAYER = 8
    ACTION = 9
    WORKSPACE = 10
    RECIPE = 16
    PART = 17


EMPTY_CONTENT = ContentId(ObjectId(bytes.fromhex("af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262")))
"""The id of no bytes at all: always there, though no row says so."""


def short(object_id: bytes) -> str:
    """An id as people see it."""
    return object_id.hex()[:SHORT]
