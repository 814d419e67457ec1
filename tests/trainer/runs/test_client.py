"""Runs from a notebook's side: the client, and the trainer's calls behind it."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from threading import Thread

import httpx
import pandas as pd
import pytest
from flask.testing import FlaskClient
from werkzeug.serving import make_server

from modelmill import Client
from modelmill.client import runs
from modelmill.errors import Conflict, InvalidRequest, RequestFailed
from modelmill.settings import Settings
from modelmill.state import keys
from modelmill.state.connections import Redis
from modelmill.state.registry import Registry
from modelmill.state.runs import Run
from modelmill.storage import Storage
from services.trainer.app import trainer_app
from services.trainer.jobs.queue import TrainingQueue
from services.trainer.jobs.recovery import close_lost_runs
from services.trainer.models import Overview
from services.trainer.recipes import Recipes
from services.trainer.runs import logged
from services.trainer.runs.index import RunIndex
from services.trainer.settings import TrainerSettings
from tests.conftest import USERS_MILL, RedisServer
from tests.eventually import eventually


@pytest.fixture
def client(http: FlaskClient) -> Client:
    """A client of the trainer."""
    client = Client(Settings(trainer_url="http://trainer"))
    client.http = httpx.Client(transport=httpx.WSGITransport(app=http.application))
    return client


def test_a_run_is_logged_in_a_block(client: Client) -> None:
    with client.run("user_target", by="ann") as run:
        run.params(C=1.0, penalty="l2", shape=(2, 3))
        run.log(accuracy=0.5)
        assert client.get_run(run.id)["status"] == "running"
        run.log(accuracy=pd.Series([0.9]).max(), f1=1)
    found = client.get_run(run.id)
    assert (found["status"], found["trigger"], found["by"]) == ("succeeded", "manual log", "ann")
    assert found["metrics"] == {"accuracy": 0.9, "f1": 1.0}
    assert found["params"] == {"C": "1.0", "penalty": "'l2'", "shape": "'(2, 3)'"}
    assert {"python", "numpy"} <= found["packages"].keys()


def test_an_exception_makes_it_a_failed_run_with_the_line_that_raised(client: Client) -> None:
    with pytest.raises(ZeroDivisionError), client.run("anything") as run:
        1 / 0  # noqa: B018
    found = client.get_run(run.id)
    assert (found["status"], found["error"]) == ("failed", "ZeroDivisionError: division by zero")
    assert "1 / 0" in found["traceback"]


def test_a_run_is_logged_without_a_block(client: Client) -> None:
    run = client.run("m").start()
    run.log(score=1)
    run.finish()
    assert client.get_run(run.id)["status"] == "succeeded"
    with pytest.raises(Conflict, match="has begun already"):
        run.start()
    with pytest.raises(Conflict, match="has not begun"):
        client.run("m").log(score=1)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "high", None])
def test_a_metric_is_a_finite_number(client: Client, value: float) -> None:
    with client.run("m") as run, pytest.raises(InvalidRequest, match=r"metric .loss. is .*; expected a finite number"):
        run.log(loss=value)


def test_a_run_goes_on_while_its_process_lives(
    client: Client, fake_redis: Redis, registry: Registry, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "RENEWALS", 3000)
    with client.run("m") as run:
        fake_redis.expire(keys.run_lease(run.id), 5)
        eventually(lambda: fake_redis.ttl(keys.run_lease(run.id)) > 20, within=5, saying="the lease is renewed")
        close_lost_runs(registry, storage)
    assert client.get_run(run.id)["status"] == "succeeded"


def test_a_run_that_was_closed_as_lost_refuses_what_comes_late(
    client: Client, fake_redis: Redis, registry: Registry, storage: Storage
) -> None:
    run = client.run("m").start()
    fake_redis.delete(keys.run_lease(run.id))  # as its expiry does while the process sleeps
    close_lost_runs(registry, storage)
    with pytest.raises(RequestFailed, match="has ended already"):
        run.log(score=1)


def test_the_user_s_own_error_is_raised_even_where_the_run_was_lost(client: Client, fake_redis: Redis) -> None:
    with pytest.raises(KeyError), client.run("m") as run:  # noqa: PT012  the block is what is tested
        fake_redis.delete(keys.run_lease(run.id))
        raise KeyError("mine")


NOTEBOOK = """
import signal, sys
from modelmill import Client
from modelmill.settings import Settings

run = Client(Settings(trainer_url=sys.argv[1])).run("by_hand").start()
print(run.id, flush=True)
signal.pause()
"""


@pytest.mark.redis
def test_the_run_of_a_killed_process_is_closed_soon_and_that_of_a_living_one_is_not(
    real_redis: RedisServer, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logged, "LEASE_SECONDS", 2)
    registry = Registry(real_redis.client())
    recipes, queue = Recipes(registry.redis, USERS_MILL), TrainingQueue(real_redis.client(text=False), limit=3)
    runs, overview = RunIndex(registry.runs), Overview(registry, storage)
    app = trainer_app(queue, registry, overview, recipes, runs, TrainerSettings())
    server = make_server("127.0.0.1", 0, app, threaded=True)
    Thread(target=server.serve_forever, daemon=True).start()
    command = [sys.executable, "-c", NOTEBOOK, f"http://127.0.0.1:{server.port}"]
    notebooks = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    try:
        killed, living = [process.stdout.readline().strip() for process in notebooks if process.stdout]
        notebooks[0].kill()
        begun = time.monotonic()

        def is_closed() -> bool:
            close_lost_runs(registry, storage)
            return registry.runs.get(killed).status != "running"

        eventually(is_closed, within=10, saying="the killed one's run is closed")
        assert time.monotonic() - begun < logged.LEASE_SECONDS + 3
        assert "lost" in registry.runs.get(killed).error
        eventually(
            lambda: time.monotonic() - begun > 2 * logged.LEASE_SECONDS, within=10, saying="two leases have passed"
        )
        close_lost_runs(registry, storage)
        assert registry.runs.get(living).status == "running"
    finally:
        for process in notebooks:
            process.kill()
            process.communicate()
        server.shutdown()
        server.server_close()


@pytest.fixture
def many(registry: Registry) -> None:
    """Seven runs."""
    for n in range(7):
        started = f"2026-11-25T0{n}:00:00.000000Z"
        registry.runs.start(Run(id=f"r{n}", model="m", started=started, metrics={"auc": n / 10}))


@pytest.mark.usefixtures("many")
def test_as_many_runs_come_as_are_asked_for_in_however_many_pages(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modelmill.client.runs.PAGE", 2)
    found = client.runs(limit=5, filter="metrics.auc > 0.05", order="metrics.auc")
    assert [run["id"] for run in found] == ["r1", "r2", "r3", "r4", "r5"]
    assert len(client.runs(limit=100)) == 7
    with pytest.raises(RequestFailed, match="did you mean"):
        client.runs(filter="metrics.acu > 1")


@pytest.mark.usefixtures("many")
def test_runs_are_compared_and_exported(client: Client, tmp_path: Path) -> None:
    assert client.compare_runs("r1", "r2")["runs"] == ["r1", "r2"]
    frame = pd.read_csv(client.export_runs(tmp_path / "runs.csv", filter="metrics.auc > 0.45"))
    assert list(frame["score"]) == [0.6, 0.5]
    assert len(pd.read_parquet(client.export_runs(tmp_path / "runs.parquet"))) == 7
    with pytest.raises(InvalidRequest, match=r"ends with .csv or .parquet"):
        client.export_runs(tmp_path / "runs.xlsx")
    with pytest.raises(RequestFailed):
        client.export_runs(tmp_path / "none.csv", filter="nonsense")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs.csv", "runs.parquet"]
