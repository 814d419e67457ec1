"""Request-time features: the value in a training frame is the value that is served, bit for bit."""

from __future__ import annotations

import random
import struct
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from modelmill.declare import applied
from modelmill.errors import DefinitionsError, InvalidRequest
from modelmill.http.bodies import checked
from modelmill.packages.package import Manifest
from modelmill.times import micros
from services.feature.http.frame_requests import FrameOf, SpineQuery, frame_of_model, frame_of_spine
from services.predictor import features
from services.predictor.features import OnlineStore
from services.predictor.instances import parse
from services.predictor.signature import Signature
from services.trainer.packaging import packing as packaging
from tests.feature.conftest import OpenRoom, Room, csv_rows

MILL = """
from modelmill import Aggregate, Entity, Model, Source, feature, request_feature

user = Entity("user", key="user_id")
users = Source("users", entity=user, event_time="at", max_age="30d",
               columns={"mean": float, "factor": float | None, "name": str | None})
orders = Source("orders", entities=[user, Entity("shop", key="shop_id")], event_time="at",
                columns={"amount": float, "count": int | None, "bad": bool | None, "at_home": bool, "text": str})

Aggregate(orders, "amount", "mean", window="2h", hop="30m", by=user, name="recent")

@feature(users, dtype=float)
def doubled(row):
    return row["mean"] * 2

@request_feature(dtype=float | None, needs=["amount", "user.mean", "factor", "doubled"])
def ratio(row):
    "How much more than usual."
    return row["amount"] / row["user.mean"] * (row["factor"] or 1.0) * max(row["doubled"], 1.0)

@request_feature(dtype=float | None, needs=["amount", "user.recent"])
def sudden(row):
    return row["amount"] / row["user.recent"]

@request_feature(dtype=str, needs=["name", "text", "at_home", "count"], owner="shop", tags=["words"])
def told(row):
    return f"{row['name']} {row['text']} {row['at_home']} {row['count']}"

Model("bad", entities=[user], source=orders, label="bad", estimator=None, features=["ratio", "doubled", "told", "sudden"],
      inputs={"amount": float, "count": int | None, "at_home": bool, "text": str})
"""
NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
INPUTS = ("amount", "count", "at_home", "text")


@pytest.fixture
def room(open_room: OpenRoom) -> Room:
    return open_room(MILL)


def bits(value: Any) -> Any:
    return struct.pack("<d", value) if isinstance(value, float) else value


def users(count: int) -> list[dict[str, Any]]:
    """Some with a mean of zero, some without a factor or a name, a quarter too old."""
    chosen = random.Random(7)

    def number() -> float:
        return chosen.uniform(-1, 1) * 10 ** chosen.uniform(-100, 100)

    return [
        {
            "user_id": f"u{i}",
            "at": (NOW - timedelta(days=i % 40)).isoformat(),
            "mean": 0.0 if i % 11 == 0 else number(),
            "factor": None if i % 3 == 0 else number(),
            "name": None if i % 5 == 0 else chosen.choice(["ü", "a b", "x"]),
        }
        for i in range(count)
    ]


def orders(count: int) -> list[dict[str, Any]]:
    """Of a user each, all at the same time."""
    chosen = random.Random(8)
    return [
        {
            "user_id": f"u{i}",
            "shop_id": "s",
            "at": NOW.isoformat(),
            "amount": chosen.uniform(0, 1) * 10 ** chosen.uniform(-100, 100),
            "count": None if i % 4 == 0 else chosen.randrange(-(10**15), 10**15),
            "bad": i % 2 == 0,
            "at_home": i % 3 == 0,
            "text": chosen.choice(["a", "ñ", "b c"]),
        }
        for i in range(count)
    ]


def signature(room: Room) -> Signature:
    """As the predictor has it of a version that is trained now."""
    definitions = room.catalogue.definitions
    inputs = packaging.signature(definitions, definitions.model("bad"))
    manifest = Manifest(
        model="bad",
        run="run",
        task="classification",
        entities={"user": "user_id"},
        inputs=inputs.fed,
        layout="columns",
        tensor_dtype="float64",
        classes=[False, True],
        label="bad",
        metrics={},
        example={},
        auxiliary=inputs.auxiliary,
        definitions=definitions.fingerprint,
    )
    stored = Manifest.from_json(manifest.to_json())
    return Signature.of(stored, applied.load(room.redis, stored.definitions).request_features)


def served(room: Room, of: Signature, *bodies: dict[str, Any]) -> list[list[Any]]:
    asked = parse({"instances": list(bodies)}, of, len(bodies))
    t, oldest = micros(NOW), features.cutoffs(of, NOW)
    stored = features.read(OnlineStore(room.redis), of, features.lookups(asked, of), t)
    return [features.row(instance, of, stored, oldest, t).values for instance in asked]


def frame(room: Room, **body: Any) -> pa.Table:
    with frame_of_model(
        room.catalogue.redis,
        room.catalogue.storage,
        room.catalogue.definitions,
        checked(FrameOf, {"model": "bad", **body}),
    ) as found:
        return found.table()


def spine_frame(room: Room, path: Path, rows: list[dict[str, Any]], **query: str) -> pa.Table:
    path.write_bytes(csv_rows(*rows))
    with (
        path.open("rb") as file,
        frame_of_spine(
            room.catalogue.storage, room.catalogue.definitions, file, "text/csv", checked(SpineQuery, query)
        ) as found,
    ):
        return found.table()


def test_the_value_in_the_frame_is_the_value_that_is_served_bit_for_bit(room: Room) -> None:
    room.ingest("users", users(200))
    earlier = [{**one, "at": (NOW - timedelta(hours=1)).isoformat(), "bad": None} for one in orders(110)]
    room.ingest("orders", [*orders(220), *({**one, "amount": one["amount"] * 3} for one in earlier)])
    # Of users that are unknown or expired training leaves the row out, and a request is refused.
    both = [
        (row, order)
        for row, order in zip(frame(room, start=NOW.isoformat()).to_pylist(), orders(220), strict=True)
        if row["doubled"] is not None
    ]
    got = served(room, signature(room), *({name: order[name] for name in ("user_id", *INPUTS)} for _, order in both))
    wanted = [[row[name] for name in ("ratio", "doubled", "told", "sudden", *INPUTS)] for row, _ in both]
    assert len(wanted) == 155
    assert [list(map(bits, row)) for row in got] == [list(map(bits, row)) for row in wanted]
    ratios = [row[0] for row in wanted]
    assert 100 < sum(ratio is not None for ratio in ratios) < len(ratios)
    assert 50 < sum(row[3] is not None for row in wanted) < len(wanted)


def test_a_value_is_missing_where_what_it_needs_is_and_failed_where_its_function_did(room: Room) -> None:
    known = {"zero": (0.0, 1), "two": (2.0, 1), "old": (2.0, 31)}
    room.ingest("users", [
        {"user_id": key, "mean": mean, "at": (NOW - timedelta(days=days)).isoformat()}
        for key, (mean, days) in known.items()
    ])  # fmt: skip
    room.ingest("orders", [orders(1)[0] | {"user_id": key} for key in (*known, "nobody")])
    found = frame(room, detail=True)
    assert found["ratio.status"].to_pylist() == ["failed", "present", "missing", "missing"]
    assert found["ratio"].is_valid().to_pylist() == [False, True, False, False]
    assert [name for name in found.column_names if name.startswith("_")] == ["_event_time"]


def test_a_function_that_would_end_the_process_fails_on_its_row_alone(open_room: OpenRoom) -> None:
    room = open_room(MILL.replace('row["amount"] / row["user.mean"]', '(row["amount"] or exit()) / row["user.mean"]'))
    room.ingest("users", [{"user_id": "u", "mean": 2.0, "at": NOW.isoformat()}])
    room.ingest("orders", [orders(1)[0] | {"user_id": "u", "amount": amount} for amount in (0.0, 2.0)])
    assert frame(room, detail=True)["ratio.status"].to_pylist() == ["failed", "present"]


def test_a_function_that_fails_gives_null_where_it_may(room: Room) -> None:
    room.ingest("users", [users(1)[0] | {"user_id": "u", "mean": 0.0}])
    body = {"user_id": "u", "amount": 1.0, "at_home": True, "text": ""}
    assert served(room, signature(room), body)[0][0] is None


def test_an_expired_need_gives_null_where_it_may_as_in_the_frame(room: Room) -> None:
    room.define(MILL.replace('features=["ratio", "doubled", "told", "sudden"]', 'features=["ratio"]'))
    room.ingest("users", [users(2)[1] | {"user_id": "u", "at": (NOW - timedelta(days=31)).isoformat()}])
    room.ingest("orders", [orders(1)[0] | {"user_id": "u"}])
    assert frame(room)["ratio"].to_pylist() == [None]
    body = {"user_id": "u", "amount": 1.0, "at_home": True, "text": "a"}
    assert served(room, signature(room), body)[0][0] is None


def test_an_uploaded_spine_brings_the_inputs_as_text(room: Room, tmp_path: Path) -> None:
    room.ingest("users", users(30))
    room.ingest("orders", orders(30))
    spine = [
        {"event_time": one["at"], "user_id": one["user_id"]}
        | {name: "" if one[name] is None else one[name] for name in INPUTS}
        for one in orders(30)
    ]
    found, expected = spine_frame(room, tmp_path / "spine.csv", spine, model="bad", detail="true"), frame(room)
    for name in ("ratio", "told"):
        assert list(map(bits, found[name].to_pylist())) == list(map(bits, expected[name].to_pylist()))
    assert found.column_names[-8:-2] == ["ratio", "ratio.status", "doubled", "doubled.status", "told", "told.status"]


@pytest.mark.parametrize(
    "change, reason",
    [
        ({"amount": None}, "column 'amount' is missing; request feature 'ratio' is computed from it"),
        ({"amount": "much"}, "column 'amount' holds what is no float, from which request feature 'ratio' is computed"),
    ],
)
def test_a_spine_without_the_inputs_is_refused_by_column(
    change: dict[str, Any], reason: str, room: Room, tmp_path: Path
) -> None:
    row = {"event_time": NOW.isoformat(), "user_id": "u", "amount": 1, "count": 1, "at_home": True, "text": "a"}
    row = {name: value for name, value in (row | change).items() if value is not None}
    with pytest.raises(InvalidRequest, match=reason):
        spine_frame(room, tmp_path / "spine.csv", [row], model="bad")


def test_without_a_model_nobody_knows_its_inputs(room: Room, tmp_path: Path) -> None:
    row = {"event_time": NOW.isoformat(), "user_id": "u"}
    with pytest.raises(InvalidRequest, match="'ratio' is computed from inputs of a model; ask with model=NAME"):
        spine_frame(room, tmp_path / "spine.csv", [row], features="ratio", entities="user")


def test_an_aggregate_of_rows_about_several_entities_is_listed_too(room: Room) -> None:
    listed = {one["name"]: one for one in room.http.get("/features").get_json()["features"]}
    recent = listed["recent"]
    assert (recent["entity"], recent["source"], recent["kind"], recent["models"]) == (
        "user", "orders", "aggregate", ["bad"]
    )  # fmt: skip


def test_they_are_listed_after_the_stored_ones_with_what_they_need(room: Room) -> None:
    ratio, sudden, told = room.http.get("/features").get_json()["features"][-3:]
    assert (ratio["name"], ratio["entity"], ratio["kind"], ratio["models"]) == ("ratio", None, "request", ["bad"])
    assert ratio["needs"] == ["amount", "user.mean", "factor", "doubled"]
    assert sudden["needs"] == ["amount", "user.recent"]
    assert ratio["description"] == "How much more than usual."
    assert (told["owner"], told["tags"]) == ("shop", ["words"])


CHANGED = MILL.replace('row["amount"] / row["user.mean"]', '2 * row["amount"] / row["user.mean"]')


def test_applying_a_changed_one_says_so_and_computes_nothing(room: Room) -> None:
    room.ingest("users", users(3))
    done = room.define(CHANGED)
    assert done.backfilled == 0
    [change] = done.changes
    assert change.startswith("request_features ratio: float? ")
    assert change.endswith(" of amount, user.mean, factor, doubled")


def test_one_that_returns_another_type_is_not_put_in_force(room: Room) -> None:
    with pytest.raises(DefinitionsError, match="request feature 'told': returned 7; expected str"):
        room.define(MILL.replace("return f\"{row['name']} {row['text']}", "return 7 or f\"{row['name']} {row['text']}"))


def test_after_a_change_a_version_is_computed_by_the_function_that_it_was_trained_with(room: Room) -> None:
    room.ingest("users", [users(2)[1] | {"user_id": "u", "mean": 4.0, "factor": None}])
    body = {"user_id": "u", "amount": 1.0, "at_home": True, "text": ""}
    former = signature(room)
    before = served(room, former, body)
    room.define(CHANGED)
    assert served(room, former, body) == before
    assert served(room, signature(room), body) != before
