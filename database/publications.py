"""In which order hulls are written into the structures' documents, whoever writes them.

Each writing takes a number from the campaign's document before it reads anything. It puts that
number into every document that it may change, and changes those only that have no higher one. So
whoever was stopped for however long writes nothing over what somebody has read later; no clock and
no lock decides about it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pymongo import ReturnDocument, UpdateMany, UpdateOne

from hullscreen.database.collections import (
    KEYS_AT_ONCE,
    Collections,
    Query,
    ascending,
    parts_of,
)
from hullscreen.database.documents import now
from hullscreen.database.indexes import BY_INDEX, BY_ORDER

# Of a structure: the last writing that came by.
PUBLICATION = "publication"
# Of a campaign: writings that have begun and changes that nobody has written yet; the last of
# either that is in the documents; and when the last writing began, by the server's clock.
CHANGES, PUBLISHED, BEGAN_AT = "hull_changes", "hull_published", "hull_published_at"


class Publications(Collections):
    """Writing what the hull of one campaign says of its structures."""

    def note_hull_change(self) -> None:
        """Say that the documents lag behind what DFT has found, until somebody writes them."""
        self._update("campaigns", {"name": self.name}, {"$inc": {CHANGES: 1}})

    def begin_publication(self, *, if_older_s: int | None = None) -> int | None:
        """Number of a new writing, which no earlier one can disturb any more.

        Parameters
        ----------
        if_older_s
            Begin only if the documents lag, and the last writing began so many seconds ago.

        Returns
        -------
        None if it is not to begin.
        """
        query: Query = {"name": self.name}
        if if_older_s is not None:
            ago = {"startDate": "$$NOW", "unit": "second", "amount": if_older_s}
            lags = {"$gt": [f"${CHANGES}", {"$ifNull": [f"${PUBLISHED}", 0]}]}
            rested = {"$lte": [f"${BEGAN_AT}", {"$dateSubtract": ago}]}
            query["$expr"] = {"$and": [lags, rested]}
        change = {"$inc": {CHANGES: 1}, "$currentDate": {BEGAN_AT: True}}
        self._refuse_if_only_reading()
        found = self._retry(
            lambda: self._database.campaigns.find_one_and_update(
                query, change, return_document=ReturnDocument.AFTER
            )
        )
        if found is None:
            return None
        number = int(found[CHANGES])
        places = {"campaign": self.name, "stage": 3, "final": {"$exists": True}}
        mark = {"$set": {PUBLICATION: number}}
        earlier = places | _not_after(number)
        self._bulk("structures", [UpdateMany(earlier, mark, hint=ascending(BY_ORDER))])
        return number

    def publish(
        self,
        number: int,
        finals: Mapping[int, Mapping[str, Any]],
        fields: Mapping[int, Mapping[str, Any]],
        remove: Sequence[str],
    ) -> None:
        """Write what the hull says, and that it is written.

        Parameters
        ----------
        number
            From `begin_publication`.
        finals
            The DFT relaxations that it was found with, by structure: others are left alone.
        fields
            By structure, what to write; of those with nothing, the fields ``remove`` go.
        """
        moment = now()
        writes = (
            UpdateOne(
                {"campaign": self.name, "index": index, "final": finals[index]}
                | _not_after(number),
                {
                    "$set": {**values, PUBLICATION: number, "last_updated": moment},
                    **({} if values else {"$unset": dict.fromkeys(remove, "")}),
                },
                hint=ascending(BY_INDEX),
            )
            for index, values in fields.items()
        )
        self._bulk("structures", writes)
        self._update("campaigns", {"name": self.name}, {"$max": {PUBLISHED: number}})

    def campaigns_with_final(self, keys: Sequence[str]) -> list[str]:
        """Campaigns of the database whose final relaxations have some of these results."""
        # With the campaigns, so that the index serves.
        every = {"name": {"$gte": ""}}
        names = [document["name"] for document in self._find("campaigns", every, ["name"])]
        found: set[str] = set()
        for part in parts_of(keys, KEYS_AT_ONCE):
            query = {"campaign": {"$in": names}, "stage": 3, "final.key": {"$in": part}}
            documents = self._find("structures", query, ["campaign"], along=BY_ORDER)
            found |= {document["campaign"] for document in documents}
        return sorted(found)


def _not_after(number: int) -> Query:
    """Condition on a structure that no later writing has come by; also where none has."""
    return {PUBLICATION: {"$not": {"$gt": number}}}
