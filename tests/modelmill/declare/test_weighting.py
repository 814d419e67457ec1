"""What a model declares about the weights of its rows."""

from __future__ import annotations

import re
from typing import Any

import pytest

from modelmill.declare.splits import Weighting


def test_rows_count_alike_where_nothing_is_declared() -> None:
    assert not Weighting.of(None, None)


@pytest.mark.parametrize(
    ("column", "classes", "expected"),
    [
        ("w", None, Weighting("w")),
        (None, "balanced", Weighting(None, "balanced")),
        ("w", {"yes": 2, "no": 0.5}, Weighting("w", {"yes": 2, "no": 0.5})),
    ],
)
def test_weights_come_from_a_column_from_classes_or_from_both(column: Any, classes: Any, expected: Weighting) -> None:
    assert Weighting.of(column, classes) == expected


@pytest.mark.parametrize(
    ("column", "classes", "reason"),
    [
        (3, None, "sample_weight=3; expected the name of a column"),
        (None, "even", "class_weight='even'; expected \"balanced\", or a dict"),
        (None, {}, "class_weight={}; expected"),
        (None, {"yes": -1}, "class_weight: 'yes' has -1; expected a number of at least 0"),
        (None, {"yes": True}, "class_weight: 'yes' has True; expected"),
    ],
)
def test_anything_else_is_refused_by_name_and_value(column: Any, classes: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=re.escape(reason)):
        Weighting.of(column, classes)
