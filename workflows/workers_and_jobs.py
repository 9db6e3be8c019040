"""Who is at a campaign, one by one: its supervisor, steps under way, and jobs in a queue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from hullscreen.database.activity import StepUnderWay
from hullscreen.database.queue_jobs import QueueJob
from hullscreen.database.supervisors import supervisor_of
from hullscreen.workflows.holding import is_gone

# A supervisor of which nothing was heard for longer, or for a few heartbeats, does not live.
SILENT_AT_MOST_S = 60.0
HEARTBEATS_SILENT = 3


def supervisor_status(
    campaign: Mapping[str, Any], now: datetime, heartbeat_s: float
) -> dict[str, Any] | None:
    """The last `run` or `launch` of a campaign; None if it never had one.

    Parameters
    ----------
    campaign
        Its document.
    now
        The server's time.
    """
    found = supervisor_of(campaign)
    if found is None:
        return None
    longest = timedelta(seconds=max(SILENT_AT_MOST_S, HEARTBEATS_SILENT * heartbeat_s))
    heard = found.seen_at is not None and now - found.seen_at <= longest
    return {
        "command": found.command,
        "options": list(found.options),
        "host": found.host,
        "pid": found.pid,
        "seen_at": found.seen_at.isoformat() if found.seen_at else None,
        "alive": heard and not is_gone(found.holder),
    }


def steps_at_work(alive: Sequence[StepUnderWay], now: datetime) -> list[dict[str, Any]]:
    """Steps under way with their workers, those that were begun first at the top."""
    return [
        {
            "fw_id": step.fw_id,
            "category": step.category,
            "host": step.host,
            "job_id": step.job_id,
            "age_s": max(0.0, (now - step.began_at).total_seconds()),
        }
        for step in sorted(alive, key=lambda step: (step.began_at, step.fw_id))
    ]


def jobs_with_states(
    jobs: Sequence[QueueJob], alive: Sequence[StepUnderWay]
) -> list[dict[str, Any]]:
    """Jobs that have not ended, with what the queue said of them when it was asked last."""
    at_work = {step.job_id for step in alive}
    return [
        {
            "job_id": job.job_id,
            "category": job.category,
            "state": job.state,
            "reason": job.reason,
            "at_work": job.job_id in at_work,
            "submitted_at": job.submitted_at.isoformat() if job.submitted_at else None,
        }
        for job in jobs
    ]


def queue_counts(jobs: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    """By category how many jobs there are, hold a step, and wait for their turn."""
    queue: dict[str, dict[str, int]] = {}
    for job in jobs:
        counts = queue.setdefault(job["category"], {"jobs": 0, "at_work": 0, "waiting": 0})
        counts["jobs"] += 1
        counts["at_work"] += job["at_work"]
        counts["waiting"] += job["state"] == "waiting" and not job["at_work"]
    return dict(sorted(queue.items()))
