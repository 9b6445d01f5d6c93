"""Rows as earlier versions wrote them are read as what they meant."""

from fusecas import _native
from fusecas.store.rows import Baseline, LayerTimes, Live, LivePair

STATE, TIMES, LAYER = (bytes([each]) * 32 for each in (1, 2, 3))


def test_a_live_row_had_its_baseline_in_two_fields() -> None:
    now = Live(None, STATE, TIMES)  # type: ignore[arg-type]
    fields = _native.cbor_decode(now.encode())
    for times, state, wanted in ((TIMES, STATE, Baseline(TIMES, STATE, 0)), (None, None, None)):  # type: ignore[arg-type]
        earlier = {**fields, "baseline": times, "baseline_state": state}
        assert Live.decode(_native.cbor_encode(earlier)) == now._replace(baseline=wanted)
    del earlier["baseline_state"]
    assert Live.decode(_native.cbor_encode(earlier)) == now


def test_times_of_layers_and_places_in_operations_had_no_baseline() -> None:
    assert LayerTimes.decode(_native.cbor_encode([TIMES, 7])) == LayerTimes(TIMES, 7)  # type: ignore[arg-type]
    assert LivePair.of([LAYER, STATE, None]) == LivePair(LAYER, STATE, None)  # type: ignore[arg-type]


def test_what_is_written_now_comes_back() -> None:
    baseline = Baseline(TIMES, STATE, 5)  # type: ignore[arg-type]
    row = LayerTimes(TIMES, 7, baseline)  # type: ignore[arg-type]
    assert LayerTimes.decode(row.encode()) == row
    pair = LivePair(LAYER, STATE, TIMES, baseline)  # type: ignore[arg-type]
    assert LivePair.of(_native.cbor_decode(_native.cbor_encode(pair.as_list()))) == pair
    assert pair.roots() == [LAYER, STATE, TIMES], "it keeps nothing of its baseline"
