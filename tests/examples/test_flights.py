"""The flights example, on its real data."""

from __future__ import annotations

import pandas as pd
import pytest

from examples.flights import data

pytestmark = pytest.mark.flights


def test_all_flights_and_weather_rows_arrive_once() -> None:
    months = [data.month(number) for number in range(1, 13)]
    assert sum(len(rows["flights"]) for rows in months) == 336_776
    assert sum(len(rows["weather"]) for rows in months) == 26_115


def test_a_day_is_known_only_when_its_flights_have_landed() -> None:
    flights = data._flights().dropna(subset=["late"])
    landed = flights["scheduled"] + pd.to_timedelta(flights["air_time"] + flights["dep_delay"], unit="min")
    known = flights["date"] + pd.Timedelta(days=2, hours=5)
    assert (landed < known).all()


def test_a_months_days_say_how_its_flights_went() -> None:
    rows = data.month(2)
    days, flights = rows["carrier_days"], rows["flights"].dropna(subset=["late"])
    assert days["flights"].sum() == len(flights)
    assert (days["late_share"] * days["flights"]).sum() == pytest.approx(flights["late"].sum())
