"""One predict request from its decoded body to its answer, and what is reported of it."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from modelmill.errors import Unavailable, UnknownName
from modelmill.http.app import status_of
from modelmill.state.events import PredictionFailed, PredictionServed
from modelmill.state.registry import Registry
from modelmill.times import iso, micros
from services.predictor import features, instances, reports
from services.predictor.features import OnlineStore
from services.predictor.inference import Answers, LiveModels, ServedModel, infer
from services.predictor.reports import Report, Reports
from services.predictor.signature import Signature

SOURCE = "predictor"


@dataclass(frozen=True)
class Predictor:
    """Answers for the live models, with features from `store`."""

    registry: Registry
    store: OnlineStore
    live: LiveModels
    reports: Reports
    max_instances: int

    def model(self, name: str) -> ServedModel:
        """The live version of a model.

        Raises:
            UnknownName: for a model that the registry does not know either.
            Unavailable: for one that has no live version, saying why.
        """
        served = self.live.served.get(name)
        if served is not None:
            return served
        known = self.registry.models()
        if name not in known:
            raise UnknownName("model", name, known)
        problem = self.live.problems.get(name)
        raise Unavailable(
            f"model {name!r} has no live version: {problem.reason if problem else 'no version of it is champion yet'}",
            model=name,
        )

    def answer(self, name: str, body: Callable[[], Any], started: float) -> dict[str, Any]:
        """The answer of model `name` to a request that came at `started`, by `time.perf_counter()`.

        `body` decodes the request's JSON. Whatever is raised, here or by `body`, is reported as a failed prediction,
        except for a model that nobody knows.
        """
        version = 0
        try:
            model = self.model(name)
            version = model.version
            return self._predict(model, body(), started)
        except UnknownName:
            raise
        except Exception as error:
            if version or isinstance(error, Unavailable):
                self._failed(name, version, error, started)
            raise

    def _predict(self, model: ServedModel, body: Any, started: float) -> dict[str, Any]:
        signature = model.signature
        asked = instances.parse(body, signature, self.max_instances)
        now = datetime.now(UTC)
        oldest = features.cutoffs(signature, now)
        t = micros(now)
        stored = features.read(self.store, signature, features.lookups(asked, signature), t)
        rows = [features.row(instance, signature, stored, oldest, t) for instance in asked]
        answers = infer(model, [row.values for row in rows])
        prediction_id = secrets.token_hex(16)
        origin = {"model": model.name, "version": model.version, "prediction_id": prediction_id}
        if instances.is_batch(body):
            answer = {"predictions": _each(answers), **origin}
        else:
            answer = {**_each(answers)[0], **origin, "features": _freshness(rows[0].event_times, now)}
        self._served(model, prediction_id, started, now, asked, rows, answers)
        return answer

    def _failed(self, name: str, version: int, error: Exception, started: float) -> None:
        latency, now, status, reason = _milliseconds(started), time.time(), status_of(error), str(error)
        reports.PREDICTIONS.labels(name, "failed").inc()
        self.reports.add(
            Report(
                1,
                lambda: PredictionFailed(
                    source=SOURCE,
                    time=_iso(now),
                    model=name,
                    version=version,
                    latency_ms=latency,
                    status=status,
                    error=reason,
                ),
            )
        )

    def _served(
        self,
        model: ServedModel,
        prediction_id: str,
        started: float,
        now: datetime,
        asked: list[instances.Instance],
        rows: list[features.Row],
        answers: Answers,
    ) -> None:
        latency = _milliseconds(started)
        reports.PREDICTIONS.labels(model.name, "served").inc()
        self.reports.add(
            Report(
                len(rows),
                lambda: PredictionServed(
                    id=prediction_id,
                    source=SOURCE,
                    time=iso(now),
                    model=model.name,
                    version=model.version,
                    latency_ms=latency,
                    rows=len(rows),
                    features={
                        item.name: [row.values[position] for row in rows]
                        for position, item in enumerate(model.signature.inputs)
                    },
                    predictions=answers.predictions,
                    keys=_keys(model.signature, asked),
                    given=_given(model.signature, asked),
                ),
            )
        )


def _each(answers: Answers) -> list[dict[str, Any]]:
    if answers.probabilities is None:
        return [{"prediction": prediction} for prediction in answers.predictions]
    return [
        {"prediction": prediction, "probabilities": probabilities}
        for prediction, probabilities in zip(answers.predictions, answers.probabilities, strict=True)
    ]


def _keys(signature: Signature, asked: list[instances.Instance]) -> dict[str, list[str | None]]:
    """Entity to the key that was looked up for each instance; entities of which nothing was read are left out."""
    found = {
        entity.name: [one.keys[number] if one.needs(number, entity) else None for one in asked]
        for number, entity in enumerate(signature.entities)
    }
    return {entity: keys for entity, keys in found.items() if any(keys)}


def _given(signature: Signature, asked: list[instances.Instance]) -> list[list[str]]:
    """The features that came with each instance; nothing at all where none did."""
    requested = set(signature.requested)
    if all(one.given.keys() <= requested for one in asked):
        return []
    return [
        [
            signature.input(position).name
            for position in sorted(one.given.keys() - requested)
            if position not in signature.spare or not signature.spare[position] <= one.given.keys()
        ]
        for one in asked
    ]


def _freshness(event_times: dict[str, str | None], now: datetime) -> dict[str, dict[str, Any]]:
    """How old the features of each entity are that was read; absent values where defaults stood for it."""
    return {
        entity: {
            "event_time": time,
            "age_seconds": round((now - datetime.fromisoformat(time)).total_seconds(), 3) if time else None,
        }
        for entity, time in event_times.items()
    }


def _milliseconds(started: float) -> float:
    return round((time.perf_counter() - started) * 1000, 4)


def _iso(seconds: float) -> str:
    return iso(datetime.fromtimestamp(seconds, UTC))
