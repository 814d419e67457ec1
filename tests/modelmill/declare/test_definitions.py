from __future__ import annotations

import pytest

from modelmill.errors import UnknownName
from modelmill.windows import Reading
from tests.modelmill.conftest import Load


def test_a_label_source_is_found_by_its_label(load_text: Load) -> None:
    definitions = load_text('Model("m", entities=[user], features=["a"], label="target", estimator=None)')
    assert definitions.label_source(definitions.model("m")).name == "users"


def test_features_of_two_entities_are_told_apart_by_name(load_text: Load) -> None:
    definitions = load_text("""
        Model("m", entities=[user, item], features=["user.a", "item.a", "price"], inputs={"hour": int},
              label="clicked", estimator=None)
    """)
    model = definitions.model("m")
    refs = definitions.resolve([entity.name for entity in model.entities], model.features)
    assert [(ref.name, ref.entity, ref.source) for ref in refs] == [
        ("user.a", "user", "users"),
        ("item.a", "item", "items"),
        ("price", "item", "items"),
    ]


AGGREGATES = """
    Aggregate(visits, "pages", "mean", window="2h")
    Aggregate(visits, "pages", "std", window="1h", hop="5m", available_after="30m")
    Aggregate(visits, None, "count", window="30d")
    Aggregate(clicks, "clicked", "last", window="2h", by=("item_id",), name="clicked_last")
    Aggregate(clicks, "hour", "max", window="2h", by=user)
"""


def test_aggregates_are_features_of_their_entity(load_text: Load) -> None:
    definitions = load_text(AGGREGATES)
    columns = ["a", "b", "target", "pages"]
    aggregates = ["pages_mean_2h", "pages_std_1h", "visits_count_30d", "hour_max_2h"]
    assert list(definitions.features_of("user")) == [*columns, *aggregates]
    ref = definitions.features_of("item")["clicked_last"]
    assert (ref.source, str(ref.column)) == ("clicks", "bool?")
    assert ref.aggregate is not None
    assert ref.aggregate.reading == Reading("last", "clicked", "bool", 7200, 300, 0)


def test_a_model_may_name_an_aggregate(load_text: Load) -> None:
    definitions = load_text(
        AGGREGATES
        + """
    Model("m", entities=[user, item], features=["user.hour_max_2h", "clicked_last"], label="clicked", source=clicks,
          estimator=None)
    """
    )
    refs = definitions.resolve(["user", "item"], definitions.model("m").features)
    assert [ref.aggregate and ref.aggregate.name for ref in refs] == ["hour_max_2h", "clicked_last"]


def test_aggregates_of_one_source_entity_and_hop_share_their_tiles(load_text: Load) -> None:
    definitions = load_text(AGGREGATES)
    shared, daily = definitions.tile_groups(definitions.source("visits"))
    assert (shared.source, shared.entity, shared.key, shared.hop, shared.reach) == (
        "visits",
        "user",
        "user_id",
        300,
        7200,
    )
    assert shared.statistics == (("pages", "count"), ("pages", "squares"), ("pages", "sum"))
    assert (daily.hop, daily.statistics) == (86_400, (("_rows", "count"),))
    assert {group.entity for group in definitions.tile_groups(definitions.source("clicks"))} == {"item", "user"}
    assert definitions.tile_groups(definitions.source("items")) == []
    assert definitions.tile_group(definitions.aggregates["user"]["pages_std_1h"]) == shared


def test_tiles_that_would_hold_something_else_are_another_group(load_text: Load) -> None:
    def name(text: str) -> str:
        definitions = load_text(text)
        return definitions.tile_groups(definitions.source("visits"))[0].name

    one = 'Aggregate(visits, "pages", "sum", window="2h")\n'
    assert name(one) == name(one.replace(")", ', name="other", owner="me")'))
    assert name(one) == name(one + 'Aggregate(visits, "pages", "sum", window="1h", hop="5m")\n')
    assert len({name(one), name(one.replace("sum", "min")), name(one.replace(")", ', available_after="1h")'))}) == 3


@pytest.mark.parametrize("kind", ["entity", "source", "model"])
def test_an_unknown_name_is_answered_with_the_nearest(kind: str, load_text: Load) -> None:
    definitions = load_text('Model("users", entities=[user], features=["a"], label="target", estimator=None)')
    with pytest.raises(UnknownName, match=f"{kind} 'uzer' is not known; did you mean '(user|users)'"):
        getattr(definitions, kind)("uzer")
