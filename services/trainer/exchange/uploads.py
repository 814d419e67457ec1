"""Uploaded models between the call that takes them and the job that makes a version of them: files of the storage."""

from __future__ import annotations

import secrets
import shutil
from datetime import UTC, datetime, timedelta
from typing import IO

from modelmill.packages.offers import Offer
from modelmill.storage import Storage
from services.trainer.jobs.journal import KEPT_SECONDS
from services.trainer.jobs.queue import TrainingQueue

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
        self.queue.require_room()
        # Jobs that failed or were canceled leave theirs, so that an attempt that was killed can be repeated.
        self.storage.remove_older(FOLDER, datetime.now(UTC) - timedelta(seconds=2 * KEPT_SECONDS))
        name = f"{FOLDER}/{model}/{secrets.token_hex(8)}.{offer.format}"
        with self.storage.writing(name) as stored:
            shutil.copyfileobj(file, stored)
        arguments = {"upload": name, "offer": offer.to_json(), "by": by, "promote": promote, "reason": reason}
        described = f"register {offer.file or offer.format} as {model}{f' by {by}' if by else ''}"
        return self.queue.enqueue_registration(model, arguments, described)
