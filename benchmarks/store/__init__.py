"""The feature store beside Feast, in one run: writes, lookups, bytes, training frames."""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks import data
from benchmarks.effort import Effort
from benchmarks.feast import peer
from benchmarks.report import Table
from benchmarks.store import joins, lookups, sizes, writes
from benchmarks.system import running


def measure(effort: Effort) -> list[Table]:
    """Each comparison in turn; both stores hold the same rows."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        readings, measurements = folder / "readings.parquet", folder / "measurements.parquet"
        data.readings(effort.rows).assign(event_timestamp=data.YEAR).to_parquet(readings, index=False)
        history = data.measurements(effort.rows).rename(columns={"at": "event_timestamp"})
        history.to_parquet(measurements, index=False)
        with running() as system, peer.running(readings, measurements) as feast:
            return [
                writes.measure(system, feast, folder, effort),
                lookups.measure(system, feast, folder, effort),
                sizes.online(system, feast, folder),
                sizes.history(system, folder, effort),
                joins.measure(system, feast, folder, effort),
            ]
