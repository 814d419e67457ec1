"""Figures come out as Markdown."""

from __future__ import annotations

from benchmarks.report import Table


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
