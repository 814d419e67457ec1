"""Which columns a training frame carries beside features, inputs and label."""

from __future__ import annotations

import pytest

from modelmill.declare.definitions import Definitions, extra_columns
from modelmill.errors import DefinitionsError
from tests.modelmill.conftest import Load

DECLARED = """
shop = Entity("shop", key="shop_id")
sales = Source(
    "sales", entities=[user, shop], event_time="at", columns={"region": str, "price": float, "sold": int}
)
Model("m", entities=[user], features=["a"], inputs={"price": float}, label="sold", source=sales, estimator=None, ...)
"""


def columns(load_text: Load, more: str) -> list[str]:
    definitions: Definitions = load_text(DECLARED.replace("...", more))
    return extra_columns(definitions, definitions.model("m"))


def test_a_frame_carries_nothing_that_is_not_asked_for(load_text: Load) -> None:
    assert columns(load_text, "") == []


def test_segments_and_groups_are_join_keys_or_columns_of_the_labels_source(load_text: Load) -> None:
    assert columns(load_text, 'segments=["region", "shop_id"]') == ["shop_id", "region"]
    assert columns(load_text, 'split=by_group("user_id"), segments=["region"]') == ["user_id", "region"]


def test_what_the_frame_has_anyway_is_not_carried_again(load_text: Load) -> None:
    assert columns(load_text, 'split=by_group("price"), segments=["a", "price"]') == []


def test_a_function_gets_every_column(load_text: Load) -> None:
    assert columns(load_text, "split=lambda frame: frame['a'] > 0") == ["user_id", "shop_id", "region"]


@pytest.mark.parametrize("more", ['segments=["regoin"]', 'split=by_group("regoin")'])
def test_an_unknown_column_is_refused_with_the_nearest(more: str, load_text: Load) -> None:
    with pytest.raises(DefinitionsError, match=r"'regoin' is no feature or input of the model.*did you mean 'region'"):
        columns(load_text, more)
