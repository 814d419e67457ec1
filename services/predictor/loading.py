"""From a version in the registry to a model that is ready to answer: package checked, session made and warmed up."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from threading import Event as Flag
from typing import Any

from modelmill.declare import applied
from modelmill.declare.features import RequestFeature
from modelmill.errors import PackageError, printable, sentence
from modelmill.packages import package
from modelmill.packages.package import Manifest
from modelmill.packages.sessions import TENSORS, Session, open_package, require_same
from modelmill.state import bus, keys
from modelmill.state.connections import AWAY, Redis
from modelmill.state.registry import Registry
from modelmill.storage import Storage
from modelmill.times import utc_now
from services.predictor import reports
from services.predictor.inference import LiveModels, LoadProblem, ServedModel, infer, tensors
from services.predictor.signature import NO_FUNCTIONS, Signature


def load(registry: Registry, storage: Storage, model: str, version: int) -> ServedModel:
    """Load a version of `model`.

    Raises:
        PackageError: for a package with a missing or altered file, whose graph, estimator or functions are not what
            its manifest says, or whose estimator is made of types that are not trusted.
        UnknownName: for a version that the registry does not have.
    """
    folder = registry.version(model, version).package
    manifest, content = package.read(storage, folder)
    try:
        functions = _functions(registry.redis, manifest)
        session = open_package(registry.redis, manifest, content)
        return warmed_up(model, version, manifest, session, functions)
    except AWAY:
        raise
    except (Exception, SystemExit) as error:  # neither ONNX Runtime's nor scikit-learn's errors have a common root
        reason = f"{type(error).__name__}: {printable(error)}"
        raise PackageError(f"package {folder} cannot be served: {reason}", package=folder) from error


def _functions(redis: Redis, manifest: Manifest) -> Mapping[str, RequestFeature]:
    """The functions of computed inputs, from the definitions that the version was trained with, as they were applied.

    Raises:
        UnknownName, DefinitionsError: where these were never applied, or cannot be run here.
        ValueError: for a function that is not the one that the version was trained with.
    """
    computed = [item for item in manifest.inputs if item.needs is not None]
    if not computed:
        return {}
    declared = applied.load(redis, manifest.definitions).request_features
    for item in computed:
        found = declared[item.name].version if item.name in declared else None
        if found != item.version:
            raise ValueError(
                f"request feature {item.name!r} of definitions {manifest.definitions[:8]} is version {found}, but the"
                f" model was trained with {item.version}; train again"
            )
    return declared


def warmed_up(
    name: str,
    version: int,
    manifest: Manifest,
    session: Session,
    functions: Mapping[str, RequestFeature] = NO_FUNCTIONS,
) -> ServedModel:
    """A model that has answered once: its manifest's example, as it did when it was packed.

    Raises:
        ValueError: where its answer, or what it takes, is not what the manifest says.
    """
    outputs = [item.name for item in session.get_outputs()]
    has_probabilities = manifest.task == "classification" and len(outputs) > 1
    model = ServedModel(
        name=name,
        version=version,
        manifest=manifest,
        signature=Signature.of(manifest, functions),
        session=session,
        tensors=_tensors(manifest, session),
        outputs=outputs,
        labels={} if manifest.labels else {label: label for label in manifest.classes},
        class_names=() if manifest.labels or not has_probabilities else tuple(map(_class_name, manifest.classes)),
        label_classes={
            label: tuple(map(_class_name, classes))
            for label, classes in zip(manifest.labels, manifest.classes, strict=False)
        },
        loaded=utc_now(),
    )
    example = [[manifest.example[item.name] for item in manifest.inputs]]
    infer(model, example)
    if manifest.answer:
        require_same(manifest, session.run(model.outputs, tensors(model, example)))
    return model


def _tensors(manifest: Manifest, session: Session) -> Mapping[str, Any]:
    types = {item.name: item.type for item in session.get_inputs()}
    if unknown := set(types.values()) - TENSORS.keys():
        raise ValueError(f"it takes {', '.join(sorted(unknown))}; expected {', '.join(TENSORS)}")
    if manifest.layout == "matrix" and len(types) != 1:
        raise ValueError(f"it has the inputs {', '.join(types)}; expected one, with the layout matrix")
    if manifest.layout == "columns" and types.keys() != {item.name for item in manifest.inputs}:
        expected = ", ".join(item.name for item in manifest.inputs)
        raise ValueError(f"it has the inputs {', '.join(types)}; expected {expected}")
    return {name: TENSORS[kind] for name, kind in types.items()}


def _class_name(label: object) -> str:
    return str(label).lower() if isinstance(label, bool) else str(label)


# --- keeps the live models equal to the registry's champions. Events wake it; the registry is the truth.

log = logging.getLogger(__name__)

LISTEN = 1.0
"""Seconds after which the registry is read again, whether or not an event came."""
RETRY = 5.0
"""Seconds until a champion that could not be loaded is tried again."""


class Reconciler:
    """Loads, swaps and unloads models in a thread of its own.

    `registry` is to be on a Redis client whose time limit is above `LISTEN`.
    """

    def __init__(self, registry: Registry, storage: Storage, live: LiveModels, *, retry: float = RETRY) -> None:
        self.registry = registry
        self.storage = storage
        self.live = live
        self.retry = retry

    def run(self, stop: Flag) -> None:
        """Follow the registry until `stop` is set, whatever goes wrong."""
        while not stop.is_set():
            try:
                self._follow(stop)
            except AWAY as error:
                log.warning("cannot read the registry, trying every second: %s", error)
            except Exception:
                log.exception("reconciling failed, trying again in a second")
            stop.wait(1.0)

    def _follow(self, stop: Flag) -> None:
        redis = self.registry.redis
        position = bus.last_position(redis, keys.EVENTS_MODELS)  # before the registry, so that no promotion is missed
        self.reconcile()
        for _ in bus.follow(redis, keys.EVENTS_MODELS, position, stop, wait=LISTEN):
            self.reconcile()

    def reconcile(self) -> None:
        """Make live what the registry calls champion; a champion that cannot be loaded leaves the old version live."""
        champions = self.registry.champions()
        self.live.expect(champions)
        for model in self.live.served.keys() - champions.keys():
            self.live.drop(model)
            reports.LIVE_VERSION.labels(model).set(0)
            log.info("%s has no champion any more and is unloaded", model)
        for model in self.live.problems.keys() - champions.keys():
            self.live.solve(model)
        for model, version in champions.items():
            served = self.live.served.get(model)
            if served is not None and served.version == version:
                self.live.solve(model)
            elif self._is_due(model, version):
                self._bring(model, version)

    def _is_due(self, model: str, version: int) -> bool:
        problem = self.live.problems.get(model)
        return problem is None or problem.version != version or time.monotonic() >= problem.retry_at

    def _bring(self, model: str, version: int) -> None:
        started = time.perf_counter()
        try:
            served = load(self.registry, self.storage, model, version)
        except AWAY:
            raise
        except Exception as error:
            self._note(model, version, error)
            return
        self.live.swap(served)
        seconds = time.perf_counter() - started
        reports.LOAD_SECONDS.labels(model).observe(seconds)
        reports.LIVE_VERSION.labels(model).set(version)
        reports.SWAPS.labels(model).inc()
        log.info("%s version %d is live, loaded in %.0f ms", model, version, seconds * 1000)

    def _note(self, model: str, version: int, error: Exception) -> None:
        reports.LOAD_FAILURES.labels(model).inc()
        reason = f"version {version} cannot be loaded: {sentence(error)}"
        known = self.live.problems.get(model)
        if known is None or known.reason != reason:
            log.error("%s %s; trying again every %g s", model, reason, self.retry)
            known = None
        since = known.since if known else utc_now()
        self.live.note(model, LoadProblem(version, reason, since, time.monotonic() + self.retry))
