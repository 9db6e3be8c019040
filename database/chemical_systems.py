"""Fields of the structures of earlier databases that today's are born with, or get while screened.

MongoDB computes them from what the documents hold: no structure travels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pymongo import DESCENDING, WriteConcern
from pymongo.collection import Collection
from pymongo.results import UpdateResult

from hullscreen.database.connection import Connection, reconnecting
from hullscreen.database.documents import (
    RELAXATION_FIELDS,
    SCREEN_1,
    SCREEN_2,
    SINGLE_POINT,
)

# Structures of this many places in the pool are changed by one command: seconds, whatever the pool.
PLACES_AT_ONCE = 20_000
REMOVE = "$$REMOVE"
# Whose energies a stage has dropped structures by.
DROPPED_BY = {1: SCREEN_1, 2: SCREEN_2, 3: SINGLE_POINT}
Expression = dict[str, Any]


def add_missing_fields(connection: Connection, name: str) -> int:
    """Add what the structures of a campaign lack, and say of how many; repeated, it does no harm.

    Energies that nobody has kept stay unknown: of structures that a potential has screened there
    are heights above the hull.
    """
    database = connection.database.with_options(write_concern=WriteConcern(w="majority", j=True))
    campaign = reconnecting(connection, lambda: database["campaigns"].find_one({"name": name}))
    elements = (campaign or {}).get("elements", [])
    structures = database["structures"]
    last = reconnecting(
        connection,
        lambda: structures.find_one({"campaign": name}, {"index": 1}, sort=[("index", DESCENDING)]),
    )
    if not elements or last is None:
        return 0
    change = [{"$set": _composition(elements) | _screened()}, {"$set": _from_composition()}]
    n_changed = 0
    for first in range(0, last["index"] + 1, PLACES_AT_ONCE):
        places = {"$gte": first, "$lt": first + PLACES_AT_ONCE}
        query = {"campaign": name, "index": places, "chemsys": {"$exists": False}}
        n_changed += reconnecting(connection, _updating(structures, query, change)).modified_count
    return n_changed


def _updating(
    structures: Collection[dict[str, Any]], query: Expression, change: list[Expression]
) -> Callable[[], UpdateResult]:
    return lambda: structures.update_many(query, change)


def _composition(elements: Sequence[str]) -> Expression:
    """Atoms of each element, of those that are there, from the counts of the campaign's."""
    pairs = [
        {"k": symbol, "v": {"$arrayElemAt": ["$counts", place]}}
        for symbol, place in sorted(zip(elements, range(len(elements)), strict=True))
    ]
    there = {"$filter": {"input": pairs, "cond": {"$gt": ["$$this.v", 0]}}}
    return {"composition": {"$arrayToObject": there}}


def _from_composition() -> Expression:
    """System of a structure whose ``composition`` is known."""
    symbols = {"$map": {"input": {"$objectToArray": "$composition"}, "in": "$$this.k"}}
    separator = {"$cond": [{"$eq": ["$$value", ""]}, "", "-"]}
    return {
        "elements": symbols,
        "nelements": {"$size": symbols},
        "chemsys": {
            "$reduce": {
                "input": symbols,
                "initialValue": "",
                "in": {"$concat": ["$$value", separator, "$$this"]},
            }
        },
        "last_updated": "$$NOW",
    }


def _screened() -> Expression:
    """Height of a structure that was dropped for it, whose it is, and its last relaxation."""
    height = "$dropped.energy_above_hull"
    known = {"$isNumber": height}
    sources = [
        {"case": {"$and": [known, {"$eq": ["$dropped.stage", stage]}]}, "then": source}
        for stage, source in DROPPED_BY.items()
    ]
    numbers = {name: f"$relaxed.{name}" for name in RELAXATION_FIELDS}
    is_relaxed = {"$eq": [{"$type": "$relaxed"}, "object"]}
    return {
        "energy_above_hull": {"$cond": [known, height, REMOVE]},
        "energy_from": {"$switch": {"branches": sources, "default": REMOVE}},
        "relaxations": {"$cond": [is_relaxed, [numbers], REMOVE]},
    }
