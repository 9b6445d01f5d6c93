"""Reading a content for somebody who may be slow: a terminal, a pipe, a disk.

A snapshot that is open keeps freed space from being used again; so a long content is read in many short ones. What
holds it alive is the caller's care: if gc takes it meanwhile, MissingObject.
"""

from array import array
from collections.abc import Iterable, Iterator

from fusecas.store.ids import ObjectId
from fusecas.store.snapshot import Piece
from fusecas.store.store import Store

AT_ONCE = 4 << 20
ZEROS = 1 << 18


class Pieces:
    """The pieces of a content, remembered in 48 bytes each."""

    def __init__(self, pieces: Iterable[Piece]) -> None:
        self._offsets, self._lengths = array("Q"), array("Q")
        self._chunks = bytearray()
        for offset, chunk, length in pieces:
            self._offsets.append(offset)
            self._lengths.append(length)
            self._chunks += chunk or bytes(32)

    def __len__(self) -> int:
        return len(self._offsets)

    def __getitem__(self, at: int) -> Piece:
        if not 0 <= at < len(self):
            raise IndexError(at)
        chunk = bytes(self._chunks[32 * at : 32 * at + 32])
        return Piece(self._offsets[at], ObjectId(chunk) if any(chunk) else None, self._lengths[at])

    def groups(self, most: int) -> Iterator[list[Piece]]:
        """The pieces in order, those of about `most` bytes at a time."""
        group: list[Piece] = []
        size = 0
        for at in range(len(self)):
            piece = self[at]
            group.append(piece)
            size += 0 if piece.chunk is None else piece.length
            if size >= most or len(group) >= 1024:
                yield group
                group, size = [], 0
        if group:
            yield group


def content_parts(store: Store, content: bytes) -> Iterator[bytes]:
    """The bytes of a content, in parts of at most 256 KiB, each verified."""
    with store.read() as snapshot:
        pieces = Pieces(snapshot.content_pieces(content))
    for group in pieces.groups(AT_ONCE):
        with store.read() as snapshot:
            read = [None if chunk is None else snapshot.read_chunk(chunk, length) for _, chunk, length in group]
        for piece, data in zip(group, read, strict=True):
            if data is not None:
                yield data
                continue
            for at in range(0, piece.length, ZEROS):
                yield bytes(min(ZEROS, piece.length - at))
