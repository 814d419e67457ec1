"""Each event that travels through Redis, as a frozen dataclass named by a past fact.

An entry of a stream holds the CloudEvents 1.0 attributes (`specversion`, `id`, `source`, `type`, `time`, `subject`)
as fields, and beside them the event's own fields as plain text: numbers as they print, lists and objects as JSON,
an absent value as the empty string.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Self

from modelmill.state import keys
from modelmill.state.records import readers, to_text
from modelmill.times import utc_now

EVENTS: dict[str, type[Event]] = {}
"""Every event by its wire name."""


@dataclass(frozen=True, kw_only=True)
class Event:
    """What all events have. Subclasses say their wire name, their stream and which field is the subject."""

    type: ClassVar[str]
    stream: ClassVar[str]
    subject: ClassVar[str]

    def __init_subclass__(cls, *, type: str, stream: str, subject: str = "model") -> None:
        cls.type, cls.stream, cls.subject = type, stream, subject
        EVENTS[type] = cls

    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    source: str = "modelmill"
    time: str = field(default_factory=utc_now)

    def to_fields(self) -> dict[str, str]:
        """The event as the fields of a stream entry."""
        entry = {"specversion": "1.0", "type": self.type, "subject": str(getattr(self, self.subject))}
        for item in fields(self):
            entry[item.name] = to_text(getattr(self, item.name))
        return entry

    @classmethod
    def from_fields(cls, entry: Mapping[str, str]) -> Self:
        """The event of this class that `entry` holds; fields that it does not know are left out."""
        kind: Any = cls  # mypy takes a dataclass's __hash__ for that of the class itself
        return cls(**{name: read(entry[name]) for name, read in readers(kind).items() if name in entry})


def parse(entry: Mapping[str, str]) -> Event | None:
    """The event in a stream entry, or None for a type that this version does not know.

    Raises:
        ValueError: for an entry that lacks a field of its type, or holds a value of another kind there.
    """
    kind = EVENTS.get(entry.get("type", ""))
    try:
        return kind.from_fields(entry) if kind else None
    except (TypeError, ValueError) as error:
        raise ValueError(f"unreadable {entry['type']} event {entry.get('id', '')!r}: {error}") from None


@dataclass(frozen=True, kw_only=True)
class RunStarted(Event, type="run.started", stream=keys.EVENTS_MODELS):
    """A training attempt began."""

    model: str
    run: str
    trigger: str
    """What asked for it: `manual`, `backfill`, `registered`, `manual log`, or a kind of trigger: `every`, `cron`,
    `after`, `on`."""


@dataclass(frozen=True, kw_only=True)
class RunFailed(Event, type="run.failed", stream=keys.EVENTS_MODELS):
    """A training attempt ended without a version: it failed, was cancelled, or lost its worker."""

    model: str
    run: str
    error: str
    """The error in one sentence; the traceback is in the run."""
    status: str = "failed"
    """`failed`, `cancelled` or `lost`."""


@dataclass(frozen=True, kw_only=True)
class RunLogged(Event, type="run.logged", stream=keys.EVENTS_MODELS):
    """A run that was logged by hand, such as from a notebook, ended well; it has no version."""

    model: str
    run: str
    metrics: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class ModelTrained(Event, type="model.trained", stream=keys.EVENTS_MODELS):
    """A training attempt succeeded and its version is registered."""

    model: str
    version: int
    run: str
    metrics: dict[str, float]
    """Metric name to its value on the held-out rows."""
    decision: str = ""
    """Whether it was promoted, and why or why not."""
    gates: dict[str, str] = field(default_factory=dict)
    """Gate to whether it held, with its figures."""


@dataclass(frozen=True, kw_only=True)
class ModelPromoted(Event, type="model.promoted", stream=keys.EVENTS_MODELS):
    """An alias now names another version; with the alias `champion`, predictors serve it."""

    model: str
    alias: str
    version: int
    previous: int | None
    """The version that the alias named before; absent at the first promotion."""
    by: str
    reason: str
    kind: str = "promote"
    """`promote` or `rollback`."""
    gates: dict[str, str] = field(default_factory=dict)
    """Of a version that was promoted when it was registered: gate to whether it held, with its figures."""
    forced: list[str] = field(default_factory=list)
    """The gates that the version had failed and that were overruled."""


@dataclass(frozen=True, kw_only=True)
class AliasDeleted(Event, type="alias.deleted", stream=keys.EVENTS_MODELS):
    """An alias names nothing any more; without `champion`, a model is not served."""

    model: str
    alias: str
    version: int
    """The version that it named."""
    by: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class VersionsPruned(Event, type="versions.pruned", stream=keys.EVENTS_MODELS):
    """Packages and run files of old versions are being removed; their records stay, their numbers are never reused."""

    model: str
    versions: list[int]
    by: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class DefinitionsApplied(Event, type="definitions.applied", stream=keys.EVENTS_FEATURES, subject="fingerprint"):
    """Another state of the definitions file is in force; services that read the file load it again."""

    fingerprint: str
    """SHA-256 of the file, in hexadecimal."""
    changes: list[str]
    """What was added, changed or removed, a sentence each."""


@dataclass(frozen=True, kw_only=True)
class RowsIngested(Event, type="rows.ingested", stream=keys.EVENTS_FEATURES, subject="table"):
    """Rows are in the history and in the online store."""

    table: str
    """Name of the feature source (`source` is the CloudEvents attribute)."""
    accepted: int
    rejected: int
    late: int = 0
    """Accepted rows that were older than what was online."""
    failed_features: int
    """Values that a feature function failed to compute."""
    ingest_time: str = ""
    """Ingest time of all these rows; `time` is when they were online."""


@dataclass(frozen=True, kw_only=True)
class EntityForgotten(Event, type="entity.forgotten", stream=keys.EVENTS_FEATURES, subject="entity"):
    """All that was stored of one entity is erased; the receipt is kept under `forgotten:{entity}:{digest}`."""

    entity: str
    digest: str
    """SHA-256 of the entity's key, in hexadecimal; the key itself is nowhere any more."""
    rows: int
    """Rows of history that were erased."""
    by: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class PredictionServed(Event, type="prediction.served", stream=keys.EVENTS_PREDICTIONS):
    """One predict request was answered; `id` is the prediction's id.

    `time` is when its features were read, by which their ages count.
    """

    model: str
    version: int
    latency_ms: float
    """From the request's arrival in the application to the finished answer, in milliseconds."""
    rows: int
    features: dict[str, list[Any]]
    """Model input to its values, one a row, as they went into the model."""
    predictions: list[Any]
    """The answers, one a row."""
    keys: dict[str, list[str | None]] = field(default_factory=dict)
    """Entity to the keys that were looked up, one a row, null where none was; without entities of which nothing was."""
    given: list[list[str]] = field(default_factory=list)
    """Names of the features that the caller gave, a list a row; empty where no row had any. Request inputs, which
    always come with the request, are not listed."""


@dataclass(frozen=True, kw_only=True)
class PredictionFailed(Event, type="prediction.failed", stream=keys.EVENTS_PREDICTIONS):
    """One predict request for a known model got an error."""

    model: str
    version: int
    """The live version, or 0 where the model had none."""
    latency_ms: float
    status: int
    """The HTTP status that was answered."""
    error: str


@dataclass(frozen=True, kw_only=True)
class DriftDetected(Event, type="drift.detected", stream=keys.EVENTS_ALERTS):
    """What a model is asked for is no longer like what it was trained on."""

    model: str
    version: int | None = None
    """The version that was serving."""
    features: list[str] = field(default_factory=list)
    """The inputs that have drifted."""
    detail: str = ""
    """What was found, in one sentence."""


@dataclass(frozen=True, kw_only=True)
class QualityDegraded(Event, type="quality.degraded", stream=keys.EVENTS_ALERTS):
    """A model's answers have become worse than they are allowed to be."""

    model: str
    version: int | None = None
    """The version that was serving."""
    metric: str = ""
    """What has become worse, such as `accuracy`."""
    detail: str = ""
    """What was found, in one sentence."""
