from __future__ import annotations

import re

import pytest

from modelmill.times import duration_text, seconds
from modelmill.windows import checked_hop, default_hop


@pytest.mark.parametrize(
    "window, hop",
    [
        *(("1m", "1m"), ("10m", "1m"), ("1h", "1m"), ("2h", "5m"), ("4h", "10m"), ("6h", "15m"), ("12h", "30m")),
        *(("1d", "1h"), ("25h", "1h"), ("2d", "2h"), ("3d", "3h"), ("7d", "6h"), ("14d", "12h"), ("30d", "1d")),
        *(("90d", "1d"), ("7m", "1m"), ("90m", "1m"), ("121m", "1m")),
    ],
)
def test_a_hop_is_the_coarsest_that_divides_the_window_into_24_or_the_finest(window: str, hop: str) -> None:
    assert duration_text(default_hop(seconds(window))) == hop
    assert duration_text(checked_hop(seconds(window), None, 0)) == hop


@pytest.mark.parametrize("window, hop", [("2h", "2h"), ("2h", "8m"), ("90d", "90d"), ("6d", "2d"), ("366m", "1m")])
def test_a_hop_may_be_any_part_of_a_day_or_whole_days(window: str, hop: str) -> None:
    assert checked_hop(seconds(window), seconds(hop), 0) == seconds(hop)


@pytest.mark.parametrize(
    "window, hop, delay, reason",
    [
        ("91d", "1d", 0, "window is 91d; expected at most 90d"),
        ("90s", None, 0, "window is 90s; expected whole minutes"),
        ("2h", "30s", 0, "hop is 30s; expected whole minutes that divide a day, or whole days"),
        ("3m", "90s", 0, "hop is 90s; expected whole minutes that divide a day"),
        ("14m", "7m", 0, "hop is 7m; expected whole minutes that divide a day"),
        ("72h", "36h", 0, "hop is 36h; expected whole minutes that divide a day, or whole days"),
        ("1h", "2h", 0, "window 1h is shorter than hop 2h"),
        ("7h", "2h", 0, "window 7h is not a multiple of hop 2h"),
        ("30d", "1h", 0, "window 30d is 720 times hop 1h; expected at most 366 times, so take a coarser hop"),
        ("1441m", None, 0, "window 1441m is 1441 times hop 1m"),
        ("10m", "1m", 86_401, "available_after 86401s is 1441 times hop 1m"),
    ],
)
def test_lengths_that_do_not_go_together_are_refused(window: str, hop: str | None, delay: int, reason: str) -> None:
    with pytest.raises(ValueError, match=re.escape(reason)):
        checked_hop(seconds(window), hop and seconds(hop), delay)
