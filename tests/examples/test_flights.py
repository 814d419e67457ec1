"""The flights example, on its real data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from examples import flights as example
from examples.flights import __main__ as main
from examples.flights import data
from modelmill.declare.definitions_file import load

MILL = Path(example.__file__).with_name("mill.py")


def test_all_flights_landings_and_weather_rows_arrive_once() -> None:
    months = [data.month(number) for number in range(1, 13)]
    assert sum(len(rows["flights"]) for rows in months) == 336_776
    assert sum(len(rows["landings"]) for rows in months) == 327_346  # the others were cancelled or diverted
    assert sum(len(rows["weather"]) for rows in months) == 26_115


def test_a_delay_is_told_when_the_flight_is_at_its_gate() -> None:
    first = data.month(1)["landings"].iloc[0]
    assert first["landed"] == pd.Timestamp("2013-01-01T08:30", tz="America/Chicago")  # 05:17 from Newark to Houston
    flights = data._flights().dropna(subset=["arr_delay"])
    touched_down = flights["scheduled"] + pd.to_timedelta(flights["dep_delay"] + flights["air_time"], unit="min")
    taxied = flights["landed"] - touched_down
    assert taxied.between(pd.Timedelta(minutes=5), pd.Timedelta(hours=4)).all()


def test_a_day_after_its_departure_it_is_known_whether_a_flight_was_late() -> None:
    flights = data._flights().dropna(subset=["late"])
    aloft = flights["landed"] - flights["scheduled"]
    assert (aloft <= pd.Timedelta(hours=2)).mean() == pytest.approx(0.247, abs=0.001)  # why landings are rows
    assert (aloft > pd.Timedelta(days=1)).sum() == 1


def test_the_models_differ_by_the_aggregates_alone() -> None:
    definitions = load(MILL)
    model, plain = (definitions.models[name] for name in (main.MODEL, main.PLAIN))
    more = set(model.features) - set(plain.features)
    refs = definitions.resolve([entity.name for entity in model.entities], sorted(more))
    assert len(refs) == 7
    assert all(ref.aggregate is not None for ref in refs)
    assert set(plain.features) < set(model.features)
    assert (model.inputs.keys(), model.label, model.estimator, model.split) == (
        plain.inputs.keys(), plain.label, plain.estimator, plain.split,
    )  # fmt: skip


@pytest.mark.flights
def test_a_training_row_sees_the_delays_that_were_known_at_its_time(tmp_path: Path) -> None:
    january = data.month(1)
    landings = january["landings"]
    spine = january["flights"].sample(200, random_state=1)[["carrier", "origin", "route", "scheduled"]]
    with main.running(tmp_path) as client:
        main.ingest(client, 1)
        frame = client.training_frame(main.MODEL, spine=spine, time="scheduled")
    expected = []
    for origin, at in zip(spine["origin"], spine["scheduled"], strict=True):
        end = at.floor("5min")
        seen = (landings["origin"] == origin) & landings["landed"].between(end - pd.Timedelta(hours=2), end, "left")
        expected.append(landings["arr_delay"][seen].mean())
    np.testing.assert_allclose(frame["origin.arr_delay_mean_2h"], expected)


@pytest.mark.flights
def test_delay_averages_predict_better_than_retraining_alone(tmp_path: Path) -> None:
    february, march = main.run(tmp_path, 3)
    assert (february.flights, march.flights) == (23_611, 27_902)
    assert february.frozen == pytest.approx(
        february.plain, abs=1e-3
    )  # January's model, whether asked over HTTP or run here
    assert march.plain > march.frozen
    assert february.aggregates > february.plain + 0.03
    assert march.aggregates > march.plain + 0.03
