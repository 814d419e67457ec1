"""Every Redis key and stream name, spelled once. Each docstring says the type, the content and the expiry.

Nothing here expires unless its docstring says so; all values are plain text that `redis-cli` shows readably.
"""

from __future__ import annotations

from modelmill.errors import UnknownName

EVENTS_MODELS = "events:models"
"""Stream: runs, registrations and promotions. Bounded to about `bus.MAX_LENGTH` entries, like all streams."""
EVENTS_FEATURES = "events:features"
"""Stream: definitions applied, rows ingested, features backfilled."""
EVENTS_PREDICTIONS = "events:predictions"
"""Stream: one entry a predict request, served or failed."""
EVENTS_ALERTS = "events:alerts"
"""Stream: what is wrong with models in production: drift, quality that has gone down."""


def entries_added(stream: str) -> str:
    """String: how many entries `bus.append_once` has ever added to a stream, whatever was trimmed since."""
    return f"{stream}:added"


QUEUE = "train"
"""Name of the RQ queue; RQ itself keeps it under `rq:queue:train`."""
TRAININGS = "trainings"
"""Hash: what a training was asked for (`model|start|end`) to the job that further requests for the same join."""
STORAGE_SWEPT = "storage:swept"
"""String: there for ten minutes, or until a run fails, after the storage was looked through for what is left over."""
OPEN_JOBS = "open_jobs"
"""Set: ids of the RQ jobs that have not ended, or have just done so. Each must be in one of RQ's lists: the queue, the
jobs just taken from it, the scheduled or the started ones."""

DEFINITIONS = "definitions"
"""Hash: fingerprint and path of the definitions file in force, and since when; `applying`: the one begun last."""
BACKFILL = "definitions:backfill"
"""Hash: how far the last computation of features for stored rows has come: rows, failures, `state`."""
DEFINITIONS_LOCK = "definitions:lock"
"""String: held while definitions are applied; expires by itself should its holder die."""
REBUILD = "rebuild"
"""Hash: how far the last rebuild of the online store has come: `state`, rows, position of each source."""
REBUILD_LOCK = "rebuild:lock"
"""String: held while the online store is rebuilt; expires by itself should its holder die."""
ENTITIES = "entities"
"""Set of the names of all registered entities."""
SOURCES = "sources"
"""Set of the names of all registered sources."""
REQUEST_FEATURES = "request_features"
"""Hash: request-time feature to its type, version and needs."""
MODELS = "models"
"""Set of the names of all models that were declared or trained."""


def feature(entity: str, key: str) -> str:
    """Hash: the online features of one entity: its columns, its derived features as `name@version`, and two fields a
    source, `_time.{source}` and `_failed.{source}`."""
    return f"feature:{entity}:{key}"


def time_field(source: str) -> str:
    """Field of an entity's hash: event time and ingest time of the row that its values from `source` come from.

    Each is 27 characters wide, so that two of these compare as text.
    """
    return f"_time.{source}"


def failed_field(source: str) -> str:
    """Field of an entity's hash: the features of `source` that failed on that row, with their errors, as JSON."""
    return f"_failed.{source}"


def ingest(source: str, digest: str) -> str:
    """Hash: one ingest request by its digest: `time` (microseconds since 1970), `draft` of the answer, digest of
    the `content` where a client chose the key, how many rejected rows are `quarantined`; once it is done, its `answer`.

    Expires an hour after it was done.
    """
    return f"ingest:{source}:{digest}"


def ingest_clock(source: str) -> str:
    """String: the last ingest time of a source that was given out, in microseconds since 1970."""
    return f"ingest:{source}:clock"


def ingest_paused(source: str) -> str:
    """String: while it is there no ingest request of a source begins; expires by itself."""
    return f"ingest:{source}:paused"


def ingest_open(source: str) -> str:
    """Sorted set: digests of the ingest requests that have begun and not ended, by begin (seconds since 1970)."""
    return f"ingest:{source}:open"


def history_lock(source: str) -> str:
    """String: held while files of a source's history are rewritten; expires by itself should its holder die."""
    return f"history:{source}:lock"


def forgotten(entity: str, digest: str) -> str:
    """Hash: receipt of an entity that was forgotten, by the SHA-256 of its key: state, times, counts, by, reason."""
    return f"forgotten:{entity}:{digest}"


def definitions_text(fingerprint: str) -> str:
    """Hash: a definitions file that was applied or trained with: its `text`, `path` and when; as `module.{file}` the
    modules of the user's own that it imports, as `version.{function}` the version of each function. Functions of former
    files run from it, and runs are repeated with it."""
    return f"definitions:{fingerprint}"


def tiles(group: str, key: str) -> str:
    """Hash: what one entity's rows sum up to per hop: tile start, `2013-01-31T05:00Z`, to the tile's JSON.

    `group` names source, entity, hop and, by a hash, the content. Bounded: a tile that makes it longer than twice what
    its aggregates reach back over, and 64, deletes the oldest until that reach is left; tiles of event times in the
    future, which a source limits, come on top.
    """
    return f"tiles:{group}:{key}"


def tile_group(group: str) -> str:
    """Hash: a group of tiles: `start`, the ingest time (microseconds since 1970) from which on rows are added as they
    come; `filled` once earlier ones are in the tiles, with their number as `rows`. `refill` is the name under which
    tiles are made anew where rows are erased. As long as either goes on, a hash of `{group}.{ingest time}` tells how
    many tiles of which slab of rows are added.
    """
    return f"tilegroup:{group}"


def tiles_field(group: str) -> str:
    """Field of the journal hash of an ingest: how many of its tiles those of `group` hold."""
    return f"tiles.{group}"


def entity(name: str) -> str:
    """Hash: an entity as registered: its join key."""
    return f"entity:{name}"


def source(name: str) -> str:
    """Hash: a source as registered: its entities, event time and, as `column.{name}`, its columns' types."""
    return f"source:{name}"


def rejected(source: str) -> str:
    """Stream: rows of a source that were rejected while others were kept, with the reason; about the newest 10,000."""
    return f"rejected:{source}"


def rejected_total(source: str) -> str:
    """String: how many rows of a source were rejected ever, those that the stream no longer holds included."""
    return f"rejected:{source}:total"


def features(entity: str) -> str:
    """Hash: the features of an entity as registered, name to `dtype source version`."""
    return f"features:{entity}"


def model(name: str) -> str:
    """Hash: a model as declared: its features, inputs, label, metric, gates, policy and schedules."""
    return f"model:{name}"


RUNNING = "running"
"""Set: ids of the runs that have begun and not ended."""

RUN_CHANGES = "run_changes"
"""Sorted set: ids of all runs by their last change (microseconds since 1970, each change later than the one before)."""


def run(run_id: str) -> str:
    """Hash: one training attempt, whatever became of it."""
    if ":" in run_id:  # no run's: what is found under it would be something else about one
        raise UnknownName("run", run_id, ())
    return f"run:{run_id}"


def job_events(job_id: str) -> str:
    """Stream: what a job tells while it goes on: stages, progress and each line of its log; the newest 10,000 entries.

    Expires a day after it was last added to, an hour after the job has ended.
    """
    return f"job:{job_id}:events"


def runs(model: str) -> str:
    """Sorted set: ids of a model's runs by start time (seconds since 1970)."""
    return f"runs:{model}"


def trials(run_id: str) -> str:
    """Sorted set: ids of the runs that are trials of a run's search, by trial number."""
    return f"run:{run_id}:trials"


def search(run_id: str) -> str:
    """Hash: how many trials of a run's search have `begun`, `ended` and `failed`; and trial number to its state as
    JSON: the run that has it in hand or had it, status, score.

    Expires a day after the last trial began or ended.
    """
    return f"run:{run_id}:search"


def search_in_hand(run_id: str) -> str:
    """Hash: number of each trial of a run's search that has begun and not ended, to the lease of who has it in hand.

    Expires with `search`.
    """
    return f"run:{run_id}:search:in_hand"


def run_lease(run_id: str) -> str:
    """String: while it is there the program that logs a run by hand lives; expires by itself."""
    return f"run:{run_id}:lease"


def version(model: str, number: int) -> str:
    """Hash: one registered version. Nothing of it ever changes but what is added to it: tags, notes, and that its
    package was pruned."""
    return f"model:{model}:{number}"


def versions(model: str) -> str:
    """String: the number of versions registered so far, which is also the newest one's number."""
    return f"model:{model}:versions"


def stored_versions(model: str) -> str:
    """Sorted set: numbers of the versions whose packages are in the storage, scored by themselves."""
    return f"model:{model}:stored"


def aliases(model: str) -> str:
    """Hash: alias to version number."""
    return f"model:{model}:aliases"


def alias_history(model: str) -> str:
    """Stream: every move of every alias of a model, oldest first; the newest 10,000."""
    return f"model:{model}:history"


def triggers(model: str) -> str:
    """Hash: each trigger of a model, such as `every 60 s`, to how far it has come and what became of it, as JSON."""
    return f"triggers:{model}"


def report_batch(reporter: str) -> str:
    """String: number of the last batch of reports that one predictor process appended; expires after a day."""
    return f"predictor:{reporter}:batch"


def monitor_progress(stream: str) -> str:
    """Hash: how far the monitor has counted a stream (`position`, `entries`) and what became of the entries."""
    return f"monitor:progress:{stream}"


def monitor_window(model: str, version: int, minute: str) -> str:
    """Hash: counts and latency sketch of one version in one minute, `2026-11-23T23:47Z`; expires by its retention."""
    return f"monitor:{model}:{version}:{minute}"


def monitor_minutes(model: str) -> str:
    """Sorted set: `{version}:{minute}` of each stored window of a model, by minute (seconds since 1970).

    Expires a retention after it was last added to.
    """
    return f"monitor:{model}:minutes"
