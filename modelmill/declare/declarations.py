"""What a user's definitions file declares: entities, sources, features and models.

    from modelmill import Entity, Model, Source, feature

    user = Entity("user", key="user_id")
    users = Source("users", entity=user, columns={"feature_1": float, "feature_2": float, "target": int})

    @feature(user, dtype=float)
    def feature_3(row):
        return row["feature_1"] ** 2

    Model("user_target", entities=[user], features=["feature_1", "feature_2", "feature_3"], label="target",
          estimator=classifier, metric="accuracy")

Each declaration checks what it can see by itself and registers with the file that is being loaded;
`modelmill.declare.definitions_file` collects them and checks them together. Every mistake is a `ValueError` with the
reason.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from modelmill import times
from modelmill.columns.types import MAX_SHOWN_CHARACTERS, Column, Expect, Scalar, to_pandas
from modelmill.declare import splits, triggers, trusted_types
from modelmill.declare.gates import Gate, Policy, gates_of, policy_of
from modelmill.declare.metrics import all_of, columns_of
from modelmill.declare.search import NOT_GIVEN, Search
from modelmill.declare.splits import Weighting
from modelmill.declare.triggers import Trigger
from modelmill.errors import printable

if TYPE_CHECKING:
    import pyarrow as pa

Batch = Literal["pandas", "arrow"]
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
NO_COLUMNS = (str, bytes, Mapping, Set)
"""What can be iterated over, and is still no column of values."""
KEEP = 20
"""How many of its newest versions a model keeps in the storage where it does not say."""
MAX_FUTURE = "5m"
"""How much later than now an event time may be where its source does not say."""


class Declared:
    """Something that a definitions file declares; remembers the line, for error messages."""

    name: str

    def __init__(self, kind: str, name: str, *, reserved: bool = False) -> None:
        self.name = _named(kind, name, reserved=reserved)
        self.kind = kind
        self.file, self.line = _calling_line()
        if (collected := _collected.get()) is not None:
            collected.append(self)

    def __repr__(self) -> str:
        return f"<{self.kind} {self.name}>"


class Entity(Declared):
    """A thing that features describe. `key` is the name of its join key in rows and requests."""

    def __init__(self, name: str, *, key: str) -> None:
        self.key = _named(f"entity {name!r}: key", key, reserved=True)
        super().__init__("entity", name)


class Source(Declared):
    """A named, append-only table of timestamped rows.

    Rows about one `entity` become its online features. Rows about several `entities` are labelled events: they are
    kept in history, where models find their labels. `event_time` names the column with each row's time (ISO 8601,
    or seconds since 1970); without it a row's time is that of its ingest.

    Args:
        columns: name to type (`float`, `int | None`) or to `column(type, min=..., ...)`.
        max_age: how long after its event time a row is used, such as `30d`; older ones are expired, online and in
            training frames.
        max_future: how much later than now an event time may be, such as `1h`; by default `5m`.
        expect: what each batch of rows must be as a whole.
        description: what the rows are.
        owner: who answers for them.
        tags: words to find the source by.
    """

    def __init__(
        self,
        name: str,
        *,
        columns: Mapping[str, Any],
        entity: Entity | None = None,
        entities: Sequence[Entity] = (),
        event_time: str | None = None,
        max_age: str | None = None,
        max_future: str | None = None,
        expect: Expect | None = None,
        description: str = "",
        owner: str = "",
        tags: Sequence[str] = (),
    ) -> None:
        if (entity is None) == (not entities):
            raise ValueError(f"source {name!r}: expected either entity=... or entities=[...]")
        self.entities = _entities(f"source {name!r}", entities if entity is None else [entity])
        self.columns = {column: Column.specified(column, kind) for column, kind in columns.items()}
        self.max_future = _length(f"source {name!r}: max_future", MAX_FUTURE if max_future is None else max_future)
        self.event_time = event_time
        self.max_age = None if max_age is None else _length(f"source {name!r}: max_age", max_age)
        """Seconds."""
        taken: list[str] = []
        for column in (*(e.key for e in self.entities), *([event_time] if event_time else []), *self.columns):
            if column in taken:
                raise ValueError(f"source {name!r}: {column!r} is named twice among join keys, event time and columns")
            taken.append(column)
        for column in self.columns:
            _named(f"source {name!r}: column", column, reserved=True)
        if max_future is not None and event_time is None:
            raise ValueError(f"source {name!r}: max_future={max_future!r} bounds event times; name their column too")
        self.expect = _expect(f"source {name!r}", expect, taken)
        self.about = About.of(f"source {name!r}", description, owner, tags)
        super().__init__("source", name)

    @property
    def entity(self) -> Entity | None:
        """The entity whose online features these rows are, or None for rows about several."""
        return self.entities[0] if len(self.entities) == 1 else None


class Feature(Declared):
    """A derived column of a source, computed once for each row by `function`.

    `version` is the hash of the function's code (`modelmill.declare.definitions_file`): a changed function is another
    version, stored beside the former one for as long as a model is served with that.
    """

    version = ""

    def __init__(
        self,
        of: Entity | Source,
        function: Callable[[Any], Any],
        column: Column,
        *,
        batch: Batch | None,
        max_failed: float,
        about: About,
    ) -> None:
        _named("feature", column.name, reserved=True)
        if not 0 <= max_failed <= 1:
            raise ValueError(f"feature {column.name!r}: max_failed={max_failed!r}; expected a share from 0 to 1")
        self.of = of
        self.function = function
        self.column = column
        self.batch = batch
        self.max_failed = max_failed
        self.about = about
        super().__init__("feature", column.name)
        self.file, self.line = defined_at(function, self)

    @property
    def field(self) -> str:
        """The name under which its values are stored, in the history and online: `feature_3@4f2e1a9c`."""
        return f"{self.name}@{self.version}"

    def call_batch(self, table: pa.Table) -> list[Any]:
        """What a batch function returns for a table, as a list.

        Raises:
            TypeError: for what is no column.
            ValueError: for another number of values than the table has rows; and whatever the function raises.
        """
        found: Any = self.function(to_pandas(table) if self.batch == "pandas" else table)
        values: list[Any]
        if hasattr(found, "to_pylist") and not hasattr(found, "columns"):  # an array of Arrow
            values = found.to_pylist()
        elif getattr(found, "ndim", None) == 1:  # a Series or an array
            values = found.tolist()
        elif isinstance(found, Iterable) and not isinstance(found, NO_COLUMNS) and not hasattr(found, "columns"):
            values = list(found)
        else:
            shown = " ".join(printable(found, MAX_SHOWN_CHARACTERS, repr).split())  # in one line
            raise TypeError(f"returned {shown}; expected a column of values: a Series, an array or a list")
        if len(values) != table.num_rows:
            raise ValueError(f"returned {len(values)} values for {table.num_rows} rows")
        return values


def feature(
    of: Entity | Source,
    *,
    dtype: Any,
    batch: bool | Batch = False,
    max_failed: float = 0.1,
    description: str = "",
    owner: str = "",
    tags: Sequence[str] = (),
) -> Callable[[Callable[[Any], Any]], Callable[[Any], Any]]:
    """Declare a feature of an entity (or of one of its sources, where it has several), named as the function.

    The function gets one row of the source as a dict of its join key and columns and returns the value, or None
    where `dtype` allows it (`float | None`). With `batch` it gets many rows at once, as a pandas DataFrame (`True` or
    `"pandas"`) or an Arrow table (`"arrow"`), and returns a column of as many values; each may depend on its own row
    alone, which is checked when the file is applied.

    A changed function is put in force once it has been computed for all stored rows; where it fails on a greater share
    of them than `max_failed`, the former one stays.
    """
    if not isinstance(of, Entity | Source):
        raise ValueError(f"@feature({of!r}): expected an Entity or a Source; write @feature(user, dtype=float)")
    kind = "pandas" if batch is True else batch or None
    if kind not in (None, *get_args(Batch)):
        raise ValueError(f"@feature(batch={batch!r}): expected True, {' or '.join(map(repr, get_args(Batch)))}")

    def declare(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
        column = Column.of(function.__name__, dtype)
        Feature(
            of,
            function,
            column,
            batch=kind,
            max_failed=max_failed,
            about=About.of(f"feature {column.name!r}", description, owner, tags),
        )
        return function

    return declare


class Model(Declared):
    """A recipe: which features predict which label with which estimator, and when a new version goes live.

    Args:
        entities: those whose features are read.
        features: names, or `entity.feature` where two entities share a name.
        inputs: request inputs beside the features, name to type; in training they are columns of `source`.
        label: the column of `source` to predict, or a list of them: then the estimator predicts them all.
        source: the table with the labels; may be left out where only one source of `entities` has the label.
        estimator: a scikit-learn estimator, or a function that returns one (then only the trainer imports it).
        search: parameters of `estimator` to search: name to a list of values or a distribution; see docs/search.md.
        trials: how many combinations are tried; may be left out where `search` holds lists alone, for all of them.
        cv: what each trial is judged on: a number of folds, a share of the rows, or a scikit-learn splitter.
        candidates: instead of `estimator`, several that are compared: functions, or a dict of name to function.
        metric: a scikit-learn scorer's name, or a function(y_true, y_pred); greater is better. It decides.
        metrics: more of them, which are recorded beside it.
        segments: columns by whose values the metrics are recorded too: features, inputs, join keys, or other columns
            of `source`.
        split: which rows are held out for evaluation: `by_time(0.25)`, `by_group("user_id", 0.25)`,
            `at_random(0.25, seed=0)`, or a function that gets the frame and returns a truth value a row, True for held
            out. By default the newest quarter where `source` has event times, otherwise a quarter at random.
        gates: what a new version must show before it goes live, all of it: `improves("roc_auc", by=0.002)`,
            `at_least("accuracy", 0.8)`, ..., or a function(candidate, champion). By default `improves(metric)`.
        promote: what then happens: `auto` makes it the champion, `canary` the challenger, `manual` waits for a person.
        train: when to train without being asked: `every(seconds=60)`, `cron("0 3 * * *")`, `after(rows=1000)`,
            `on("drift.detected")`, or a list of them.
        sample_weight: a column of `source`: how much each row counts in a fit.
        class_weight: how much rows count by their class: `"balanced"`, or a dict of class to weight.
        seed: of everything that is drawn: each `random_state` that the estimator leaves open, folds, intervals.
        defaults: values for features of an entity that is not there; without one a request for it is a 404.
        keep: how many of the newest versions stay in the storage, beside those that are needed in any case.
        description: what the model is for.
        owner: who answers for it.
        tags: words to find it by.
        limits: what it should not be used for, or is known to be bad at; it is on the model's card.
        timeout: how long a training may take, such as "2h", before it is stopped and has failed; else the trainer's
            setting decides.
        trusted: types, `mymodule.MyTransformer`, that the estimator may be loaded with where it is served itself.
    """

    def __init__(
        self,
        name: str,
        *,
        entities: Sequence[Entity],
        features: Sequence[str],
        label: str | Sequence[str],
        estimator: Any = NOT_GIVEN,
        metric: str | Callable[..., Any] = "accuracy",
        metrics: Sequence[str | Callable[..., Any]] = (),
        segments: Sequence[str] = (),
        split: splits.SplitRule | None = None,
        inputs: Mapping[str, Any] | None = None,
        source: Source | None = None,
        promote: Policy = "auto",
        gates: Sequence[Gate | Callable[..., Any]] | None = None,
        train: Trigger | Sequence[Trigger] = (),
        defaults: Mapping[str, Scalar] | None = None,
        keep: int = KEEP,
        sample_weight: str | None = None,
        class_weight: str | Mapping[Any, float] | None = None,
        seed: int = 0,
        search: Any = None,
        trials: int | None = None,
        cv: Any = None,
        candidates: Sequence[Any] | Mapping[str, Any] = (),
        timeout: str | None = None,
        trusted: Sequence[str] = (),
        description: str = "",
        owner: str = "",
        tags: Sequence[str] = (),
        limits: str = "",
    ) -> None:
        self.entities = _entities(f"model {name!r}", entities)
        self.features = tuple(features)
        self.labels = _labels(f"model {name!r}", label)
        self.estimator = estimator
        self.inputs = {column: Column.of(column, kind) for column, kind in (inputs or {}).items()}
        self.source = source
        self.train = triggers.all_of(name, train)
        self.defaults = dict(defaults or {})
        self.keep = keep
        self.about = About.of(f"model {name!r}", description, owner, tags)
        self.limits = limits
        self.timeout = None if timeout is None else _length(f"model {name!r}: timeout", timeout)
        self.seed = _seed(f"model {name!r}", seed)
        self.trusted = trusted_types.checked(f"model {name!r}", trusted)
        super().__init__("model", name)
        if not isinstance(limits, str):
            raise ValueError(f"model {name!r}: limits={limits!r}; expected a text")
        if not self.features and not self.inputs:
            raise ValueError(f"model {name!r}: expected at least one feature or input")
        if not isinstance(keep, int) or isinstance(keep, bool) or keep < 1:
            raise ValueError(f"model {name!r}: keep={keep!r}; expected a number of versions, at least 1")
        try:
            self.metrics = all_of(metric, metrics)
            self.metric = self.metrics[0].name
            """The name of the one that decides."""
            self.segments = columns_of(segments)
            self.split = splits.check(split)
            self.gates = gates_of(gates, self.metrics[0], self.segments)
            self.promote = policy_of(promote)
            self.weighting = Weighting.of(sample_weight, class_weight)
            self.search = Search.of(estimator, search, trials, cv, candidates)
        except ValueError as error:
            raise ValueError(f"model {name!r}: {error}") from None

    @property
    def label(self) -> str:
        """The labels in words."""
        return ", ".join(self.labels)


_collected: ContextVar[list[Declared] | None] = ContextVar("collected", default=None)


@contextmanager
def collecting() -> Iterator[list[Declared]]:
    """Collect what is declared inside the block."""
    declared: list[Declared] = []
    token = _collected.set(declared)
    try:
        yield declared
    finally:
        _collected.reset(token)


def _named(what: str, name: Any, *, reserved: bool = False) -> str:
    """`name` if it may stand in keys and columns; with `reserved` those that start with _ are Modelmill's own."""
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise ValueError(f"{what} name {name!r}: expected letters, digits and _, not starting with a digit")
    if reserved and name.startswith("_"):
        raise ValueError(f"{what} name {name!r}: names that start with _ are Modelmill's own")
    return name


def _length(what: str, text: str) -> int:
    try:
        return times.seconds(text)
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from None


def _entities(owner: str, given: Sequence[Entity]) -> tuple[Entity, ...]:
    for entity in given:
        if not isinstance(entity, Entity):
            raise ValueError(f"{owner}: {entity!r} is not an Entity; declare one: user = Entity('user', key='user_id')")
    return tuple(given)


def _seed(owner: str, seed: Any) -> int:
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise ValueError(f"{owner}: seed={seed!r}; expected a whole number from 0 to {2**32 - 1}")
    return seed


def _labels(owner: str, label: Any) -> tuple[str, ...]:
    labels = (label,) if isinstance(label, str) else tuple(label) if isinstance(label, list | tuple) else ()
    if not labels or not all(isinstance(name, str) and name for name in labels) or len(set(labels)) < len(labels):
        raise ValueError(f"{owner}: label={label!r}; expected the name of a column, or a list of different ones")
    return labels


def _expect(owner: str, expect: Expect | None, known: Sequence[str]) -> Expect:
    if not isinstance(expect, Expect | None):
        raise ValueError(f"{owner}: expect={expect!r}; expected Expect(min_rows=..., unique=[...])")
    wanted = Expect() if expect is None else expect
    try:
        wanted.check(known)
    except ValueError as error:
        raise ValueError(f"{owner}: expect: {error}") from None
    return wanted


def defined_at(function: Any, item: Declared) -> tuple[str, int]:
    """File and line of the function, under other decorators, where it is written in the file that declares it."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    return item.file, code.co_firstlineno if code and code.co_filename == item.file else item.line


def _calling_line() -> tuple[str, int]:
    """File and line of the first caller outside this package."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("modelmill."):
        frame = frame.f_back
    return frame.f_code.co_filename, frame.f_lineno


# --- what people say about what they declare


@dataclass(frozen=True)
class About:
    """What people say about a declaration, for the catalogue."""

    description: str = ""
    owner: str = ""
    tags: tuple[str, ...] = ()

    @classmethod
    def of(cls, what: str, description: str, owner: str, tags: Sequence[str]) -> About:
        """Check that each is text.

        Raises:
            ValueError: for anything else, such as a single text for `tags`.
        """
        if isinstance(tags, str) or not all(isinstance(text, str) for text in (description, owner, *tags)):
            given = (description, owner, tags)
            raise ValueError(
                f"{what}: description, owner and tags are {given!r}; expected texts, and for tags a list of texts"
            )
        return cls(description, owner, tuple(tags))
