"""What is known of how good a run's model is, as it is kept beside the run: `runs/{model}/{run}/evaluation.json`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import orjson

from modelmill.errors import NotFound
from modelmill.state.runs import folder
from modelmill.storage import Storage

FILE = "evaluation.json"


@dataclass(frozen=True)
class Interval:
    """Where the value of a metric lies with a confidence of 95 %, as far as the choice of held-out rows goes."""

    lo: float
    hi: float
    how: str
    """Such as `1000 resamples of 500 blocks of 150 rows`."""

    def __str__(self) -> str:
        return f"{self.lo:.6g} {self.hi:.6g}"


@dataclass(frozen=True)
class Segment:
    """The held-out rows with one value, or range of values, of a column."""

    rows: int
    metrics: dict[str, float]
    intervals: dict[str, Interval] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    """Metric to the reason why it has no value here."""


@dataclass(frozen=True)
class Evaluation:
    """How good a model is on the held-out rows."""

    rows: int
    split: str
    metrics: dict[str, float]
    """The deciding one first."""
    intervals: dict[str, Interval] = field(default_factory=dict)
    baseline: dict[str, float] = field(default_factory=dict)
    """The same metrics of a model that knows only the labels: their shares, or their mean."""
    outputs: dict[str, dict[str, float]] = field(default_factory=dict)
    """Label to its metrics, where there are several labels."""
    segments: dict[str, dict[str, Segment]] = field(default_factory=dict)
    """Column to the values, or ranges of values, to their segments."""
    notes: dict[str, str] = field(default_factory=dict)
    """Column to what is to be known of its segments, such as that rare values are together."""
    figures: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Label to figure to its data."""
    importance: dict[str, Any] = field(default_factory=dict)
    """How much the deciding metric falls where an input is shuffled."""
    features: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Input to its statistics in the rows that the model was trained on."""
    purpose: dict[str, Any] = field(default_factory=dict)
    """What the model declares of itself: description, owner, tags, limits."""
    decision: dict[str, Any] = field(default_factory=dict)
    """Whether its version was promoted, and what each gate said."""

    def to_json(self) -> bytes:
        """The evaluation as it is stored."""
        return orjson.dumps(asdict(self), option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY)

    @classmethod
    def from_json(cls, text: bytes) -> Evaluation:
        """The evaluation in `text`."""
        raw = orjson.loads(text)
        segments = {
            column: {value: Segment(**{**one, "intervals": _intervals(one["intervals"])}) for value, one in of.items()}
            for column, of in raw["segments"].items()
        }
        return cls(**{**raw, "intervals": _intervals(raw["intervals"]), "segments": segments})


def write(storage: Storage, model: str, run: str, evaluation: Evaluation) -> None:
    """Keep the evaluation of a run."""
    storage.write(f"{folder(model, run)}/{FILE}", evaluation.to_json())


def read(storage: Storage, model: str, run: str) -> Evaluation:
    """The evaluation of a run.

    Raises:
        NotFound: where it has none: it failed before, or is of a former version of Modelmill.
    """
    try:
        return Evaluation.from_json(storage.read(f"{folder(model, run)}/{FILE}"))
    except FileNotFoundError:
        raise NotFound(f"run {run!r} of model {model!r} has no evaluation", run=run) from None


def _intervals(raw: Mapping[str, Any]) -> dict[str, Interval]:
    return {name: Interval(**one) for name, one in raw.items()}
