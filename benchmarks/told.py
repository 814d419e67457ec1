"""From a promotion to the moment when the last of several predictor processes knows the new champion."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle, islice
from multiprocessing.connection import Connection
from threading import Event as Flag

import numpy as np

from benchmarks.report import Table
from benchmarks.system import WAIT, System
from modelmill.state import bus, keys
from modelmill.state.connections import connect
from modelmill.state.events import ModelPromoted
from modelmill.state.registry import Registry

LISTENERS = (1, 8)
"""Processes that listen at once."""
LISTEN = 1.0
"""Seconds that each waits for an event, as the predictor does."""


def table(system: System, model: str, versions: Sequence[int], promotions: int) -> Table:
    """Time promotions of `versions`, one after the other, until every listener knows."""
    rows: list[list[str | int | float | None]] = []
    samples: dict[str, list[float]] = {}
    registry = system.registry
    for count in LISTENERS:
        with _listening(system, model, count) as ears:
            times = [_told(registry, model, version, ears) for version in islice(cycle(versions), promotions)]
        last = [max(of_all) for of_all in times]
        rows.append(
            [count, promotions, float(np.median([min(t) for t in times])), *np.percentile(last, [50, 95]), max(last)]
        )
        samples[f"{count} processes"] = last
    note = (
        "From just before the transaction that promotes until a process that waits for events, as each predictor does,"
        " has read the new champion from the registry; loading it comes on top (swap time)."
    )
    columns = ["processes", "promotions", "first p50 ms", "last p50 ms", "last p95 ms", "last max ms"]
    return Table("Promotion told", columns, rows, note, samples)


def _told(registry: Registry, model: str, version: int, ears: Sequence[Connection]) -> list[float]:
    """Milliseconds until each knew."""
    started = time.monotonic()
    registry.promote(model, version, by="benchmark")
    found = []
    for ear in ears:
        if not ear.poll(WAIT):
            raise TimeoutError(f"a process did not hear of version {version} within {WAIT:.0f} s")
        heard, champion = ear.recv()
        if champion != version:
            raise RuntimeError(f"a process heard of version {champion}, not of {version}")
        found.append((heard - started) * 1000)
    time.sleep(0.05)  # so that all wait again
    return found


@contextmanager
def _listening(system: System, model: str, count: int) -> Iterator[list[Connection]]:
    """So many processes that listen; yields where each says when it heard what."""
    context = multiprocessing.get_context("spawn")
    pipes = [context.Pipe(duplex=False) for _ in range(count)]
    url = system.client.settings.redis_url
    listeners = [context.Process(target=_listen, args=(url, model, theirs), daemon=True) for _, theirs in pipes]
    for listener in listeners:
        listener.start()
    ears = [ours for ours, _ in pipes]
    try:
        for ear in ears:
            if not ear.poll(WAIT):
                raise TimeoutError(f"a listening process did not start within {WAIT:.0f} s")
            ear.recv()
        yield ears
    finally:
        for listener in listeners:
            listener.terminate()
            listener.join()


def _listen(url: str, model: str, mouth: Connection) -> None:
    """Say when the champion of `model` is known after each promotion, and which it is."""
    registry = Registry(connect(url, timeout=10))
    position = bus.last_position(registry.redis, keys.EVENTS_MODELS)
    mouth.send("listening")
    for entries in bus.follow(registry.redis, keys.EVENTS_MODELS, position, Flag(), wait=LISTEN):
        if any(isinstance(event, ModelPromoted) and event.model == model for _, event in entries):
            champion = registry.champions().get(model)
            mouth.send((time.monotonic(), champion))
