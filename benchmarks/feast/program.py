"""Feast's side of the comparison, run by the Python that has Feast.

`python program.py FOLDER` in a folder with a `feature_store.yaml` and the files `readings.parquet` and
`measurements.parquet`; then a JSON command a line on stdin, a JSON answer a line on stdout.
"""

from __future__ import annotations

import json
import os
import sys
import time
from datetime import UTC, datetime, timedelta

import pandas as pd
from feast import Entity, FeatureStore, FeatureView, Field, FileSource
from feast.types import Float64
from feast.value_type import ValueType

TIME = "event_timestamp"
FEATURES = [f"feature_{number}" for number in range(1, 11)]


def declare(store: FeatureStore, folder: str) -> None:
    """What benchmarks/mill.py declares for Modelmill; values that never expire."""
    for view, entity in (("readings", "sensor"), ("measurements", "station")):
        key = Entity(name=entity, join_keys=[f"{entity}_id"], value_type=ValueType.STRING)
        source = FileSource(path=f"{folder}/{view}.parquet", timestamp_field=TIME)
        schema = [Field(name=name, dtype=Float64) for name in FEATURES]
        store.apply([key, FeatureView(name=view, entities=[key], schema=schema, source=source, ttl=timedelta(0))])


def write(store: FeatureStore, path: str) -> dict:
    """Write the rows of a Parquet file online; says how long that took without reading the file."""
    rows = pd.read_parquet(path)
    rows[TIME] = datetime.now(UTC)
    started = time.perf_counter()
    store.write_to_online_store("readings", df=rows)
    return {"seconds": time.perf_counter() - started}


def lookup(store: FeatureStore, keys: list[list[str]]) -> dict:
    """Look the features of each list of keys up; the milliseconds of each."""
    features, found = [f"readings:{name}" for name in FEATURES], []
    for some in keys:
        started = time.perf_counter()
        answer = store.get_online_features(features, [{"sensor_id": key} for key in some]).to_dict()
        found.append((time.perf_counter() - started) * 1000)
        if None in answer[FEATURES[0]]:
            raise SystemExit("an entity that was written was not found")
    return {"ms": found}


def join(store: FeatureStore, path: str) -> dict:
    """Join the rows of a Parquet file with history; says how long that took without reading the file."""
    spine = pd.read_parquet(path)
    started = time.perf_counter()
    frame = store.get_historical_features(spine, [f"measurements:{name}" for name in FEATURES]).to_df()
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "rows": len(frame), "found": int(frame[FEATURES[0]].notna().sum())}


COMMANDS = {command.__name__: command for command in (write, lookup, join)}


def main(folder: str) -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what Feast prints is no answer
    store = FeatureStore(folder)
    declare(store, folder)
    print("{}", file=answers, flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        print(json.dumps(COMMANDS[command.pop("do")](store, **command)), file=answers, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
