"""Whole trainings of LightGBM and XGBoost, the optional extras, in this process."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelmill.errors import InvalidRequest
from modelmill.packages import package
from modelmill.state.registry import Registry
from modelmill.storage import Storage
from services.trainer.job import train
from tests.conftest import USERS_MILL, RedisServer

pytestmark = pytest.mark.redis

LIGHTGBM = """
def classifier():
    from lightgbm import LGBMClassifier

    return LGBMClassifier(n_estimators=20, n_jobs=1, verbose=-1, random_state=0)

"""
XGBOOST = """
def classifier():
    from xgboost import XGBClassifier

    return XGBClassifier(n_estimators=20, n_jobs=1, random_state=0)

"""
TRUSTED = 'trusted=["xgboost.core.Booster", "xgboost.sklearn.XGBClassifier"]'


@pytest.fixture
def registry(environment: dict[str, str], real_redis: RedisServer) -> Registry:
    return Registry(real_redis.client())


@pytest.fixture
def mill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "mill.py"
    monkeypatch.setenv("MODELMILL_DEFINITIONS", str(path))
    return path


def declare(mill: Path, function: str, arguments: str) -> None:
    text = USERS_MILL.read_text().replace("\nModel(", f"{function}\nModel(")
    mill.write_text(text.replace("estimator=classifier", f"estimator=classifier,\n    {arguments}"))


def test_lightgbm_is_searched_and_served_as_a_graph(registry: Registry, mill: Path, tmp_path: Path) -> None:
    declare(mill, LIGHTGBM, 'search={"num_leaves": [3, 15]}, cv=3')
    run = registry.runs.get(train("user_target")["run"])
    assert (run.status, run.trials, run.trials_failed) == ("succeeded", 2, 0)
    files = Storage(f"file://{tmp_path}/storage").names(run.package, "")
    assert any(name.endswith(f"/{package.GRAPH}") for name in files)


def test_xgboost_is_searched_and_served_itself_where_its_types_are_trusted(
    registry: Registry, mill: Path, tmp_path: Path
) -> None:
    declare(mill, XGBOOST, f'search={{"max_depth": [2, 4]}}, cv=3, {TRUSTED}')
    run = registry.runs.get(train("user_target")["run"])
    assert (run.status, run.trials, run.trials_failed) == ("succeeded", 2, 0)
    files = Storage(f"file://{tmp_path}/storage").names(run.package, "")
    assert any(name.endswith(f"/{package.ESTIMATOR}") for name in files)
    assert not any(name.endswith(f"/{package.GRAPH}") for name in files)


def test_xgboost_is_refused_with_the_types_to_trust(registry: Registry, mill: Path) -> None:
    declare(mill, XGBOOST, "metrics=[]")
    with pytest.raises(InvalidRequest, match=r"xgboost\.core\.Booster"):
        train("user_target")
