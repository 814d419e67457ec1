"""A model that is trained as of past days, one after another: a loop in the client, over the trainer's calls."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest
from flask.testing import FlaskClient
from rq.job import JobStatus

from modelmill import Client
from modelmill.errors import RequestFailed, Unavailable
from modelmill.settings import Settings
from modelmill.state.registry import Registry
from modelmill.state.runs import Run
from modelmill.times import utc_now
from services.trainer.jobs.queue import TrainingQueue

MODEL = "user_target"
MONTHS = [f"2013-0{month}-01T00:00:00Z" for month in range(2, 6)]


class Trainer(httpx.BaseTransport):
    """The trainer in this process. Whenever a job is asked for, a worker has meanwhile carried out the first."""

    def __init__(self, http: FlaskClient, queue: TrainingQueue, registry: Registry) -> None:
        self.inner = httpx.WSGITransport(app=http.application)
        self.queue = queue
        self.registry = registry
        self.worked: list[str] = []
        self.most_waiting = 0
        self.failing: dict[str, str] = {}
        """As of when a training fails, and how."""
        self.works = True
        self.before: Callable[[httpx.Request], None] = lambda _: None

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.before(request)
        if request.url.path.startswith("/jobs/"):
            self.most_waiting = max(self.most_waiting, self.queue.rq.count)
            if self.works:
                self.work()
        return self.inner.handle_request(request)

    def work(self) -> None:
        """Do what a worker does with the training that waits longest."""
        (job,) = self.queue.rq.get_jobs(0, 1) or [None]
        if job is None:
            return
        as_of = str(job.kwargs["end"])
        error = self.failing.get(as_of)
        run = Run(
            id=f"r-{job.id[:8]}", model=job.kwargs["model"], started=utc_now(), job=job.id, as_of=as_of,
            start=job.kwargs["start"] or "", trigger=job.kwargs["trigger"], by=job.kwargs["by"],
        )  # fmt: skip
        self.registry.runs.start(run)
        if error is None:
            self.registry.register(run, "folder", promote=False, champion=None)
        else:
            self.registry.runs.fail(run, error, "")
        job.meta = {"run": run.id, "stage": "done", "error": error or ""}
        job.save_meta()
        self.queue.rq.remove(job.id)
        job.set_status(JobStatus.FINISHED if error is None else JobStatus.FAILED)
        self.worked.append(as_of)


@pytest.fixture
def trainer(http: FlaskClient, fake_queue: TrainingQueue, registry: Registry) -> Trainer:
    return Trainer(http, fake_queue, registry)


@pytest.fixture
def client(trainer: Trainer) -> Client:
    client = Client(Settings(trainer_url="http://trainer"))
    client.http = httpx.Client(transport=trainer)
    return client


def ask(client: Client, count: int = 4, *, again: bool = False) -> list[tuple[str, str]]:
    """Train as of the first of some months; as of when, and what became of it."""
    found = client.backfill(MODEL, start=MONTHS[0], end=MONTHS[count - 1], step="month", by="ann", again=again)
    return [(point["as_of"], point["status"]) for point in found]


def succeeded(names: list[str]) -> list[tuple[str, str]]:
    return [(name, "succeeded") for name in names]


def test_a_model_is_trained_as_of_each_point_one_after_another(client: Client, trainer: Trainer) -> None:
    told: list[tuple[int, int]] = []
    done = client.backfill(
        MODEL, start=MONTHS[0], end=MONTHS[3], step="month", by="ann", progress=lambda *now: told.append(now)
    )
    assert (trainer.worked, trainer.most_waiting) == (MONTHS, 1)
    assert [(point["as_of"], point["version"], point["error"]) for point in done] == [
        (name, number, "") for number, name in enumerate(MONTHS, 1)
    ]
    assert told == [(number, 4) for number in range(5)]
    runs = [client.get_run(point["run"]) for point in done]
    assert {(run["trigger"], run["by"]) for run in runs} == {("backfill", "ann")}
    found = client.runs(filter=f"trigger = backfill and model = {MODEL}", order="-as_of")
    assert [run["as_of"] for run in found] == MONTHS[::-1]


def test_asked_again_after_an_interruption_it_goes_on_after_what_is_done(client: Client, trainer: Trainer) -> None:
    def interrupt(request: httpx.Request) -> None:
        if request.url.path.startswith("/jobs/") and len(trainer.worked) == 1:
            raise KeyboardInterrupt

    trainer.before = interrupt
    with pytest.raises(KeyboardInterrupt):
        ask(client)
    trainer.before = lambda _: None
    assert trainer.queue.rq.count == 1, "the training that was asked for goes on"
    assert ask(client) == succeeded(MONTHS)
    assert (trainer.worked, trainer.most_waiting) == (MONTHS, 1)


def test_asked_again_when_all_is_done_nothing_is_trained_unless_it_is_to_begin_anew(
    client: Client, trainer: Trainer
) -> None:
    for again, times in ((False, 1), (False, 1), (True, 2)):
        assert ask(client, 2, again=again) == succeeded(MONTHS[:2])
        assert trainer.worked == MONTHS[:2] * times
    assert [point["version"] for point in client.backfill(MODEL, start=MONTHS[0], end=MONTHS[1], step="month")] == [
        3,
        4,
    ]


def test_a_point_that_fails_does_not_stop_those_after_it_and_is_tried_when_asked_again(
    client: Client, trainer: Trainer
) -> None:
    trainer.failing[MONTHS[0]] = "no rows"
    first, second = client.backfill(MODEL, start=MONTHS[0], end=MONTHS[1], step="month")
    assert (first["status"], first["error"], first["version"], second["status"]) == (
        "failed",
        "no rows",
        None,
        "succeeded",
    )
    assert client.get_run(first["run"])["status"] == "failed"
    trainer.failing.clear()
    assert ask(client, 2) == succeeded(MONTHS[:2])
    assert trainer.worked == [*MONTHS[:2], MONTHS[0]]


def test_a_training_that_somebody_cancels_is_told_as_cancelled(client: Client, trainer: Trainer) -> None:
    def cancel(request: httpx.Request) -> None:
        if request.url.path.startswith("/jobs/") and not trainer.worked and trainer.queue.rq.count:
            trainer.queue.cancel(trainer.queue.rq.job_ids[0], trainer.registry, by="bob")

    trainer.before = cancel
    first, *_ = client.backfill(MODEL, start=MONTHS[0], end=MONTHS[0], step="month")
    assert (first["status"], first["error"], first["run"]) == ("cancelled", "cancelled by bob", None)


def test_only_a_training_of_this_model_on_all_rows_before_a_point_counts_as_done(
    client: Client, trainer: Trainer
) -> None:
    client.train(MODEL, start="2013-01-01", end=MONTHS[0], wait=True)
    client.train(MODEL, end="2013-02-01T01:00:00+01:00", wait=True)  # the same time
    client.train(MODEL, end=MONTHS[1], start="2013-01-31", wait=True)
    trainer.worked.clear()
    assert ask(client, 2) == succeeded(MONTHS[:2])
    assert trainer.worked == [MONTHS[1]]


def test_a_trainer_that_is_away_or_whose_queue_is_full_is_waited_for(client: Client, trainer: Trainer) -> None:
    refused: list[str] = []

    def away(request: httpx.Request) -> None:
        if trainer.worked and len(refused) < 2:
            refused.append(request.url.path)
            raise httpx.ConnectError("refused")
        if len(trainer.worked) == 2 and request.method == "POST" and trainer.works:
            trainer.works = False
            for model in ("a", "b", "c"):
                trainer.queue.enqueue(model)
        elif not trainer.works:  # the client was told that the queue is full, and asks again
            trainer.works = True
            trainer.queue.rq.empty()

    trainer.before = away
    assert ask(client) == succeeded(MONTHS)
    assert len(refused) == 2
    assert trainer.works
    assert trainer.worked == MONTHS


def test_a_training_that_does_not_end_in_time_ends_the_waiting_and_not_the_training(
    client: Client, trainer: Trainer
) -> None:
    trainer.works = False
    with pytest.raises(Unavailable, match="is still queued after"):
        client.backfill(MODEL, start=MONTHS[0], end=MONTHS[3], step="month", seconds=0)
    assert trainer.queue.rq.count == 1


def test_an_unknown_model_is_an_error_at_once(client: Client) -> None:
    with pytest.raises(RequestFailed, match="'user_targe' is not known"):
        client.backfill("user_targe", start=MONTHS[0], end=MONTHS[3], step="month")
