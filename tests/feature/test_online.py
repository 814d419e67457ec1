from __future__ import annotations

from datetime import UTC, datetime

import pyarrow as pa
import pytest

from modelmill import keys
from modelmill.declarations import Entity, Source
from services.feature import online
from services.feature.derive import FAILED
from services.feature.validate import EVENT_TIME, TIME
from tests.conftest import RedisServer

pytestmark = pytest.mark.redis


@pytest.mark.parametrize("values", [[None, 1.0, None], [1.0, None, 2.0], [None, None, None], [0.1, -2.5e-300, 1e300]])
def test_missing_values_are_absent_wherever_they_stand_in_a_batch(
    real_redis: RedisServer, values: list[float | None]
) -> None:
    station = Source("weather", entity=Entity("station", key="station"), columns={"pressure": float | None})
    rows = pa.table(
        {
            "station": ["a", "b", "c"],
            "pressure": pa.array(values, pa.float64()),
            EVENT_TIME: pa.array([datetime(2026, 11, 23, tzinfo=UTC)] * 3, TIME),
            FAILED: pa.nulls(3, pa.string()),
        }
    )
    with real_redis.client() as redis:
        online.write(redis, station, ["pressure"], rows)
        stored = [redis.hget(keys.feature("station", key), "pressure") for key in "abc"]
    assert stored == [None if value is None else repr(value) for value in values]
