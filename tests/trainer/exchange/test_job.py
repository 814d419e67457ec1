"""A registration in this process, against a real Redis and a stand-in for the feature service."""

from __future__ import annotations

import hashlib
import pickle
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import skops.io
from onnx import TensorProto, helper
from skl2onnx.common.data_types import FloatTensorType, Int64TensorType
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVC

from modelmill.errors import InvalidRequest
from modelmill.packages import package
from modelmill.state.registry import Registry
from modelmill.state.runs import Run
from modelmill.storage import Storage
from services.predictor.inference import infer
from services.predictor.loading import load as load_served
from services.trainer.exchange import job as exchange_job
from services.trainer.exchange.job import register_upload
from services.trainer.job import train
from tests.conftest import USERS_MILL, RedisServer
from tests.trainer.conftest import FeatureStub
from tests.trainer.exchange.models import NAMES, fitted, onnx_file, rows, skops_file

pytestmark = pytest.mark.redis


@pytest.fixture
def registry(environment: dict[str, str], real_redis: RedisServer) -> Registry:
    return Registry(real_redis.client())


@pytest.fixture
def stored(environment: dict[str, str]) -> Storage:
    return Storage(environment["MODELMILL_STORAGE_URL"])


class Offers:
    """Registers files, as the trainer's job does."""

    def __init__(self, storage: Storage, registry: Registry) -> None:
        self.storage = storage
        self.registry = registry

    def __call__(self, content: bytes, form: str, *, promote: bool = False, **offer: Any) -> Run:
        self.storage.write("uploads/user_target/one", content)
        done = register_upload(
            "user_target", "uploads/user_target/one", {"format": form, "file": f"m.{form}", **offer}, by="me",
            promote=promote,
        )  # fmt: skip
        return self.registry.runs.get(done["run"])

    def refused(self, content: bytes, form: str, **offer: Any) -> str:
        """The sentence with which a file is refused; the run says the same, and there is no version."""
        with pytest.raises(InvalidRequest) as refusal:
            self(content, form, **offer)
        (run,) = self.registry.runs.newest("user_target")
        assert (run.status, run.error, run.version) == ("failed", refusal.value.detail, None)
        assert self.registry.versions("user_target") == []
        assert self.storage.names("uploads", "") == []
        return refusal.value.detail


@pytest.fixture
def offers(stored: Storage, registry: Registry) -> Offers:
    return Offers(stored, registry)


@pytest.fixture
def manual(environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The users example, in which a better model waits for a person."""
    text = re.sub(r'    promote="\w+",.*\n', "", USERS_MILL.read_text())
    text = text.replace("    train=every", '    promote="manual",\n    train=every')
    (tmp_path / "mill.py").write_text(text)
    monkeypatch.setenv("MODELMILL_DEFINITIONS", str(tmp_path / "mill.py"))


def served(registry: Registry, storage: Storage, values: np.ndarray) -> tuple[list[Any], np.ndarray]:
    """What the predictor answers with the newest version: labels and probabilities."""
    model = load_served(registry, storage, "user_target", registry.versions("user_target")[0].version)
    answers = infer(model, values.tolist())
    probabilities = [[row[name] for name in model.class_names] for row in answers.probabilities or []]
    return answers.predictions, np.array(probabilities)


# --- what is taken


def test_a_skops_file_becomes_a_version_with_a_run_of_its_own(
    offers: Offers, registry: Registry, stored: Storage
) -> None:
    content = skops_file(fitted())
    run = offers(content, "skops", origin={"mlflow_run_id": "abc"}, params={"mlflow.C": "0.5"}, metrics={"auc": 0.99})
    assert (run.trigger, run.by, run.status, run.version) == ("registered", "me", "succeeded", 1)
    assert run.origin == {
        "mlflow_run_id": "abc", "metric.auc": "0.99", "format": "skops", "file": "m.skops", "sha256": hashlib.sha256(content).hexdigest(),
    }  # fmt: skip
    assert (run.params["mlflow.C"], run.params["logisticregression__C"]) == ("0.5", "0.5")
    assert run.metrics["accuracy"] > 0.8
    assert run.rows_test == 100
    assert "accuracy" in run.decision
    assert registry.version("user_target", 1).run == run.id
    assert stored.names("uploads", "") == []


def test_the_predictor_answers_as_the_estimator_that_was_registered(
    offers: Offers, registry: Registry, stored: Storage
) -> None:
    estimator = fitted()
    offers(skops_file(estimator), "skops")
    given, _ = rows()
    labels, probabilities = served(registry, stored, given.to_numpy())
    assert labels == estimator.predict(given).tolist()
    np.testing.assert_allclose(probabilities, estimator.predict_proba(given), atol=1e-5)


def test_trees_are_among_the_types_that_are_trusted(offers: Offers) -> None:
    assert offers(skops_file(fitted(HistGradientBoostingClassifier(max_iter=5))), "skops").version == 1


@pytest.mark.parametrize("options", [{}, {"zipmap": False}, {"zipmap": "columns"}], ids=["maps", "tensor", "columns"])
def test_an_onnx_file_of_skl2onnx_is_served_with_its_probabilities(
    options: dict[str, Any], offers: Offers, registry: Registry, stored: Storage
) -> None:
    estimator = fitted()
    content = onnx_file(estimator, **options)
    if options.get("zipmap") == "columns":
        assert "expected labels and maybe their probabilities" in offers.refused(content, "onnx")
        return
    run = offers(content, "onnx")
    given, _ = rows()
    labels, probabilities = served(registry, stored, given.to_numpy())
    assert labels == estimator.predict(given).tolist()
    np.testing.assert_allclose(probabilities, estimator.predict_proba(given), atol=1e-5)
    manifest, _ = package.read(stored, run.package)
    assert (manifest.classes, manifest.layout, list(manifest.files)) == ([0, 1], "matrix", ["model.onnx"])


def test_a_tensor_for_each_input_is_fed_by_its_name_and_whole_numbers_are_cast(
    offers: Offers, registry: Registry, stored: Storage
) -> None:
    given, label = rows()
    whole = given.round().astype(float)
    estimator = make_pipeline(StandardScaler(), LogisticRegression()).fit(whole, label)
    kinds = [(NAMES[0], Int64TensorType([None, 1])), *((n, FloatTensorType([None, 1])) for n in NAMES[1:])]
    run = offers(onnx_file(estimator, types=kinds), "onnx")
    assert package.read(stored, run.package)[0].layout == "columns"
    labels, _ = served(registry, stored, whole.to_numpy())
    assert labels == estimator.predict(whole).tolist()


# --- how it is judged


def test_it_is_judged_on_the_held_out_rows_like_any_version(offers: Offers, registry: Registry) -> None:
    train("user_target")
    run = offers(skops_file(fitted()), "skops")
    assert "champion version 1" in run.decision
    assert "100 held-out rows" in run.decision


@pytest.mark.usefixtures("manual")
def test_it_waits_for_a_person_where_the_policy_says_so(offers: Offers, registry: Registry) -> None:
    offers(skops_file(fitted()), "skops")
    assert registry.aliases("user_target") == {}


@pytest.mark.usefixtures("manual")
def test_it_serves_at_once_where_that_is_asked_for(offers: Offers, registry: Registry) -> None:
    run = offers(skops_file(fitted()), "skops", promote=True)
    assert registry.aliases("user_target") == {"champion": 1}
    (move,) = registry.history("user_target")
    assert (move.by, move.reason) == ("me", f"asked for when it was registered, run {run.id}")


@pytest.mark.usefixtures("manual")
def test_one_whose_worker_was_killed_after_it_had_its_number_is_finished_not_repeated(
    offers: Offers, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = offers(skops_file(fitted()), "skops")
    again = SimpleNamespace(id="job", meta={"run": first.id}, before=[first.id], run="", lease="")
    monkeypatch.setattr(exchange_job, "get_current_job", lambda: again)
    assert offers(skops_file(fitted()), "skops", promote=True).id == first.id
    assert registry.aliases("user_target") == {"champion": 1}
    assert len(registry.runs.newest("user_target")) == 1


def test_without_rows_to_judge_it_on_it_is_registered_and_says_why_it_is_not_promoted(
    offers: Offers, registry: Registry, feature_stub: FeatureStub
) -> None:
    feature_stub.table = feature_stub.table.slice(0, 3)
    run = offers(skops_file(fitted()), "skops")
    assert (run.version, run.metrics) == (1, {})
    assert run.decision.startswith("not promoted: there are no rows to judge it on: ")
    assert registry.aliases("user_target") == {}


# --- what is refused


def test_a_pickle_is_never_loaded(offers: Offers, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "sprung",)

    for protocol in range(6):
        for form in ("skops", "onnx"):
            with pytest.raises(InvalidRequest):
                offers(pickle.dumps(Trap(), protocol), form)
    assert not (tmp_path / "sprung").exists()


def test_the_refusal_of_a_pickle_says_how_to_save_the_model(offers: Offers) -> None:
    sentence = offers.refused(pickle.dumps(fitted()), "skops")
    assert sentence == (
        "the file is a pickle, which runs code when it is loaded and is never taken; save the estimator with"
        " skops.io.dump(estimator, 'model.skops')"
    )


def with_weights_elsewhere() -> bytes:
    model = onnx.load_model_from_string(onnx_file(LinearRegression().fit(*rows())))
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="../../secret")
    model.graph.initializer.append(tensor)
    return bytes(model.SerializeToString())


def of_images() -> bytes:
    taken = helper.make_tensor_value_info("X", TensorProto.FLOAT, [None, 3])
    given = helper.make_tensor_value_info("Y", TensorProto.FLOAT16, [None, 3])
    node = helper.make_node("Cast", ["X"], ["Y"], to=TensorProto.FLOAT16)
    return bytes(helper.make_model(helper.make_graph([node], "g", [taken], [given])).SerializeToString())


def in_batches(rows: int, *, declared: bool) -> bytes:
    """A graph that takes so many rows at a time, and says so or does not."""
    model = onnx.load_model_from_string(onnx_file(fitted(), zipmap=False))
    if declared:
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = rows
        return bytes(model.SerializeToString())
    for node in model.graph.node:
        node.input[:] = ["reshaped" if name == "X" else name for name in node.input]
    model.graph.initializer.append(helper.make_tensor("shape", TensorProto.INT64, [2], [rows, 3]))
    model.graph.node.insert(0, helper.make_node("Reshape", ["X", "shape"], ["reshaped"]))
    return bytes(model.SerializeToString())


REFUSED: dict[str, tuple[Any, str, str]] = {
    "other columns": (
        lambda: skops_file(fitted(names=["feature_1", "feature_2"])), "skops",
        "estimator Pipeline does not take 'feature_3'; model 'user_target' declares 'feature_1', 'feature_2', 'feature_3'",
    ),
    "another order": (
        lambda: skops_file(fitted(names=NAMES[::-1])), "skops",
        "estimator Pipeline takes its columns in the order 'feature_3', 'feature_2', 'feature_1'; model 'user_target'"
        " declares 'feature_1', 'feature_2', 'feature_3': declare them in its order",
    ),
    "columns without names": (
        lambda: skops_file(LogisticRegression().fit(rows()[0].to_numpy()[:, :2], rows()[1])), "skops",
        "estimator LogisticRegression takes 2 columns; model 'user_target' declares 3",
    ),
    "another task": (
        lambda: skops_file(fitted(LinearRegression())), "skops",
        "the file holds a model for regression; model 'user_target' is declared for classification",
    ),
    "a graph of another task": (
        lambda: onnx_file(fitted(LinearRegression())), "onnx",
        "the file holds a model for regression; model 'user_target' is declared for classification",
    ),
    "other classes": (
        lambda: skops_file(LogisticRegression().fit(rows()[0], np.where(rows()[1], "yes", "no"))), "skops",
        "its classes are 'no', 'yes'; the label 'target' of model 'user_target' is int",
    ),
    "other classes of a graph": (
        lambda: onnx_file(LogisticRegression().fit(rows()[0], np.where(rows()[1], "yes", "no"))), "onnx",
        "its classes are 'no', 'yes'; the label 'target' of model 'user_target' is int",
    ),
    "not fitted": (
        lambda: skops_file(LogisticRegression()), "skops",
        "estimator LogisticRegression is not fitted; fit it before it is saved",
    ),
    "no estimator": (lambda: skops_file({"a": 1}), "skops", "the file holds a dict; expected a fitted estimator"),
    "a function": (
        lambda: skops_file(fitted(make_pipeline(FunctionTransformer(rows_doubled), LogisticRegression()))), "skops",
        "the estimator is made of types that nobody has reviewed: tests.trainer.exchange.test_job.rows_doubled.",
    ),
    "no skops": (lambda: b"feature_1,feature_2", "skops", "the file cannot be read as skops by scikit-learn "),
    "no ONNX": (lambda: b"feature_1,feature_2", "onnx", "the file is not an ONNX model: "),
    "a narrower graph": (
        lambda: onnx_file(LogisticRegression().fit(rows()[0].to_numpy()[:, :2], rows()[1]), width=2), "onnx",
        "the graph takes 2 columns; model 'user_target' declares 3: 'feature_1', 'feature_2', 'feature_3'",
    ),
    "other tensors": (
        lambda: onnx_file(fitted(), types=[(n, FloatTensorType([None, 1])) for n in ("feature_1", "f2", "feature_3")]),
        "onnx", "the graph does not take 'feature_2' and takes 'f2', not declared; model 'user_target' declares",
    ),
    "weights in other files": (with_weights_elsewhere, "onnx", "the ONNX model keeps weights in other files; save it as"),
    "one row at a time": (
        lambda: in_batches(1, declared=True), "onnx",
        "the graph takes 'X' in the shape [1, 3], always 1 rows at a time; expected any number of them: export it",
    ),
    "so many rows as are held out at a time": (
        lambda: in_batches(100, declared=False), "onnx", "the model answers 100 rows at once, but not 1: ",
    ),
    "other outputs": (of_images, "onnx", "the graph gives Y (float16); expected labels and maybe their probabilities"),
}  # fmt: skip


def rows_doubled(values: Any) -> Any:
    return values * 2


@pytest.mark.parametrize("content, form, sentence", REFUSED.values(), ids=REFUSED.keys())
def test_what_the_definitions_do_not_declare_is_refused_with_a_sentence(
    content: Any, form: str, sentence: str, offers: Offers
) -> None:
    assert offers.refused(content(), form).startswith(sentence)


@pytest.mark.parametrize(
    "columns, sentence",
    [
        (
            {"feature_1": "double", "feature_2": "string", "feature_3": "double"},
            "its signature has column 'feature_2' as string; model 'user_target' declares float, which is double or",
        ),
        ({"feature_1": "double"}, "its signature does not take 'feature_2', 'feature_3'; model 'user_target' declares"),
    ],
)
def test_a_signature_that_disagrees_is_refused(columns: dict[str, str], sentence: str, offers: Offers) -> None:
    assert offers.refused(skops_file(fitted()), "skops", columns=columns).startswith(sentence)


def test_a_graph_for_one_row_at_a_time_is_refused_without_rows_to_judge_it_on_too(
    offers: Offers, feature_stub: FeatureStub
) -> None:
    feature_stub.table = feature_stub.table.slice(0, 3)
    sentence = offers.refused(in_batches(1, declared=False), "onnx", classes=[0, 1])
    assert sentence.startswith("the model answers 1 rows at once, but not 3: ")


def test_a_model_that_answers_no_finite_number_is_refused(offers: Offers) -> None:
    estimator = fitted(LogisticRegression())
    estimator.coef_[:] = np.nan
    sentence = offers.refused(onnx_file(estimator, zipmap=False), "onnx")
    assert re.match(
        r"the model (gives probabilities in the shape \[100, 2\], not all of them finite|answers )", sentence
    )


def test_classes_in_another_order_than_said_are_refused(offers: Offers) -> None:
    sentence = offers.refused(onnx_file(fitted(), zipmap=False), "onnx", classes=[1, 0])
    assert "the probabilities are not in the order [1, 0]; say the order, --classes" in sentence


def test_an_example_of_another_type_is_refused(offers: Offers, feature_stub: FeatureStub) -> None:
    feature_stub.table = feature_stub.table.slice(0, 3)
    sentence = offers.refused(skops_file(fitted()), "skops", example={"feature_1": "one"})
    assert sentence == "the example's 'feature_1' is 'one'; expected float"


def test_an_estimator_without_probabilities_can_be_registered(offers: Offers) -> None:
    assert offers(skops_file(fitted(SVC())), "skops").version == 1


def test_the_estimator_that_is_kept_is_the_one_that_was_registered(offers: Offers, stored: Storage) -> None:
    estimator = fitted()
    run = offers(skops_file(estimator), "skops")
    kept = skops.io.loads(package.read(stored, run.package, package.ESTIMATOR)[1], trusted=[])
    np.testing.assert_array_equal(kept.predict_proba(rows()[0]), estimator.predict_proba(rows()[0]))
