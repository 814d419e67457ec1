"""What a model is trained on is what it is served: the predictor's reading of an entity equals the training frame."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest

from modelmill.times import micros
from services.feature.frames.frames import Wanted, spine_frame
from services.feature.frames.spines import Spine
from services.feature.rows.schema import TIME
from services.predictor import features
from services.predictor.features import OnlineStore
from services.predictor.instances import parse
from services.predictor.signature import Signature
from services.trainer.packaging import packing as packaging
from tests.feature.conftest import OpenRoom, Room
from tests.predictor.packages import manifest

MILL = """
from modelmill import Aggregate, Entity, Model, Source, feature
user = Entity("user", key="user_id")
users = Source("users", entity=user, event_time="at", max_age="2h", columns={"x": float | None, "label": int})
visits = Source("visits", entity=user, event_time="at", columns={"pages": float | None})

@feature(users, dtype=float | None)
def inverse(row):
    return 1 / row["x"]

Aggregate(visits, "pages", "mean", window="1h", hop="5m")
Aggregate(visits, "pages", "std", window="2h", hop="5m")
Aggregate(visits, None, "count", window="1h", hop="5m")
Model("m", entities=[user], features=["x", "inverse", "pages_mean_1h", "pages_std_2h", "visits_count_1h", "pages"],
      label="label", source=users, estimator=None)
"""
NOW = datetime.now(UTC)


def at(minutes: float) -> str:
    return (NOW - timedelta(minutes=minutes)).isoformat()


@pytest.fixture
def room(open_room: OpenRoom) -> Room:
    room = open_room(MILL)
    room.ingest("users", [{"user_id": "a", "at": at(30), "x": 0.1, "label": 1},
                          {"user_id": "b", "at": at(150), "x": 3.0, "label": 1}])  # fmt: skip
    visits = [{"user_id": "abc"[n % 3], "at": at(3 * n + 1), "pages": 0.1 * n} for n in range(60)]
    for part in (visits[::2], visits[1::2]):
        room.ingest("visits", part)
    room.ingest("users", [{"user_id": "a", "at": at(40), "x": 9.0, "label": 1}])
    return room


def served(room: Room, key: str, now: datetime) -> dict[str, Any]:
    definitions = room.catalogue.definitions
    signature = Signature.of(manifest(inputs=packaging.signature(definitions, definitions.model("m")).fed))
    asked = parse({"user_id": key}, signature, 1)
    stored = features.read(OnlineStore(room.redis), signature, features.lookups(asked, signature), micros(now))
    row = features.row(asked[0], signature, stored, features.cutoffs(signature, now), micros(now))
    return {item.name: value for item, value in zip(signature.inputs, row.values, strict=True)}


def trained(room: Room, key: str, now: datetime) -> dict[str, Any]:
    definitions = room.catalogue.definitions
    table = pa.table({"user_id": [key], "at": pa.array([now], TIME)})
    refs = definitions.resolve(["user"], definitions.model("m").features)
    spine = Spine(table.schema, "at", table.to_batches())
    with spine_frame(room.catalogue.storage, definitions, spine, Wanted(refs, "known")) as frame:
        [row] = frame.table().select([ref.name for ref in refs]).to_pylist()
    return dict(row)


@pytest.mark.parametrize("key", ["a", "b"])
def test_both_are_the_same_bit_for_bit(key: str, room: Room) -> None:
    now = datetime.now(UTC)
    assert repr(served(room, key, now)) == repr(trained(room, key, now))


def test_what_is_expired_in_one_is_in_the_other(room: Room) -> None:
    now = datetime.now(UTC)
    assert served(room, "b", now)["x"] is None
    assert served(room, "a", now)["x"] == 0.1
