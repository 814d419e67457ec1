from __future__ import annotations

from collections.abc import Mapping

from services.feature.http.definitions import features_overview
from services.feature.upkeep.statistics import StatisticsFiles
from tests.feature.conftest import OpenRoom, Room

MILL = """
from modelmill import Entity, Model, Source, column, feature
user = Entity("user", key="user_id")
users = Source("users", entity=user, event_time="at", owner="ann", tags=["core"],
               columns={"x": column(float, description="how far"), "note": str | None, "target": int})

@feature(user, dtype=float)
def double(row):
    \"\"\"Twice as far.\"\"\"
    return row["x"] * 2

Model("m", entities=[user], features=["x", "double"], label="target", estimator=None)
"""


def overview(room: Room) -> list[Mapping[str, object]]:
    return features_overview(room.catalogue.definitions, StatisticsFiles(room.catalogue.storage).of)


def test_every_feature_is_there_with_its_origin_and_its_models(open_room: OpenRoom) -> None:
    room = open_room(MILL)
    shown = overview(room)
    assert [(f["name"], f["kind"], f["dtype"], f["nullable"], f["models"]) for f in shown] == [
        ("x", "column", "float", False, ["m"]),
        ("note", "column", "str", True, []),
        ("target", "column", "int", False, []),
        ("double", "function", "float", False, ["m"]),
    ]
    assert shown[3]["version"] == room.catalogue.definitions.features["users"]["double"].version


def test_it_says_what_a_feature_is_and_who_answers_for_it(open_room: OpenRoom) -> None:
    x, *_, double = overview(open_room(MILL))
    assert (x["description"], x["owner"], x["tags"]) == ("how far", "ann", ("core",))
    assert double["description"] == "Twice as far."


def test_it_says_how_fresh_and_how_complete_a_feature_is(open_room: OpenRoom) -> None:
    room = open_room(MILL)
    assert {(f["newest"], f["null_share"]) for f in overview(room)} == {(None, None)}
    for day, note in (("2013-02-01", None), ("2013-01-31", "a")):
        room.ingest("users", [{"user_id": "u", "at": day, "x": 1.0, "note": note, "target": 1}])
    shown = {str(f["name"]): f for f in overview(room)}
    assert shown["x"]["newest"] == "2013-02-01T00:00:00.000000Z"
    assert {name: f["null_share"] for name, f in shown.items()} == {"x": 0, "note": 0.5, "target": 0, "double": 0}
