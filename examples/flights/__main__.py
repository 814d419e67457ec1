"""Train as of each month's end on a year of flights, and evaluate each model on the next month.

    python -m examples.flights [--months 12] [--home FOLDER]

Starts a system of its own, ingests the year, trains a model with windowed delay averages and one of the same recipe
without them as of the end of each month, lets them go live in turn, and asks the running predictor for every flight of
the next month; beside them January's model without, frozen, answers for the same flights. Prints a table of their AUC.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import onnxruntime
import pandas as pd
from sklearn.metrics import roc_auc_score

from examples.flights import data
from modelmill.cli import show
from modelmill.client import Client
from modelmill.errors import ModelmillError
from modelmill.local import Local
from modelmill.packages import package
from modelmill.storage import Storage

MODEL, PLAIN = "flight_late", "flight_late_plain"
"""The model with windowed delay averages, and without."""
BATCH = 1000
"""Flights asked for in one request."""
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


@dataclass(frozen=True)
class Month:
    """How the models did on the flights of one month: their AUC."""

    name: str
    flights: int
    frozen: float
    """Of the model without delay averages that was trained on January alone."""
    plain: float
    """Of that model, trained on all months before."""
    aggregates: float
    """Of the model with delay averages, trained on all months before."""


def run(home: Path, months: int) -> Iterator[Month]:
    """Train on January and then month after month; the results from February to month number `months`, as they come."""
    with running(home) as client:
        for number in range(1, months + 1):
            ingest(client, number)
        models, plains = (train(client, model, months - 1) for model in (MODEL, PLAIN))
        frozen = package.read(Storage(client.settings.storage_url), client.model(PLAIN)["versions"][-1]["package"])
        plain_inputs = [item.name for item in frozen[0].inputs]
        for number, version, plain_version in zip(range(2, months + 1), models, plains, strict=True):
            # By key alone the predictor would read delays of the last two hours before now, years after these flights:
            # it gets the values that were there at the time of each.
            frame = client.training_frame(MODEL, start=data.start(number), end=data.start(number + 1))
            frame = frame.dropna(subset=["late"])
            label = frame.pop("late").astype(int)
            inputs = frame.drop(columns="_event_time")
            plain = inputs[plain_inputs]
            yield Month(
                MONTHS[number - 1],
                len(label),
                roc_auc_score(label, answered(*frozen, plain)),
                roc_auc_score(label, asked(client, PLAIN, plain, plain_version)),
                roc_auc_score(label, asked(client, MODEL, inputs, version)),
            )


@contextmanager
def running(home: Path) -> Iterator[Client]:
    """A system of its own on free ports, with its state in `home`."""
    local = Local.at(home, Path(__file__).with_name("mill.py"), free_ports=True)
    try:
        with Client(local.start(), timeout=60.0) as client:
            yield client
    finally:
        local.stop()


def ingest(client: Client, number: int) -> None:
    """Send all rows of a month."""
    with show.errors.status(f"{MONTHS[number - 1]}: ingesting"):
        for source, rows in data.month(number).items():
            client.ingest(source, rows)


def train(client: Client, model: str, months: int) -> list[int]:
    """Train a model as of the end of each of the first months, on all rows before; the versions."""
    begin, end = data.start(2), data.start(months + 1)
    with show.bar(f"training {model}", quiet=False) as progress:
        done = client.backfill(model, start=begin, end=end, step="month", by="flights", seconds=3600, progress=progress)
    if errors := [point["error"] for point in done if point["status"] != "succeeded"]:
        raise ModelmillError(f"training {model} failed: {errors[0]}")
    return [point["version"] for point in done]


def asked(client: Client, model: str, inputs: pd.DataFrame, version: int) -> Sequence[float]:
    """[n] probabilities of being late that the running predictor gives for n flights with these values."""
    rows = inputs.astype(object).where(inputs.notna(), None).to_dict("records")
    probabilities: list[float] = []
    with show.errors.status(f"asking {model} for {len(rows)} flights"):
        client.promote(model, version, by="flights", reason="its month is over")
        await_version(client, model, rows[0], version)
        for begin in range(0, len(rows), BATCH):
            answer = client.predict(model, rows[begin : begin + BATCH])
            assert answer["version"] == version, answer["version"]
            probabilities += [one["probabilities"]["1"] for one in answer["predictions"]]
    return probabilities


def await_version(client: Client, model: str, flight: Mapping[str, object], version: int) -> None:
    """Return once the predictor answers with this version; it was promoted just now."""
    deadline = time.monotonic() + 30
    while not version_is_live(client, model, flight, version):
        if time.monotonic() > deadline:
            raise ModelmillError(f"the predictor does not serve version {version} of {model} after 30 s")
        time.sleep(0.05)


def version_is_live(client: Client, model: str, flight: Mapping[str, object], version: int) -> bool:
    """Whether the predictor answers with this version."""
    try:
        return bool(client.predict(model, [flight])["version"] == version)
    except ModelmillError as error:
        if getattr(error, "http_status", 503) != 503:
            raise
        return False  # the first version is still being loaded


def answered(manifest: package.Manifest, graph: bytes, inputs: pd.DataFrame) -> np.ndarray:
    """[n] probabilities that a packaged model gives."""
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    matrix = inputs[[item.name for item in manifest.inputs]].to_numpy(manifest.tensor_dtype)
    probabilities: np.ndarray = session.run(None, {session.get_inputs()[0].name: matrix})[1]
    return probabilities[:, 1]


@click.command(help="Train month after month on a year of flights.")
@click.option("--months", type=click.IntRange(2, 12), default=12, show_default=True)
@click.option("--home", type=click.Path(path_type=Path), help="Keep the state here instead of a temporary folder.")
def main(months: int, home: Path | None) -> None:
    """Run the example and print its table."""
    print("| month | flights | frozen | retrained | with delay averages | gain |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory(prefix="modelmill-flights-") as folder:
        results = []
        for one in run(home or Path(folder), months):
            results.append(one)
            print_row(one.name, str(one.flights), one.frozen, one.plain, one.aggregates)
    aucs = np.array([(one.frozen, one.plain, one.aggregates) for one in results])
    print_row("mean", "", *aucs.mean(axis=0))


def print_row(name: str, flights: str, frozen: float, plain: float, aggregates: float) -> None:
    """Print a row of the table; the gain is that of the delay averages."""
    gain = aggregates - plain
    print(f"| {name} | {flights} | {frozen:.3f} | {plain:.3f} | {aggregates:.3f} | {gain:+.3f} |", flush=True)


if __name__ == "__main__":
    main()
