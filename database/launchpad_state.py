"""What FireWorks' collections say about a campaign, read without a LaunchPad."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar

from pymongo import DESCENDING
from pymongo.database import Database

from hullscreen.database.connection import Connection, reconnecting

Result = TypeVar("Result")
Interval = tuple[datetime, datetime]

# Error texts of FireWorks may hold a traceback of pages; a person reads one line of it.
LONGEST_REASON = 300
PART = 1000
EXCEPTION = "action.stored_data._exception._stacktrace"
# Where FireWorks notes why it could not even begin a step.
NOT_BEGUN = "spec._exception_details._stacktrace"


@dataclass(frozen=True)
class FailedFirework:
    """A Firework that is FIZZLED.

    Attributes
    ----------
    fw_id, name, category
        As FireWorks knows it.
    reason
        The exception's last line; empty if none was recorded.
    exception
        Name of the exception's class without its module; empty if none was recorded.
    """

    fw_id: int
    name: str
    category: str
    reason: str
    exception: str = ""


def fireworks_by_state(connection: Connection, campaign: str) -> dict[str, dict[str, int]]:
    """Number of a campaign's Fireworks: ``{category: {state: number}}``."""
    return _counted(connection, {"spec.campaign": campaign})


def completed_since(
    connection: Connection, campaign: str, categories: Sequence[str], since: datetime
) -> dict[str, int]:
    """Number of a campaign's Fireworks that were completed after a moment, by category."""
    query = {
        "spec.campaign": campaign,
        "spec._category": {"$in": list(categories)},
        "state": "COMPLETED",
        "updated_on": {"$gte": since.astimezone(UTC).isoformat()},
    }
    counts = _counted(connection, query)
    return {category: sum(states.values()) for category, states in counts.items()}


def _counted(connection: Connection, query: dict[str, Any]) -> dict[str, dict[str, int]]:
    pipeline: list[dict[str, Any]] = [
        {"$match": query},
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
    fields = {"fw_id": 1, "name": 1, "spec._category": 1, "launches": 1, NOT_BEGUN: 1}
    found = _read(
        connection,
        lambda database: list(
            database.fireworks.find(query, fields).sort("fw_id", DESCENDING).limit(limit)
        ),
    )
    last = [firework["launches"][-1] for firework in found if firework["launches"]]
    traces = {
        launch["launch_id"]: trace_of(launch) for launch in _launches(connection, last, [EXCEPTION])
    }
    return [_failed(firework, traces) for firework in found]


def _failed(firework: Mapping[str, Any], traces: Mapping[int, str]) -> FailedFirework:
    launches = firework["launches"]
    trace = traces.get(launches[-1], "") if launches else str(_inside(firework, NOT_BEGUN) or "")
    exception, reason = last_words(trace)
    category = firework["spec"].get("_category", "none")
    return FailedFirework(firework["fw_id"], firework["name"], category, reason, exception)


def working_intervals(connection: Connection, campaign: str) -> list[Interval]:
    """When Fireworks of a campaign ran, those that ended or failed; in order of their start."""
    fields = {"launches": 1, "archived_launches": 1}
    found = _read(
        connection,
        lambda database: list(database.fireworks.find({"spec.campaign": campaign}, fields)),
    )
    ids = [i for f in found for i in [*f.get("launches", []), *f.get("archived_launches", [])]]
    return _intervals(connection, ids)


def newest_intervals(
    connection: Connection, campaign: str, category: str, *, limit: int
) -> list[Interval]:
    """When the Fireworks of a category ran that were completed last; in order of their start."""
    query = {"spec.campaign": campaign, "spec._category": category, "state": "COMPLETED"}
    found = _read(
        connection,
        lambda database: list(
            database.fireworks.find(query, {"launches": 1})
            .sort("updated_on", DESCENDING)
            .limit(limit)
        ),
    )
    return _intervals(connection, [f["launches"][-1] for f in found if f["launches"]])


def _intervals(connection: Connection, launch_ids: Sequence[int]) -> list[Interval]:
    launches = _launches(connection, launch_ids, ["time_start", "time_end"])
    times = [
        (moment_of(launch.get("time_start")), moment_of(launch.get("time_end")))
        for launch in launches
    ]
    return sorted((start, end) for start, end in times if start is not None and end is not None)


def fireworks(
    connection: Connection, query: Mapping[str, Any], fields: Sequence[str]
) -> list[dict[str, Any]]:
    """Some fields of Fireworks that match, the oldest first."""
    return _read(
        connection,
        lambda database: list(
            database.fireworks.find(dict(query), {"_id": 0, **dict.fromkeys(fields, 1)}).sort(
                "fw_id"
            )
        ),
    )


def last_launches(
    connection: Connection, found: Sequence[Mapping[str, Any]], fields: Sequence[str]
) -> dict[int, dict[str, Any]]:
    """Some fields of the last launch of Fireworks, by their ``fw_id``; some have none."""
    last = {one["launches"][-1]: one["fw_id"] for one in found if one.get("launches")}
    return {
        last[launch["launch_id"]]: launch for launch in _launches(connection, list(last), fields)
    }


def _launches(
    connection: Connection, ids: Sequence[int], fields: Sequence[str]
) -> list[dict[str, Any]]:
    wanted = {"_id": 0, "launch_id": 1, **dict.fromkeys(fields, 1)}
    found: list[dict[str, Any]] = []
    for start in range(0, len(ids), PART):
        query = {"launch_id": {"$in": list(ids[start : start + PART])}}
        found += _read(connection, partial(_find_launches, query, wanted))
    return found


def _find_launches(
    query: dict[str, Any], fields: dict[str, Any], database: Database[dict[str, Any]]
) -> list[dict[str, Any]]:
    return list(database.launches.find(query, fields))


def trace_of(launch: Mapping[str, Any]) -> str:
    """The traceback that FireWorks stored of a launch; empty if it did not fail."""
    return str(_inside(launch, EXCEPTION) or "")


def _inside(document: Mapping[str, Any], path: str) -> Any:
    place: Any = document
    for key in path.split("."):
        place = place.get(key) if isinstance(place, dict) else None
    return place


def last_words(trace: str) -> tuple[str, str]:
    """Class and sentence of the exception at the end of a traceback; both may be empty.

    Examples
    --------
    >>> last_words("hullscreen.potentials.errors.DFTError: 1 of 20 failed")
    ('DFTError', '1 of 20 failed')
    """
    lines = [line.strip() for line in trace.splitlines() if line.strip()]
    if not lines:
        return "", ""
    first, colon, message = lines[-1].partition(": ")
    named = bool(colon) and " " not in first
    exception = first.rpartition(".")[2] if named else ""
    text = message if named else lines[-1]
    return exception, text if len(text) <= LONGEST_REASON else f"{text[: LONGEST_REASON - 1]}…"


def moment_of(value: Any) -> datetime | None:
    """A time as FireWorks writes it: ISO text in UTC."""
    if value is None:
        return None
    moment = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def _read(
    connection: Connection, operation: Callable[[Database[dict[str, Any]]], Result]
) -> Result:
    return reconnecting(connection, lambda: operation(connection.database))
