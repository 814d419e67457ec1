"""How a card writes numbers and times."""

from __future__ import annotations

import pytest

from modelmill import drawing


@pytest.mark.parametrize(
    "value, text",
    [
        (0.74918, "0.7492"), (0.298, "0.2980"), (-0.0114, "-0.0114"), (0.000551234, "0.0005512"), (1.0, "1"),
        (70120, "70 120"), (-47.7712, "-47.77"), (123456.78, "123 457"), (float("nan"), "nan"), (None, drawing.NONE),
        (1e-9, "1e-09"),
    ],
)  # fmt: skip
def test_numbers(value: float | None, text: str) -> None:
    assert drawing.number(value).replace(drawing.THIN, " ").replace(drawing.MINUS, "-") == text


@pytest.mark.parametrize(
    "value, text",
    [(0, "0 %"), (1, "100 %"), (0.00001, "0.01 %"), (0.9999, "99.9 %"), (0.036, "3.6 %"), (0.4123, "41.2 %")],
)
def test_shares(value: float, text: str) -> None:
    assert drawing.share(value).replace(drawing.THIN, " ") == text


@pytest.mark.parametrize("value, text", [(0.0123, "12 ms"), (4.2, "4.2 s"), (200, "3 min 20 s")])
def test_durations(value: float, text: str) -> None:
    assert drawing.seconds(value).replace(drawing.THIN, " ") == text


def test_times() -> None:
    assert drawing.moment("2013-03-31T21:05:00.123456Z") == "2013-03-31 21:05:00 UTC"
    assert drawing.moment("2013-03-31T00:00:00+00:00") == "2013-03-31"
    assert drawing.moment("") == drawing.NONE
