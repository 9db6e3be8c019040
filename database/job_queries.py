"""From a structure to its DFT calculations, and from a DFT job to its structures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hullscreen.database.connection import Connection, reconnecting
from hullscreen.database.dft_documents import DFTDocument


@dataclass(frozen=True)
class Asked:
    """A DFT single point that a campaign has asked for.

    Attributes
    ----------
    round, number
        The round, and the calculation's place in it.
    purpose
        What it is for.
    structure_index
        The prototype that it came from.
    key
        Of the result.
    """

    round: int
    number: int
    purpose: str
    structure_index: int
    key: str


def asked_of_structure(connection: Connection, campaign: str, index: int) -> list[Asked]:
    """DFT single points of a structure, by round."""
    return _asked(connection, {"campaign": campaign, "structure_index": index})


def asked_in_span(
    connection: Connection, campaign: str, number: int, first: int, last: int
) -> list[Asked]:
    """DFT single points ``first`` to ``last`` (exclusive) of a round."""
    span = {"$gte": first, "$lt": last}
    return _asked(connection, {"campaign": campaign, "round": number, "number": span})


def _asked(connection: Connection, query: dict[str, Any]) -> list[Asked]:
    fields = dict.fromkeys(Asked.__dataclass_fields__, 1)
    found = reconnecting(
        connection, lambda: list(connection.database.selected.find(query, {**fields, "_id": 0}))
    )
    asked = [Asked(**document) for document in found]
    return sorted(asked, key=lambda one: (one.round, one.number))


def results_of_structures(
    connection: Connection, campaign: str, indices: Sequence[int]
) -> list[DFTDocument]:
    """DFT results of structures that this campaign has computed, the oldest first."""
    query = {"campaign": campaign, "structure_index": {"$in": list(indices)}}
    found = reconnecting(connection, lambda: list(connection.database.dft_results.find(query)))
    results = [DFTDocument.from_bson(document) for document in found]
    return sorted(results, key=lambda result: result.created_at)
