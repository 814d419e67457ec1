"""Figures and times as people read them."""

from __future__ import annotations

import pytest

from services.monitor.page import ago, milliseconds, number
from tests.monitor.events import NOW


@pytest.mark.parametrize(
    "value, text",
    [(0, "0"), (0.1234, "0.123"), (4.567, "4.57"), (45.67, "45.7"), (456.7, "457"), (45678, "45,678")],
)
def test_a_number_has_about_three_digits(value: float, text: str) -> None:
    assert number(value) == text


def test_no_latency_is_a_dash() -> None:
    assert milliseconds(None) == "\N{EN DASH}"


@pytest.mark.parametrize(
    "time, text",
    [
        ("2026-11-23T23:47:18Z", "12 s ago"),
        ("2026-11-23T23:40:00Z", "7 min ago"),
        ("2026-11-23T20:47:00Z", "3 h ago"),
        ("2026-11-20T20:47:00Z", "3 d ago"),
        ("2026-11-24T20:47:00Z", "0 s ago"),
        ("some day", "some day"),
        ("2026-11-23T23:47:18", "2026-11-23T23:47:18"),
    ],
)
def test_a_time_is_said_as_how_long_ago(time: str, text: str) -> None:
    assert ago(time, NOW) == text
