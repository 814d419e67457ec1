"""Uploaded models between the call that takes them and the job that makes a version of them: files of the storage."""

from __future__ import annotations

import secrets
import shutil
from datetime import UTC, datetime, timedelta
from typing import IO, Any

from modelmill.errors import QueueFull
from modelmill.offers import Offer
from modelmill.storage import Storage
from services.trainer.jobs.queue import KEPT_SECONDS, REGISTER, TrainingQueue

FOLDER = "uploads"


class Uploads:
    """Takes uploads and enqueues what is to become of them."""

    def __init__(self, queue: TrainingQueue, storage: Storage) -> None:
        self.queue = queue
        self.storage = storage

    def enqueue(
        self, model: str, file: IO[bytes], offer: Offer, *, by: str = "", promote: bool = False, reason: str = ""
    ) -> str:
        """Keep `file`, enqueue its registration and return the job's id.

        Raises:
            QueueFull: where as many jobs wait as may.
        """
        waiting = self.queue.rq.count
        if waiting >= self.queue.limit:
            raise QueueFull(waiting, self.queue.limit)
        # Jobs that failed or were canceled leave theirs, so that an attempt that was killed can be repeated.
        self.storage.remove_older(FOLDER, datetime.now(UTC) - timedelta(seconds=2 * KEPT_SECONDS))
        name = f"{FOLDER}/{model}/{secrets.token_hex(8)}.{offer.format}"
        with self.storage.writing(name) as stored:
            shutil.copyfileobj(file, stored)
        arguments: dict[str, Any] = {"model": model, "upload": name, "offer": offer.to_json()}
        job = self.queue.rq.enqueue_call(
            REGISTER,
            kwargs=arguments | {"by": by, "promote": promote, "reason": reason},
            timeout=self.queue.timeout,
            result_ttl=KEPT_SECONDS,
            failure_ttl=KEPT_SECONDS,
            description=f"register {offer.file or offer.format} as {model}{f' by {by}' if by else ''}",
        )
        return str(job.id)
