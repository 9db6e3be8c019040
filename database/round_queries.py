"""Queries and writes of rounds, of the structures chosen for DFT, and of potentials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pymongo import DESCENDING, DeleteMany, ReplaceOne, UpdateOne

from hullscreen.database.collections import Collections, Query
from hullscreen.database.documents import Geometry, unpack_species
from hullscreen.database.round_documents import PotentialDocument, RoundDocument, Selected
from hullscreen.potentials.errors import CampaignError


class RoundQueries(Collections):
    """Rounds, what they label, and the potentials that they fit."""

    def insert_round(self, round_: RoundDocument, selected: Sequence[Selected]) -> None:
        """Begin a round; it counts from the moment its own document is there.

        Whatever a decision has left that was killed before is written over: the same structures,
        for a decision that is taken again has the same result.
        """
        if self.find_round(round_.number) is not None:
            return
        place = {"campaign": self.name, "round": round_.number}
        writes: list[ReplaceOne[dict[str, Any]] | DeleteMany] = [
            ReplaceOne({**place, "number": chosen.number}, chosen.to_bson(), upsert=True)
            for chosen in selected
        ]
        writes.append(DeleteMany({**place, "number": {"$gte": len(selected)}}))
        self._bulk("selected", writes)
        self._insert("rounds", round_.to_bson())

    def find_round(self, number: int) -> RoundDocument | None:
        """A round by its number."""
        found = self._find("rounds", {"campaign": self.name, "number": number})
        return _round(found[0]) if found else None

    def round(self, number: int) -> RoundDocument:
        """A round by its number.

        Raises
        ------
        CampaignError
            There is none.
        """
        round_ = self.find_round(number)
        if round_ is None:
            raise CampaignError(f"campaign {self.name!r} has no round {number}")
        return round_

    def set_submitted(self, number: int) -> None:
        """Note that a round's workflow is complete in the LaunchPad."""
        query = {"campaign": self.name, "number": number}
        self._update("rounds", query, {"$set": {"submitted": True}})

    def set_hulls(self, number: int, **hulls: Sequence[Mapping[str, Any]]) -> None:
        """Note the corners of hulls by which a round's decision drops structures, by field."""
        query = {"campaign": self.name, "number": number}
        change = {name: [dict(corner) for corner in hull] for name, hull in hulls.items()}
        self._update("rounds", query, {"$set": change})

    def last_round(self) -> RoundDocument | None:
        """The newest round."""
        number = self._last_number()
        return self.find_round(number) if number >= 0 else None

    def _last_number(self) -> int:
        """Number of the newest round, -1 before the first."""
        newest = self._retry(
            lambda: self._database.rounds.find_one(
                {"campaign": self.name}, {"number": 1}, sort=[("number", DESCENDING)]
            )
        )
        return int(newest["number"]) if newest else -1

    def rounds(self) -> list[RoundDocument]:
        """All rounds in order."""
        documents = self._find("rounds", {"campaign": self.name}, sort=["number"])
        return [_round(document) for document in documents]

    def selected(self, **query: Any) -> list[Selected]:
        """Structures chosen for DFT, in order of round and number.

        Without a ``round`` those of all rounds that have begun: a decision may have left some of
        one that has not.
        """
        full = {"campaign": self.name, "round": {"$lte": self._last_number()}, **query}
        documents = self._find("selected", full, sort=["round", "number"])
        return [_selected(document) for document in documents]

    def asked(self) -> list[tuple[int, str]]:
        """Structures chosen for DFT and the keys of their results, in order of round and number."""
        query = {"campaign": self.name, "round": {"$lte": self._last_number()}}
        fields = ["structure_index", "key"]
        found = self._find("selected", query, fields, sort=["round", "number"])
        return [(document["structure_index"], document["key"]) for document in found]

    def selected_elsewhere(self, campaign: str) -> list[Selected]:
        """Structures that another campaign of this database has chosen, in its order."""
        documents = self._find("selected", {"campaign": campaign}, sort=["round", "number"])
        return [_selected(document) for document in documents]

    def set_selected_keys(self, keys: Mapping[tuple[int, int], str]) -> None:
        """Let chosen structures, by round and number, point at other results."""
        self._bulk(
            "selected",
            [
                UpdateOne(
                    {"campaign": self.name, "round": round_, "number": number},
                    {"$set": {"key": key}},
                )
                for (round_, number), key in keys.items()
            ],
        )

    def selected_counts(self) -> dict[int, int]:
        """Number of structures chosen for DFT by round."""
        pipeline: list[Query] = [
            {"$match": {"campaign": self.name, "round": {"$lte": self._last_number()}}},
            {"$group": {"_id": "$round", "n": {"$sum": 1}}},
        ]
        rows = self._aggregate("selected", pipeline)
        return {row["_id"]: row["n"] for row in rows}

    def save_potential(self, potential: PotentialDocument) -> None:
        """Store a potential; the first of a number stays."""
        self._insert("potentials", potential.to_bson())

    def potential(self, number: int) -> PotentialDocument | None:
        """A potential by its round's number."""
        found = self._find("potentials", {"campaign": self.name, "number": number})
        return PotentialDocument(**found[0]) if found else None

    def potentials(self, fields: Sequence[str]) -> list[dict[str, Any]]:
        """Some fields of all potentials, in order."""
        return self._find("potentials", {"campaign": self.name}, fields, sort=["number"])


def _selected(document: Mapping[str, Any]) -> Selected:
    return Selected(
        **{
            **document,
            "species": unpack_species(document["species"]),
            "geometry": Geometry.from_bson(document["geometry"]),
        }
    )


def _round(document: Mapping[str, Any]) -> RoundDocument:
    values = dict(document)
    values["final_indices"] = tuple(values["final_indices"])
    for name in ("predicted_hull", "labelled_hull"):
        values[name] = tuple(values.get(name, ()))
    return RoundDocument(**values)
