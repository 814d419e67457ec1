"""Modelmill in six steps, on the project that `modelmill init` writes: read from top to bottom, it is a tour.

Customers come in, a model is trained that says who orders again, answers are given and accounted for, and more
customers bring a newer model. Each step begins where the one before it ended, on real services and a real Redis.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from runpy import run_path
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner

from modelmill import cli
from modelmill.client import Client
from tests.eventually import eventually
from tests.processes import system
from tests.system.load import constant_load

pytestmark = pytest.mark.redis

MODEL = "orders_again"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`modelmill init shop`: mill.py declares an entity, a source, a feature and a model; data.py makes up rows."""
    folder = tmp_path_factory.mktemp("tutorial") / "shop"
    assert CliRunner().invoke(cli.main, ["init", str(folder)]).exit_code == 0
    return folder


@pytest.fixture(scope="module")
def client(project: Path) -> Iterator[Client]:
    """`modelmill up`: Redis, four services and a worker; the client is what programs and notebooks speak to them with."""
    with system(project / "mill.py", project / ".modelmill") as found:
        yield found


@pytest.fixture(scope="module")
def customers(project: Path) -> pd.DataFrame:
    made: pd.DataFrame = run_path(str(project / "data.py"))["rows"]()
    return made


def send(client: Client, customers: pd.DataFrame, folder: Path) -> dict[str, Any]:
    """`modelmill ingest customers customers.csv`"""
    file = folder / "customers.csv"
    customers.to_csv(file, index=False)
    return client.when_ready(lambda: client.ingest("customers", file))


def test_1_rows_go_in_and_features_are_computed_once(client: Client, customers: pd.DataFrame, tmp_path: Path) -> None:
    sent = send(client, customers.head(900), tmp_path)
    assert (sent["accepted"], sent["rejected"]) == (900, 0)

    # The service called `spent_per_order` of mill.py on each row and stored what it returned: trainings and
    # predictions both read this, so that neither computes it in a way of its own.
    features = client.entity("customer", "c1")["features"]
    assert features["spent"] == customers["spent"][0]
    assert features["spent_per_order"] == customers["spent"][0] / customers["orders"][0]


def test_2_a_training_makes_a_version_which_goes_live_if_it_passes_its_gates(client: Client) -> None:
    job = client.when_ready(lambda: client.train(MODEL, by="tutorial", wait=True))
    assert job["status"] == "finished"

    # A run keeps what was done and how good it is, on rows that were held out from the training.
    run = client.get_run(job["run"])
    assert run["version"] == 1
    assert run["metrics"]["roc_auc"] > 0.7  # which is what mill.py asks for: gates=[at_least("roc_auc", 0.7)]

    # `champion` is the name of the version that serves.
    assert client.model(MODEL)["aliases"] == {"champion": 1}


def test_3_a_prediction_needs_a_key_alone(client: Client, customers: pd.DataFrame) -> None:
    answer = client.when_ready(lambda: client.predict(MODEL, customer_id="c1"))
    assert answer["version"] == 1
    assert answer["prediction"] in (0, 1)

    # The features were read from the store. With the same values in the request the answer is the same.
    first = customers.iloc[0]
    names = {"orders": int(first["orders"]), "days_since_order": int(first["days_since_order"])}
    given = client.predict(MODEL, **names, spent_per_order=first["spent"] / first["orders"])
    assert given["probabilities"] == answer["probabilities"]


def test_4_more_rows_bring_a_newer_version_without_a_failed_request(
    client: Client, customers: pd.DataFrame, tmp_path: Path
) -> None:
    with constant_load(client.settings, MODEL, {"customer_id": "c1"}) as load:
        send(client, customers.tail(1100), tmp_path)  # nobody asks for a training: train=after(rows=1000) does
        eventually(lambda: 2 in load.served, within=60, saying="version 2 answers")
    assert load.failures == []
    assert load.swaps() == 1

    newest = client.runs(MODEL)[0]
    assert (newest["trigger"], newest["version"]) == ("after", 2)


def test_5_an_answer_can_be_traced_to_its_rows_and_proved(client: Client) -> None:
    answer = client.predict(MODEL, customer_id="c1")

    # From the answer to the training that made its model; the log of answers is written a moment after they are given.
    lineage = eventually(lambda: client.lineage(answer["prediction_id"]), within=10, saying="the answer is in the log")
    assert lineage["run"]["id"] == client.runs(MODEL)[0]["id"]

    # Why a feature has its value: the row that it was computed from.
    value = client.explain("customer", "c1")["features"]["spent_per_order"]
    assert (value["why"], value["source"]) == ("the newest row", "customers")

    # What every answer was given with is, bit for bit, what a training would see at its time.
    audit = client.audit(MODEL)
    assert audit["predictions"] > 0
    assert audit["differences"] == 0


def test_6_what_happened_is_measured_and_told(client: Client) -> None:
    versions = client.latency(MODEL)["versions"]
    assert {one["version"] for one in versions} == {1, 2}

    told = [event["type"] for event in reversed(client.events("models", 100))]
    assert told == ["run.started", "model.trained", "model.promoted"] * 2
