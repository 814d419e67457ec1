"""What the workers of one search share, in the storage: the frame as the feature service sent it, and which of its
rows are trained on and judged on. Both are removed when the search ends.
"""

from __future__ import annotations

import io
import shutil
from contextlib import suppress
from typing import IO, Any

import numpy as np

from modelmill.errors import UnknownName
from modelmill.registry import Registry
from modelmill.runs import Run
from modelmill.storage import Storage
from services.trainer.training.folds import Folds

FRAME = "frame.parquet"
ROWS = "rows.npz"


def folder(run: Run) -> str:
    """Where the files of a run are."""
    return f"runs/{run.model}/{run.id}"


def keep_frame(storage: Storage, run: Run, file: IO[bytes]) -> None:
    """Keep the frame of a run, an open Parquet file, for the others."""
    file.seek(0)
    with storage.writing(f"{folder(run)}/{FRAME}") as out:
        shutil.copyfileobj(file, out, 1 << 20)


def keep_rows(storage: Storage, run: Run, train: np.ndarray, folds: Folds) -> None:
    """Keep which rows of the frame are trained on, and the folds of these."""
    arrays: dict[str, Any] = {"how": np.array(folds.how), "train": train.astype(np.int32)}
    for number, (fit, score) in enumerate(folds.pairs):
        arrays |= {f"fit_{number}": fit.astype(np.int32), f"score_{number}": score.astype(np.int32)}
    content = io.BytesIO()
    np.savez(content, **arrays)
    storage.write(f"{folder(run)}/{ROWS}", content.getvalue())


def frame(storage: Storage, run: Run) -> IO[bytes]:
    """The frame that was kept for a run's search.

    Raises:
        FileNotFoundError: where the search has ended.
    """
    return io.BytesIO(storage.read(f"{folder(run)}/{FRAME}"))


def rows(storage: Storage, run: Run) -> tuple[np.ndarray, Folds]:
    """The numbers of the rows that are trained on, and the folds of these.

    Raises:
        FileNotFoundError: where the search has ended.
    """
    with np.load(io.BytesIO(storage.read(f"{folder(run)}/{ROWS}")), allow_pickle=False) as kept:
        count = sum(name.startswith("fit_") for name in kept.files)
        pairs = tuple((kept[f"fit_{number}"], kept[f"score_{number}"]) for number in range(count))
        return kept["train"], Folds(pairs, str(kept["how"]))


def remove(storage: Storage, run: Run) -> None:
    """Remove what was shared of a run."""
    for name in (FRAME, ROWS):
        storage.remove(f"{folder(run)}/{name}")


def sweep(storage: Storage, registry: Registry, model: str) -> None:
    """Remove what searches of `model` have left whose processes were killed."""
    for name in (*storage.names(f"runs/{model}", f"/{FRAME}"), *storage.names(f"runs/{model}", f"/{ROWS}")):
        with suppress(UnknownName):
            if registry.runs.get(name.split("/")[2]).status == "running":
                continue
        storage.remove(name)
