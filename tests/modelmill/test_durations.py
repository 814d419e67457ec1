from __future__ import annotations

import pytest

from modelmill.durations import seconds


@pytest.mark.parametrize("text, expected", [("90s", 90), ("15m", 900), ("2h", 7200), ("30d", 2_592_000)])
def test_a_duration_is_a_number_and_a_unit(text: str, expected: int) -> None:
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "2", "h", "0s", "-1h", "1.5h", "2 h", "2w", "1h30m", "٣h", "2h\n", None, 90])
def test_anything_else_is_refused_with_what_was_expected(text: str) -> None:
    with pytest.raises(ValueError, match="expected a duration such as 90s, 15m, 2h or 30d"):
        seconds(text)
