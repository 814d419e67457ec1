"""Train month after month on a year of flights, as the data arrives, and evaluate each model on the next month.

    python -m examples.flights [--months 12] [--home FOLDER]

Starts a system of its own, ingests a month, trains, and asks the running predictor for every flight of the next month;
beside it January's model, frozen, answers for the same flights. Prints a table of both models' AUC.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import onnxruntime
import pandas as pd
from sklearn.metrics import roc_auc_score

from examples.flights import data
from modelmill import package, show
from modelmill.client import Client
from modelmill.errors import ModelmillError
from modelmill.local import Local
from modelmill.storage import Storage

MODEL = "flight_late"
BATCH = 1000
"""Flights asked for in one request."""
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


@dataclass(frozen=True)
class Month:
    """How both models did on the flights of one month."""

    name: str
    flights: int
    frozen: float
    """AUC of the model that was trained on January alone."""
    retrained: float
    """AUC of the model that was trained on all months before."""
    version: int
    """Of the retrained model."""
    seconds: float
    """That its training took, from enqueued to live."""


def run(home: Path, months: int) -> list[Month]:
    """Train on January and then month after month; the results from February to month number `months`."""
    with running(home) as client:
        ingest(client, 1)
        version, seconds = train(client, 1)
        frozen = package.read(Storage(client.settings.storage_url), client.model(MODEL)["versions"][0]["package"])
        done = []
        for number in range(2, months + 1):
            ingest(client, number)
            frame = client.training_frame(MODEL, start=data.start(number), end=data.start(number + 1))
            frame = frame.dropna(subset=["late"])
            label = frame.pop("late").astype(int)
            inputs = frame.drop(columns="_event_time")
            retrained = roc_auc_score(label, asked(client, inputs, version))
            still = roc_auc_score(label, answered(*frozen, inputs))
            done.append(Month(MONTHS[number - 1], len(label), still, retrained, version, seconds))
            if number < months:
                version, seconds = train(client, number)
        return done


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


def train(client: Client, number: int) -> tuple[int, float]:
    """Train on all months up to this one; the version that the predictor serves then, and the seconds it took."""
    begun = time.perf_counter()
    with show.stages(f"{MONTHS[number - 1]}: training", quiet=False) as watch:
        job = client.train(MODEL, end=data.start(number + 1), by="flights")
        job = client.wait(job["job"], seconds=600, watch=watch)
    if job["status"] != "finished":
        raise ModelmillError(f"training {job['status']}: {job.get('error')}")
    version: int = client.run(job["run"])["version"]
    sample = {"hour": 9, "weekday": 1, "distance": 500.0, "carrier": "UA", "origin": "EWR", "route": "EWR-ORD"}
    deadline = time.monotonic() + 30
    while not number_is_live(client, sample, version):
        if time.monotonic() > deadline:
            raise ModelmillError(f"the predictor does not serve version {version} after 30 s")
        time.sleep(0.05)
    return version, time.perf_counter() - begun


def number_is_live(client: Client, sample: dict[str, object], version: int) -> bool:
    """Whether the predictor answers with this version."""
    try:
        return bool(client.predict(MODEL, [sample])["version"] == version)
    except ModelmillError as error:
        if getattr(error, "http_status", 503) != 503:
            raise
        return False  # the first version is still being loaded


def asked(client: Client, inputs: pd.DataFrame, version: int) -> Sequence[float]:
    """[n] probabilities of being late that the running predictor gives for n flights with these values."""
    rows = inputs.astype(object).where(inputs.notna(), None).to_dict("records")
    probabilities: list[float] = []
    with show.errors.status(f"asking the predictor for {len(rows)} flights"):
        for begin in range(0, len(rows), BATCH):
            answer = client.predict(MODEL, rows[begin : begin + BATCH])
            assert answer["version"] == version, answer["version"]
            probabilities += [one["probabilities"]["1"] for one in answer["predictions"]]
    return probabilities


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
    with tempfile.TemporaryDirectory(prefix="modelmill-flights-") as folder:
        results = run(home or Path(folder), months)
    print("| month | flights | AUC frozen | AUC retrained | gain | version | training s |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for one in results:
        gain = one.retrained - one.frozen
        print(f"| {one.name} | {one.flights} | {one.frozen:.3f} | {one.retrained:.3f} | {gain:+.3f} "
              f"| {one.version} | {one.seconds:.1f} |")  # fmt: skip
    frozen, retrained = np.mean([one.frozen for one in results]), np.mean([one.retrained for one in results])
    print(f"| mean | | {frozen:.3f} | {retrained:.3f} | {retrained - frozen:+.3f} | | |")


if __name__ == "__main__":
    main()
