"""What FireWorks' collections say about a campaign, read without a LaunchPad."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar

from pymongo import DESCENDING
from pymongo.database import Database

from hullscreen.database.connection import Connection, reconnecting

Result = TypeVar("Result")

# Error texts of FireWorks may hold a traceback of pages; a person reads one line of it.
LONGEST_REASON = 300
PART = 1000


@dataclass(frozen=True)
class FailedFirework:
    """A Firework that is FIZZLED.

    Attributes
    ----------
    fw_id, name, category
        As FireWorks knows it.
    reason
        The exception's last line; empty if none was recorded.
    """

    fw_id: int
    name: str
    category: str
    reason: str


def fireworks_by_state(connection: Connection, campaign: str) -> dict[str, dict[str, int]]:
    """Number of a campaign's Fireworks: ``{category: {state: number}}``."""
    pipeline: list[dict[str, Any]] = [
        {"$match": {"spec.campaign": campaign}},
        {"$group": {"_id": ["$spec._category", "$state"], "n": {"$sum": 1}}},
        {"$sort": {"_id": 1}},
    ]
    rows = _read(connection, lambda database: list(database.fireworks.aggregate(pipeline)))
    counts: dict[str, dict[str, int]] = {}
    for row in rows:
        category, state = row["_id"]
        counts.setdefault(category or "none", {})[state] = row["n"]
    return counts


def failed_fireworks(
    connection: Connection, campaign: str, *, limit: int = 20
) -> list[FailedFirework]:
    """FIZZLED Fireworks of a campaign with their reasons, the newest first."""
    query = {"spec.campaign": campaign, "state": "FIZZLED"}
    fields = {"fw_id": 1, "name": 1, "spec._category": 1, "launches": 1}
    found = _read(
        connection,
        lambda database: list(
            database.fireworks.find(query, fields).sort("fw_id", DESCENDING).limit(limit)
        ),
    )
    last = {firework["fw_id"]: firework["launches"][-1:] for firework in found}
    launches = _launches(
        connection, [i for ids in last.values() for i in ids], ["action.stored_data._exception"]
    )
    reasons = {launch["launch_id"]: _reason(launch) for launch in launches}
    return [
        FailedFirework(
            firework["fw_id"],
            firework["name"],
            firework["spec"].get("_category", "none"),
            next((reasons.get(i, "") for i in last[firework["fw_id"]]), ""),
        )
        for firework in found
    ]


def working_intervals(connection: Connection, campaign: str) -> list[tuple[datetime, datetime]]:
    """When Fireworks of a campaign ran, those that ended or failed; in order of their start."""
    fields = {"launches": 1, "archived_launches": 1}
    found = _read(
        connection,
        lambda database: list(database.fireworks.find({"spec.campaign": campaign}, fields)),
    )
    ids = [i for f in found for i in [*f.get("launches", []), *f.get("archived_launches", [])]]
    launches = _launches(connection, ids, ["time_start", "time_end"])
    times = [
        (_time(launch.get("time_start")), _time(launch.get("time_end"))) for launch in launches
    ]
    return sorted((start, end) for start, end in times if start is not None and end is not None)


def _launches(
    connection: Connection, ids: Sequence[int], fields: Sequence[str]
) -> list[dict[str, Any]]:
    wanted = {"launch_id": 1, **dict.fromkeys(fields, 1)}
    found: list[dict[str, Any]] = []
    for start in range(0, len(ids), PART):
        query = {"launch_id": {"$in": list(ids[start : start + PART])}}
        found += _read(connection, partial(_find_launches, query, wanted))
    return found


def _find_launches(
    query: dict[str, Any], fields: dict[str, Any], database: Database[dict[str, Any]]
) -> list[dict[str, Any]]:
    return list(database.launches.find(query, fields))


def _reason(launch: dict[str, Any]) -> str:
    """Last line of the traceback that FireWorks stored."""
    place: Any = launch
    for key in ("action", "stored_data", "_exception", "_stacktrace"):
        place = place.get(key) if isinstance(place, dict) else None
    lines = [line.strip() for line in str(place or "").splitlines() if line.strip()]
    if not lines:
        return ""
    # The class before the message is for programmers, as in "hullscreen....DFTError: 1 of 20 ...".
    first, colon, message = lines[-1].partition(": ")
    text = message if colon and " " not in first else lines[-1]
    return text if len(text) <= LONGEST_REASON else f"{text[: LONGEST_REASON - 1]}…"


def _time(value: Any) -> datetime | None:
    """FireWorks writes times as ISO text, in UTC."""
    if value is None:
        return None
    moment = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def _read(
    connection: Connection, operation: Callable[[Database[dict[str, Any]]], Result]
) -> Result:
    return reconnecting(connection, lambda: operation(connection.database))
