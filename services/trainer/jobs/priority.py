"""One queue in order of priority, and within one priority in order of arrival.

RQ serves several queues by priority, but then its worker pops without the list from which jobs of a killed worker are
taken back. So there is one list, and a job takes its place in it.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

from redis.client import Pipeline
from rq import Queue
from rq.registry import ScheduledJobRegistry

from modelmill.state import keys

Priority = Literal["low", "normal", "high"]
PRIORITIES: tuple[str, ...] = get_args(Priority)
NORMAL = 1

PLACE = """
local function priority(id) return tonumber(redis.call('HGET', ARGV[1] .. id, ARGV[2]) or ARGV[3]) end
local own = priority(ARGV[4])
for _, other in ipairs(redis.call('LRANGE', KEYS[1], 0, -1)) do
    if priority(other) < own then return redis.call('LINSERT', KEYS[1], 'BEFORE', other, ARGV[4]) end
end
return redis.call('RPUSH', KEYS[1], ARGV[4])
"""

RAISE = """
redis.call('HSET', ARGV[1] .. ARGV[4], ARGV[2], ARGV[5])
if redis.call('LREM', KEYS[1], 1, ARGV[4]) == 0 then return 0 end
"""
"""Before `PLACE`: gives a job another priority, and goes on where it waits."""


class PriorityQueue(Queue):
    """RQ's queue, in which a job goes before those of lower priority."""

    def push_job_id(self, job_id: str, pipeline: Pipeline | None = None, at_front: bool = False) -> None:
        if at_front:
            super().push_job_id(job_id, pipeline, at_front)
            return
        connection: Any = self.connection if pipeline is None else pipeline
        arguments = ("rq:job:", keys.JOB_PRIORITY, NORMAL, job_id)
        connection.eval(PLACE, 1, self.key, *arguments)

    def prefer(self, job_id: str, priority: Priority, pipeline: Pipeline) -> None:
        """Give a job another priority, and where it waits the place of that, on a pipeline that is in MULTI."""
        arguments = ("rq:job:", keys.JOB_PRIORITY, NORMAL, job_id, number_of(priority))
        pipeline.eval(RAISE + PLACE, 1, self.key, *map(str, arguments))


def number_of(priority: Priority) -> int:
    """How a priority is kept: the greater, the earlier."""
    return PRIORITIES.index(priority)


def name_of(number: bytes | str | None) -> str:
    """The priority that is kept as `number`."""
    return PRIORITIES[NORMAL if number is None else int(number)]


def scheduled(queue: Queue) -> ScheduledJobRegistry:
    """The jobs that wait for their time, by that time (seconds since 1970)."""
    return ScheduledJobRegistry(queue=queue)  # type: ignore[no-untyped-call]
