"""Cutting, hashing, compressing: functions of the content alone."""

import os
import random
from contextlib import suppress
from pathlib import Path

import blake3
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusecas._native import (
    Batch,
    ContentWriter,
    FormatError,
    cut_bytes,
    decode_part,
    decode_recipe,
    decompress,
    update_content,
)

CHUNK, RECIPE = 0, 16


def noise(length: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(length)


def objects(batch: Batch) -> dict[bytes, bytes]:
    packed = batch.compress(range(len(batch)))
    ids = batch.ids()
    return {
        ids[i]: decompress(packed.data[offset : offset + stored], codec, size)
        for i, codec, offset, stored, size in packed.rows
    }


def items_of(content: bytes, found: dict[bytes, bytes]) -> list[tuple[bytes | None, int]]:
    _, items, _ = decode_recipe(content, found[content])
    flat: list[tuple[bytes | None, int]] = []
    for item in items:
        flat += decode_part(found[item[0]]) if len(item) == 3 else [item]
    return flat


def joined(content: bytes, found: dict[bytes, bytes]) -> bytes:
    return b"".join(bytes(length) if each is None else found[each] for each, length in items_of(content, found))


contents = st.lists(
    st.one_of(
        st.integers(1, 300_000).map(lambda length: noise(length, length)),
        st.integers(1, 300_000).map(bytes),
        st.just(b"abc" * 1000),
    ),
    max_size=5,
).map(b"".join)


@given(contents, st.integers(1, 400_000))
def test_content_is_cut_the_same_however_it_arrives(data: bytes, step: int) -> None:
    whole, pieces, writer = Batch(), Batch(), ContentWriter()
    expected = cut_bytes(whole, data)
    for start in range(0, len(data), step):
        writer.feed(pieces, data[start : start + step])
    assert writer.finish(pieces) == expected
    assert pieces.ids() == whole.ids()


@given(contents)
def test_the_id_is_the_plain_blake3_and_the_chunks_give_the_content(data: bytes) -> None:
    batch = Batch()
    content, size = cut_bytes(batch, data)
    assert content == blake3.blake3(data).digest() and size == len(data)
    found = objects(batch)
    if data and found[content] != data:
        assert joined(content, found) == data


def test_a_sparse_file_is_read_as_its_bytes_and_its_holes_cost_nothing(tmp_path: Path) -> None:
    data = noise(200_001) + bytes(5_000_000) + noise(70_000) + bytes(300_000)
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.write(data[:200_001])
        file.seek(5_200_001)
        file.write(data[5_200_001:5_270_001])
        file.truncate(len(data))
    batch, writer, expected = Batch(), ContentWriter(), Batch()
    descriptor = os.open(path, os.O_RDONLY)
    read = 0
    while step := writer.feed_file(batch, descriptor, 50_000):
        read += step
    os.close(descriptor)
    assert read == len(data)
    assert writer.finish(batch) == cut_bytes(expected, data)
    assert batch.ids() == expected.ids()
    assert batch.bytes < 300_000


def test_a_terabyte_of_nothing_is_one_hole(tmp_path: Path) -> None:
    path = tmp_path / "nothing"
    with path.open("wb") as file:
        file.truncate(8 << 30)
    batch, writer = Batch(), ContentWriter()
    descriptor = os.open(path, os.O_RDONLY)
    while writer.feed_file(batch, descriptor, 1 << 20):
        pass
    os.close(descriptor)
    content, size = writer.finish(batch)
    assert size == 8 << 30
    assert items_of(content, objects(batch)) == [(None, 8 << 30)]


@given(
    st.integers(70_000, 1_500_000),
    st.lists(st.tuples(st.integers(0, 1_500_000), st.integers(1, 100_000), st.booleans()), min_size=1, max_size=3),
    st.integers(-200_000, 200_000),
    st.integers(0, 3),
)
def test_an_update_equals_cutting_anew(length: int, edits: list[tuple[int, int, bool]], growth: int, hole: int) -> None:
    data = bytearray(noise(length, length))
    data[10_000 : 10_000 + hole * 60_000] = bytes(len(data[10_000 : 10_000 + hole * 60_000]))
    before = Batch()
    old, old_size = cut_bytes(before, bytes(data))
    found = objects(before)
    items = items_of(old, found) if len(found) > 1 else [(old, old_size)]
    groups = decode_recipe(old, found[old])[2] if len(found) > 1 else None
    dirty = []
    for at, size, zeros in edits:
        start = at % len(data)
        size = min(size, len(data) - start)
        data[start : start + size] = bytes(size) if zeros else noise(size, at)
        dirty.append((start, size))
    if growth < 0:
        del data[growth:]
    else:
        data += noise(growth)
    path = f"/proc/self/fd/{(descriptor := os.memfd_create('content'))}"
    with open(path, "wb") as file:
        file.write(data)
    after, expected = Batch(), Batch()
    content = update_content(after, descriptor, len(data), old_size, items, groups, dirty)
    os.close(descriptor)
    assert content == cut_bytes(expected, bytes(data))[0]
    assert set(after.ids()) <= set(expected.ids())
    assert set(expected.ids()) <= set(after.ids()) | set(before.ids())


@given(st.binary(max_size=200), st.binary(min_size=32, max_size=32))
def test_hostile_recipes_are_errors(data: bytes, content: bytes) -> None:
    with pytest.raises(FormatError):
        decode_recipe(content, data)
    with suppress(FormatError):
        decode_part(data)


@given(st.binary(max_size=200), st.integers(0, 2**40), st.integers(0, 3))
def test_hostile_compressed_bytes_are_errors_and_bounded(data: bytes, size: int, codec: int) -> None:
    with suppress(FormatError):
        assert len(decompress(data, codec, size)) == size


def test_a_flipped_bit_in_a_recipe_is_noticed() -> None:
    batch = Batch()
    content, _ = cut_bytes(batch, noise(500_000))
    recipe = objects(batch)[content]
    for at in range(0, len(recipe), 7):
        changed = bytearray(recipe)
        changed[at] ^= 4
        with pytest.raises(FormatError):
            decode_recipe(content, bytes(changed))
