"""What the workers of one search share, in the storage: the frame as the feature service sent it, and which of its
rows are trained on and judged on. Both are removed when the search ends.
"""

from __future__ import annotations

import io
import logging
import shutil
from dataclasses import asdict, dataclass, replace
from typing import IO, Any, Literal

import numpy as np
import orjson
from redis.client import Pipeline

from modelmill.errors import RunEnded, UnknownName
from modelmill.state import keys
from modelmill.state.connections import Redis
from modelmill.state.registry import Registry
from modelmill.state.runs import Run, folder, lease_of, require_lease, require_running, write
from modelmill.storage import Storage

log = logging.getLogger(__name__)

Pairs = tuple[tuple[np.ndarray, np.ndarray], ...]
"""Of each fold the rows to fit on, and those to score."""
FRAME = "frame.parquet"
ROWS_FILE = "rows.npz"


def keep_frame(storage: Storage, run: Run, file: IO[bytes]) -> None:
    """Keep the frame of a run, an open Parquet file, for the others."""
    file.seek(0)
    with storage.writing(f"{folder(run.model, run.id)}/{FRAME}") as out:
        shutil.copyfileobj(file, out, 1 << 20)


def keep_rows(storage: Storage, run: Run, train: np.ndarray, pairs: Pairs) -> None:
    """Keep which rows of the frame are trained on, and the folds of these."""
    arrays = {"train": train.astype(np.int32)}
    for number, (fit, score) in enumerate(pairs):
        arrays |= {f"fit_{number}": fit.astype(np.int32), f"score_{number}": score.astype(np.int32)}
    content = io.BytesIO()
    np.savez(content, **arrays)  # type: ignore[arg-type]  # any name but `allow_pickle` is that of an array
    storage.write(f"{folder(run.model, run.id)}/{ROWS_FILE}", content.getvalue())


def frame(storage: Storage, run: Run) -> IO[bytes]:
    """The frame that was kept for a run's search.

    Raises:
        FileNotFoundError: where the search has ended.
    """
    return io.BytesIO(storage.read(f"{folder(run.model, run.id)}/{FRAME}"))


def rows(storage: Storage, run: Run) -> tuple[np.ndarray, Pairs]:
    """The numbers of the rows that are trained on, and the folds of these.

    Raises:
        FileNotFoundError: where the search has ended.
    """
    with np.load(io.BytesIO(storage.read(f"{folder(run.model, run.id)}/{ROWS_FILE}")), allow_pickle=False) as kept:
        count = sum(name.startswith("fit_") for name in kept.files)
        return kept["train"], tuple((kept[f"fit_{number}"], kept[f"score_{number}"]) for number in range(count))


def remove(storage: Storage, run: Run) -> None:
    """Remove what was shared of a run."""
    for name in (FRAME, ROWS_FILE):
        storage.remove(f"{folder(run.model, run.id)}/{name}")


def sweep(storage: Storage, registry: Registry) -> None:
    """Remove what searches have left whose processes were killed."""
    for name in storage.names("runs", ""):
        _, *of, file = name.split("/")
        if file in (FRAME, ROWS_FILE) and not _goes_on(registry, of[-1]):
            storage.remove(name)
            log.warning("removed %s: its search is over", name)


def _goes_on(registry: Registry, run: str) -> bool:
    try:
        return registry.runs.get(run).status == "running"
    except UnknownName:
        return False


# --- the board on which the workers of one search agree, in Redis: who has which trial in hand, and what came of it.
#
# A trial is claimed by whoever comes first, also when the process that had it in hand before has lost its lease. Its
# result counts once: it is recorded in one transaction, only by the run that holds the claim, only while its lease is
# there. So a helper that was killed loses nothing, and one that wakes up late adds nothing.

KEPT_SECONDS = 24 * 3600
"""How long the board can still be looked at; the runs of its trials are kept as other runs are."""
ATTEMPTS = 3
"""How often a trial is begun; a search goes on without one whose process is killed each time."""
KILLED = f"its process was killed {ATTEMPTS} times"


@dataclass(frozen=True, kw_only=True)
class TrialState:
    """How far a trial is."""

    run: str
    """The run that has it in hand, or had it."""
    lease: str
    """The key that keeps the claim from expiring; empty for one that does not expire."""
    status: Literal["running", "succeeded", "failed"] = "running"
    attempt: int = 1
    score: float | None = None
    params: dict[str, Any] | None = None
    """Only those that could not be made again."""
    error: str = ""

    @property
    def ended(self) -> bool:
        """Whether nobody has to do it any more."""
        return self.status != "running"


@dataclass(frozen=True)
class Counts:
    """How many trials of a search have begun, ended and, of these, failed."""

    begun: int
    ended: int
    failed: int


class Board:
    """The trials 1 to `total` of the search of the run `parent`; each call costs the same however many there are."""

    def __init__(self, redis: Redis, parent: Run, total: int) -> None:
        self.redis = redis
        self.parent = parent
        self.total = total
        self.key = keys.search(parent.id)
        self.in_hand = keys.search_in_hand(parent.id)

    def counts(self) -> Counts:
        """How far the search is."""
        return _counts(self.redis, self.key)

    def states(self) -> dict[int, TrialState]:
        """The trials that were ever begun, by number."""
        found = {int(name): text for name, text in self.redis.hgetall(self.key).items() if name.isdecimal()}
        return {number: TrialState(**orjson.loads(found[number])) for number in sorted(found)}

    def claim(self, child: Run) -> Run | None:
        """Take a trial that nobody has in hand, and record `child` as its run; None where there is none.

        Raises:
            RunEnded: where the search has ended, or one of the leases has expired.
        """

        def take(pipe: Pipeline) -> Run | None:
            require_running(pipe, self.parent)
            require_lease(pipe, self.parent)
            require_lease(pipe, child)
            counts, left = _counts(pipe, self.key), self._left(pipe)
            if left is None and counts.begun == self.total:
                pipe.multi()
                return None
            if left is not None:
                number, state = left, self._state(pipe, left)
                begun = replace(state, run=child.id, lease=child.lease, attempt=state.attempt + 1)
            else:
                number, begun = counts.begun + 1, TrialState(run=child.id, lease=child.lease)
            pipe.multi()
            if begun.attempt > ATTEMPTS:
                self._end(pipe, number, replace(begun, run=state.run, status="failed", error=KILLED))
                return child  # which has no number: look again
            if left is None:
                pipe.hincrby(self.key, "begun", 1)
            claimed = replace(child, trial=number)
            self._put(pipe, number, begun)
            pipe.hset(self.in_hand, str(number), begun.lease)
            pipe.expire(self.in_hand, KEPT_SECONDS)
            write(pipe, claimed)
            pipe.sadd(keys.RUNNING, child.id)
            pipe.zadd(keys.trials(self.parent.id), {child.id: number})
            return claimed

        watched = (self.key, keys.run(self.parent.id), *lease_of(self.parent), *lease_of(child))
        while True:
            claimed: Run | None = self.redis.transaction(take, *watched, value_from_callable=True)
            if claimed is None or claimed.trial is not None:
                return claimed

    def record(self, child: Run, score: float | None, params: dict[str, Any] | None) -> None:
        """Record that a claimed trial has ended as `child` says; `score` is None where it failed.

        Raises:
            RunEnded: where the trial was taken over by another run, this one was closed, or its lease has expired.
        """
        number = child.trial
        assert number is not None, "claim has given it a number"

        def end(pipe: Pipeline) -> None:
            require_running(pipe, child)
            require_lease(pipe, child)
            state = self._state(pipe, number)
            if state.run != child.id or state.ended:
                raise RunEnded(child.id, "lost", "another run has taken over its trial")
            status: Literal["succeeded", "failed"] = "failed" if score is None else "succeeded"
            pipe.multi()
            self._end(pipe, number, replace(state, status=status, score=score, params=params, error=child.error))
            write(pipe, child)
            pipe.srem(keys.RUNNING, child.id)

        self.redis.transaction(end, self.key, keys.run(child.id), *lease_of(child))

    def _left(self, pipe: Pipeline) -> int | None:
        """The first trial whose process has lost its lease; an empty lease does not expire."""
        in_hand = {int(number): lease for number, lease in pipe.hgetall(self.in_hand).items()}
        return next((n for n in sorted(in_hand) if in_hand[n] and not pipe.exists(in_hand[n])), None)

    def _state(self, pipe: Pipeline, number: int) -> TrialState:
        return TrialState(**orjson.loads(pipe.hget(self.key, str(number))))

    def _end(self, pipe: Pipeline, number: int, state: TrialState) -> None:
        self._put(pipe, number, state)
        pipe.hdel(self.in_hand, str(number))
        pipe.hincrby(self.key, "ended", 1)
        pipe.hincrby(self.key, "failed", 1 if state.status == "failed" else 0)

    def _put(self, pipe: Pipeline, number: int, state: TrialState) -> None:
        pipe.hset(self.key, str(number), orjson.dumps(asdict(state)))
        pipe.expire(self.key, KEPT_SECONDS)


def _counts(redis: Redis | Pipeline, key: str) -> Counts:
    return Counts(*(int(count or 0) for count in redis.hmget(key, "begun", "ended", "failed")))
