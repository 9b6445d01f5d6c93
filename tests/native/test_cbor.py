"""Canonical CBOR: one encoding for each value, every other one refused."""

from contextlib import suppress

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import cbor_values, ids

from fusecas._native import FormatError, Ref, cbor_decode, cbor_encode, cbor_refs


@given(cbor_values)
def test_encoding_what_was_decoded_gives_the_same_bytes(value: object) -> None:
    data = cbor_encode(value)
    assert cbor_encode(cbor_decode(data)) == data


@given(st.recursive(st.none() | st.integers(-(2**63), 2**63) | st.binary() | st.text(), st.lists, max_leaves=10))
def test_a_value_comes_back(value: object) -> None:
    assert cbor_decode(cbor_encode(value)) == value


@given(st.dictionaries(st.text(), st.integers(0, 9)))
def test_the_order_of_a_maps_keys_does_not_matter(value: dict[str, int]) -> None:
    assert cbor_encode(value) == cbor_encode(dict(reversed(value.items())))


@given(cbor_values, st.data())
def test_changed_bytes_decode_only_if_they_are_canonical(value: object, data: st.DataObject) -> None:
    encoded = bytearray(cbor_encode(value))
    at = data.draw(st.integers(0, len(encoded) - 1))
    encoded[at] ^= data.draw(st.integers(1, 255))
    try:
        decoded = cbor_decode(bytes(encoded))
    except FormatError:
        with pytest.raises(FormatError):
            cbor_refs(bytes(encoded))
    else:
        assert cbor_encode(decoded) == bytes(encoded)


@given(st.binary(max_size=60))
def test_random_bytes_never_do_worse_than_an_error(data: bytes) -> None:
    with suppress(FormatError):
        assert cbor_encode(cbor_decode(data)) == data


@given(st.recursive(st.none() | st.booleans() | st.integers(-(2**64), 2**64 - 1) | st.binary() | st.text(), st.lists))
def test_another_implementation_reads_and_writes_the_same(value: object) -> None:
    assert cbor2.dumps(value, canonical=True) == cbor_encode(value)
    assert cbor2.loads(cbor_encode(value)) == value


@given(st.floats(allow_nan=False, allow_infinity=False).filter(lambda number: not number.is_integer()))
def test_floats_are_written_as_another_implementation_writes_them(number: float) -> None:
    assert cbor2.dumps(number, canonical=True) == cbor_encode(number)


@pytest.mark.parametrize(
    "data",
    [
        "1800",
        "1b0000000000000001",
        "9fff",
        "a2616101616102",
        "a2616201616101",
        "f93c00",
        "fa3fc00000",
        "c100",
        "f7",
        "61ff",
        "0000",
        "82",
        "a10101",
        "d8ca41ff",
    ],
)
def test_what_the_encoder_would_not_write_is_refused(data: str) -> None:
    with pytest.raises(FormatError):
        cbor_decode(bytes.fromhex(data))


@pytest.mark.parametrize("value", [2**64, -(2**64) - 1, {1: 2}, "\ud800"])
def test_values_without_a_canonical_form_are_refused(value: object) -> None:
    with pytest.raises(FormatError):
        cbor_encode(value)


def test_depth_is_bounded_both_ways() -> None:
    value: list[object] = []
    for _ in range(100):
        value = [value]
    with pytest.raises(FormatError):
        cbor_encode(value)
    with pytest.raises(FormatError):
        cbor_decode(b"\x81" * 1_000_000 + b"\x00")


@given(st.lists(ids, max_size=8))
def test_references_are_found_once_each_in_order(found: list[bytes]) -> None:
    value = {"a": [Ref(each) for each in found], "b": {"c": b"x" * 32}}
    assert cbor_refs(cbor_encode(value)) == list(dict.fromkeys(found))


def test_bytes_of_32_are_no_reference() -> None:
    assert cbor_refs(cbor_encode([b"x" * 32])) == []
