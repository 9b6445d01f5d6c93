"""Bytes that want more memory than they have, buffers that change, numbers that wrap around: errors, and bounded."""

import os
import subprocess
import sys
import threading

import pytest

from fusecas import _native
from fusecas._native import Batch, FormatError, cbor_decode, cbor_encode, cut_bytes


def test_a_document_of_too_many_values_is_refused_in_little_memory() -> None:
    script = (
        "import re\n"
        "from pathlib import Path\n"
        "from fusecas._native import FormatError, cbor_decode, cbor_refs\n"
        "data = bytes.fromhex('9a') + (60 << 20).to_bytes(4, 'big') + bytes(60 << 20)\n"
        "for read in (cbor_decode, cbor_refs):\n"
        "    try:\n"
        "        read(data)\n"
        "    except FormatError as error:\n"
        "        print(error)\n"
        # Not ru_maxrss: that begins with what the process had which this one was forked from.
        "print(int(re.search('VmHWM: *\\t *([0-9]+)', Path('/proc/self/status').read_text()).group(1)) >> 10)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    *told, most = done.stdout.splitlines()
    assert told == ["more than 1 048 576 values"] * 2
    assert int(most) < 400


def test_what_could_not_be_read_again_is_not_written() -> None:
    with pytest.raises(FormatError, match="values"):
        cbor_encode([0] * (1 << 20))
    assert len(cbor_decode(cbor_encode([0] * 1_000_000))) == 1_000_000


@pytest.mark.parametrize("wrap", [lambda data: memoryview(data).toreadonly(), lambda data: data, memoryview])
def test_bytes_that_change_meanwhile_are_copied_first(wrap: object) -> None:
    """A read-only view of something that changes: what is stored must still be what its id says."""
    data = bytearray(200_000)
    going = True

    def change() -> None:
        at = 0
        while going:
            data[at % len(data)] ^= 255
            at += 4097

    changer = threading.Thread(target=change)
    changer.start()
    try:
        for _ in range(60):
            batch = Batch()
            cut_bytes(batch, wrap(data))  # type: ignore[operator]
            packed = batch.compress(range(len(batch)))
            for at, codec, offset, stored, size in packed.rows:
                found = _native.decompress(packed.data[offset : offset + stored], codec, size)
                if batch.kinds()[at] == 0:
                    assert _native.content_hash(found) == batch.ids()[at]
    finally:
        going = False
        changer.join()


def test_any_number_of_threads_is_too_many_for_none() -> None:
    batch = Batch()
    cut_bytes(batch, b"x")
    assert len(batch.compress([0], threads=1 << 20).rows) == 1
    assert _native.verify_objects([(_native.content_hash(b"x"), 0, 0, 1, b"x")] * 200, 1 << 20) == [True] * 200


def test_a_list_that_changes_a_map_while_it_is_written_does_no_harm() -> None:
    class Sly(list):  # type: ignore[type-arg]
        def __iter__(self):  # type: ignore[no-untyped-def]
            sly["more"] = 1
            return super().__iter__()

    sly: dict[str, object] = {"a": Sly([1])}
    assert cbor_decode(cbor_encode(sly))["a"] == [1]


def test_items_whose_lengths_wrap_around_are_refused() -> None:
    descriptor = os.memfd_create("content")
    try:
        os.ftruncate(descriptor, 100_000)
        items = [(b"x" * 32, 2**64 - 1), (b"y" * 32, 100_001)]
        with pytest.raises(FormatError):
            _native.update_content(Batch(), descriptor, 100_000, 100_000, items, None, [(0, 1)])
    finally:
        os.close(descriptor)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ((b"d", 2, 0o755, None, 0, 0, {"L": True}), "hard links"),
        ((b"d", 6, 0o600, None, 1 << 12, 0, None), "impossible numbers"),
        ((b"d", 7, 0o600, None, 0, 1 << 20, None), "impossible numbers"),
        ((b"f", 1, 0o600, None, 0, 0, {"O": [2**32 - 1, None]}), "owner"),
    ],
)
def test_entries_that_no_file_system_can_have_are_refused(entry: tuple[object, ...], said: str) -> None:
    with pytest.raises(FormatError, match=said):
        _native.encode_level(1, 0, [entry])
