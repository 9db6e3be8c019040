"""Along which index structures are read: MongoDB would try all of them, and choose late or wrongly.

All queries here name a campaign; nearly every index begins with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hullscreen.database.collections import Query
from hullscreen.database.documents import TOO_FAR
from hullscreen.database.indexes import (
    BY_CHEMSYS,
    BY_FORMULA,
    BY_GRADE,
    BY_HEIGHT,
    BY_INDEX,
    BY_ORDER,
    BY_OUTCOME,
    BY_PROTOTYPE,
    BY_REASON,
    BY_SPACE_GROUP,
    BY_STABILITY,
    LOWEST_INDEXED_GRADE,
)

HEIGHT = "energy_above_hull"
LAST_STAGE = 3
# Of a screened pool most structures have this outcome: no index of outcomes makes them fewer.
USUAL_OUTCOME = "converged"
# What leaves few structures, whatever they are sorted by; the first that is asked for counts.
SELECTIVE = {
    "index": BY_INDEX,
    "prototype": BY_PROTOTYPE,
    "is_stable": BY_STABILITY,
    "symmetry.number": BY_SPACE_GROUP,
}
# These give structures of one value in order of their height.
IN_ORDER_OF_HEIGHT = {"formula_pretty": BY_FORMULA, "chemsys": BY_CHEMSYS}


def index_for(query: Query, sort: Sequence[str] = ()) -> list[str]:
    """Fields of the index along which a query of one campaign is read; empty if MongoDB chooses.

    Parameters
    ----------
    query
        Fields and their conditions.
    sort
        Fields that give the order; those that begin with ``-`` fall.
    """
    by_height = [name.removeprefix("-") for name in sort[:1]] == [HEIGHT]
    outcome = query.get("relaxed.outcome", USUAL_OUTCOME)
    choices = [
        # Of what lacks such a field their indexes know nothing.
        *((query.get(field) is not None, along) for field, along in SELECTIVE.items()),
        (_is_high(query.get("relaxed.highest_grade")), BY_GRADE),
        (outcome != USUAL_OUTCOME, BY_OUTCOME),
        (query.get("stage") == LAST_STAGE, BY_ORDER),
        ("dropped.stage" in query and not (by_height and _is_usual(query)), BY_REASON),
        *((field in query, along) for field, along in IN_ORDER_OF_HEIGHT.items()),
        (by_height or HEIGHT in query, BY_HEIGHT),
    ]
    return next((along for suits, along in choices if suits), [])


def _is_usual(query: Query) -> bool:
    """Whether structures that were dropped are wanted for what most were dropped for."""
    reasons = query.get("dropped.reason")
    return isinstance(reasons, dict) and TOO_FAR in reasons.get("$in", ())


def _is_high(grades: Any) -> bool:
    """Whether a condition leaves only grades that the index of grades holds."""
    least = grades.get("$gte") if isinstance(grades, dict) else None
    return least is not None and least >= LOWEST_INDEXED_GRADE
