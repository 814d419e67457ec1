"""Runs that are repeated, through a real feature service."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from examples import flights
from examples.flights import data
from modelmill.errors import Conflict
from modelmill.state import keys
from modelmill.state.runs import Run, code_file
from services.feature.proof.forget import forget
from services.feature.upkeep.compaction import compact
from services.feature.upkeep.statistics import StatisticsFiles
from services.trainer.trace.compare import reports
from services.trainer.trace.reproduce import reproduce
from tests.conftest import USERS_MILL
from tests.trainer.trace.conftest import House, users

pytestmark = pytest.mark.redis
FLIGHTS_MILL = Path(flights.__file__).with_name("mill.py")
ROWS = {"weather": 300, "landings": 3000, "flights": 3500}
"""Source to its first rows of January, some four days."""
DRAWING = """
def classifier():
    import numpy as np
    from sklearn.linear_model import LogisticRegression
    return LogisticRegression(C=np.random.default_rng().uniform(0.001, 0.1))
"""
FOREST = """
def classifier():
    from sklearn.ensemble import RandomForestClassifier
    return RandomForestClassifier(n_estimators=5)
"""


def differing(report: dict[str, Any]) -> list[str]:
    return [check["name"] for check in report["checks"] if not check["equal"]]


@pytest.fixture
def run(house: House) -> Run:
    house.ingest("users", users())
    return house.train()


def test_a_run_says_what_it_was_made_of(house: House, run: Run) -> None:
    assert run.source_rows == {"users": 200}
    assert run.history.keys() == {"users"}
    assert "threads" in run.machine
    assert house.storage.read(code_file(run.model, run.id)).decode() == house.mill.read_text()


def test_a_repetition_is_equal_bit_for_bit(house: House, run: Run) -> None:
    report = reproduce(run.id, by="me")
    assert report["equal"], report
    assert report["reasons"] == []
    assert [check["name"] for check in report["checks"] if not check["name"].startswith("metric ")] == [
        "rows of users", "rows to train on", "rows held out", "rows dropped", "training frame", "split", "estimator",
        "served by", "predictions",
    ]  # fmt: skip
    assert {f"metric {name}" for name in run.metrics} <= {check["name"] for check in report["checks"]}
    assert reports(house.storage, run) == [report]


@pytest.mark.slow
def test_the_flights_example_is_repeated_bit_for_bit(house: House) -> None:
    """Aggregates over landings, weather, request inputs, a split by time and segments."""
    house.define(FLIGHTS_MILL.read_text())
    early = {name: rows.head(count) for name, count in ROWS.items() for rows in [data.month(1)[name]]}
    for source, rows in early.items():
        house.ingest(source, rows)
    runs = [house.train(model, end="2013-01-04T12:00:00Z") for model in ("flight_late", "flight_late_plain")]
    assert runs[0].source_rows == ROWS
    for source, rows in early.items():
        house.ingest(source, rows.head(200))  # again, into the windows that these runs have seen
    for run in runs:
        report = reproduce(run.id)
        assert report["equal"], report


def test_it_registers_nothing(house: House, run: Run) -> None:
    keys_before = {key: house.registry.redis.dump(key) for key in house.registry.redis.scan_iter()}
    reproduce(run.id)
    assert {key: house.registry.redis.dump(key) for key in house.registry.redis.scan_iter()} == keys_before


def test_rows_that_came_since_do_not_count(house: House, run: Run) -> None:
    house.ingest("users", users(50, seed=1))
    house.ingest("users", [users(1)[0] | {"feature_1": 9.0}])
    assert house.train().source_rows == {"users": 251}
    assert reproduce(run.id)["equal"]


def test_it_fits_by_the_recorded_code_though_other_definitions_are_in_force(house: House, run: Run) -> None:
    """Its features are no longer stored either: compaction has dropped them."""
    for number in range(2, 5):
        house.ingest("users", users(5, seed=number))
    text = USERS_MILL.read_text()
    house.define(text.replace('["feature_1"] ** 2', '["feature_1"] ** 3').replace("LogisticRegression()", "LogisticRegression(C=9)"))  # fmt: skip
    assert house.train().data_fingerprint != run.data_fingerprint
    assert house.train().definitions != run.definitions
    assert compact(house.catalogue, "users", fewest=2) == 4
    assert reproduce(run.id)["equal"]


def test_the_code_comes_back_from_the_storage_where_redis_has_lost_it(house: House, run: Run) -> None:
    redis = house.registry.redis
    house.define(house.mill.read_text() + "\n# another one\n")
    redis.delete(keys.definitions_text(run.definitions))
    assert reproduce(run.id)["equal"]
    assert redis.exists(keys.definitions_text(run.definitions))
    redis.delete(keys.definitions_text(run.definitions))
    house.storage.write(code_file(run.model, run.id), b"# something else")
    with pytest.raises(Conflict, match="differs from the SHA-256"):
        reproduce(run.id)
    house.storage.remove(code_file(run.model, run.id))
    with pytest.raises(Conflict, match="is kept no more"):
        reproduce(run.id)


def test_what_was_forgotten_since_is_counted(house: House, run: Run) -> None:
    files = StatisticsFiles(house.storage)
    for number in (3, 4):
        forget(house.catalogue, files, "user", f"user-0-{number}")
    report = reproduce(run.id)
    assert not report["equal"]
    assert {"rows of users", "training frame"} <= set(differing(report))
    assert report["reasons"] == [
        "rows of source 'users' that are gone: 2 of 200; forgotten of it since then: 2, about 2 entities"
    ]


def with_estimator(house: House, text: str, **replaced: str) -> None:
    """Let the users example fit something else."""
    mill = house.mill.read_text()
    start, end = mill.index("def classifier"), mill.index("Model(")
    model = mill[end:].replace("    estimator=classifier,\n", f"    estimator=classifier,\n{replaced.get('more', '')}")
    house.define(mill[:start] + text.lstrip() + "\n\n" + model)


def test_code_that_draws_random_numbers_of_its_own_is_suspected(house: House) -> None:
    with_estimator(house, DRAWING)
    house.ingest("users", users())
    report = reproduce(house.train().id)
    assert {"parameter C", "predictions"} <= set(differing(report))
    assert "training frame" not in differing(report)
    [reason] = report["reasons"]
    assert "draws random numbers that no seed decides" in reason


def test_an_estimator_that_left_its_seed_open_was_given_that_of_the_model(house: House) -> None:
    with_estimator(house, FOREST)
    house.ingest("users", users())
    assert reproduce(house.train().id)["equal"]


SPACES = {
    "grid": 'search={"max_depth": [2, 4], "max_features": [1, 2]}',
    "random": 'search={"max_depth": [1, 2, 3, 4, 5], "max_features": [1, 2, 3]}, trials=4',
    "guided": "search=space, trials=4",
}
OPTUNA = """
def space():
    from optuna.distributions import FloatDistribution, IntDistribution
    return {"max_depth": IntDistribution(1, 9), "max_samples": FloatDistribution(0.1, 0.9)}
"""


@pytest.mark.parametrize("kind", SPACES)
def test_of_a_search_the_parameters_that_won_are_fitted_again(house: House, kind: str) -> None:
    with_estimator(house, FOREST + OPTUNA, more=f"    {SPACES[kind]},\n    cv=2,\n")
    house.ingest("users", users())
    run = house.train()
    report = reproduce(run.id)
    assert report["equal"], report
    assert len(house.registry.runs.trials(run.id)) == run.trials
    trial = house.registry.runs.trials(run.id)[0]
    with pytest.raises(Conflict, match=f"is a trial of the search of run {run.id}; repeat that one"):
        reproduce(trial.id)


WEIGHED = """
def classifier():
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.ensemble import VotingClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.tree import DecisionTreeClassifier

    tree = CalibratedClassifierCV(make_pipeline(StandardScaler(), DecisionTreeClassifier(max_depth=3)), cv=2)
    linear = GridSearchCV(make_pipeline(StandardScaler(), LogisticRegression()), {"logisticregression__C": [0.1, 1]})
    return VotingClassifier([("tree", tree), ("linear", linear)], voting="soft")
"""


@pytest.mark.slow
def test_an_ensemble_that_was_searched_with_weights_is_fitted_with_them_again(house: House) -> None:
    search = 'search={"tree__method": ["sigmoid", "isotonic"]}, cv=2, class_weight={1: 3}'
    with_estimator(house, WEIGHED, more=f"    {search},\n")
    house.ingest("users", users())
    run = house.train()
    assert [trial.error for trial in house.registry.runs.trials(run.id)] == ["", ""]
    report = reproduce(run.id)
    assert report["equal"], report


def test_other_packages_machines_and_commits_are_told_even_where_all_is_equal(house: House, run: Run) -> None:
    redis = house.registry.redis
    redis.hset(keys.run(run.id), mapping={"packages.numpy": "1.0", "machine": "an abacus", "git_commit": "0" * 40})
    report = reproduce(run.id)
    assert report["equal"]
    assert [reason.partition(", is ")[0] for reason in report["reasons"]] == [
        "package numpy was 1.0", "machine was an abacus", "git commit was 000000000000",
    ]  # fmt: skip


def test_what_the_definitions_import_is_kept_and_repeats_the_run(house: House, tmp_path: Path) -> None:
    (tmp_path / "own_maths.py").write_text("def squared(x):\n    return x * x\n")
    text = house.mill.read_text().replace('row["feature_1"] ** 2', 'squared(row["feature_1"])')
    house.define("from own_maths import squared\n" + text)
    house.ingest("users", users())
    run = house.train()
    copy = f"runs/{run.model}/{run.id}/modules/own_maths.py"
    assert run.modules.keys() == {"own_maths.py"}
    assert b"x * x" in house.storage.read(copy)
    (tmp_path / "own_maths.py").write_text("def squared(x):\n    return x * 7\n")
    assert (reproduce(run.id)["equal"], reproduce(run.id)["reasons"]) == (True, [])
    house.registry.redis.delete(keys.definitions_text(run.definitions))
    assert reproduce(run.id)["equal"], "by the copy in the storage"
    house.registry.redis.delete(keys.definitions_text(run.definitions))
    house.storage.write(copy, b"# something else")
    with pytest.raises(Conflict, match=r"mill\.py or a module beside it differs from the SHA-256"):
        reproduce(run.id)


def test_a_run_that_did_not_succeed_cannot_be_repeated(house: House) -> None:
    house.registry.runs.start(Run(id="r", model="user_target", started="2026-01-01T00:00:00.000000Z"))
    with pytest.raises(Conflict, match="run r is running; expected one that succeeded"):
        reproduce("r")


def test_a_run_without_a_position_cannot_be_repeated(house: House, run: Run) -> None:
    house.registry.redis.hdel(keys.run(run.id), "history.users")
    with pytest.raises(Conflict, match="does not say at which position"):
        reproduce(run.id)


@pytest.mark.parametrize("trigger", ["registered", "manual log"])
def test_what_was_fitted_elsewhere_cannot_be_repeated(house: House, run: Run, trigger: str) -> None:
    house.registry.redis.hset(keys.run(run.id), "trigger", trigger)
    with pytest.raises(Conflict, match=rf"was fitted elsewhere \({trigger}\); only what was trained here"):
        reproduce(run.id)


def test_a_package_that_is_gone_is_told(house: House, run: Run) -> None:
    house.storage.files.rm(house.storage.path(run.package), recursive=True)
    report = reproduce(run.id)
    assert differing(report) == ["predictions"]
    assert "a file is missing" in report["checks"][-1]["recorded"]
    assert report["reasons"] == [], "nobody's code is blamed for it"


def test_of_a_pruned_version_all_but_the_predictions_are_compared(house: House, run: Run) -> None:
    second = house.train()
    house.registry.rollback(run.model, by="me", reason="nothing returns to it any more")
    house.train()
    assert house.registry.prune(run.model, 1, {}, by="me").pruned == [second.version]
    house.storage.files.rm(house.storage.path(second.package), recursive=True)
    report = reproduce(second.id)
    assert report["equal"]
    assert "predictions" not in [check["name"] for check in report["checks"]]
    [reason] = report["reasons"]
    assert reason.startswith("predictions were not compared: 'user_target' version 2 was pruned at ")


def test_a_training_on_a_span_is_repeated_on_that_span(house: House, run: Run) -> None:
    after = datetime.fromisoformat(run.history["users"]) + timedelta(microseconds=1)
    house.ingest("users", users(100, seed=1))
    later = house.train(start=after.isoformat())
    assert (later.rows_train + later.rows_test, bool(later.start)) == (100, True)
    assert reproduce(later.id)["equal"]
