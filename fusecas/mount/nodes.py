"""The kernel's numbers of inodes: 17 bits say where, 36 bits are the inode's own number there.

Below 2^53, above which some programs round. 1 is the root of the mount: the root of place 1. Place 0 has what no
workspace holds: the folders `.fusecas` of each place, and what is in them. The last place has the links `at/REF`.
"""

from enum import IntEnum

import pyfuse3

BITS = 36
SPECIAL, MOUNTED = 0, 1
LINKS = (1 << 17) - 1
ROOT_NODE = pyfuse3.ROOT_INODE
ROOT = 0
SPECIALS = 8


class Special(IntEnum):
    """What there is in the `.fusecas` of a place."""

    FOLDER = 1
    WORKSPACES = 2
    AT = 3
    SOCKET = 4
    REPOSITORY = 5
    ITSELF = 6
    """The mounted workspace among the workspaces: a link to the root."""


def node_of(place: int, ino: int) -> int:
    return ROOT_NODE if (place, ino) == (MOUNTED, ROOT) else place << BITS | ino


def split(node: int) -> tuple[int, int]:
    """(place, inode)."""
    return (MOUNTED, ROOT) if node == ROOT_NODE else (node >> BITS, node & ((1 << BITS) - 1))


def special_of(place: int, what: Special) -> int:
    return SPECIAL << BITS | place * SPECIALS + what


def split_special(ino: int) -> tuple[int, Special]:
    return ino // SPECIALS, Special(ino % SPECIALS)
