"""What a training records of itself."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from modelmill.errors import InvalidRequest, RunEnded
from modelmill.state.connections import Redis
from modelmill.state.registry import Registry
from modelmill.state.runs import Run
from modelmill.times import utc_now
from services.trainer.jobs.run_record import RunRecord, git_commit, package_versions, parameters


@pytest.fixture
def record(fake_redis: Redis) -> RunRecord:
    return RunRecord(Registry(fake_redis), Run(id="r1", model="m", started=utc_now()), None)


def test_each_stage_is_recorded_with_its_time(record: RunRecord) -> None:
    with record.recording(), record.stage("frame"):
        assert record.registry.runs.get("r1").stage == "frame"
    with record.stage("fit"):
        pass
    assert list(record.registry.runs.get("r1").seconds) == ["frame"]
    assert list(record.run.seconds) == ["frame", "fit"]


def test_an_error_fails_the_run_in_one_sentence_with_its_traceback(record: RunRecord) -> None:
    with pytest.raises(InvalidRequest), record.recording(), record.stage("frame"):
        raise InvalidRequest("no rows")
    run = record.registry.runs.get("r1")
    assert (run.status, run.stage, run.error) == ("failed", "frame", "no rows")
    assert "test_run_record.py" in run.traceback
    assert record.registry.runs.running() == []


def test_code_that_ends_the_process_fails_the_run_too(record: RunRecord) -> None:
    with pytest.raises(SystemExit), record.recording():
        raise SystemExit(3)
    assert record.registry.runs.get("r1").error == "SystemExit: 3"


def test_a_run_that_was_closed_meanwhile_stays_closed_and_stops_the_work(record: RunRecord) -> None:
    with pytest.raises(RunEnded, match="worker lost"), record.recording():
        _close_and_go_on(record)
    assert record.registry.runs.get("r1").error == "worker lost"


def _close_and_go_on(record: RunRecord) -> None:
    record.registry.runs.fail(record.run, "worker lost", "")
    with record.stage("fit"):
        pytest.fail("went on with a run that has ended")


def test_nothing_more_is_recorded_of_a_run_whose_lease_has_expired(fake_redis: Redis) -> None:
    registry, run = Registry(fake_redis), Run(id="r1", model="m", started=utc_now(), lease="lease")
    fake_redis.set("lease", "")
    registry.runs.start(run)
    fake_redis.delete("lease")
    for write in (
        lambda: registry.runs.start(replace(run, id="r2")),
        lambda: registry.runs.update(replace(run, stage="fit")),
        lambda: registry.register(run, "packages/m/r1", promote=True, champion=None),
    ):
        with pytest.raises(RunEnded, match="did not renew its lease"):
            write()
    assert [(r.id, r.stage) for r in registry.runs.newest("m")] == [("r1", "queued")]
    assert registry.versions("m") == []


def test_parameters_are_text_without_the_estimators_themselves() -> None:
    found = parameters(make_pipeline(StandardScaler(), LogisticRegression(C=0.5)))
    assert found["logisticregression__C"] == "0.5"
    assert found.keys().isdisjoint({"steps", "logisticregression", "standardscaler"})


def test_versions_of_python_and_its_packages_are_known() -> None:
    assert {"python", "scikit-learn", "skl2onnx"} <= package_versions().keys()


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), "-c", "user.name=n", "-c", "user.email=e", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_the_commit_says_when_files_differ_from_it(tmp_path: Path) -> None:
    git(tmp_path, "init")
    (tmp_path / "mill.py").write_text("1")
    git(tmp_path, "add", "mill.py")
    git(tmp_path, "commit", "-m", "first")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert git_commit(tmp_path) == commit
    (tmp_path / "mill.py").write_text("2")
    assert git_commit(tmp_path) == f"{commit}-dirty"


def test_without_git_the_commit_is_what_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_commit(tmp_path) == "unknown"
    monkeypatch.setenv("MODELMILL_GIT_COMMIT", "abc123")
    assert git_commit(tmp_path) == "abc123"
