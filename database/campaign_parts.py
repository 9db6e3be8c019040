"""Which documents of a database are one campaign's: to copy them elsewhere, or to remove them.

DFT results belong to nobody: campaigns share them, so they are copied along and never removed.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain, combinations
from typing import Any

from ase.data import atomic_numbers

from hullscreen.database.connection import Connection, reconnecting
from hullscreen.database.indexes import INDEXES
from hullscreen.potentials.errors import CampaignError

CAMPAIGNS = "campaigns"
DFT_RESULTS = "dft_results"
REFERENCE_RELAXATIONS = "reference_relaxations"
# What all campaigns of a database share: results, and notes on calculations that were begun.
RESULTS = (DFT_RESULTS, REFERENCE_RELAXATIONS)
SHARED = {*RESULTS, "attempts", "calculations"}
CLAIMS = "claims"
QUEUE_JOBS = "queue_jobs"
# Who works on a campaign here, which is nothing elsewhere.
OF_WORKERS = (CLAIMS, QUEUE_JOBS)
OWN = tuple(c for c in INDEXES if c not in (*SHARED, *OF_WORKERS, CAMPAIGNS))
FIREWORKS, LAUNCHES, WORKFLOWS = "fireworks", "launches", "workflows"
# Who gave a sign of life so recently, in seconds, is at work; where workers rarely give one,
# several of their heartbeats.
AT_WORK_S = 60
HEARTBEATS_AT_WORK = 4

# Fields of a campaign that a `run` changes that only waits.
# A supervisor lives while its campaign rests, too.
COSTS = {"cpu_seconds", "peak_memory_bytes", "last_updated", "supervisor"}

Query = dict[str, Any]


@dataclass(frozen=True)
class Part:
    """Documents of one collection."""

    collection: str
    query: Query


def own_parts(connection: Connection, name: str) -> list[Part]:
    """What belongs to a campaign alone but for its document; first what workers may take."""
    return [
        Part(FIREWORKS, {"spec.campaign": name}),
        Part(LAUNCHES, {"fw_id": {"$in": _fw_ids(connection, name)}}),
        Part(WORKFLOWS, {"metadata.campaign": name}),
        *(Part(collection, {"campaign": name}) for collection in OWN),
    ]


def parts_of_workers(name: str) -> list[Part]:
    """Notes about processes and jobs that work on a campaign."""
    return [Part(collection, {"campaign": name}) for collection in OF_WORKERS]


def shared_parts(campaign: dict[str, Any]) -> list[Part]:
    """DFT results of a campaign's elements, whoever computed them.

    Parameters
    ----------
    campaign
        Its document.
    """
    symbols = sorted(campaign["elements"])
    sets = chain.from_iterable(combinations(symbols, n) for n in range(1, len(symbols) + 1))
    numbers = [atomic_numbers[symbol] for symbol in symbols]
    return [
        Part(DFT_RESULTS, {"chemsys": {"$in": ["-".join(one) for one in sets]}}),
        Part(REFERENCE_RELAXATIONS, {"numbers": {"$not": {"$elemMatch": {"$nin": numbers}}}}),
    ]


def campaign_document(connection: Connection, name: str) -> dict[str, Any]:
    """The document of a campaign.

    Raises
    ------
    CampaignError
        There is none of this name.
    """
    found = reconnecting(
        connection, lambda: connection.database[CAMPAIGNS].find_one({"name": name})
    )
    if found is None:
        raise CampaignError(f"the database {connection.name!r} has no campaign {name!r}")
    return found


def signs_of_work(connection: Connection, name: str) -> list[Any]:
    """What changes whenever somebody works on a campaign; two equal answers: nobody did between."""
    database = connection.database
    states: list[Query] = [
        {"$match": {"spec.campaign": name}},
        {"$group": {"_id": "$state", "n": {"$sum": 1}, "last": {"$max": "$updated_on"}}},
        {"$sort": {"_id": 1}},
    ]
    claims = {"campaign": name}
    fields = {"token": 1, "beats": 1}
    document = campaign_document(connection, name)
    return [
        reconnecting(connection, lambda: list(database[FIREWORKS].aggregate(states))),
        reconnecting(connection, lambda: list(database[CLAIMS].find(claims, fields).sort("_id"))),
        {key: value for key, value in document.items() if key not in COSTS},
    ]


def refuse_at_work(
    connection: Connection, name: str, what: str, *, pause_is_rest: bool = False
) -> None:
    """Refuse what needs a campaign at rest, while processes work on it or jobs in a queue will.

    Parameters
    ----------
    what
        What is refused, as the subject of a sentence.
    pause_is_rest
        Whether jobs in a queue do not count while the campaign is paused.

    Raises
    ------
    CampaignError
        Somebody holds a step and has given a sign of life in the last minute, or in the last few
        heartbeats where these are longer; or jobs for it are in a queue, as far as `launch` knows.
    """
    campaigns = connection.database[CAMPAIGNS]
    campaign = reconnecting(connection, lambda: campaigns.find_one({"name": name})) or {}
    at_work_s = max(AT_WORK_S, round(HEARTBEATS_AT_WORK * campaign.get("heartbeat_s", 0.0)))
    since = {"$dateSubtract": {"startDate": "$$NOW", "unit": "second", "amount": at_work_s}}
    query = {
        "campaign": name,
        "holder": {"$ne": ""},
        "$expr": {"$gt": ["$seen_at", since]},
    }
    holder = reconnecting(connection, lambda: connection.database[CLAIMS].find_one(query))
    if holder is not None:
        pause = ", or `hullscreen pause` it and wait for its steps" if pause_is_rest else ""
        raise CampaignError(
            f"campaign {name!r} is at work (on {holder['host']}, a sign of life in the last "
            f"{at_work_s} s), and {what} needs it at rest: `hullscreen cancel` ends `run`, "
            f"`launch` and workers{pause}"
        )
    # Of a finished campaign they end by themselves, and change nothing.
    if campaign.get("finished") or (pause_is_rest and campaign.get("paused")):
        return
    in_queue: Query = {"campaign": name, "ended_at": None}
    job = reconnecting(connection, lambda: connection.database[QUEUE_JOBS].find_one(in_queue))
    if job is not None:
        raise CampaignError(
            f"campaign {name!r} has jobs in a queue, such as {job['job_id']} ({job['category']}), "
            f"and {what} needs it at rest: `hullscreen cancel {job['directory']}` ends them first"
        )


def _fw_ids(connection: Connection, name: str) -> list[int]:
    """Numbers of a campaign's Fireworks, also of those that a removal has taken away already."""
    fireworks, workflows = connection.database[FIREWORKS], connection.database[WORKFLOWS]

    def read() -> list[int]:
        found = fireworks.find({"spec.campaign": name}, {"fw_id": 1})
        numbers = {document["fw_id"] for document in found}
        for workflow in workflows.find({"metadata.campaign": name}, {"nodes": 1}):
            numbers.update(workflow["nodes"])
        return sorted(numbers)

    return reconnecting(connection, read)
