"""The rows that the benchmarks work on, the same at every call."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import orjson
import pandas as pd

from benchmarks.mill import FEATURES

SEED = 2022
USERS = 5000
BODIES = 1000
"""Different request bodies, of as many users."""
YEAR = pd.Timestamp("2025-01-01", tz="UTC")
"""In which the measurements were taken."""


def users() -> pd.DataFrame:
    """`USERS` rows of source `users`: ten normal numbers, and a target that depends on three of them."""
    frame = _numbers(USERS)
    score = 2 * frame["feature_1"] + frame["feature_2"] - frame["feature_3"] ** 2
    frame["target"] = (score > 0).astype(int)
    frame["user_id"] = [user_id(number) for number in range(USERS)]
    return frame


def visits() -> pd.DataFrame:
    """Rows of source `visits`: 24 of each user with a request body, five minutes apart, up to now."""
    random = np.random.default_rng(SEED)
    now = pd.Timestamp.now("UTC")
    times = [now - pd.Timedelta(minutes=5 * n + 2) for n in range(24)]
    rows = pd.DataFrame({"user_id": np.repeat([user_id(n) for n in range(BODIES)], 24), "at": times * BODIES})
    return rows.assign(pages=random.normal(size=len(rows)))


def user_id(number: int) -> str:
    """The key of a user."""
    return f"user-{number:06d}"


def sensor_id(number: int) -> str:
    """The key of a sensor."""
    return f"sensor-{number:06d}"


def readings(rows: int) -> pd.DataFrame:
    """Rows of source `readings`, each about another sensor."""
    frame = _numbers(rows)
    frame["sensor_id"] = [sensor_id(number) for number in range(rows)]
    return frame


def measurements(rows: int, seed: int = SEED) -> pd.DataFrame:
    """Rows of source `measurements` at random times of a year, about a tenth as many stations."""
    random = np.random.default_rng(seed)
    frame = _numbers(rows)
    frame["station_id"] = np.char.add("station-", random.integers(0, max(rows // 10, 1), rows).astype(str))
    frame["at"] = YEAR + pd.to_timedelta(random.integers(0, 365 * 86_400 * 1_000_000, rows), unit="us")
    return frame


def write_bodies(folder: Path) -> tuple[Path, Path]:
    """Write predict requests, one a line, into two files: by the user's key, and with the user's features."""
    rows = users().head(BODIES)
    by_key, by_value = folder / "by_key.txt", folder / "by_value.txt"
    by_key.write_bytes(_lines(rows[["user_id"]]))
    by_value.write_bytes(_lines(rows[FEATURES]))
    return by_key, by_value


def _lines(rows: pd.DataFrame) -> bytes:
    return b"".join(orjson.dumps(row) + b"\n" for row in rows.to_dict("records"))


def _numbers(rows: int) -> pd.DataFrame:
    return pd.DataFrame(np.random.default_rng(SEED).normal(size=(rows, len(FEATURES))), columns=FEATURES)
