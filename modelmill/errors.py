"""Every error that Modelmill raises on purpose, each saying what was wrong, where, and the cure.

ModelmillError
├── SettingsError            an environment variable that cannot be used
├── DefinitionsError         a mistake in the user's definitions file: file, line, reason
├── NotFound                 404
│   ├── UnknownName              an entity, source, feature, model, version, run, job or alias nobody declared
│   └── MissingEntity            a declared entity of which no row with this key has arrived
├── InvalidRequest           422: understood, but a value in it cannot be used
│   ├── InvalidFilter            a filter of runs that cannot be read, with the place where
│   ├── ExpectationFailed        a batch of rows that as a whole is not what its source expects
│   ├── NoAnswer                 values that a model's inputs allow, and for which it has no answer
│   ├── UntrustedTypes           an estimator made of types that nobody has reviewed
│   └── InvalidRows              rows that a source's columns do not allow, the first of them listed
├── MalformedBody            400: not the format that its content type claims
├── UnsupportedContent       415
│   └── UnsupportedEncoding      a body that is packed in another way than gzip
├── TooLarge                 413
├── Conflict                 409: true now, may be false later
│   ├── AliasMoved               an alias that names another version than the one that its move was to replace
│   ├── Pruned                   a version whose package was removed
│   ├── GatesFailed              a version that did not pass its gates and is not to be champion
│   └── RunEnded                 a run that another process has closed, such as one whose worker was lost
├── CorruptFeature           500: a stored feature that is no value of its type
├── InvalidAnswer            500: a model answered with what is not a finite number, whatever values it gets
├── EstimatorFailed          500: an estimator that is served itself raised an error, whatever values it gets
├── QueueFull                429: as many trainings wait as may
├── Unavailable              503: Redis or another service did not answer in time; try again
│   └── PackageError             a model package with a missing or altered file
└── RequestFailed            what a client raises for the problem document that a service answered with

`modelmill.http.app` turns any of them into an RFC 9457 problem document; the command line prints the same sentence.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from http import HTTPStatus
from typing import Any, ClassVar


def shortened(value: object) -> str:
    """A value as an error shows it: as Python prints it, in at most 80 letters."""
    shown = repr(value)
    return shown if len(shown) <= 80 else f"{shown[:77]}..."


def did_you_mean(name: str, known: Collection[str]) -> str:
    """The end of a sentence about an unknown `name`: the nearest known names, or all of them when they are few.

    >>> did_you_mean("fature_1", ["feature_1", "target"])
    "; did you mean 'feature_1'?"
    """
    known = dict.fromkeys(known)  # each once
    near = get_close_matches(name, known, n=3, cutoff=0.6)
    if near:
        return f"; did you mean {' or '.join(repr(n) for n in near)}?"
    if not known:
        return "; none is known yet"
    if len(known) <= 10:
        return f"; known: {', '.join(sorted(known))}"
    return ""


LONGEST_SENTENCE = 2_000
"""Characters kept of an error in one sentence."""
LONGEST_TRACEBACK = 50_000
"""Characters kept of a traceback, the last ones: they say where it was."""


def printable(value: object, longest: int = LONGEST_SENTENCE, form: Callable[[Any], str] = str) -> str:
    """Text about a value of somebody else's code, such that it can be stored and shown whatever that code does.

    It is cut, characters that UTF-8 cannot hold are escaped, and a `__str__` that raises is named.

    >>> printable("a\\ud800")
    'a\\\\ud800'
    """
    try:
        text = str.__str__(form(value))
    except BaseException as error:  # SystemExit is as good as any other
        text = f"({type(value).__name__} that cannot be shown: its text raised {type(error).__name__})"
    text = text if len(text) <= longest else f"{text[: max(longest - 3, 0)]}..."
    return encodable(text)


def encodable(text: str) -> str:
    """`text` with what UTF-8 cannot hold, lone surrogates, escaped."""
    return text.encode(errors="backslashreplace").decode()


def sentence(error: BaseException, longest: int = LONGEST_SENTENCE) -> str:
    """An error, which any code may have raised, in one sentence."""
    if isinstance(error, ModelmillError):
        return printable(error.detail, longest)
    kind, said = type(error).__name__, first_line(error, longest)
    return printable(f"{kind}: {said}" if said else kind, longest)


def first_line(error: BaseException, longest: int = LONGEST_SENTENCE) -> str:
    """The first line of what an error, which any code may have raised, says; empty where it says nothing."""
    return next(iter(printable(error, longest).strip().splitlines()), "")


def traced(error: BaseException) -> str:
    """The traceback of an error, which any code may have raised."""

    def tail(error: BaseException) -> str:
        return "".join(traceback.format_exception(error))[-LONGEST_TRACEBACK:]

    return printable(error, LONGEST_TRACEBACK, tail)


class ModelmillError(Exception):
    """The root of the tree. `fields` are the machine-readable parts of the sentence."""

    status: ClassVar[HTTPStatus] = HTTPStatus.INTERNAL_SERVER_ERROR
    retry_after: ClassVar[int | None] = None
    """Seconds after which trying again makes sense, if it does."""

    def __init__(self, detail: str, **fields: Any) -> None:
        super().__init__(detail)
        self.detail = detail
        self.fields = fields

    def problem(self) -> dict[str, Any]:
        """The error as an RFC 9457 problem document."""
        words = "".join(f" {c}" if c.isupper() else c for c in type(self).__name__).strip().lower()
        return {
            "type": f"urn:modelmill:{words.replace(' ', '-')}",
            "title": words.capitalize(),
            "status": int(self.status),
            "detail": self.detail,
            **self.fields,
        }


class SettingsError(ModelmillError):
    """An environment variable that cannot be used."""


class DefinitionsError(ModelmillError):
    """A mistake in the definitions file. `line` is 0 where the whole file is meant."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY

    def __init__(self, file: str, line: int, reason: str) -> None:
        super().__init__(f"{file}:{line}: {reason}" if line else f"{file}: {reason}", file=file, line=line)
        self.reason = reason


class NotFound(ModelmillError):
    """Something named in the request does not exist."""

    status = HTTPStatus.NOT_FOUND


class UnknownName(NotFound):
    """A name nobody declared: `kind` says of what (entity, source, feature, model, ...)."""

    def __init__(self, kind: str, name: str, known: Collection[str]) -> None:
        super().__init__(f"{kind} {name!r} is not known{did_you_mean(name, known)}", **{kind: name})


class MissingEntity(NotFound):
    """No row of this entity has arrived, and the model declares no defaults for its features."""

    def __init__(self, entity: str, key: str) -> None:
        super().__init__(
            f"{entity} {key!r} has no features: no row with this key has been ingested", entity=entity, key=key
        )


class InvalidRequest(ModelmillError):
    """A request that was understood and cannot be carried out as it is."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY


class InvalidFilter(InvalidRequest):
    """A filter that cannot be read or makes no sense. `position` counts its characters from 0."""

    def __init__(self, text: str, position: int, reason: str) -> None:
        start = max(0, position - 60)  # a long filter is shown around the place
        shown = text[start : position + 60].translate(str.maketrans("\t\r\n", "   "))
        super().__init__(
            f"filter, character {position + 1}: {reason}\n  {shown}\n  {' ' * (position - start)}^", position=position
        )


class UntrustedTypes(InvalidRequest):
    """An estimator made of types that are neither on the reviewed list nor declared as trusted."""

    def __init__(self, types: Sequence[str]) -> None:
        super().__init__(
            f"the estimator is made of types that nobody has reviewed: {', '.join(types)}. If loading them from a file"
            f" can do no harm, allow them in the definitions: Model(..., trusted={list(types)!r})",
            types=list(types),
        )


@dataclass(frozen=True)
class Rejection:
    """One row that a source's columns do not allow. `row` counts data rows from 1; no `column`: the row as a whole."""

    row: int
    column: str
    value: str
    reason: str

    def __str__(self) -> str:
        column = f", column {self.column!r}" if self.column else ""
        return f"row {self.row}{column}, value {self.value!r}: {self.reason}"


class InvalidRows(InvalidRequest):
    """Rows that cannot be accepted; nothing of the request was applied."""

    def __init__(self, source: str, rejected: int, total: int, first: Sequence[Rejection]) -> None:
        super().__init__(
            f"{rejected} of {total} rows of source {source!r} were rejected and nothing was stored; first: {first[0]}."
            " Mend them, or send ?on_error=skip to keep the good rows",
            source=source,
            rejected=rejected,
            rows=total,
            reasons=[asdict(r) for r in first],
        )


@dataclass(frozen=True)
class Violation:
    """One expectation of a source that a batch of rows does not meet."""

    expectation: str
    found: str
    expected: str

    def __str__(self) -> str:
        return f"{self.expectation}: found {self.found}, expected {self.expected}"


class ExpectationFailed(InvalidRequest):
    """A batch that as a whole is not what its source expects; nothing of the request was applied."""

    def __init__(self, source: str, violations: Sequence[Violation]) -> None:
        listed = "; ".join(map(str, violations))
        super().__init__(
            f"the batch is not what source {source!r} expects and nothing was stored: {listed}",
            source=source,
            violations=[asdict(violation) for violation in violations],
        )


class MalformedBody(ModelmillError):
    """A body that is not what its content type says."""

    status = HTTPStatus.BAD_REQUEST


class UnsupportedContent(ModelmillError):
    """A content type that this call does not take."""

    status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE

    def __init__(self, got: str, expected: Collection[str]) -> None:
        super().__init__(f"content type {got!r} is not taken here; expected one of {', '.join(expected)}", got=got)


class UnsupportedEncoding(UnsupportedContent):
    """A body that is packed in a way that no service takes."""

    TAKEN: ClassVar[str] = "gzip"

    def __init__(self, got: str) -> None:
        ModelmillError.__init__(
            self, f"content encoding {got[:80]!r} is not taken; expected {self.TAKEN}, or none", got=got[:80]
        )


class TooLarge(ModelmillError):
    """A body or a batch over its stated limit."""

    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE

    def __init__(self, what: str, got: int | None, limit: int, setting: str | None = None) -> None:
        cure = f"send smaller parts{f' or raise {setting}' if setting else ''}"
        over = "over" if got is None else f"{got} is over"
        super().__init__(f"{what}: {over} the limit of {limit}; {cure}", got=got, limit=limit)


class Conflict(ModelmillError):
    """The state at this moment does not allow the request."""

    status = HTTPStatus.CONFLICT


class AliasMoved(Conflict):
    """An alias names another version than the one that its move was to replace; `present` is what it names."""

    def __init__(self, model: str, alias: str, present: int | None, expected: int) -> None:
        named = f"version {present}" if present else "no version"
        wanted = f"version {expected}" if expected else "none"
        super().__init__(
            f"alias {alias!r} of {model!r} names {named}, not {wanted} as expected; look again, and decide again",
            model=model,
            alias=alias,
            present=present,
            expected=expected,
        )


class Pruned(Conflict):
    """A version whose package was removed; its record stays."""

    def __init__(self, model: str, version: int, when: str, because: str) -> None:
        super().__init__(
            f"{model!r} version {version} was pruned at {when} ({because}): its package is gone. Take another version,"
            " or train again",
            model=model,
            version=version,
            pruned=when,
        )


class GatesFailed(Conflict):
    """A version that must not become champion by its gates, unless someone says why it should."""

    def __init__(self, model: str, version: int, failed: Mapping[str, str]) -> None:
        listed = "; ".join(f"{gate}: {said}" for gate, said in failed.items())
        super().__init__(
            f"{model!r} version {version} did not pass its gates ({listed}); to promote it nevertheless, force it and"
            " give the reason",
            model=model,
            version=version,
            failed=list(failed),
        )


class RunEnded(Conflict):
    """A run that another process has closed; whoever still works on it may write nothing more of it."""

    def __init__(self, run: str, status: str | None, error: str | None) -> None:
        ended = f"{status}: {error}" if error else status or "deleted"
        detail = f"run {run} has ended already ({ended}); nothing more is recorded of it"
        super().__init__(detail, run=run, ended=status)


class EstimatorFailed(ModelmillError):
    """An estimator that is served itself raised an error."""

    def __init__(self, estimator: str, error: Exception) -> None:
        super().__init__(f"{estimator} raised {sentence(error, 300)}", estimator=estimator)


class QueueFull(ModelmillError):
    """As many trainings wait as may."""

    status = HTTPStatus.TOO_MANY_REQUESTS
    retry_after = 30

    def __init__(self, waiting: int, limit: int) -> None:
        super().__init__(
            f"{waiting} trainings wait already, of {limit} that may; try later, start more workers, or raise"
            " MODELMILL_TRAIN_QUEUE_LIMIT",
            waiting=waiting,
            limit=limit,
        )


class CorruptFeature(ModelmillError):
    """A text in the online store that is no value of the feature's type; nothing that Modelmill writes is."""

    def __init__(self, entity: str, key: str, field: str, text: str, expected: str) -> None:
        super().__init__(
            f"feature {field!r} of {entity} {key!r} is stored as {text[:80]!r}; expected {expected}."
            " Ingest its row again",
            entity=entity,
            key=key,
            field=field,
        )


class InvalidAnswer(ModelmillError):
    """A model answered with NaN or an infinity, which is no answer. `instance` counts from 0."""

    def __init__(self, model: str, version: int, instance: int, answer: float) -> None:
        self.answer = answer
        super().__init__(
            f"{model!r} version {version} answered {answer} for instance {instance}, which is not a finite number",
            model=model,
            version=version,
            instance=instance,
        )


class NoAnswer(InvalidRequest):
    """Values that the inputs of a model allow, and for which it has no answer all the same."""

    def __init__(self, instance: int, field: str, value: object, reason: str) -> None:
        shown = "missing" if value is None else f"{value!r:.80}"
        super().__init__(
            f"instance {instance}: the model has no answer where {field!r} is {shown}: {reason}",
            instance=instance,
            field=field,
        )


class Unavailable(ModelmillError):
    """Something this service needs did not answer in time."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    retry_after = 1


class PackageError(Unavailable):
    """A model package with a missing or altered file; it is never served."""


class RequestFailed(ModelmillError):
    """A service answered a client's request with an error; `problem` is its document."""

    def __init__(self, status: int, problem: dict[str, Any]) -> None:
        super().__init__(str(problem.get("detail", f"HTTP status {status}")))
        self.http_status = status
        self.document = problem
