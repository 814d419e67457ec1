"""Figures come out as Markdown."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import orjson
import pytest

from benchmarks import report
from benchmarks.report import Machine, Table, save


def test_a_table_shows_three_digits_and_leaves_out_what_is_not_there() -> None:
    table = Table(
        "Ingest", ["way", "rows/s", "ratio", "rows"], [["CSV", 38123.4, 0.26149, 100_000], ["pipe", 1.0, None, 7]]
    )
    assert table.markdown().splitlines()[2:] == [
        "| way | rows/s | ratio | rows |",
        "| --- | ---: | ---: | ---: |",
        "| CSV | 38,123 | 0.261 | 100,000 |",
        "| pipe | 1.00 |  | 7 |",
    ]


def test_a_note_stands_under_its_table() -> None:
    assert Table("Ingest", ["way"], [["CSV"]], "In one request.").markdown().endswith("| CSV |\n\nIn one request.\n")


def test_figures_of_numpy_are_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    machine = Machine("EPYC", 2, "Linux", "3.11", "7.0", 1, 4)
    file = save(machine, [Table("Ingest", ["way", "rows/s"], [["CSV", np.float64(0.5)]])])
    assert orjson.loads(file.read_bytes())["tables"][0]["rows"] == [["CSV", 0.5]]
