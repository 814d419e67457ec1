"""Training frames: labelled rows joined with the features that were visible at each row's time.

The rule: a spine row (keys, t) sees, of each source, the newest row of its entity with event_time <= t; of equal event
times the one ingested later; never a value from after t. A null key matches nothing. The frame has exactly the rows of
the spine.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from modelmill.declarations import Model
from modelmill.definitions import Definitions, FeatureRef
from modelmill.errors import Conflict
from modelmill.storage import Storage
from services.feature import history
from services.feature.validate import EVENT_TIME


def training_frame(
    storage: Storage, definitions: Definitions, model: Model, *, start: datetime | None, end: datetime | None
) -> pa.Table:
    """The frame of a model: `_event_time`, its features, its inputs, its label, ordered by event time.

    Its spine is the rows of the label's source with start <= event time < end.

    Raises:
        Conflict: where there are no such rows.
    """
    source = definitions.label_source(model)
    keys = [entity.key for entity in model.entities]
    columns = dict.fromkeys([EVENT_TIME, *keys, *model.inputs, model.label])
    wanted = history.schema(definitions, source)
    spine = history.read(storage, wanted, source.name, list(columns), start=start, end=end)
    if not spine.num_rows:
        raise Conflict(
            f"source {source.name!r} has no rows to train {model.name!r} on"
            f"{f' from {start}' if start else ''}{f' until {end}' if end else ''}; ingest some first"
        )
    spine = spine.take(pc.sort_indices(spine[EVENT_TIME]))  # a stable sort: ties stay in the order of ingest
    features = dict[str, pa.ChunkedArray]()
    for entity_source, refs in _by_source(definitions.resolve([e.name for e in model.entities], model.features)):
        owner = definitions.source(entity_source)
        key = owner.entities[0].key
        needed = dict.fromkeys([EVENT_TIME, key, *(ref.field for ref in refs)])
        rows = history.read(storage, history.schema(definitions, owner), owner.name, list(needed), end=end)
        positions = visible_rows(spine[EVENT_TIME], spine[key], rows[EVENT_TIME], rows[key])
        for ref in refs:
            features[ref.name] = rows[ref.field].take(positions)
    return pa.table(
        {
            EVENT_TIME: spine[EVENT_TIME],
            **{name: features[name] for name in model.features},
            **{name: spine[name] for name in model.inputs},
            model.label: spine[model.label],
        }
    )


def visible_rows(
    times: pa.ChunkedArray, keys: pa.ChunkedArray, row_times: pa.ChunkedArray, row_keys: pa.ChunkedArray
) -> pa.Array:
    """For each spine row (time, key) the position of the row that it sees, or null.

    Args:
        times, keys: of the spine, length n, in any order; times are microseconds since 1970, or Arrow timestamps.
        row_times, row_keys: of the rows, in the order of their ingest.

    Returns:
        n positions into the rows.
    """
    known = pc.unique(row_keys.combine_chunks()).drop_null()
    spine = _sorted(times, pc.index_in(keys, known), "spine")
    rows = _sorted(row_times, pc.index_in(row_keys, known), "row")
    joined = pd.merge_asof(spine, rows, on="time", by="key", direction="backward")
    positions = np.full(len(times), -1, np.int64)
    positions[joined["spine"].to_numpy()] = joined["row"].fillna(-1).to_numpy(np.int64)
    return pa.array(positions, mask=positions < 0)


def _sorted(times: pa.ChunkedArray, codes: pa.ChunkedArray, name: str) -> pd.DataFrame:
    """Time, key code and position of each row that has a key, ordered by time; ties stay in their order."""
    frame = pd.DataFrame(
        {
            "time": times.cast(pa.int64()).to_numpy(),
            "key": pc.fill_null(codes, -1).to_numpy(),
            name: np.arange(len(times)),
        }
    )
    return frame[frame["key"] >= 0].sort_values("time", kind="stable")


def _by_source(refs: Sequence[FeatureRef]) -> Iterator[tuple[str, list[FeatureRef]]]:
    for source in dict.fromkeys(ref.source for ref in refs):
        yield source, [ref for ref in refs if ref.source == source]
