"""What mill.py declares does what it is meant to; needs no services and no Redis."""

from pathlib import Path

import data

from modelmill import testing

MILL = testing.load(Path(__file__).with_name("mill.py"))


def test_spent_per_order_is_the_mean_of_the_orders():
    found = testing.features(MILL, "customers", [{"orders": 4, "spent": 100.0, "days_since_order": 3}])
    assert found["spent_per_order"].tolist() == [25.0]


def test_orders_again_learns_from_the_sample():
    fitted = testing.fit(MILL, "orders_again", data.rows(500))
    assert fitted.estimator.score(fitted.inputs, fitted.label) > 0.7
