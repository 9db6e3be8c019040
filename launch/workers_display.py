"""Who is at a campaign, for a person: workers with their steps, and jobs in the queue."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from hullscreen.launch.result_tables import duration, result_table

Status = Mapping[str, Any]

HOSTS_SHOWN = 8
STEPS_SHOWN = 10
# Jobs that wait for more than their turn.
REASONS_SHOWN = 5


def workers_display(status: Status, *, folds: bool) -> Iterator[RenderableType]:
    """How many are at it, the first few of them, and what is in the queue."""
    yield _workers(status)
    steps = status["workers"]["steps"]
    if steps:
        yield Text()
        yield result_table(
            ["step>", "kind", "for>", "job>", "host"],
            [
                (
                    str(step["fw_id"]), step["category"], duration(step["age_s"]),
                    step["job_id"] or None, step["host"],
                )
                for step in steps[:STEPS_SHOWN]
            ],
            folds=folds,
        )  # fmt: skip
        if len(steps) > STEPS_SHOWN:
            yield Text(f"and {len(steps) - STEPS_SHOWN:,} more")
        yield Text()
    if status["queue"]:
        jobs = ", ".join(f"{kind} {_counts(counts)}" for kind, counts in status["queue"].items())
        yield Text(f"Jobs in the queue: {jobs}.")
    held = [job for job in status["jobs"] if job["state"] == "waiting" and job["reason"]]
    for job in held[:REASONS_SHOWN]:
        yield Text(f"Job {job['job_id']} ({job['category']}) waits: {job['reason']}.")
    if len(held) > REASONS_SHOWN:
        yield Text(f"So do {len(held) - REASONS_SHOWN:,} more.")


def _counts(counts: Mapping[str, int]) -> str:
    waiting = f", {counts['waiting']:,} waiting" if counts["waiting"] else ""
    return f"{counts['jobs']:,} ({counts['at_work']:,} at work{waiting})"


def _workers(status: Status) -> Text:
    n, hosts = status["workers"]["alive"], status["workers"]["hosts"]
    if not n:
        lost = sum(step["lost"] for step in status["steps"].values())
        if not lost:
            return Text("No worker is at it.")
        steps = "1 step has lost its" if lost == 1 else f"{lost:,} steps have lost their"
        workers = "worker" if lost == 1 else "workers"
        return Text(f"No worker is at it; {steps} {workers}.", style="bold red")
    shown = [f"{host or 'unknown'} ({count})" for host, count in hosts.items()]
    more = f" and {len(shown) - HOSTS_SHOWN} more" if len(shown) > HOSTS_SHOWN else ""
    workers = "workers are" if n > 1 else "worker is"
    return Text(f"{n:,} {workers} at it, on {', '.join(shown[:HOSTS_SHOWN])}{more}.")
