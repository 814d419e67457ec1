"""The HTTP calls that take models which were trained elsewhere, and give out the packages of versions."""

from __future__ import annotations

import secrets
import shutil
from datetime import UTC, datetime, timedelta
from typing import IO, Annotated, Any

import orjson
from flask import Flask, Response
from pydantic import Field, WithJsonSchema
from werkzeug.datastructures import FileStorage

from modelmill.errors import InvalidRequest, MalformedBody, NotFound
from modelmill.http.app import reply
from modelmill.http.bodies import Flag, Form, Text, checked, json_of, takes
from modelmill.packages import package
from modelmill.packages.offers import Offer
from modelmill.packages.package import ESTIMATOR, MANIFEST
from modelmill.state.registry import Registry, Version
from modelmill.storage import Storage
from services.trainer.jobs.journal import KEPT_SECONDS
from services.trainer.jobs.queue import TrainingQueue
from services.trainer.recipes import Recipes

MAX_OFFER = 400_000
"""Letters of an upload's description."""


class Upload(Form):
    """A model that was trained elsewhere."""

    model: Annotated[Any, WithJsonSchema({"type": "string", "format": "binary"})] = Field(None, description="a file")
    offer: str = Field("", max_length=MAX_OFFER, description='JSON such as {"format": "onnx"}')
    by: Text = ""
    reason: Text = ""
    promote: Flag = False


def add_exchange_routes(app: Flask, uploads: Uploads, registry: Registry, recipes: Recipes) -> None:
    """Add them to the trainer."""

    @app.post("/models/<model>/versions")
    @takes(Upload)
    def register(model: str, form: Upload) -> Response:
        """Register a model that was trained elsewhere; answers 202 with the job that checks it.

        The body is multipart/form-data: the file `model`, and `offer`, JSON such as `{"format": "onnx"}`, `onnx` or
        `skops`. `by` and `reason` may be given; with `promote=true` it serves at once, whatever gates and policy say.
        """
        recipes.definitions.model(model)
        if not isinstance(form.model, FileStorage):
            raise InvalidRequest(
                "the body has no file 'model'; send multipart/form-data, as `curl -F model=@m.onnx` does"
            )
        offer, promote = _offer(form.offer), form.promote
        job = uploads.enqueue(model, form.model.stream, offer, by=form.by, promote=promote, reason=form.reason)
        url = f"/jobs/{job}"
        return reply({"job": job, "url": url, "model": model, "status": "queued"}, 202, {"Location": url})

    @app.get("/models/<model>/versions/<version>/package")
    def package_of(model: str, version: str) -> Response:
        """What a version's package holds: its manifest and files; the version by number or alias.

        `trusted_types` are the types that loading its estimator with skops needs to be told to trust.
        """
        found = _stored(registry, model, version)
        manifest, _ = package.read(uploads.storage, found.package)
        types = _types(uploads.storage, found) if ESTIMATOR in manifest.files else []
        about = {"model": model, "version": found.version, "run": found.run, "created": found.created}
        content = orjson.loads(manifest.to_json())
        return reply({**about, "files": manifest.files, "trusted_types": types, "manifest": content})

    @app.get("/models/<model>/versions/<version>/package/<file>")
    def package_file(model: str, version: str, file: str) -> Response:
        """One file of a version's package, after a check that it is what was written."""
        found = _stored(registry, model, version)
        manifest, _ = package.read(uploads.storage, found.package)
        if file == MANIFEST:
            return Response(manifest.to_json(), content_type="application/json")
        if file not in manifest.files:
            known = ", ".join([*manifest.files, MANIFEST])
            raise NotFound(f"version {found.version} of {model!r} has no file {file!r}; its files: {known}")
        _, content = package.read(uploads.storage, found.package, file)
        return Response(content, content_type="application/octet-stream")


def _offer(text: str) -> Offer:
    try:
        return checked(Offer, json_of(text.encode(), "field 'offer'"))
    except MalformedBody as error:
        raise MalformedBody(f'{error.detail}; expected such as {{"format": "onnx"}}') from None


def _stored(registry: Registry, model: str, name: str) -> Version:
    """The version of this number, or that this alias names.

    Raises:
        UnknownName: where there is none.
        Pruned: where its package was removed.
    """
    found = registry.named(model, name)
    found.require_package()
    return found


def _types(storage: Storage, version: Version) -> list[str]:
    # Here, so that the trainer's front does not load ONNX before somebody asks for this.
    from services.trainer.exchange.foreign import untrusted_types

    return untrusted_types(package.read(storage, version.package, ESTIMATOR)[1])


# --- uploaded models between the call that takes them and the job that makes a version of them: files of the storage

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
