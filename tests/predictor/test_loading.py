"""Only a whole package whose graph is what its manifest says is served."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from modelmill.declare import applied
from modelmill.declare.definitions_file import load as load_definitions
from modelmill.errors import PackageError, UnknownName
from modelmill.packages import package
from modelmill.packages.package import Input
from modelmill.packages.sessions import TENSORS, open_session
from modelmill.state import keys
from modelmill.state.connections import Redis
from modelmill.state.registry import Registry
from modelmill.storage import Storage
from services.predictor.loading import load
from tests.own_types import Halved
from tests.predictor import packages
from tests.predictor.packages import manifest, publish, served_by_scikit_learn


def test_a_version_is_loaded_with_its_signature(fake_redis: Redis, storage: Storage) -> None:
    publish(fake_redis, storage, manifest(), packages.classifier())
    model = load(Registry(fake_redis), storage, "user_target", 1)
    assert (model.name, model.version) == ("user_target", 1)
    assert list(model.signature.positions) == ["feature_1", "feature_2", "clicks"]


def test_an_unknown_version_is_named(fake_redis: Redis, storage: Storage) -> None:
    publish(fake_redis, storage, manifest(), packages.classifier())
    with pytest.raises(UnknownName, match="version '2' is not known"):
        load(Registry(fake_redis), storage, "user_target", 2)


@pytest.mark.parametrize("file", [package.GRAPH, package.MANIFEST])
def test_a_wrong_byte_in_a_file_is_refused(fake_redis: Redis, storage: Storage, file: str) -> None:
    name = f"{publish(fake_redis, storage, manifest(), packages.classifier()).package}/{file}"
    content = bytearray(storage.read(name))
    content[len(content) // 2] ^= 1
    storage.write(name, bytes(content))
    with pytest.raises(PackageError, match=file):
        load(Registry(fake_redis), storage, "user_target", 1)


@pytest.mark.parametrize("file", [package.GRAPH, package.MANIFEST])
def test_a_missing_file_is_refused(fake_redis: Redis, storage: Storage, file: str) -> None:
    folder = publish(fake_redis, storage, manifest(), packages.classifier()).package
    storage.files.rm(storage.path(f"{folder}/{file}"))
    with pytest.raises(PackageError, match=f"a file is missing.*{file}"):
        load(Registry(fake_redis), storage, "user_target", 1)


@pytest.mark.parametrize(
    "changes, reason",
    [
        ({"classes": [0, 1, 2]}, "zip"),
        ({"layout": "columns"}, "it has the inputs X; expected feature_1, feature_2, clicks"),
        ({"inputs": packages.USER_INPUTS[:2]}, "InvalidArgument"),
        ({"example": {}}, "KeyError: 'feature_1'"),
        (
            {"answer": [[0], [[0.5, 0.5]]], "environment": {"scikit-learn": "1.9.1"}},
            "answers its example with .* and did with .* when it was packed, by scikit-learn 1.9.1; train again",
        ),
        ({"answer": [[1]]}, "zip"),
        ({"example": {"feature_1": None, "feature_2": 0.0, "clicks": 0}}, "InvalidAnswer"),
    ],
)
def test_a_graph_that_is_not_what_the_manifest_says_is_refused(
    fake_redis: Redis, storage: Storage, changes: dict[str, Any], reason: str
) -> None:
    publish(fake_redis, storage, manifest(**changes), packages.classifier())
    with pytest.raises(PackageError, match=reason):
        load(Registry(fake_redis), storage, "user_target", 1)


@pytest.mark.parametrize("by", ["graph", "scikit-learn"])
def test_a_model_that_answers_its_example_as_when_it_was_packed_is_served(
    fake_redis: Redis, storage: Storage, by: str
) -> None:
    described, content = (
        (manifest(), packages.classifier()) if by == "graph" else served_by_scikit_learn(LogisticRegression())
    )
    session = open_session(described, content)
    feed = {node.name: np.array([[0.1, 0.2, 3]], TENSORS[node.type]) for node in session.get_inputs()}
    answer = [output.tolist() for output in session.run([node.name for node in session.get_outputs()], feed)]
    publish(fake_redis, storage, replace(described, answer=answer), content)
    assert load(Registry(fake_redis), storage, "user_target", 1).manifest.answer == answer


def test_what_is_no_graph_is_refused(fake_redis: Redis, storage: Storage) -> None:
    publish(fake_redis, storage, manifest(), b"not a graph")
    with pytest.raises(PackageError, match="cannot be served"):
        load(Registry(fake_redis), storage, "user_target", 1)


@pytest.mark.parametrize("file", [package.ESTIMATOR, package.MANIFEST])
def test_a_wrong_byte_in_a_package_without_a_graph_is_refused(fake_redis: Redis, storage: Storage, file: str) -> None:
    name = f"{publish(fake_redis, storage, *served_by_scikit_learn(LogisticRegression())).package}/{file}"
    content = bytearray(storage.read(name))
    content[len(content) // 2] ^= 1
    storage.write(name, bytes(content))
    with pytest.raises(PackageError, match=file):
        load(Registry(fake_redis), storage, "user_target", 1)


OWN = "tests.own_types.Halved"
TRUSTING = """
from modelmill import Entity, Model, Source
user = Entity("user", key="user_id")
users = Source("users", entity=user, columns={"feature_1": float, "feature_2": float | None, "target": int})
Model("user_target", entities=[user], features=["feature_1"], label="target", estimator=None, trusted=["TYPE"])
"""


def declaring(redis: Redis, folder: Path, trusted: str) -> str:
    """The fingerprint of applied definitions in which the model trusts a type."""
    (folder / "mill.py").write_text(TRUSTING.replace("TYPE", trusted))
    definitions = load_definitions(folder / "mill.py")
    applied.keep(redis, definitions)
    return definitions.fingerprint


@pytest.mark.parametrize("says", [[], [OWN]])
def test_an_estimator_of_a_type_that_the_definitions_do_not_trust_is_refused_whatever_its_package_says(
    fake_redis: Redis, storage: Storage, tmp_path: Path, says: list[str]
) -> None:
    definitions = declaring(fake_redis, tmp_path, "tests.own_types.Other")
    estimator = make_pipeline(Halved(), LogisticRegression())
    publish(fake_redis, storage, *served_by_scikit_learn(estimator, trusted=says, definitions=definitions))
    with pytest.raises(PackageError, match=r"cannot be served: .* nobody has reviewed: tests\.own_types\.Halved\."):
        load(Registry(fake_redis), storage, "user_target", 1)


def test_an_estimator_of_a_type_that_the_definitions_trust_is_served(
    fake_redis: Redis, storage: Storage, tmp_path: Path
) -> None:
    definitions = declaring(fake_redis, tmp_path, OWN)
    estimator = make_pipeline(Halved(), LogisticRegression())
    publish(fake_redis, storage, *served_by_scikit_learn(estimator, trusted=[OWN], definitions=definitions))
    assert load(Registry(fake_redis), storage, "user_target", 1).manifest.trusted == [OWN]


MILL = """
from modelmill import Entity, Model, Source, request_feature
user = Entity("user", key="user_id")
users = Source("users", entity=user, columns={"feature_1": float, "feature_2": float | None, "target": int})
Source("visits", entity=user, columns={"clicks": int})

@request_feature(dtype=float, needs=["feature_1", "clicks"])
def ratio(row):
    return row["feature_1"] / row["clicks"]
"""


def computing(redis: Redis, folder: Path, text: str = MILL, **changes: Any) -> package.Manifest:
    """The manifest of a version with a computed input, whose definitions were applied."""
    (folder / "mill.py").write_text(text)
    definitions = load_definitions(folder / "mill.py")
    applied.keep(redis, definitions)
    version = definitions.request_features["ratio"].version
    needs = {name: name for name in ("feature_1", "clicks")}
    inputs = [Input("ratio", "float", False, needs=needs, version=version), *packages.USER_INPUTS[1:]]
    fields = {
        "inputs": inputs,
        "auxiliary": packages.USER_INPUTS[:1],
        "definitions": definitions.fingerprint,
        "example": {"ratio": 0.1, "feature_2": 0.2, "clicks": 3},
    }
    return manifest(**(fields | changes))


def test_a_computed_input_has_the_function_of_the_definitions_it_was_trained_with(
    fake_redis: Redis, storage: Storage, tmp_path: Path
) -> None:
    publish(fake_redis, storage, computing(fake_redis, tmp_path), packages.classifier())
    (tmp_path / "mill.py").write_text("raise SystemExit  # what the file holds now is never run")
    [computed] = load(Registry(fake_redis), storage, "user_target", 1).signature.computed
    assert computed.feature.compute({"feature_1": 1.0, "clicks": 4}) == 0.25


def test_a_computed_input_of_definitions_that_were_never_applied_is_refused(
    fake_redis: Redis, storage: Storage, tmp_path: Path
) -> None:
    publish(fake_redis, storage, computing(fake_redis, tmp_path, definitions="f" * 64), packages.classifier())
    with pytest.raises(PackageError, match=f"definitions '{'f' * 64}' is not known"):
        load(Registry(fake_redis), storage, "user_target", 1)


def test_a_function_that_is_not_the_one_it_was_trained_with_is_refused_by_name(
    fake_redis: Redis, storage: Storage, tmp_path: Path
) -> None:
    trained = computing(fake_redis, tmp_path)
    now = computing(fake_redis, tmp_path, MILL.replace(" / ", " // "))
    version = trained.inputs[0].version
    changed = manifest(**{**vars(now), "inputs": trained.inputs})
    publish(fake_redis, storage, changed, packages.classifier())
    reason = f"request feature 'ratio' .* is version {now.inputs[0].version}, but the model was trained with {version}"
    with pytest.raises(PackageError, match=reason):
        load(Registry(fake_redis), storage, "user_target", 1)


def test_definitions_that_cannot_be_run_here_are_refused_by_line(
    fake_redis: Redis, storage: Storage, tmp_path: Path
) -> None:
    described = computing(fake_redis, tmp_path)
    fake_redis.hset(keys.definitions_text(described.definitions), "text", MILL + "import no_such_package\n")
    publish(fake_redis, storage, described, packages.classifier())
    with pytest.raises(PackageError, match=r"mill\.py:10: ModuleNotFoundError: No module named 'no_such_package'"):
        load(Registry(fake_redis), storage, "user_target", 1)
