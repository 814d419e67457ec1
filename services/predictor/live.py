"""The models that this process serves now. Readers take no lock: a swap replaces the whole mapping at once."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from modelmill.errors import Unavailable
from modelmill.packages.package import Manifest
from modelmill.packages.sessions import Session
from services.predictor.signature import Signature, Value


@dataclass(frozen=True)
class ServedModel:
    """One version of a model, ready to answer."""

    name: str
    version: int
    manifest: Manifest
    signature: Signature
    session: Session
    tensors: Mapping[str, Any]
    """Name of each of the session's inputs to its NumPy type."""
    outputs: list[str]
    """The session's outputs: labels and maybe probabilities, or numbers."""
    labels: Mapping[Value, Value]
    """What the graph calls a class to what the estimator calls it: ONNX has 0 and 1 for False and True."""
    class_names: tuple[str, ...]
    """The classes as names of probabilities; empty where the model has none."""
    label_classes: Mapping[str, tuple[str, ...]]
    """Label to the names of its classes, of a model with several."""
    loaded: str
    """When it was loaded, as an ISO time."""


@dataclass(frozen=True)
class LoadProblem:
    """Why a champion is not live."""

    version: int
    reason: str
    since: str
    """When it was first met, as an ISO time."""
    retry_at: float = field(repr=False)
    """When it is tried again, by `time.monotonic()`."""


class LiveModels:
    """Which versions are served, and which champions could not be loaded. One thread writes, any may read."""

    def __init__(self) -> None:
        self.served: Mapping[str, ServedModel] = MappingProxyType({})
        self.problems: Mapping[str, LoadProblem] = MappingProxyType({})
        self._awaited: frozenset[str] | None = None

    def swap(self, model: ServedModel) -> None:
        """Serve `model` from now on; requests that have begun end with the version they began with."""
        self.served = MappingProxyType({**self.served, model.name: model})
        self.solve(model.name)

    def drop(self, model: str) -> None:
        """Serve `model` no longer."""
        self.served = MappingProxyType({name: one for name, one in self.served.items() if name != model})

    def note(self, model: str, problem: LoadProblem) -> None:
        """Remember why the champion of `model` is not live."""
        self.problems = MappingProxyType({**self.problems, model: problem})

    def solve(self, model: str) -> None:
        """Forget the problem of `model`, if it had one."""
        if model in self.problems:
            self.problems = MappingProxyType({name: one for name, one in self.problems.items() if name != model})

    def expect(self, champions: Collection[str]) -> None:
        """Remember which models have to be tried before this process is ready: the first champions it hears of."""
        self._awaited = frozenset(champions) if self._awaited is None else self._awaited & frozenset(champions)

    def check_ready(self) -> str:
        """Which champions are not live, and why; those of others do not suffer by it.

        Raises:
            Unavailable: until each champion known at the start is live or could not be loaded, and one model is live.
        """
        if self._awaited is None:
            raise Unavailable("the registry has not been read yet")
        problems = "; ".join(f"{name}: {problem.reason}" for name, problem in sorted(self.problems.items()))
        if untried := sorted(self._awaited - self.served.keys() - self.problems.keys()):
            raise Unavailable("; ".join(f"{name}: not loaded yet" for name in untried))
        if not self.served:
            raise Unavailable(problems or "no model has a champion yet: train one, or promote a version")
        return problems
