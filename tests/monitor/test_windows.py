"""What becomes of an event, and what a window says about many."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import datetime, timedelta
from statistics import mean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelmill.state.events import Event, ModelTrained
from modelmill.times import iso
from services.monitor.windows import (
    COUNTED,
    EXPIRED,
    IGNORED,
    LONGEST_MS,
    OUTCOMES,
    REJECTED,
    Folded,
    Slot,
    Window,
    fold,
    merged,
    minute_of,
)
from tests.monitor.events import NOW, failed, served

RETENTION = timedelta(hours=48)
LATENCIES = st.floats(0, LONGEST_MS)
EVENTS = st.lists(
    st.builds(served, LATENCIES, ago=st.floats(0, 600), version=st.integers(1, 3), rows=st.integers(0, 99))
    | st.builds(failed, ago=st.floats(0, 600), version=st.integers(1, 3))
)


def folded(*events: Event) -> Folded:
    return fold((event.to_fields() for event in events), now=NOW, retention=RETENTION)


def window(*events: Event) -> Window:
    return merged(folded(*events).windows.values())


def test_an_event_counts_in_the_minute_of_its_own_time() -> None:
    assert list(folded(served(ago=40)).windows) == [Slot("m", 1, minute_of(NOW) - timedelta(minutes=1))]


def test_a_time_in_another_time_zone_counts_in_the_same_minute() -> None:
    local = replace(served(), time="2026-11-24T05:17:08+05:30")
    assert [slot.minute.isoformat() for slot in folded(local).windows] == ["2026-11-23T23:47:00+00:00"]


def test_models_and_versions_have_windows_of_their_own() -> None:
    assert len(folded(served(), served(version=2), served(model="other")).windows) == 3


def test_a_window_counts_requests_and_rows() -> None:
    summary = window(served(rows=3), served(rows=4)).summary(60)
    assert (summary.count, summary.rows) == (2, 7)


def test_an_error_counts_beside_the_latencies() -> None:
    summary = window(served(2.0), failed(latency_ms=0.01)).summary(60)
    assert (summary.count, summary.errors, summary.min) == (1, 1, 2.0)


def test_throughput_is_requests_a_second_with_errors() -> None:
    assert window(served(), served(), failed()).summary(60).throughput == 3 / 60


@given(st.lists(LATENCIES, min_size=1, max_size=200))
def test_mean_and_extremes_are_exact(latencies: list[float]) -> None:
    summary = window(*map(served, latencies)).summary(60)
    assert summary.mean == pytest.approx(mean(latencies))
    assert (summary.min, summary.max) == (min(latencies), max(latencies))


@given(st.lists(LATENCIES, min_size=1, max_size=200))
def test_quantiles_are_near_the_exact_ones_and_never_beyond_the_extremes(latencies: list[float]) -> None:
    summary = window(*map(served, latencies)).summary(60)
    in_order = sorted(latencies)
    for percent, found in ((50, summary.p50), (95, summary.p95), (99, summary.p99)):
        exact = in_order[math.ceil(len(in_order) * percent / 100) - 1]
        assert found == pytest.approx(exact, rel=0.01 + 1e-9, abs=2e-6)
        assert in_order[0] <= found <= in_order[-1]


def test_a_window_without_predictions_has_no_latency() -> None:
    summary = window(failed()).summary(60)
    assert (summary.count, summary.errors, summary.mean, summary.p50, summary.max) == (0, 1, None, None, None)


@given(EVENTS, st.integers(0, 100))
def test_merging_windows_is_folding_all_their_events(events: list[Event], cut: int) -> None:
    whole = window(*events)
    parts = merged([window(*events[:cut]), window(*events[cut:])])
    assert parts.sum_ms == pytest.approx(whole.sum_ms)
    assert replace(parts, sum_ms=0) == replace(whole, sum_ms=0)


@given(EVENTS)
def test_a_window_comes_back_from_its_hash(events: list[Event]) -> None:
    whole = window(*events)
    assert Window.from_hash(whole.to_hash()) == whole


def test_the_hash_is_plain_text() -> None:
    assert window(served(1.5), served(1.5, rows=2), failed()).to_hash() == {
        "count": "2",
        "rows": "3",
        "errors": "1",
        "sum_ms": "3.0",
        "min_ms": "1.5",
        "max_ms": "1.5",
        "sketch": "40021:2",
    }


@pytest.mark.parametrize("latency_ms", [math.nan, math.inf, -math.inf, -0.1, LONGEST_MS * 2])
def test_a_latency_that_cannot_be_true_is_rejected_and_counted(latency_ms: float) -> None:
    found = folded(served(latency_ms), served(1.0))
    assert found.outcomes == {REJECTED: 1, COUNTED: 1}
    assert merged(found.windows.values()).summary(60).max == 1.0
    assert "latency_ms" in found.rejection


@pytest.mark.parametrize(
    "change",
    [
        {"latency_ms": "fast"},
        {"version": ""},
        {"version": "9" * 30},
        {"rows": "-1"},
        {"features": "{"},
        {"time": "yesterday"},
        {"time": "2026-11-23T23:47:00"},
        {"time": iso(NOW + timedelta(days=1))},
        {"time": "0001-01-01T00:00:00+05:00"},
    ],
)
def test_an_event_that_cannot_be_read_or_true_is_rejected_with_a_reason(change: dict[str, str]) -> None:
    found = fold([served().to_fields() | change], now=NOW, retention=RETENTION)
    assert (found.outcomes, found.windows) == ({REJECTED: 1}, {})
    assert found.rejection


def test_an_event_without_a_field_is_rejected() -> None:
    entry = served().to_fields()
    del entry["model"]
    assert fold([entry], now=NOW, retention=RETENTION).outcomes == {REJECTED: 1}


def test_an_event_older_than_the_retention_is_counted_as_expired() -> None:
    found = folded(served(ago=RETENTION.total_seconds() + 60))
    assert (found.outcomes, found.windows) == ({EXPIRED: 1}, {})


@pytest.mark.parametrize("entry", [{}, {"type": "prediction.shadowed"}, ModelTrained(
    model="m", version=1, run="r", metrics={}
).to_fields()])  # fmt: skip
def test_an_entry_that_is_no_prediction_is_ignored(entry: dict[str, str]) -> None:
    assert fold([entry], now=NOW, retention=RETENTION).outcomes == {IGNORED: 1}


@given(st.lists(st.dictionaries(st.sampled_from(sorted(served().to_fields())), st.text(max_size=30))))
def test_whatever_an_entry_holds_it_has_one_outcome(entries: list[dict[str, str]]) -> None:
    outcomes = fold([served().to_fields() | entry for entry in entries], now=NOW, retention=RETENTION).outcomes
    assert outcomes.total() == len(entries)
    assert set(outcomes) <= set(OUTCOMES)


def test_a_minute_begins_in_utc() -> None:
    assert minute_of(datetime.fromisoformat("2026-11-24T00:47:59.9+01:00")).isoformat() == "2026-11-23T23:47:00+00:00"
