"""From a promotion to the first answer by the new version, and what requests notice of constant swapping."""

from __future__ import annotations

import http.client
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from threading import Event as Flag
from threading import Thread
from urllib.parse import urlsplit

import numpy as np
import orjson

from benchmarks import data, told, wrk
from benchmarks.effort import Effort
from benchmarks.report import Table
from benchmarks.system import MODELS, WAIT, System, running

PAUSE = 0.2
"""Seconds between two promotions where many follow each other."""


def measure(effort: Effort) -> list[Table]:
    """Time single swaps, then load the predictor with and without swaps in the background."""
    with running() as system, tempfile.TemporaryDirectory() as folder:
        bodies, _ = data.write_bodies(Path(folder))
        versions = {model: [system.train(model), system.train(model)] for model in MODELS}
        times = {model: list(_times(system, model, versions[model], effort.timed_swaps)) for model in MODELS}
        hearing = told.table(system, MODELS[0], versions[MODELS[0]], effort.timed_swaps)
        loads = [_load(system, bodies, versions, effort) for _ in range(effort.repeats)]
    return [_time_table(times), hearing, _load_table(loads)]


def _times(system: System, model: str, versions: list[int], swaps: int) -> Iterator[float]:
    """Milliseconds from before the promotion to the first answer by the other version, asked without pause."""
    registry, asking = system.registry, _Asking(system, model)
    for version in islice(cycle(versions), swaps):
        started = time.perf_counter()
        registry.promote(model, version, by="benchmark")
        asking.until(version)
        yield (time.perf_counter() - started) * 1000
        time.sleep(0.05)  # else the next promotion could meet a predictor that is still tidying up


class _Asking:
    """Asks for predictions on one connection that stays open."""

    def __init__(self, system: System, model: str) -> None:
        url = urlsplit(system.predict_url(model))
        self.connection = http.client.HTTPConnection(str(url.hostname), url.port, timeout=WAIT)
        self.path = url.path
        self.body = orjson.dumps({"user_id": data.user_id(0)})

    def until(self, version: int) -> None:
        deadline = time.monotonic() + WAIT
        while self._version() != version:
            if time.monotonic() > deadline:
                raise TimeoutError(f"version {version} did not answer within {WAIT:.0f} s")

    def _version(self) -> int:
        self.connection.request("POST", self.path, self.body)
        answer: int = orjson.loads(self.connection.getresponse().read())["version"]
        return answer


def _load(system: System, bodies: Path, versions: dict[str, list[int]], effort: Effort) -> dict[str, wrk.Load]:
    """The load of one repeat, without swaps and with swaps of each model, on the model that swaps (or would)."""
    loads = {}
    for model in MODELS:
        url = system.predict_url(model)
        loads[f"{model}, no swaps"] = wrk.post(url, bodies, connections=1, seconds=effort.seconds)
        with _swapping(system, model, versions[model]):
            loads[f"{model}, {1 / PAUSE:.0f} swaps a second"] = wrk.post(
                url, bodies, connections=1, seconds=effort.seconds
            )
    return loads


@contextmanager
def _swapping(system: System, model: str, versions: list[int]) -> Iterator[None]:
    """Promote one version after the other until the block ends."""
    registry, stop = system.registry, Flag()

    def promote() -> None:
        for version in cycle(versions):
            if stop.wait(PAUSE):
                return
            registry.promote(model, version, by="benchmark")

    thread = Thread(target=promote)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _time_table(times: dict[str, list[float]]) -> Table:
    rows = [[model, len(found), *np.percentile(found, [50, 95]).tolist(), max(found)] for model, found in times.items()]
    note = "From just before the transaction that promotes to the first HTTP answer by the promoted version."
    return Table("Swap time", ["model", "swaps", "p50 ms", "p95 ms", "max ms"], rows, note, times)


def _load_table(loads: list[dict[str, wrk.Load]]) -> Table:
    rows = [
        [name, *(median(getattr(load[name], quantile) for load in loads) for quantile in ("p50", "p99", "slowest"))]
        for name in loads[0]
    ]
    requests = sum(load.requests for repeat in loads for load in repeat.values())
    note = f"One connection, by user_id. None of {requests:,} requests failed."
    return Table("Requests while versions swap", ["load", "p50 ms", "p99 ms", "max ms"], rows, note)
