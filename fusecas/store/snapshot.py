"""Reading: everything that can be asked of a repository within one transaction.

A condemned object is absent here, whoever asks. Bytes are verified against their id each time they are read.
"""

from collections.abc import Callable, Iterator, Sequence
from heapq import merge
from typing import NamedTuple

from fusecas import _native
from fusecas.errors import (
    AmbiguousPrefix,
    CorruptObject,
    DamagedEnvironment,
    InvalidObject,
    MissingObject,
    ObjectNotFound,
    UsageError,
)
from fusecas.store import packs
from fusecas.store.condemned import Marks
from fusecas.store.environment import KV, Value
from fusecas.store.ids import EMPTY_CONTENT, Kind, LayerId, ObjectId, TimesId
from fusecas.store.rows import Baseline, LayerTimes, Live, Operation, RefRow, Row, items_of, reading, some_bytes
from fusecas.store.run_rows import Record, Result, decode_holders
from fusecas.store.tables import Table, to_u64, u64, unreadable

HEX_DIGITS = frozenset("0123456789abcdef")
SHORTEST_PREFIX = 4
CANDIDATES = 20
RECIPE_CHECKSUM = 32
LONGEST_KEY = 500  # of LMDB's 511; no ref is as long


class Piece(NamedTuple):
    """A stretch of a content: a chunk, or a hole (no chunk)."""

    offset: int
    chunk: ObjectId | None
    length: int


class Snapshot:
    """A consistent view. Valid while its transaction is open; not for use by two threads at once."""

    def __init__(self, kv: KV, marks: Marks) -> None:
        self.kv = kv
        self.marks = marks

    # objects

    def row(self, object_id: bytes) -> Row | None:
        found = packs.find_row(self.kv, object_id)
        return None if found is None or self.marks.condemned(found.n) else found

    def has(self, object_id: bytes) -> bool:
        return object_id == EMPTY_CONTENT or self.row(object_id) is not None

    def needed_row(self, object_id: bytes) -> Row:
        found = self.row(object_id)
        if found is None:
            raise MissingObject(f"object {object_id.hex()} is not there", hint="fusecas verify")
        return found

    def read_node(self, object_id: bytes, kind: Kind | None = None) -> bytes:
        """A node's CBOR, verified; `kind` is what the caller needs it to be."""
        found = self.needed_row(object_id)
        if found.kind in (Kind.CHUNK, Kind.RECIPE):
            raise InvalidObject(f"object {object_id.hex()} is content, not a node")
        if kind is not None and found.kind != kind:
            raise InvalidObject(f"object {object_id.hex()} is of kind {found.kind}, not a {kind.name.lower()}")
        return packs.raw_bytes(self.kv, object_id, found)

    def read_object(self, object_id: bytes) -> tuple[Row, bytes]:
        """Any stored object as it was put: a chunk's bytes, a recipe, a node's CBOR."""
        found = self.needed_row(object_id)
        return found, packs.raw_bytes(self.kv, object_id, found)

    def stored(self, object_id: bytes) -> tuple[Row, list[Value]]:
        """The stored bytes in place, unverified: for native code that verifies while it unpacks."""
        found = self.needed_row(object_id)
        return found, packs.stored_bytes(self.kv, found)

    def refs_of(self, object_id: bytes) -> list[ObjectId]:
        """What an object refers to, each once, whatever its kind."""
        if object_id == EMPTY_CONTENT:
            return []
        found = self.needed_row(object_id)
        if found.kind == Kind.CHUNK:
            return []
        return refs_in(object_id, found.kind, packs.raw_bytes(self.kv, object_id, found))

    # content

    def content_pieces(self, content_id: bytes) -> Iterator[Piece]:
        """The chunks and holes of a content, in order."""
        yield from self._pieces(content_id, self.content_row(content_id))

    def content_row(self, content_id: bytes) -> Row | None:
        """The row of a content's chunk or recipe; None for the empty content."""
        if content_id == EMPTY_CONTENT:
            return None
        found = self.needed_row(content_id)
        if found.kind not in (Kind.CHUNK, Kind.RECIPE):
            raise InvalidObject(f"object {content_id.hex()} is a node, not content")
        return found

    def _pieces(self, content_id: bytes, found: Row | None) -> Iterator[Piece]:
        if found is None:
            return
        if found.kind == Kind.CHUNK:
            yield Piece(0, ObjectId(bytes(content_id)), found.size)
            return
        _, items, _ = decoded_recipe(content_id, packs.raw_bytes(self.kv, content_id, found))
        at = 0
        for chunk, length in recipe_items(items, lambda part: self.read_node(part, Kind.PART)):
            row = None if chunk is None else self.row(chunk)
            if chunk is not None and row is not None and row.kind == Kind.RECIPE:
                # The same bytes were put as a content before, and at its offsets they have holes.
                yield from (piece._replace(offset=at + piece.offset) for piece in self._pieces(chunk, row))
            else:
                yield Piece(at, None if chunk is None else ObjectId(chunk), length)
            at += length

    def content_size(self, content_id: bytes) -> int:
        found = self.content_row(content_id)
        if found is None:
            return 0
        if found.kind == Kind.CHUNK:
            return found.size
        return decoded_recipe(content_id, packs.raw_bytes(self.kv, content_id, found))[0]

    def iter_content(self, content_id: bytes, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        """The bytes of a content from `start`, in pieces of at most 256 KiB, each verified."""
        stop = None if length is None else start + length
        for at, chunk, size in self.content_pieces(content_id):
            if at + size <= start:
                continue
            if stop is not None and at >= stop:
                return
            low = max(start - at, 0)
            high = size if stop is None else min(size, stop - at)
            if chunk is None:
                for zero in range(low, high, 1 << 18):
                    yield bytes(min(1 << 18, high - zero))
                continue
            yield self.read_chunk(chunk, size)[low:high]

    def read_chunk(self, chunk: bytes, length: int) -> bytes:
        """A chunk's bytes, verified; it must be as long as the content that holds it says."""
        row, data = self.read_object(chunk)
        if row.kind != Kind.CHUNK or len(data) != length:
            raise InvalidObject(f"object {chunk.hex()} is not a chunk of {length} bytes")
        return data

    def read_range(self, content_id: bytes, offset: int, length: int) -> bytes:
        return b"".join(self.iter_content(content_id, offset, length))

    def read_content(self, content_id: bytes) -> bytes:
        return b"".join(self.iter_content(content_id))

    # prefixes

    def resolve_prefix(self, prefix: str, layers_only: bool = False) -> ObjectId:
        """The one object (or layer) whose id starts with these hexadecimal digits."""
        if not set(prefix) <= HEX_DIGITS or not SHORTEST_PREFIX <= len(prefix) <= 64:
            raise UsageError(f"{prefix!r} is not a hash: {SHORTEST_PREFIX} to 64 lower-case hexadecimal digits")
        found = []
        for object_id in self._ids_from(prefix, layers_only):
            found.append(object_id.hex())
            if len(found) >= CANDIDATES:
                break
        if not found:
            what = "layer" if layers_only else "object"
            raise ObjectNotFound(f"no {what} {prefix}", hint="fusecas log" if layers_only else None)
        if len(found) > 1:
            raise AmbiguousPrefix.among(prefix, found)
        return ObjectId(bytes.fromhex(found[0]))

    def _ids_from(self, prefix: str, layers_only: bool) -> Iterator[ObjectId]:
        low = bytes.fromhex(prefix + "0" * (len(prefix) % 2))
        if layers_only:
            ids = (ObjectId(key) for key, _ in self.kv.scan(Table.LAYERS, low) if self.row(key) is not None)
        else:
            stored = (key for key, row in packs.rows(self.kv, low) if not self.marks.condemned(row.n))
            ids = merge(stored, [EMPTY_CONTENT] if low <= EMPTY_CONTENT else [])
        for object_id in ids:
            if not object_id.hex().startswith(prefix):
                return
            yield object_id

    def abbreviate(self, object_id: bytes, minimum: int = SHORTEST_PREFIX) -> str:
        """The shortest prefix of at least `minimum` digits that no other object shares."""
        full = object_id.hex()
        if not self.has(object_id):
            raise ObjectNotFound(f"no object {full}")
        length = minimum
        while length < 64:
            others = (each for each in self._ids_from(full[:length], layers_only=False) if each != object_id)
            other = next(others, None)
            if other is None:
                break
            length = max(length, common_digits(full, other.hex())) + 1
        return full[:length]

    # refs, live rows, operations

    def get_ref(self, name: str) -> RefRow | None:
        value = self.kv.get(Table.REFS, ref_key(name))
        return None if value is None else RefRow.decode(value)

    def list_refs(self, prefix: str = "") -> Iterator[tuple[str, RefRow]]:
        """Refs whose name starts so, in the order of names."""
        low = prefix.encode()
        for key, value in self.kv.scan(Table.REFS, low):
            if not key.startswith(low):
                return
            yield read_name(key), RefRow.decode(value)

    def get_live(self, workspace_id: bytes) -> Live | None:
        value = self.kv.get(Table.LIVE, workspace_id)
        return None if value is None else Live.decode(value)

    def list_live(self) -> Iterator[tuple[bytes, Live]]:
        for key, value in self.kv.scan(Table.LIVE):
            yield key, Live.decode(value)

    def record(self, number: bytes) -> Record | None:
        """Of an execution."""
        value = self.kv.get(Table.RECORDS, number)
        return None if value is None else Record.decode(value)

    def records_back(self) -> Iterator[tuple[bytes, Record]]:
        """By number, the newest first."""
        for key, value in self.kv.scan_back(Table.RECORDS):
            yield key, Record.decode(value)

    def result(self, action: ObjectId) -> Result | None:
        """What an action came to, if all of it is still there."""
        value = self.kv.get(Table.ACTIONS, action)
        found = None if value is None else Result.decode(value)
        return found if found is not None and all(map(self.has, found.needs())) else None

    def domain(self) -> tuple[bytes, bytes]:
        """The cache domain of this repository, and its secret."""
        value = self.kv.get(Table.META, b"domain")
        if value is None:
            raise DamagedEnvironment("the store has no cache domain")
        with reading("the cache domain"):
            name, secret = items_of(_native.cbor_decode(value), 2)
            return some_bytes(name), some_bytes(secret)

    def layer_times(self, layer: LayerId) -> TimesId | None:
        value = self.kv.get(Table.LAYER_TIMES, layer)
        return None if value is None else LayerTimes.decode(value).times

    def layer_baseline(self, layer: LayerId) -> Baseline | None:
        """What the times of a layer were measured by when it was made, as far as gc has left it."""
        value = self.kv.get(Table.LAYER_TIMES, layer)
        return None if value is None else self.still(LayerTimes.decode(value).baseline)

    def bound(self, state: bytes) -> frozenset[bytes]:
        """The files of a state that hold the path of a workspace (bound.py)."""
        value = self.kv.get(Table.BOUND, state)
        return frozenset() if value is None else decode_holders(value)

    def still(self, baseline: Baseline | None) -> Baseline | None:
        """A baseline that nothing has kept alive, if it is there yet."""
        return baseline if baseline is not None and all(map(self.has, baseline.roots())) else None

    def operation(self, number: int) -> Operation | None:
        value = self.kv.get(Table.OPS, u64(number))
        return None if value is None else Operation.decode(number, value)

    def operations(self, start: int = 0) -> Iterator[Operation]:
        """Oldest first, from number `start`."""
        for key, value in self.kv.scan(Table.OPS, u64(start)):
            yield Operation.decode(to_u64(key), value)

    def operations_back(self) -> Iterator[Operation]:
        """Newest first."""
        for key, value in self.kv.scan_back(Table.OPS):
            yield Operation.decode(to_u64(key), value)

    def ref_operations_back(self, name: str, before: int | None = None) -> Iterator[Operation]:
        """The operations that moved a ref (before one), newest first; they outlive the ref."""
        prefix = ref_key(name) + b"\0"
        for key, _ in self.kv.scan_back(
            Table.REF_OPS, ref_key(name) + b"\1" if before is None else prefix + u64(before)
        ):
            if not key.startswith(prefix) or len(key) != len(prefix) + 8:
                return
            found = self.operation(to_u64(key[-8:]))
            if found is not None:
                yield found


def ref_key(name: str) -> bytes:
    """The key of a ref. What is not UTF-8 is the key of none, and not an error: nobody can have set it."""
    return name.encode(errors="surrogatepass")[:LONGEST_KEY]


def read_name(key: bytes) -> str:
    try:
        return key.decode()
    except UnicodeDecodeError as error:
        raise unreadable("the name of a ref", error) from error


def refs_in(object_id: bytes, kind: int, data: bytes) -> list[ObjectId]:
    """The references in an object's bytes, of known and unknown kinds alike."""
    if kind == Kind.CHUNK:
        return []
    try:
        body = data[:-RECIPE_CHECKSUM] if kind == Kind.RECIPE else data
        return [ObjectId(each) for each in _native.cbor_refs(body)]
    except _native.FormatError as error:
        raise InvalidObject(f"object {object_id.hex()}, of kind {kind}, can't be read: {error}") from error


def decoded_recipe(content_id: bytes, data: bytes) -> "tuple[int, Sequence[_native.RecipeItem], bytes | None]":
    try:
        return _native.decode_recipe(content_id, data)
    except _native.FormatError as error:
        raise CorruptObject(f"the recipe of {content_id.hex()} is damaged: {error}") from error


def recipe_items(
    items: "Sequence[_native.RecipeItem]", read_part: Callable[[bytes], bytes]
) -> Iterator[tuple[bytes | None, int]]:
    """A recipe's chunks and holes, its parts resolved."""
    for item in items:
        if len(item) == 3:
            yield from _native.decode_part(read_part(item[0]))
        else:
            yield item


def common_digits(one: str, other: str) -> int:
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=True)) if a != b), 64)
