"""Who is at work on a campaign now, and how quickly: a few indexed queries at any size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from hullscreen.database.collections import KEYS_AT_ONCE, parts_of
from hullscreen.database.connection import Connection, reconnecting
from hullscreen.database.launchpad_state import fireworks, last_launches, moment_of
from hullscreen.database.queue_jobs import FIELDS, QueueJob


@dataclass(frozen=True)
class StepUnderWay:
    """A Firework that is RUNNING for FireWorks, and what is known of whoever took it.

    Attributes
    ----------
    fw_id, category
        Of the Firework.
    holder, host
        FWorker name and host of the process that took it.
    job_id
        Of the queue's job that the process runs in; empty outside a queue.
    began_at, seen_at
        When it was taken, and the last sign of life.
    """

    fw_id: int
    category: str
    holder: str
    host: str
    job_id: str
    began_at: datetime
    seen_at: datetime


@dataclass(frozen=True)
class DFTWork:
    """DFT calculations that ended after a moment, and the energy evaluations in them."""

    calculations: int
    evaluations: int


def server_time(connection: Connection) -> datetime:
    """The server's time: clocks of nodes may differ from one another."""
    answer = reconnecting(connection, lambda: connection.database.command("hello"))
    moment: datetime = answer["localTime"]
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def steps_under_way(connection: Connection, campaign: str) -> list[StepUnderWay]:
    """Fireworks of a campaign that are RUNNING, with the newest sign of life of their workers."""
    query = {"spec.campaign": campaign, "state": "RUNNING"}
    fields = ["fw_id", "spec._category", "launches", "updated_on"]
    running = fireworks(connection, query, fields)
    ids = [one["fw_id"] for one in running]
    claims = {
        claim["_id"]: claim
        for claim in reconnecting(
            connection, lambda: list(connection.database.claims.find({"_id": {"$in": ids}}))
        )
        if claim.get("holder")
    }
    # Just begun, or by a worker that knows nothing of claims.
    without = [one for one in running if one["fw_id"] not in claims]
    launches = last_launches(connection, without, ["host", "fworker.name"])
    return [
        _claimed(one, claims[one["fw_id"]])
        if one["fw_id"] in claims
        else _unclaimed(one, launches.get(one["fw_id"], {}))
        for one in running
    ]


def _claimed(firework: dict[str, Any], claim: dict[str, Any]) -> StepUnderWay:
    return StepUnderWay(
        firework["fw_id"],
        firework["spec"].get("_category", "none"),
        claim["holder"],
        claim.get("host", ""),
        claim.get("job_id", ""),
        claim["began_at"],
        claim["seen_at"],
    )


def _unclaimed(firework: dict[str, Any], launch: dict[str, Any]) -> StepUnderWay:
    begun = moment_of(firework.get("updated_on")) or datetime.fromtimestamp(0, UTC)
    return StepUnderWay(
        firework["fw_id"],
        firework["spec"].get("_category", "none"),
        (launch.get("fworker") or {}).get("name", ""),
        launch.get("host") or "",
        "",
        begun,
        begun,
    )


def jobs_in_queue(connection: Connection, campaign: str) -> list[QueueJob]:
    """Jobs of a campaign that wait in a queue or run there."""
    query = {"campaign": campaign, "ended_at": None}
    found = reconnecting(
        connection, lambda: list(connection.database.queue_jobs.find(query, list(FIELDS)))
    )
    return [QueueJob.of(job) for job in found]


def dft_since(
    connection: Connection, campaign: str, since: datetime, kind: str | None = None
) -> DFTWork:
    """What a campaign's DFT did after a moment.

    Parameters
    ----------
    kind
        ``single_point`` or ``relaxation``; None: both.
    """
    query: dict[str, Any] = {"campaign": campaign, "created_at": {"$gte": since}}
    if kind is not None:
        query["kind"] = kind
    totals = {"_id": None, "n": {"$sum": 1}, "evaluations": {"$sum": "$n_evaluations"}}
    pipeline: list[dict[str, Any]] = [{"$match": query}, {"$group": totals}]
    rows = reconnecting(
        connection, lambda: list(connection.database.dft_results.aggregate(pipeline))
    )
    return DFTWork(rows[0]["n"], rows[0]["evaluations"]) if rows else DFTWork(0, 0)


def selected_keys(connection: Connection, campaign: str) -> dict[int, list[str]]:
    """Keys of the DFT single points that a campaign has asked for, by round."""
    fields = {"_id": 0, "round": 1, "key": 1}
    found = reconnecting(
        connection,
        lambda: list(connection.database.selected.find({"campaign": campaign}, fields)),
    )
    keys: dict[int, list[str]] = {}
    for document in found:
        keys.setdefault(document["round"], []).append(document["key"])
    return keys


def count_results(connection: Connection, keys: Sequence[str], state: str | None = None) -> int:
    """How many of these calculations are stored, in one state or in any."""
    total = 0
    for part in parts_of(keys, KEYS_AT_ONCE):
        query: dict[str, Any] = {"key": {"$in": part}}
        if state is not None:
            query["state"] = state
        total += _count(connection, query)
    return total


def _count(connection: Connection, query: dict[str, Any]) -> int:
    results = connection.database.dft_results
    return reconnecting(connection, lambda: results.count_documents(query))
