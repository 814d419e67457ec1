"""What a job tells while it goes on: a stream in Redis with stages, progress, and every line that it logs or prints.

    kind=stage     run, stage, progress, rows     share of the work that is done, rows to train on (0: not known yet)
    kind=log       run, line, text, time          numbered from 1 in a run: a gap shows what was dropped
    kind=again     run, attempt, error, at        the attempt failed and is tried again then
    kind=end       status, error                  how the job has ended
    kind=closed                                   nothing more comes

Whoever writes must hold the job's lease: a process that woke too late adds nothing. Only the last lines of an attempt
that has ended by itself, and thereby given back its lease, come without it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from redis.client import Pipeline

from modelmill.state import keys
from modelmill.state.connections import Redis
from modelmill.state.runs import folder
from modelmill.storage import Storage
from modelmill.times import utc_now

LENGTH = 10_000
"""Entries kept of one job, the newest."""
KEPT_SECONDS = 24 * 3600
"""How long they stay in Redis after the last one came."""
KEPT_AFTERWARDS = 3600
"""How long they stay after the job has ended; the log of a run stays in the storage."""
ENTRIES_PER_PAGE = 1000


@dataclass(frozen=True)
class Line:
    """One line of a run's log; `number` counts from 1."""

    number: int
    time: str
    text: str


class Journal:
    """The journal of `job` in `redis`, which may decode to text or not; `lease` is the key that its writer holds."""

    def __init__(self, redis: Redis, job: str, lease: str = "") -> None:
        self.redis = redis
        self.job = job
        self.lease = lease
        self.key = keys.job_events(job)

    def add(self, entries: Sequence[Mapping[str, str]], *, fenced: bool = True) -> bool:
        """Append entries in one transaction; False, and nothing is added, where `fenced` and the lease has expired."""

        def append(pipe: Pipeline) -> bool:
            held = not fenced or not self.lease or bool(pipe.exists(self.lease))
            pipe.multi()
            if held:
                append_to(pipe, self.job, entries)
            return held

        watched = (self.lease,) if self.lease else ()
        return bool(self.redis.transaction(append, *watched, value_from_callable=True))

    def close(self) -> None:
        """Say that nothing more comes."""
        with self.redis.pipeline() as pipe:
            append_to(pipe, self.job, [{"kind": "closed"}])
            pipe.expire(self.key, KEPT_AFTERWARDS)
            pipe.execute()

    def lines(self, run: str) -> Iterator[Line]:
        """The lines of a run that are still there, oldest first."""
        position = "-"
        while True:
            found = self.redis.xrange(self.key, position, "+", count=ENTRIES_PER_PAGE)
            for entry in map(readable, (fields for _, fields in found)):
                if entry["kind"] == "log" and entry.get("run") == run:
                    yield Line(int(entry["line"]), entry["time"], entry["text"])
            if len(found) < ENTRIES_PER_PAGE:
                return
            position = f"({_text(found[-1][0])}"


def append_to(pipe: Pipeline, job: str, entries: Sequence[Mapping[str, str]]) -> None:
    """Queue the commands that append to a job's journal on a pipeline that is in MULTI."""
    key = keys.job_events(job)
    for entry in entries:
        pipe.xadd(key, dict(entry), maxlen=LENGTH, approximate=False)
    pipe.expire(key, KEPT_SECONDS)


def log_entries(run: str, first: int, texts: Sequence[str]) -> list[dict[str, str]]:
    """Lines of a run's log as entries, numbered from `first` on."""
    time = utc_now()
    return [
        {"kind": "log", "run": run, "line": str(number), "time": time, "text": text}
        for number, text in enumerate(texts, first)
    ]


def readable(fields: Mapping[bytes | str, bytes | str]) -> dict[str, str]:
    """An entry as text, also from a client that does not decode."""
    return {_text(name): _text(value) for name, value in fields.items()}


def _text(value: bytes | str) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


# --- the log of a run as a file


def log_name(model: str, run: str) -> str:
    """Name of a run's log in the storage."""
    return f"{folder(model, run)}/log.txt"


def as_text(lines: Iterator[Line]) -> str:
    """Lines as people read them; gaps in their numbers are told."""
    written, last = [], 0
    for line in lines:
        if dropped := line.number - last - 1:
            written.append(f"... {dropped} lines dropped ...")
        written.append(f"{line.time}  {line.text}")
        last = line.number
    return "".join(f"{text}\n" for text in written)


def archive(storage: Storage, journal: Journal, model: str, run: str) -> None:
    """Write the log of a run into the storage."""
    storage.write(log_name(model, run), as_text(journal.lines(run)).encode())


def read_log(storage: Storage, journal: Journal, model: str, run: str) -> str:
    """The log of a run: from the storage once it has ended, from its journal before."""
    try:
        return storage.read(log_name(model, run)).decode()
    except FileNotFoundError:
        return as_text(journal.lines(run))
