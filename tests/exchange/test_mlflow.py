"""To and from the real MLflow: what it saved is served with its answers, and what is exported answers in it alike.

Runs in an environment of its own, `make test-extras`; elsewhere all of this is left out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest
import skops.io
from onnx import TensorProto, helper, numpy_helper
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression

from modelmill.errors import InvalidRequest
from tests.exchange.conftest import MODEL, Trainer
from tests.trainer.exchange.models import fitted, onnx_file, rows

mlflow = pytest.importorskip("mlflow", reason="MLflow has an environment of its own: make test-extras")
pytestmark = [
    pytest.mark.mlflow,
    pytest.mark.redis,
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("default"),  # MLflow's
]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Path]:
    """The folder of an MLflow store: `mlflow.db` and `mlruns`."""
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    mlflow.create_experiment("users", artifact_location=(tmp_path / "mlruns" / "1").as_uri())
    mlflow.set_experiment("users")
    yield tmp_path
    mlflow.set_tracking_uri(None)


def saved(estimator: Any, folder: Path, form: str = "skops", **more: Any) -> Path:
    given, _ = rows()
    signature = mlflow.models.infer_signature(given, estimator.predict(given))
    mlflow.sklearn.save_model(
        estimator, folder, signature=signature, input_example=given.head(1), serialization_format=form, **more
    )
    return folder


# --- from MLflow


@pytest.mark.parametrize(
    "estimator",
    [None, RandomForestClassifier(20, random_state=0), HistGradientBoostingClassifier(max_iter=20)],
    ids=["pipeline", "forest", "boosting"],
)
def test_a_model_of_mlflow_is_served_with_its_answers(estimator: Any, trainer: Trainer, tmp_path: Path) -> None:
    types = ["sklearn.tree._tree.Tree", "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor"]
    folder = saved(fitted(estimator), tmp_path / "model", skops_trusted_types=types)
    run = trainer.register(folder, by="me")
    theirs, (given, _) = mlflow.pyfunc.load_model(str(folder)), rows()
    labels, probabilities = trainer.answers(run["version"], given)
    assert labels == theirs.predict(given).tolist()
    np.testing.assert_allclose(probabilities, mlflow.sklearn.load_model(folder).predict_proba(given), atol=1e-5)
    assert (run["trigger"], run["by"], run["origin"]["mlflow_version"]) == ("registered", "me", mlflow.__version__)


def test_an_onnx_model_of_mlflow_is_served_with_its_answers(trainer: Trainer, tmp_path: Path) -> None:
    estimator = fitted(RandomForestClassifier(20, random_state=0))
    graph = onnx.load_model_from_string(onnx_file(estimator, zipmap=False))
    mlflow.onnx.save_model(graph, tmp_path / "model")
    run = trainer.register(tmp_path / "model")
    given, _ = rows()
    single = given.astype(np.float32)
    theirs = mlflow.pyfunc.load_model(str(tmp_path / "model")).predict(single.to_numpy())
    labels, probabilities = trainer.answers(run["version"], given)
    assert labels == theirs["label"].tolist()
    np.testing.assert_allclose(probabilities, theirs["probabilities"], atol=1e-6)


def test_weights_that_mlflow_keeps_in_another_file_come_along(trainer: Trainer, tmp_path: Path) -> None:
    weights = np.linspace(-1, 1, 3 * 300, dtype=np.float32).reshape(3, 300)
    graph = wide_graph(weights)
    mlflow.onnx.save_model(graph, tmp_path / "model")
    assert (tmp_path / "model" / "model.onnx").stat().st_size < weights.nbytes
    run = trainer.register(tmp_path / "model", classes=[0, 1])
    given, _ = rows()
    labels, _ = trainer.answers(run["version"], given)
    theirs = mlflow.pyfunc.load_model(str(tmp_path / "model")).predict(given.to_numpy(np.float32))
    assert labels == theirs["label"].tolist()


def wide_graph(weights: np.ndarray) -> Any:
    """Whether the sum of the row times `weights` is positive."""
    nodes = [
        helper.make_node("MatMul", ["X", "W"], ["wide"]),
        helper.make_node("ReduceSum", ["wide", "axis"], ["sum"], keepdims=0),
        helper.make_node("Greater", ["sum", "zero"], ["positive"]),
        helper.make_node("Cast", ["positive"], ["label"], to=TensorProto.INT64),
    ]
    known = {"W": weights, "axis": np.array([1]), "zero": np.array(0, np.float32)}
    graph = helper.make_graph(
        nodes, "wide",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, [None, 3])],
        [helper.make_tensor_value_info("label", TensorProto.INT64, [None])],
        [numpy_helper.from_array(values, name) for name, values in known.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_a_run_in_the_store_around_the_folder_comes_with_it(trainer: Trainer, store: Path) -> None:
    with mlflow.start_run(run_name="quick") as theirs:
        mlflow.log_param("C", 0.5)
        mlflow.log_metric("auc", 0.97)
        mlflow.set_tag("team", "growth")
        logged = mlflow.sklearn.log_model(fitted(), name="model", serialization_format="skops")
    folder = Path(logged.artifact_path.removeprefix("file://"))
    run = trainer.register(folder)
    assert run["params"]["mlflow.C"] == "0.5"
    assert run["origin"]["metric.auc"] == "0.97"
    origin = run["origin"]
    assert origin["mlflow_run_id"] == theirs.info.run_id
    assert (origin["mlflow_run_name"], origin["mlflow_tag.team"]) == ("quick", "growth")


def test_a_store_that_does_not_know_the_run_is_an_error_where_it_was_named(trainer: Trainer, store: Path) -> None:
    with mlflow.start_run():
        logged = mlflow.sklearn.log_model(fitted(), name="model", serialization_format="skops")
    folder = Path(logged.artifact_path.removeprefix("file://"))
    other = f"sqlite:///{store}/other.db"
    with pytest.raises(InvalidRequest, match=r"MLflow at sqlite:///.*/other\.db does not tell of run "):
        trainer.client.register(MODEL, folder, tracking_uri=other)


@pytest.mark.parametrize("form", ["pickle", "cloudpickle"])
def test_a_pickled_model_of_mlflow_is_refused_unless_it_is_trusted(form: str, trainer: Trainer, tmp_path: Path) -> None:
    estimator = fitted()
    folder = saved(estimator, tmp_path / "model", form)
    with pytest.raises(InvalidRequest) as refusal:
        trainer.client.register(MODEL, folder)
    assert "serialization_format='skops'" in refusal.value.detail
    assert "--trust-pickle" in refusal.value.detail
    run = trainer.register(folder, trust_pickle=True)
    given, _ = rows()
    assert trainer.answers(run["version"], given)[0] == estimator.predict(given).tolist()
    assert run["origin"]["format"] == "skops"
    assert len(run["origin"]["pickle_sha256"]) == 64


# --- to MLflow


@pytest.fixture(params=["pipeline", "boosting", "forest"])
def version(request: pytest.FixtureRequest, trainer: Trainer, tmp_path: Path) -> tuple[int, Any]:
    """A version of ours, and its estimator."""
    estimator = {
        "pipeline": None,
        "boosting": HistGradientBoostingClassifier(max_iter=20),
        "forest": RandomForestClassifier(20, random_state=0),
    }[request.param]
    skops.io.dump(fitted(estimator), tmp_path / "m.skops")
    run = trainer.register(tmp_path / "m.skops")
    return run["version"], fitted(estimator)


def test_an_exported_version_answers_in_mlflow_as_here(
    version: tuple[int, Any], trainer: Trainer, tmp_path: Path
) -> None:
    number, estimator = version
    done = trainer.client.export(MODEL, tmp_path / "out", version=number)
    assert done["version"] == number
    folder, (given, _) = str(tmp_path / "out"), rows()
    labels, probabilities = trainer.answers(number, given)
    assert mlflow.pyfunc.load_model(folder).predict(given).tolist() == labels
    np.testing.assert_allclose(mlflow.sklearn.load_model(folder).predict_proba(given), probabilities, atol=1e-5)
    np.testing.assert_array_equal(
        mlflow.sklearn.load_model(folder).predict_proba(given), estimator.predict_proba(given)
    )
    if "model.onnx" in done["files"]:  # but not where no graph answers alike
        onnx.checker.check_model(mlflow.onnx.load_model(folder))


def test_an_exported_version_has_a_signature_and_an_input_example(
    version: tuple[int, Any], trainer: Trainer, tmp_path: Path
) -> None:
    number, _ = version
    trainer.client.export(MODEL, tmp_path / "out", version=number)
    model = mlflow.models.Model.load(str(tmp_path / "out"))
    assert model.signature.inputs.input_names() == ["feature_1", "feature_2", "feature_3"]
    assert [str(kind) for kind in model.signature.outputs.input_types()] == ["DataType.long"]
    example = model.load_input_example(str(tmp_path / "out"))
    assert isinstance(example, pd.DataFrame)
    loaded = mlflow.pyfunc.load_model(str(tmp_path / "out"))
    assert loaded.predict(example).tolist() in ([0], [1])
    with pytest.raises(mlflow.exceptions.MlflowException, match="feature_3"):
        loaded.predict(example[["feature_1", "feature_2"]])
    about = model.metadata["modelmill"]
    assert (about["model"], about["version"]) == (MODEL, number)


def test_an_exported_version_can_be_logged_and_served_from_a_store(
    trainer: Trainer, store: Path, version: tuple[int, Any], tmp_path: Path
) -> None:
    trainer.client.export(MODEL, tmp_path / "out", version=version[0])
    with mlflow.start_run() as run:
        mlflow.log_artifacts(str(tmp_path / "out"), "model")
    given, _ = rows()
    loaded = mlflow.pyfunc.load_model(f"runs:/{run.info.run_id}/model")
    assert loaded.predict(given).tolist() == trainer.answers(version[0], given)[0]


def test_a_version_that_came_as_a_graph_alone_is_exported_as_onnx(trainer: Trainer, tmp_path: Path) -> None:
    estimator = fitted()
    (tmp_path / "m.onnx").write_bytes(onnx_file(estimator, zipmap=False))
    number = trainer.register(tmp_path / "m.onnx")["version"]
    trainer.client.export(MODEL, tmp_path / "out", version=number)
    given, _ = rows()
    loaded = mlflow.pyfunc.load_model(str(tmp_path / "out"))
    theirs = loaded.predict(given.to_numpy(np.float32))
    assert theirs["label"].tolist() == trainer.answers(number, given)[0]
    example = loaded.input_example
    assert np.asarray(example).shape == (1, 3)
    assert loaded.predict(np.asarray(example, np.float32))["label"].tolist() in ([0], [1])


def test_there_and_back_nothing_changes(trainer: Trainer, tmp_path: Path) -> None:
    first = trainer.register(saved(fitted(), tmp_path / "theirs"))
    trainer.client.export(MODEL, tmp_path / "ours", version=first["version"])
    second = trainer.register(tmp_path / "ours")
    given, _ = rows()
    before, after = (trainer.answers(run["version"], given) for run in (first, second))
    assert before[0] == after[0]
    np.testing.assert_array_equal(before[1], after[1])
    assert first["origin"]["sha256"] != ""
    assert json.loads((tmp_path / "ours" / "manifest.json").read_text())["run"] == first["id"]


def test_a_graph_of_a_logistic_regression_keeps_its_probabilities(trainer: Trainer, tmp_path: Path) -> None:
    estimator = LogisticRegression().fit(*rows())
    trainer_run = trainer.register(saved(estimator, tmp_path / "model"))
    given, _ = rows()
    np.testing.assert_allclose(
        trainer.answers(trainer_run["version"], given)[1], estimator.predict_proba(given), atol=1e-5
    )
