"""What the workers of one search share, in the storage: the frame as the feature service sent it, and which of its
rows are trained on and judged on. Both are removed when the search ends.
"""

from __future__ import annotations

import io
import logging
import shutil
from typing import IO

import numpy as np

from modelmill.errors import UnknownName
from modelmill.state.registry import Registry
from modelmill.state.runs import Run, folder
from modelmill.storage import Storage

log = logging.getLogger(__name__)

Pairs = tuple[tuple[np.ndarray, np.ndarray], ...]
"""Of each fold the rows to fit on, and those to score."""
FRAME = "frame.parquet"
ROWS = "rows.npz"


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
    storage.write(f"{folder(run.model, run.id)}/{ROWS}", content.getvalue())


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
    with np.load(io.BytesIO(storage.read(f"{folder(run.model, run.id)}/{ROWS}")), allow_pickle=False) as kept:
        count = sum(name.startswith("fit_") for name in kept.files)
        return kept["train"], tuple((kept[f"fit_{number}"], kept[f"score_{number}"]) for number in range(count))


def remove(storage: Storage, run: Run) -> None:
    """Remove what was shared of a run."""
    for name in (FRAME, ROWS):
        storage.remove(f"{folder(run.model, run.id)}/{name}")


def sweep(storage: Storage, registry: Registry) -> None:
    """Remove what searches have left whose processes were killed."""
    for name in storage.names("runs", ""):
        _, *of, file = name.split("/")
        if file in (FRAME, ROWS) and not _goes_on(registry, of[-1]):
            storage.remove(name)
            log.warning("removed %s: its search is over", name)


def _goes_on(registry: Registry, run: str) -> bool:
    try:
        return registry.runs.get(run).status == "running"
    except UnknownName:
        return False
