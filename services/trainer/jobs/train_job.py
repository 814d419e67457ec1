"""The kind of job that our workers run, and what an attempt at one knows of itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rq.exceptions import DeserializationError
from rq.job import Job

from modelmill.errors import InvalidRequest
from services.trainer.jobs.opening import Opener
from services.trainer.jobs.view import FUNCTIONS


class TrainJob(Job):
    """A job that can run nothing but the functions of ours: no other one, no method, no callback."""

    success_callback = failure_callback = stopped_callback = None
    lease = ""
    """The key that its worker keeps from expiring while this attempt goes on."""
    run = ""
    """The id for the run that this attempt makes."""
    opener: Opener | None = None
    """Opens packages beside the process of this attempt."""
    before: Sequence[str] = ()
    """The runs of the attempts before, some of which may not have begun."""

    @property
    def func(self) -> Any:
        """The function, imported once its name is known to be the right one.

        Raises:
            InvalidRequest: for any other.
        """
        if self.func_name not in FUNCTIONS or self.instance is not None:
            raise InvalidRequest(
                f"function {self.func_name!r} may not run here; expected one of {', '.join(FUNCTIONS)}"
            )
        if self._success_callback_name or self._failure_callback_name or self._stopped_callback_name:
            raise InvalidRequest("a job with callbacks may not run here")
        return super().func

    def _deserialize_data(self) -> None:
        try:
            super()._deserialize_data()  # type: ignore[no-untyped-call]
        except DeserializationError as error:
            raise DeserializationError("the job is not JSON; enqueue it with `--serializer json`") from error
