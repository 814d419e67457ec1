"""Keeps the live models equal to the registry's champions. Events wake it; the registry is the truth."""

from __future__ import annotations

import logging
import time
from threading import Event as Flag

from modelmill.errors import sentence
from modelmill.state import bus, keys
from modelmill.state.connections import AWAY
from modelmill.state.events import utc_now
from modelmill.state.registry import Registry
from modelmill.storage import Storage
from services.predictor import metrics
from services.predictor.live import LiveModels, LoadProblem
from services.predictor.loading import load

log = logging.getLogger(__name__)

LISTEN = 1.0
"""Seconds after which the registry is read again, whether or not an event came."""
RETRY = 5.0
"""Seconds until a champion that could not be loaded is tried again."""


class Reconciler:
    """Loads, swaps and unloads models in a thread of its own.

    `registry` is to be on a Redis client whose time limit is above `LISTEN`.
    """

    def __init__(self, registry: Registry, storage: Storage, live: LiveModels, *, retry: float = RETRY) -> None:
        self.registry = registry
        self.storage = storage
        self.live = live
        self.retry = retry

    def run(self, stop: Flag) -> None:
        """Follow the registry until `stop` is set, whatever goes wrong."""
        while not stop.is_set():
            try:
                self._follow(stop)
            except AWAY as error:
                log.warning("cannot read the registry, trying every second: %s", error)
            except Exception:
                log.exception("reconciling failed, trying again in a second")
            stop.wait(1.0)

    def _follow(self, stop: Flag) -> None:
        redis = self.registry.redis
        position = bus.last_position(redis, keys.EVENTS_MODELS)  # before the registry, so that no promotion is missed
        self.reconcile()
        for _ in bus.follow(redis, keys.EVENTS_MODELS, position, stop, wait=LISTEN):
            self.reconcile()

    def reconcile(self) -> None:
        """Make live what the registry calls champion; a champion that cannot be loaded leaves the old version live."""
        champions = self.registry.champions()
        self.live.expect(champions)
        for model in self.live.served.keys() - champions.keys():
            self.live.drop(model)
            metrics.LIVE_VERSION.labels(model).set(0)
            log.info("%s has no champion any more and is unloaded", model)
        for model in self.live.problems.keys() - champions.keys():
            self.live.solve(model)
        for model, version in champions.items():
            served = self.live.served.get(model)
            if served is not None and served.version == version:
                self.live.solve(model)
            elif self._is_due(model, version):
                self._bring(model, version)

    def _is_due(self, model: str, version: int) -> bool:
        problem = self.live.problems.get(model)
        return problem is None or problem.version != version or time.monotonic() >= problem.retry_at

    def _bring(self, model: str, version: int) -> None:
        started = time.perf_counter()
        try:
            served = load(self.registry, self.storage, model, version)
        except AWAY:
            raise
        except Exception as error:
            self._note(model, version, error)
            return
        self.live.swap(served)
        seconds = time.perf_counter() - started
        metrics.LOAD_SECONDS.labels(model).observe(seconds)
        metrics.LIVE_VERSION.labels(model).set(version)
        metrics.SWAPS.labels(model).inc()
        log.info("%s version %d is live, loaded in %.0f ms", model, version, seconds * 1000)

    def _note(self, model: str, version: int, error: Exception) -> None:
        metrics.LOAD_FAILURES.labels(model).inc()
        reason = f"version {version} cannot be loaded: {sentence(error)}"
        known = self.live.problems.get(model)
        if known is None or known.reason != reason:
            log.error("%s %s; trying again every %g s", model, reason, self.retry)
            known = None
        since = known.since if known else utc_now()
        self.live.note(model, LoadProblem(version, reason, since, time.monotonic() + self.retry))
