"""All runs in this process's memory, so that they can be looked through in milliseconds.

Redis stays the truth: before each answer the runs that changed since the last one are read from it, and a process that
starts reads them all. Only what filters and orders look at is kept (`columns`): about 1 KB a run, so 10 MB for 10,000.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Event as Flag
from threading import Lock

import numpy as np

from modelmill.errors import InvalidRequest
from modelmill.state.connections import AWAY
from modelmill.state.runs import BATCH, Runs
from services.trainer.runs import order as orders
from services.trainer.runs.columns import Block, absent
from services.trainer.runs.filter import Condition, names, parse
from services.trainer.runs.matching import check, matches, missing, require_field
from services.trainer.runs.order import Direction, Key

log = logging.getLogger(__name__)

PAUSE = 2.0
"""Seconds between two looks at what changed while nobody asks."""
PARENT = "parent"
"""The field of a trial with the run of its search."""
TRIAL_FIELDS = {PARENT, "trial"}
"""A filter on one of these is about trials."""
TIES = [Direction("started", True), Direction("id", True)]
"""How runs are ordered that are equal in all fields asked for."""


@dataclass(frozen=True)
class Page:
    """Some of the runs that match, in order."""

    ids: list[str]
    total: int
    """Runs that match in all."""
    next: str | None
    """The cursor of the page after this one."""


class RunIndex:
    """The runs of a registry as columns; any number of threads may ask."""

    def __init__(self, runs: Runs) -> None:
        self.runs = runs
        self._lock = Lock()
        self._forget_all()

    def _forget_all(self) -> None:
        self._blocks: dict[str, Block] = {}
        self._models: dict[str, str] = {}
        """Run to its model."""
        self._position = 0.0
        self._order: np.ndarray | None = None
        """The rows of all blocks one after the other, newest first."""
        self._ranked: dict[str, np.ndarray] = {}
        """Field to its values as ranks, of those that lists were ordered by since the last change."""

    # --- what is in Redis

    def follow(self, stop: Flag) -> None:
        """Read what changed every `PAUSE` seconds until `stop` is set, so that no question waits for much of it."""
        while True:
            try:
                with self._lock:
                    self._refresh()
            except AWAY as error:
                log.warning("cannot read the runs that changed: %s", error)
            if stop.wait(PAUSE):
                return

    def _refresh(self) -> None:
        if not self._position:
            self.runs.mark_all()
        changed, count = self.runs.changes(self._position)
        for start in range(0, len(changed), BATCH):
            batch = changed[start : start + BATCH]
            for (run_id, position), found in zip(batch, self.runs.hashes([one for one, _ in batch]), strict=True):
                self._take(run_id, found)
                self._position = position
        if changed:
            self._forget_order()
        if len(self._models) != count:
            self._reconcile()

    def _take(self, run_id: str, found: dict[str, str]) -> None:
        model = found.get("model")
        if not model:
            self._forget(run_id)
            return
        self._blocks.setdefault(model, Block()).put(run_id, found)
        self._models[run_id] = model

    def _forget(self, run_id: str) -> None:
        if model := self._models.pop(run_id, None):
            self._blocks[model].remove(run_id)

    def _reconcile(self) -> None:
        """Forget runs that Redis no longer has; read those that are missing here, as after a restored backup."""
        there = self.runs.ids()
        for run_id in self._models.keys() - there:
            self._forget(run_id)
        missing = sorted(there - self._models.keys())
        for run_id, found in zip(missing, self.runs.hashes(missing), strict=True):
            self._take(run_id, found)
        self._forget_order()

    def _forget_order(self) -> None:
        self._order = None
        self._ranked.clear()

    # --- questions

    def fields_of(self, ids: Sequence[str]) -> set[str]:
        """The names of all fields that the models of these runs have."""
        with self._lock:
            models = {self._models[run_id] for run_id in ids if run_id in self._models}
            return {name for model in models for name in self._blocks[model].columns}

    def _fields(self) -> set[str]:
        return {name for block in self._blocks.values() for name in block.columns}

    def search(
        self,
        filter_text: str = "",
        *,
        model: str | None = None,
        order: str = orders.NEWEST,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> Page:
        """The runs that a filter matches (default all), after `cursor` where one is given.

        Raises:
            InvalidFilter: for a filter that cannot be read or names a field that no run has.
            InvalidRequest: for an order or a cursor that makes no sense.
        """
        condition = parse(filter_text) if filter_text.strip() else None
        by = orders.directions(order)
        with self._lock:
            self._refresh()
            known = self._fields()
            if condition is not None:
                condition = check(filter_text, condition, known)
            for direction in by:
                if problem := require_field(direction.field, known):
                    raise InvalidRequest(f"order={order!r}: {problem}", field="order")
            rows = orders.sorted_rows(self._matching(condition, model), by, [self._ranks(d.field) for d in by])
            start = self._start(rows, by, order, cursor) if cursor else 0
            page = rows[start:] if limit is None else rows[start : start + limit]
            more = start + len(page) < len(rows)
            ids = self._all("id")
            return Page(
                ids=[str(ids[row]) for row in page],
                total=len(rows),
                next=orders.to_cursor(order, self._keys(int(page[-1]), [*by, *TIES])) if more and len(page) else None,
            )

    def _matching(self, condition: Condition | None, model: str | None) -> np.ndarray:
        """The rows of the runs that match, newest first."""
        newest = self._newest_first()
        trials = condition is not None and not TRIAL_FIELDS.isdisjoint(names(condition))
        masks = [
            _mask(block, condition, trials=trials) if model in (None, name) else np.zeros(len(block), dtype=bool)
            for name, block in self._blocks.items()
        ]
        return newest[np.concatenate(masks)[newest]] if masks else newest

    def _newest_first(self) -> np.ndarray:
        if self._order is None:
            ids = self._all("id")
            rows = np.array(sorted(range(len(ids)), key=ids.__getitem__, reverse=True), dtype=np.intp)
            self._order = rows[np.argsort(-self._all("started")[rows], kind="stable")]
        return self._order

    def _ranks(self, name: str) -> np.ndarray:
        if name not in self._ranked:
            self._ranked[name] = orders.ranks(self._all(name))
        return self._ranked[name]

    def _all(self, name: str) -> np.ndarray:
        """The values of a field of all runs, block after block."""
        parts = []
        for block in self._blocks.values():
            column = block.column(name)
            if column is None:
                value = absent(name)
                column = np.full(len(block), value, dtype=object if value is None else float)
            parts.append(column)
        return np.concatenate(parts) if parts else np.array([], dtype=float if absent(name) is not None else object)

    def _keys(self, row: int, by: list[Direction]) -> list[Key]:
        return [orders.key(self._all(direction.field)[row]) for direction in by]

    def _start(self, rows: np.ndarray, by: list[Direction], order: str, cursor: str) -> int:
        """The first place in `rows` that comes after the cursor's run, whether or not that is still there."""
        all_by = [*by, *TIES]
        ended = orders.from_cursor(cursor, order, len(all_by))
        columns = [self._all(direction.field) for direction in all_by]
        low, high = 0, len(rows)
        while low < high:
            middle = (low + high) // 2
            keys = [orders.key(column[rows[middle]]) for column in columns]
            if orders.comes_after(keys, ended, all_by):
                high = middle
            else:
                low = middle + 1
        return low


def _mask(block: Block, condition: Condition | None, *, trials: bool) -> np.ndarray:
    """Which runs of a block match; trials of a search only where they are asked for."""
    mask = np.ones(len(block), dtype=bool) if condition is None else matches(condition, block)
    parents = block.column(PARENT)
    return mask if trials or parents is None else mask & missing(parents)
