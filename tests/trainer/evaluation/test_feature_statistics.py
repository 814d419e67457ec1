"""Statistics of the rows that a model was trained on."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from services.trainer.evaluation.feature_statistics import SAMPLED, feature_statistics


def test_a_number_has_range_quantiles_and_a_histogram() -> None:
    found = feature_statistics(pd.DataFrame({"x": [*np.arange(101.0), np.nan, np.nan, np.nan]}))["x"]
    assert found["missing"] == pytest.approx(3 / 104)
    assert (found["mean"], found["min"], found["max"]) == (50, 0, 100)
    assert [found[name] for name in ("q05", "q25", "median", "q75", "q95")] == [5, 25, 50, 75, 95]
    assert sum(found["histogram"]["counts"]) == 99  # those between the 1st and the 99th percentile


def test_a_text_has_its_most_frequent_values() -> None:
    found = feature_statistics(pd.DataFrame({"x": np.array(["a", "a", "", "b", *"cdef"], object)}))["x"]
    assert found["missing"] == 1 / 8
    assert found["different"] == 6
    assert len(found["values"]) == 5
    assert next(iter(found["values"].items())) == ("a", 0.25)


def test_a_column_without_values_has_nothing_but_that() -> None:
    assert feature_statistics(pd.DataFrame({"x": [np.nan, np.nan]})) == {"x": {"missing": 1.0}}


def test_a_constant_has_a_histogram_too() -> None:
    assert sum(feature_statistics(pd.DataFrame({"x": [2.0] * 9}))["x"]["histogram"]["counts"]) == 9


def test_many_rows_are_sampled_but_for_means_and_ranges() -> None:
    found = feature_statistics(pd.DataFrame({"x": np.arange(SAMPLED * 5.0)}))["x"]
    assert found["max"] == SAMPLED * 5 - 1
    assert found["median"] == pytest.approx(SAMPLED * 2.5, rel=1e-3)
