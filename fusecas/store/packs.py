"""Where the bytes of objects are: rows of the index, packs of the data stream (docs/format.md, "Tables").

Functions over one transaction. They know rows and bytes, not what objects mean; whether a row is condemned is for
their callers to ask.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from fusecas import _native
from fusecas.errors import CorruptObject, MissingObject
from fusecas.store.environment import KV, Value
from fusecas.store.ids import Kind, ObjectId
from fusecas.store.rows import Row, decode_count, encode_count
from fusecas.store.tables import Table, to_u64, u64

BIG_PACK = 64 * 4096 - 16
SMALL_PACK = 4 * 4096 - 16
BATCH_FOR_BIG_PACKS = 256 * 1024
YOUNG_ROWS = 4096


class NewObject(NamedTuple):
    """An object about to be appended, its bytes as they will be stored."""

    id: ObjectId
    kind: int
    codec: int
    size: int
    data: memoryview


def compressed(
    batch: _native.Batch, ids: Sequence[ObjectId], kinds: bytes, which: Sequence[int]
) -> dict[int, NewObject]:
    """These objects of a batch, by their place in it, as they will be stored."""
    if not which:
        return {}
    packed = batch.compress(list(which))
    data = memoryview(packed.data)
    return {
        i: NewObject(ids[i], kinds[i], codec, size, data[offset : offset + stored])
        for i, codec, offset, stored, size in packed.rows
    }


class PackSpan(NamedTuple):
    """The part of an object that lies in one pack."""

    pack: int
    start: int
    stop: int


def get_meta(kv: KV, name: str) -> int:
    value = kv.get(Table.META, name.encode())
    return 0 if value is None else to_u64(value)


def set_meta(kv: KV, name: str, number: int) -> None:
    kv.put(Table.META, name.encode(), u64(number))


def next_serial(kv: KV) -> int:
    """A number never given out before, for whatever adds a root."""
    serial = get_meta(kv, "next_serial") or 1
    set_meta(kv, "next_serial", serial + 1)
    return serial


def find_row(kv: KV, object_id: bytes) -> Row | None:
    """The row of an object, condemned or not."""
    value = kv.get(Table.YOUNG, object_id)
    if value is None:
        value = kv.get(Table.INDEX, object_id)
    return None if value is None else Row.decode(value)


def rows(kv: KV, start: bytes = b"") -> Iterator[tuple[ObjectId, Row]]:
    """Every row in the order of ids, condemned or not. Don't write meanwhile."""
    return ((object_id, Row.decode(value)) for object_id, value in raw_rows(kv, start))


def raw_rows(kv: KV, start: bytes = b"") -> Iterator[tuple[ObjectId, Value]]:
    """The same, for who must not fail at one that can't be decoded."""
    young, index = kv.scan(Table.YOUNG, start), kv.scan(Table.INDEX, start)
    ours, theirs = next(young, None), next(index, None)
    while ours is not None or theirs is not None:
        if theirs is None or (ours is not None and ours[0] < theirs[0]):
            assert ours is not None
            yield ObjectId(ours[0]), ours[1]
            ours = next(young, None)
        else:
            yield ObjectId(theirs[0]), theirs[1]
            theirs = next(index, None)


def append_objects(kv: KV, objects: Sequence[NewObject], created: int) -> int:
    """Store new objects; their ids must not have rows. Their numbers are consecutive: returns the first."""
    first_n = get_meta(kv, "next_n") or 1
    set_meta(kv, "next_n", first_n + len(objects))
    stream = b"".join(each.data for each in objects)
    base = next((to_u64(key) for key, _ in kv.scan_back(Table.DATA)), 0) + 1
    places = _append_stream(kv, stream, base)
    fresh, at = [], 0
    for n, each in enumerate(objects, first_n):
        pack, offset = places(at)
        row = Row(each.kind, each.codec, n, pack, offset, len(each.data), each.size, created)
        fresh.append((each.id, row.encode()))
        at += len(each.data)
    fresh.sort()
    kv.insert(Table.YOUNG, fresh)
    kv.insert(Table.LAYERS, sorted((each.id, b"") for each in objects if each.kind == Kind.LAYER))
    young = get_meta(kv, "young") + len(fresh)
    if young >= YOUNG_ROWS:
        _merge_young(kv)
        young = 0
    set_meta(kv, "young", young)
    return first_n


class _Places:
    """Maps an offset in a batch's stream to the pack and the offset in it."""

    def __init__(self, base: int, big: int) -> None:
        self.base, self.big = base, big

    def __call__(self, at: int) -> tuple[int, int]:
        if at < self.big * BIG_PACK:
            return self.base + at // BIG_PACK, at % BIG_PACK
        rest = at - self.big * BIG_PACK
        return self.base + self.big + rest // SMALL_PACK, rest % SMALL_PACK


def _append_stream(kv: KV, stream: bytes, base: int) -> _Places:
    big = len(stream) // BIG_PACK if len(stream) >= BATCH_FOR_BIG_PACKS else 0
    view = memoryview(stream)
    cuts = [*range(0, big * BIG_PACK, BIG_PACK), *range(big * BIG_PACK, len(stream), SMALL_PACK), len(stream)]
    pieces = [view[start:stop] for start, stop in pairwise(cuts)]
    kv.append(Table.DATA, [(u64(base + i), piece) for i, piece in enumerate(pieces)])
    lengths = [(u64(base + i), encode_count(len(piece))) for i, piece in enumerate(pieces)]
    kv.append(Table.PACKS, lengths)
    return _Places(base, big)


def _merge_young(kv: KV) -> None:
    """Move the young rows into the index: many at once share the pages that they dirty."""
    young = [(key, bytes(value)) for key, value in kv.scan(Table.YOUNG)]
    kv.insert(Table.INDEX, young)
    for key, _ in young:
        kv.delete(Table.YOUNG, key)


def spans(kv: KV, row: Row) -> list[PackSpan]:
    """Where an object's stored bytes lie, pack by pack. Raises MissingObject if packs are gone."""
    return [span for span, _ in _spans_and_packs(kv, row)]


def _spans_and_packs(kv: KV, row: Row) -> list[tuple[PackSpan, Value]]:
    found, pack, start, left = [], row.pack, row.offset, row.stored
    while left > 0:
        value = kv.get(Table.DATA, u64(pack))
        if value is None or start > len(value):
            raise MissingObject(f"object number {row.n}: pack {pack} is not there", hint="fusecas verify")
        stop = min(len(value), start + left)
        if stop > start:
            found.append((PackSpan(pack, start, stop), value))
        left -= stop - start
        pack, start = pack + 1, 0
    return found


def stored_bytes(kv: KV, row: Row) -> list[Value]:
    """The stored bytes in place, piece by piece: valid as long as the transaction's values are."""
    return [memoryview(pack)[span.start : span.stop] for span, pack in _spans_and_packs(kv, row)]


def joined(pieces: Sequence[Value]) -> Value:
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def raw_bytes(kv: KV, object_id: bytes, row: Row) -> bytes:
    """An object's bytes as they were put, verified against its id."""
    try:
        data = _native.decompress(joined(stored_bytes(kv, row)), row.codec, row.size)
    except _native.FormatError as error:
        raise CorruptObject(f"object {object_id.hex()} is corrupt: {error}", hint="fusecas verify") from error
    check_id(object_id, row.kind, data)
    return data


def check_id(object_id: bytes, kind: int, data: bytes) -> None:
    """Raise CorruptObject unless these bytes give this id."""
    if kind == Kind.CHUNK:
        right = _native.content_hash(data) == object_id
    elif kind == Kind.RECIPE:
        right = recipe_is_intact(object_id, data)
    else:
        right = _native.node_id(kind, data) == object_id
    if not right:
        raise CorruptObject(f"object {object_id.hex()} is corrupt: its bytes give another id", hint="fusecas verify")


def recipe_is_intact(content_id: bytes, data: bytes) -> bool:
    """A recipe is checked by its own checksum: its key is the id of the content, not of the recipe."""
    try:
        _native.decode_recipe(content_id, data)
    except _native.FormatError:
        return False
    return True


def release(kv: KV, row: Row) -> None:
    """Give back the space of an object whose row goes: a pack without live bytes is deleted."""
    try:
        held = spans(kv, row)
    except MissingObject:
        return  # a damaged store: what is gone needs no giving back, and must not keep gc from going on
    for span in held:
        key = u64(span.pack)
        value = kv.get(Table.PACKS, key)
        live = (decode_count(value) if value is not None else 0) - (span.stop - span.start)
        if live > 0:
            kv.put(Table.PACKS, key, encode_count(live))
        else:
            kv.delete(Table.PACKS, key)
            kv.delete(Table.DATA, key)


def delete_row(kv: KV, object_id: bytes, row: Row) -> None:
    """Remove an object: its row, its entry among the layers, its bytes."""
    if kv.delete(Table.YOUNG, object_id):
        set_meta(kv, "young", get_meta(kv, "young") - 1)
    else:
        kv.delete(Table.INDEX, object_id)
    if row.kind == Kind.LAYER:
        kv.delete(Table.LAYERS, object_id)
        kv.delete(Table.LAYER_TIMES, object_id)  # else a layer put again would have times that nothing kept
    release(kv, row)


def move_objects(kv: KV, objects: Sequence[tuple[ObjectId, Row]]) -> None:
    """Move objects to the end of the data stream. Their rows follow, and keep their numbers."""
    if not objects:
        return
    pieces = [b"".join(stored_bytes(kv, row)) for _, row in objects]
    base = next(to_u64(key) for key, _ in kv.scan_back(Table.DATA)) + 1
    places = _append_stream(kv, b"".join(pieces), base)
    at = 0
    for (object_id, row), piece in zip(objects, pieces, strict=True):
        release(kv, row)
        pack, offset = places(at)
        table = Table.YOUNG if kv.get(Table.YOUNG, object_id) is not None else Table.INDEX
        kv.put(table, object_id, row._replace(pack=pack, offset=offset).encode())
        at += len(piece)
