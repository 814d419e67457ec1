"""A whole training in this process, against a real Redis and a stand-in for the feature service."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import skops.io

from modelmill.declare.definitions_file import load
from modelmill.errors import DefinitionsError, InvalidRequest, UnknownName
from modelmill.packages import package
from modelmill.state import bus, keys
from modelmill.state.events import ModelPromoted, ModelTrained, RunStarted
from modelmill.state.registry import Registry
from modelmill.storage import Storage
from services.trainer.evaluation import evaluation
from services.trainer.job import train
from services.trainer.packaging import packing as packaging
from services.trainer.packaging.graph import packaged
from services.trainer.training import frame
from services.trainer.training.steps import make_estimator
from tests.conftest import USERS_MILL, RedisServer
from tests.trainer.conftest import FeatureStub, parquet, users_table

pytestmark = pytest.mark.redis


@pytest.fixture
def registry(environment: dict[str, str], real_redis: RedisServer) -> Registry:
    return Registry(real_redis.client())


@pytest.fixture
def mill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A definitions file of the test's own, which starts as the users example."""
    path = tmp_path / "mill.py"
    path.write_text(USERS_MILL.read_text())
    monkeypatch.setenv("MODELMILL_DEFINITIONS", str(path))
    return path


def test_a_training_on_the_rows_before_a_time_says_as_of_when(registry: Registry, feature_stub: FeatureStub) -> None:
    done = train("user_target", "backfill", end="2026-01-01T02:00:00Z")
    run = registry.runs.get(done["run"])
    assert (run.trigger, run.as_of, feature_stub.asked[0]["end"]) == ("backfill", *["2026-01-01T02:00:00Z"] * 2)


def test_a_training_registers_and_promotes_a_version(registry: Registry, feature_stub: FeatureStub) -> None:
    done = train("user_target", by="me", start="2026-01-01T00:00:00+00:00")
    assert (done["version"], done["promoted"]) == (1, True)
    run = registry.runs.get(done["run"])
    assert feature_stub.asked == [
        {"model": "user_target", "definitions": run.definitions, "start": "2026-01-01T00:00:00+00:00", "end": None}
    ]
    version = load(USERS_MILL).features["users"]["feature_3"].version
    assert run.fields == ["users.feature_1", "users.feature_2", f"users.feature_3@{version}"]
    assert registry.version("user_target", 1).fields == run.fields
    assert (run.status, run.stage, run.version, run.by) == ("succeeded", "done", 1, "me")
    assert (run.rows_train, run.rows_test, run.rows_dropped) == (300, 100, 0)
    assert run.metrics == done["metrics"]
    assert run.metrics["accuracy"] > 0.8
    assert run.seconds.keys() == {"frame", "fit", "evaluate", "package", "register"}
    assert run.params["logisticregression__C"] == "1.0"
    assert run.estimator.startswith("Pipeline(")
    assert registry.aliases("user_target") == {"champion": 1}


def test_its_events_are_told_in_order(registry: Registry) -> None:
    train("user_target")
    events = [type(event) for _, event in bus.newest(registry.redis, keys.EVENTS_MODELS, 10)]
    assert events == [RunStarted, ModelTrained, ModelPromoted]


def test_the_package_answers_as_the_estimator_in_it(registry: Registry, tmp_path: Path) -> None:
    train("user_target")
    storage = Storage(f"file://{tmp_path}/storage")
    folder = registry.version("user_target", 1).package
    manifest, graph = package.read(storage, folder)
    estimator = skops.io.loads(package.read(storage, folder, package.ESTIMATOR)[1], trusted=[])
    definitions = load(USERS_MILL)
    inputs = packaging.signature(definitions, definitions.model("user_target")).fed
    label = definitions.sources["users"].columns["target"]
    rows = frame.read(io.BytesIO(parquet(users_table(50, seed=7))), inputs, [label]).inputs
    served = packaged(registry.redis, manifest, graph)
    assert (served.predict(rows) == estimator.predict(rows)).all()
    np.testing.assert_allclose(served.predict_proba(rows), estimator.predict_proba(rows), atol=1e-5)
    assert manifest.example.keys() == {"feature_1", "feature_2", "feature_3"}
    assert manifest.classes == [0, 1]
    assert manifest.entities == {"user": "user_id"}


def test_a_model_of_whole_numbers_above_2_53_is_trained_and_answers_as_its_estimator(
    registry: Registry, mill: Path, feature_stub: FeatureStub, tmp_path: Path
) -> None:
    mill.write_text(mill.read_text().replace('"feature_1": float', '"feature_1": int'))
    numbers = (users_table()["feature_1"].to_numpy() * 10**17).astype(np.int64)
    feature_stub.table = users_table().set_column(1, "feature_1", pa.array(numbers))
    done = train("user_target")
    assert (done["version"], done["metrics"]["accuracy"] > 0.8) == (1, True)
    storage, folder = Storage(f"file://{tmp_path}/storage"), registry.version("user_target", 1).package
    manifest, graph = package.read(storage, folder)
    estimator = skops.io.loads(package.read(storage, folder, package.ESTIMATOR)[1], trusted=[])
    rows = feature_stub.table.select(["feature_1", "feature_2", "feature_3"]).to_pandas()
    served = packaged(registry.redis, manifest, graph)
    np.testing.assert_allclose(served.predict_proba(rows), estimator.predict_proba(rows.astype(np.float64)), atol=1e-5)


def test_a_run_says_what_serves_it_and_how_far_that_is_from_the_estimator(registry: Registry) -> None:
    run = registry.runs.get(train("user_target")["run"])
    assert (run.runtime, run.runtime_reason) == ("onnx float32", "")
    assert run.parity["rows"] == run.rows_test
    assert 0 < run.parity["max_difference"] < 1e-5


OWN = "from own_functions import doubled\n"
DOUBLED = "make_pipeline(FunctionTransformer(doubled), "


def test_what_has_no_graph_is_served_by_scikit_learn_and_scored_by_its_package(
    registry: Registry, mill: Path, tmp_path: Path
) -> None:
    """The estimator is made of a function of the user's own, which the definitions trust."""
    text = (
        mill.read_text()
        .replace("make_pipeline(", DOUBLED)
        .replace("import StandardScaler", "import FunctionTransformer, StandardScaler")
    )
    (mill.parent / "own_functions.py").write_text("def doubled(rows):\n    return rows * 2\n")
    mill.write_text(OWN + text)
    with pytest.raises(InvalidRequest, match=r"nobody has reviewed: own_functions\.doubled"):
        train("user_target")
    mill.write_text(OWN + text.replace('label="target"', 'label="target", trusted=["own_functions.doubled"]'))
    first, second = (registry.runs.get(train("user_target")["run"]) for _ in range(2))
    assert (first.runtime, first.parity["max_difference"]) == ("skops", 0)
    assert "FunctionTransformer is not supported" in first.runtime_reason
    assert "champion version 1 " in second.decision
    assert "cannot be compared" not in second.decision
    manifest, _ = package.read(Storage(f"file://{tmp_path}/storage"), first.package)
    assert manifest.files.keys() == {package.ESTIMATOR}
    assert manifest.trusted == ["own_functions.doubled"]
    assert manifest.ranges.keys() == {"feature_1", "feature_2", "feature_3"}


def test_the_same_data_has_the_same_fingerprint(registry: Registry, feature_stub: FeatureStub) -> None:
    runs = [registry.runs.get(train("user_target")["run"]) for _ in range(2)]
    feature_stub.table = users_table(seed=1)
    runs.append(registry.runs.get(train("user_target")["run"]))
    first, second, third = (run.data_fingerprint for run in runs)
    assert first == second != third


def test_a_version_that_is_not_better_is_not_promoted(registry: Registry, mill: Path) -> None:
    mill.write_text(mill.read_text().replace('gates=[at_least("accuracy", 0.7)],', ""))
    first, second = train("user_target"), train("user_target")
    assert (first["promoted"], second["promoted"]) == (True, False)
    run = registry.runs.get(second["run"])
    assert run.decision.startswith("not promoted, improves_accuracy failed: equal, and better by any margin in 0.0% of")
    assert run.gates["improves_accuracy"].startswith("failed: equal")
    assert registry.version("user_target", 2).gates == run.gates
    assert registry.aliases("user_target") == {"champion": 1}


def test_a_source_with_event_times_is_split_by_time(registry: Registry, mill: Path) -> None:
    declared = mill.read_text().replace("    split=at_random(0.25),\n", "")
    mill.write_text(declared.replace("entity=user, columns", 'entity=user, event_time="at", columns'))
    run = registry.runs.get(train("user_target")["run"])
    assert run.split == "by time: the newest 100 of 400 rows held out"


def test_a_run_says_how_good_its_model_is_and_where(registry: Registry, mill: Path, tmp_path: Path) -> None:
    declared = mill.read_text().replace(
        'metric="accuracy"', 'metric="roc_auc", metrics=["f1", hits], segments=["feature_1"]'
    )
    mill.write_text(declared.replace("Model(", "def hits(truth, said):\n    return (truth == said).sum()\n\n\nModel("))
    run = registry.runs.get(train("user_target")["run"])
    assert (run.metric, set(run.metrics)) == ("roc_auc", {"roc_auc", "f1", "hits", "accuracy", "neg_log_loss"})
    assert run.metrics["hits"] == 100 * run.metrics["accuracy"]
    lo, hi = map(float, run.intervals["roc_auc"].split())
    assert lo < run.metrics["roc_auc"] < hi
    assert run.split == "at random, seed 0, stratified: 100 of 400 rows held out"
    assert run.segments["feature_1"].startswith("roc_auc from 0.")
    found = evaluation.read(Storage(f"file://{tmp_path}/storage"), "user_target", run.id)
    assert (found.rows, found.split, found.metrics) == (100, run.split, run.metrics)
    assert sum(one.rows for one in found.segments["feature_1"].values()) == 100
    assert found.baseline["roc_auc"] == 0.5


def test_whole_groups_are_held_out(registry: Registry, mill: Path, feature_stub: FeatureStub) -> None:
    mill.write_text(
        mill.read_text().replace("at_random", "by_group").replace("by_group(0.25)", 'by_group("user_id", 0.25)')
    )
    users = pa.array([f"u{number % 8}" for number in range(400)])
    feature_stub.table = users_table().append_column("user_id", users)
    run = registry.runs.get(train("user_target")["run"])
    assert run.split == "by group of user_id, seed 0: 100 of 400 rows held out, 2 of 8 groups"


def test_a_metric_that_fails_leaves_a_run_that_names_the_users_line(registry: Registry, mill: Path) -> None:
    declared = mill.read_text().replace('metric="accuracy"', "metric=cost")
    mill.write_text(declared.replace("Model(", "def cost(truth, said):\n    return 1 / 0\n\n\nModel("))
    with pytest.raises(ZeroDivisionError):
        train("user_target")
    [run] = registry.runs.newest("user_target")
    assert (run.stage, run.error) == ("evaluate", "ZeroDivisionError: division by zero")
    assert "return 1 / 0" in run.traceback


def test_an_estimator_that_fails_leaves_a_run_that_names_the_users_line(registry: Registry, mill: Path) -> None:
    source = mill.read_text().replace("    return make_pipeline", "    raise RuntimeError('no luck')\n    return make")
    mill.write_text(source)
    with pytest.raises(RuntimeError):
        train("user_target")
    [run] = registry.runs.newest("user_target")
    assert (run.status, run.stage, run.error) == ("failed", "frame", "RuntimeError: no luck")
    assert f'File "{mill}", line' in run.traceback
    assert "raise RuntimeError('no luck')" in run.traceback
    assert registry.versions("user_target") == []


@pytest.mark.parametrize(
    "change, error",
    [
        (('metric="accuracy"', 'metric="acuracy"'), "did you mean 'accuracy'"),
        (("estimator=classifier", "estimator=lambda: 7"), "expected a scikit-learn estimator"),
        (("LogisticRegression()", "StandardScaler()"), "neither a classifier nor a regressor"),
    ],
)
def test_a_recipe_with_a_mistake_fails_before_data_are_fetched(
    registry: Registry, mill: Path, feature_stub: FeatureStub, change: tuple[str, str], error: str
) -> None:
    mill.write_text(mill.read_text().replace(*change))
    with pytest.raises(InvalidRequest, match=error):
        train("user_target")
    assert feature_stub.asked == []
    assert registry.runs.newest("user_target")[0].status == "failed"


@pytest.mark.parametrize(
    "table, error",
    [
        (users_table(8), "6 rows to train on and 2 held out"),
        (users_table(40).set_column(4, "target", pa.array([1] * 40)), "needs at least two classes"),
    ],
    ids=["few rows", "one class"],
)
def test_data_that_cannot_be_learned_from_fail_with_their_counts(
    registry: Registry, feature_stub: FeatureStub, table: pa.Table, error: str
) -> None:
    feature_stub.table = table
    with pytest.raises(InvalidRequest):
        train("user_target")
    assert error in registry.runs.newest("user_target")[0].error


def test_an_unknown_model_leaves_no_run(registry: Registry) -> None:
    with pytest.raises(UnknownName):
        train("user_targt")
    assert registry.models() == []


def test_a_broken_definitions_file_is_named_with_its_line(registry: Registry, mill: Path) -> None:
    mill.write_text("\nModel(")
    with pytest.raises(DefinitionsError, match=r"mill\.py:2"):
        train("user_target")


def test_an_estimator_object_is_fitted_afresh_each_time(mill: Path) -> None:
    mill.write_text(mill.read_text().replace("estimator=classifier", "estimator=classifier()"))
    recipe = load(mill).model("user_target")
    assert make_estimator(recipe, recipe.estimator) is not make_estimator(recipe, recipe.estimator)
    assert make_estimator(recipe, recipe.estimator) is not recipe.estimator


def test_several_labels_are_trained_scored_each_and_packaged_together(
    registry: Registry, mill: Path, feature_stub: FeatureStub, tmp_path: Path
) -> None:
    table = users_table()
    feature_stub.table = table.append_column("other", pa.array([int(x > 0) for x in table["feature_1"].to_pylist()]))
    text = mill.read_text().replace('"target": int', '"target": int, "other": int')
    text = text.replace('label="target"', 'label=["target", "other"]').replace("LogisticRegression())", FOREST)
    mill.write_text(text)
    run = registry.runs.get(train("user_target")["run"])
    storage = Storage(f"file://{tmp_path}/storage")
    found = evaluation.read(storage, "user_target", run.id)
    assert found.outputs.keys() == {"target", "other"}
    assert found.metrics["accuracy"] == pytest.approx(np.mean([one["accuracy"] for one in found.outputs.values()]))
    manifest, _ = package.read(storage, run.package)
    assert (manifest.labels, manifest.classes) == (["target", "other"], [[0, 1], [0, 1]])
    assert train("user_target")["version"] == 2  # the champion can be compared


FOREST = "__import__('sklearn.ensemble').ensemble.RandomForestClassifier(20))"


def test_weights_of_rows_come_from_their_column_and_class(
    registry: Registry, mill: Path, feature_stub: FeatureStub
) -> None:
    plain = registry.runs.get(train("user_target")["run"])
    table = users_table()
    feature_stub.table = table.append_column("worth", pa.array([float(number % 2) for number in range(len(table))]))
    text = mill.read_text().replace('"target": int', '"target": int, "worth": float')
    mill.write_text(text.replace('label="target"', 'label="target", sample_weight="worth", class_weight={1: 9}'))
    weighed = registry.runs.get(train("user_target")["run"])
    assert weighed.metrics != plain.metrics
    feature_stub.table = table.append_column("worth", pa.array([-1.0] * len(table)))
    with pytest.raises(InvalidRequest, match=r"sample_weight 'worth' is -1\.0 in 300 of 300 rows"):
        train("user_target")


def test_a_seed_makes_a_training_repeatable(registry: Registry, mill: Path) -> None:
    text = mill.read_text().replace("LogisticRegression())", FOREST)
    runs = []
    for seed in (1, 1, 2):
        mill.write_text(text.replace('label="target"', f'label="target", seed={seed}'))
        runs.append(registry.runs.get(train("user_target")["run"]))
    same, again, other = (run.metrics["roc_auc"] for run in runs)
    assert same == again != other
    assert runs[0].seed == 1
    assert runs[0].params["randomforestclassifier__random_state"] == "1"


def test_a_gate_on_a_metric_that_does_not_exist_fails_before_anything_is_fitted(registry: Registry, mill: Path) -> None:
    mill.write_text(mill.read_text().replace('at_least("accuracy", 0.7)', 'at_least("acuracy", 0.7)'))
    with pytest.raises(InvalidRequest, match="metric 'acuracy' is not a scorer of scikit-learn; did you mean 'acc"):
        train("user_target")
    [run] = registry.runs.newest("user_target")
    assert (run.stage, run.status) == ("frame", "failed")


def test_a_training_leaves_a_card_beside_its_evaluation(registry: Registry, tmp_path: Path) -> None:
    done = train("user_target")
    storage = Storage(f"file://{tmp_path}/storage")
    folder = f"runs/user_target/{done['run']}"
    found = evaluation.read(storage, "user_target", done["run"])
    assert found.purpose["owner"] == "examples"
    assert set(found.features) == set(found.importance["inputs"]) == {"feature_1", "feature_2", "feature_3"}
    assert list(found.figures["target"]) == ["confusion", "roc", "precision_recall", "calibration"]
    html = storage.read(f"{folder}/card.html").decode()
    assert "<span>version 1</span>" in html
    assert '<li class="alias">champion</li>' in html
    assert "Permutation importance" in html


def test_a_card_that_cannot_be_kept_costs_no_version(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(known: object) -> str:
        raise OSError("no space left on device")

    monkeypatch.setattr("services.trainer.cards.cards.render", full)
    done = train("user_target")
    assert registry.runs.get(done["run"]).status == "succeeded"
    assert f"cannot keep the card of run {done['run']}" in caplog.text
