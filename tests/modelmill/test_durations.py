from __future__ import annotations

import pytest

from modelmill import times


@pytest.mark.parametrize("text, seconds", [("1s", 1), ("90s", 90), ("15m", 900), ("2h", 7200), ("30d", 2_592_000)])
def test_a_duration_is_a_number_and_a_unit(text: str, seconds: int) -> None:
    assert times.seconds(text) == seconds
    assert times.duration_text(seconds) == text


def test_a_duration_is_shown_in_the_longest_unit_that_fits() -> None:
    assert [times.duration_text(times.seconds(text)) for text in ("60s", "120m", "36h", "48h")] == [
        "1m",
        "2h",
        "36h",
        "2d",
    ]


@pytest.mark.parametrize(
    "text", ["", "15", "m", "0m", "-1m", "1.5h", "15 m", "15M", "1w", "1m1h", "٣m", "9999999d", 15]
)
def test_anything_else_is_refused_with_what_was_expected(text: str) -> None:
    with pytest.raises(ValueError, match="is no length of time; expected a whole number of s, m, h or d") as refusal:
        times.seconds(text)
    assert repr(text) in str(refusal.value)
