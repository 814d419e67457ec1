"""Every classifier and regressor of scikit-learn is packaged, and docs/estimators.md says how."""

from __future__ import annotations

import pytest

from docs import estimators
from docs.estimators import Kind, Outcome, surveyed


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["classifier", "regressor"])
def test_every_estimator_is_served_and_the_page_says_by_what(kind: Kind) -> None:
    outcomes = list(surveyed(kind))
    print(estimators.table(outcomes))
    on_page = estimators.outcomes_on(estimators.PAGE.read_text())
    differing = [one for one in outcomes if on_page.get(one.name) != one.served]
    assert not differing, "run `python -m docs.estimators`"
    assert not [one.name for one in outcomes if one.served == "nothing"]


def test_a_reason_fits_into_a_cell_of_a_table() -> None:
    long = Outcome("X", "scikit-learn", "0", estimators._short("a | b\n<c>" + 200 * "d" + "; another"))
    [_, _, row] = estimators.table([long]).splitlines()
    assert row.startswith("| `X` | scikit-learn | 0 | a \\| b &lt;c>ddd")
    assert row.endswith("d... |")
    assert estimators.outcomes_on(row) == {"X": "scikit-learn"}
