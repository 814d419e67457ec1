"""What trains, judges and serves is the code that was applied, whatever this process has loaded or its disk holds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from modelmill.declare import applied
from modelmill.declare.definitions_file import load
from modelmill.state import keys
from modelmill.state.registry import Registry
from modelmill.state.runs import Run
from modelmill.storage import Storage
from services.predictor import loading
from services.trainer.evaluation import evaluation
from services.trainer.job import train
from tests.conftest import USERS_MILL, RedisServer

pytestmark = pytest.mark.redis

TRANSFORMS = """
from sklearn.base import BaseEstimator, TransformerMixin
import factors

class Scaled(TransformerMixin, BaseEstimator):
    def fit(self, rows, label=None):
        self.fitted_ = True
        return self

    def transform(self, rows):
        return rows * factors.FACTOR
"""
CLASSIFIER = """
def own_log(rows):
    import numpy
    from factors import FACTOR
    return numpy.log1p(abs(rows)) * FACTOR


def classifier():
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer
    from transforms import Scaled

    return make_pipeline(Scaled(), FunctionTransformer(own_log), LogisticRegression())


Model("""

Define = Callable[[str], None]


@pytest.fixture
def registry(environment: dict[str, str], real_redis: RedisServer) -> Registry:
    return Registry(real_redis.client())


@pytest.fixture
def define(registry: Registry, tmp_path: Path) -> Define:
    """Puts definitions in force with such a factor in a module beside them, and removes all files."""

    def define_it(factor: str) -> None:
        folder = tmp_path / "definitions"
        folder.mkdir()
        text = USERS_MILL.read_text().replace("\nModel(", CLASSIFIER, 1).replace('gates=[at_least("accuracy", 0.7)]', "gates=[]").replace("estimator=classifier", 'estimator=classifier, trusted=["transforms.Scaled", "mill.own_log"]')  # fmt: skip
        for name, content in {
            "mill.py": text,
            "transforms.py": TRANSFORMS,
            "factors.py": f"FACTOR = {factor}\n",
        }.items():
            (folder / name).write_text(content)
        definitions = load(folder / "mill.py")
        applied.keep(registry.redis, definitions)
        registry.redis.hset(keys.DEFINITIONS, "fingerprint", definitions.fingerprint)
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()

    return define_it


def trained(registry: Registry) -> Run:
    return registry.runs.get(train("user_target")["run"])


def test_each_version_is_trained_and_served_by_the_modules_of_its_definitions(
    registry: Registry, define: Define, storage: Storage
) -> None:
    runs = []
    for factor in ("1.0", "0.001", "1.0 * 1"):
        define(factor)
        runs.append(trained(registry))
    assert [run.version for run in runs] == [1, 2, 3]
    assert len({run.modules["factors.py"] for run in runs}) == 3
    assert len({run.definitions for run in runs}) == 3
    assert runs[0].metrics == runs[2].metrics != runs[1].metrics
    factors = []
    for version in (1, 2, 1):  # each answers its example as it did when it was packed
        session = loading.load(registry, storage, "user_target", version).session
        factors.append(session.estimator[0].transform(1.0))  # type: ignore[attr-defined]
    assert factors == [1.0, 0.001, 1.0]


def test_the_champion_is_judged_by_its_own_code(registry: Registry, define: Define, storage: Storage) -> None:
    define("1.0")
    first = trained(registry)
    define("-5.0")
    second = trained(registry)
    found = evaluation.read(storage, second.model, second.id)
    assert found.decision is not None
    assert found.decision["compared"]["champion_score"] == pytest.approx(first.metrics["accuracy"])
