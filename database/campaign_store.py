"""Every MongoDB call of a campaign.

All writes are idempotent and keyed, so that a step that is repeated changes nothing, and all of them are
repeated while the server is away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

import numpy as np
from pymongo import ASCENDING, DESCENDING, InsertOne, ReplaceOne, UpdateOne, WriteConcern
from pymongo.database import Database
from pymongo.errors import BulkWriteError, DuplicateKeyError

from hullscreen.database.connection import Connection, reconnecting
from hullscreen.database.documents import (
    CampaignDocument,
    DFTDocument,
    Geometry,
    PotentialDocument,
    Prototype,
    ReferenceRelaxation,
    Relaxed,
    RoundDocument,
    Selected,
    now,
    unpack_species,
)
from hullscreen.potentials.errors import CampaignError
from hullscreen.potentials.structures import FloatArray, IndexArray, Structures, join

Result = TypeVar("Result")
Query = dict[str, Any]

DUPLICATE_KEY = 11000
INDEXES: dict[str, list[tuple[list[str], bool]]] = {
    # collection: (fields, unique)
    "campaigns": [(["name"], True)],
    "structures": [
        (["campaign", "index"], True),
        (["campaign", "order"], False),
        (["campaign", "stage", "order"], False),
        # With the outcome, so that outcomes are counted without reading a structure.
        (["campaign", "relaxed.stage", "relaxed.potential", "relaxed.outcome"], False),
        (["campaign", "dropped.stage", "dropped.reason"], False),
        # Searches, sorted by height; with the stage, so that others' structures are not read.
        (["campaign", "dropped.energy_above_hull", "index", "stage"], False),
        (["campaign", "formula_pretty", "dropped.energy_above_hull", "index", "stage"], False),
    ],
    "selected": [(["campaign", "round", "number"], True), (["campaign", "key"], False)],
    "rounds": [(["campaign", "number"], True)],
    "potentials": [(["campaign", "number"], True)],
    "dft_results": [(["key"], True), (["campaign", "purpose", "state"], False)],
    "reference_relaxations": [(["key"], True)],
}


@dataclass(frozen=True)
class StructureBatch:
    """Structures read from the database as arrays.

    Attributes
    ----------
    indices, counts
        Places in the pool (n,) and atoms of each element (n, n_elements).
    structures
        The geometries asked for.
    energies_per_atom, potentials, highest_grades
        Of the last relaxation, NaN or -1 where there was none; (n,).
    outcomes
        How it ended, "" where there was none.
    """

    indices: IndexArray
    counts: IndexArray
    structures: Structures
    energies_per_atom: FloatArray
    potentials: IndexArray
    highest_grades: FloatArray
    outcomes: list[str]

    def __len__(self) -> int:
        return len(self.indices)


class CampaignStore:
    """One campaign in one database.

    Parameters
    ----------
    connection
        Open connection; its database holds ours and FireWorks' collections.
    name
        Name of the campaign.
    """

    def __init__(self, connection: Connection, name: str) -> None:
        self.name = name
        self._connection = connection
        durable = WriteConcern(w="majority", j=True)
        self._database: Database[dict[str, Any]] = connection.database.with_options(
            write_concern=durable
        )

    def ensure_indexes(self) -> None:
        """Create what the queries below need."""
        for collection, indexes in INDEXES.items():
            for fields, unique in indexes:
                keys = [(name, ASCENDING) for name in fields]
                self._retry(
                    lambda c=collection, k=keys, u=unique: self._database[c].create_index(
                        k, unique=u
                    )
                )

    # The campaign

    def create(self, campaign: CampaignDocument) -> None:
        """Register the campaign unless it exists."""
        self._insert("campaigns", campaign.to_bson())

    def campaign(self) -> dict[str, Any]:
        """The campaign's document.

        Raises
        ------
        CampaignError
            There is none of this name.
        """
        document = self.find_campaign()
        if document is None:
            raise CampaignError(
                f"the database has no campaign {self.name!r}; `hullscreen submit` or `run` makes it"
            )
        return document

    def find_campaign(self) -> dict[str, Any] | None:
        """The campaign's document, or None."""
        return self._retry(lambda: self._database.campaigns.find_one({"name": self.name}))

    def set_campaign(self, **fields: Any) -> None:
        """Change fields of the campaign's document."""
        change = {"$set": {**fields, "last_updated": now()}}
        self._retry(lambda: self._database.campaigns.update_one({"name": self.name}, change))

    def add_cpu_seconds(self, part: str, seconds: float) -> None:
        """Account processor time to a part of the program."""
        change = {"$inc": {f"cpu_seconds.{part}": seconds}}
        self._retry(lambda: self._database.campaigns.update_one({"name": self.name}, change))

    # Structures

    def insert_prototypes(self, prototypes: Iterable[Prototype]) -> None:
        """Add prototypes; those that are there stay as they are."""
        writes = [InsertOne(prototype.to_bson()) for prototype in prototypes]
        self._bulk("structures", writes)

    def count(self, **query: Any) -> int:
        """Number of structures that match."""
        return self._retry(
            lambda: self._database.structures.count_documents({"campaign": self.name, **query})
        )

    def unrelaxed(self, round_: RoundDocument) -> Query:
        """Which structures a round has still to relax."""
        query: Query = {"stage": round_.stage, "order": {"$lt": round_.wave}}
        if round_.again:
            query["relaxed.potential"] = {"$lt": round_.potential}
        else:
            query["$or"] = [
                {"relaxed.stage": {"$ne": round_.stage}},
                # What did not converge is tried again with every new potential.
                {
                    "relaxed.outcome": {"$ne": "converged"},
                    "relaxed.potential": {"$lt": round_.potential},
                },
            ]
        return query

    def unrelaxed_orders(self, round_: RoundDocument) -> list[int]:
        """Places, in the order of waves, of what a round has still to relax; sorted."""
        query = {"campaign": self.name, **self.unrelaxed(round_)}
        documents = self._retry(
            lambda: list(
                self._database.structures.find(query, {"_id": 0, "order": 1}).sort(
                    "order", ASCENDING
                )
            )
        )
        return [document["order"] for document in documents]

    def structures(
        self, query: Query, *, geometry: str = "relaxed.geometry", limit: int = 0
    ) -> StructureBatch:
        """Structures that match, in order of their index.

        Parameters
        ----------
        geometry
            ``start``, ``relaxed.geometry`` or ``relaxed.snapshot``; structures without it are left out.
        """
        fields = [
            "index", "counts", "species", geometry, "relaxed.energy_per_atom", "relaxed.potential",
            "relaxed.highest_grade", "relaxed.outcome",
        ]  # fmt: skip
        full = {"campaign": self.name, **query, geometry: {"$type": "object"}}
        documents = self._retry(
            lambda: list(
                self._database.structures.find(full, dict.fromkeys(fields, 1))
                .sort("index", ASCENDING)
                .limit(limit)
            )
        )
        parts = []
        for document in documents:
            place: Any = document
            for name in geometry.split("."):
                place = place[name]
            found = Geometry.from_bson(place)
            parts.append((found.cell, found.positions, unpack_species(document["species"])))
        relaxed = [document.get("relaxed", {}) for document in documents]
        return StructureBatch(
            np.array([document["index"] for document in documents], dtype=np.int64),
            np.array([document["counts"] for document in documents], dtype=np.int64),
            join(parts),
            np.array([entry.get("energy_per_atom", np.nan) for entry in relaxed]),
            np.array([entry.get("potential", -1) for entry in relaxed], dtype=np.int64),
            np.array([entry.get("highest_grade", np.nan) for entry in relaxed]),
            [entry.get("outcome", "") for entry in relaxed],
        )

    def documents(self, query: Query, fields: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Plain fields of structures that match, in order of their index."""
        cursor = self._database.structures.find(
            {"campaign": self.name, **query}, {"_id": 0, **dict.fromkeys(fields, 1)}
        ).sort("index", ASCENDING)
        yield from self._retry(lambda: list(cursor))

    def tally(self, *fields: str, **query: Any) -> dict[tuple[Any, ...], int]:
        """Number of structures by the values of some fields, None where one is missing."""
        pipeline: list[Query] = [
            {"$match": {"campaign": self.name, **query}},
            {"$group": {"_id": [f"${name}" for name in fields], "n": {"$sum": 1}}},
        ]
        rows = self._retry(lambda: list(self._database.structures.aggregate(pipeline)))
        return {tuple(row["_id"]): row["n"] for row in rows}

    def search(
        self, query: Query, fields: Sequence[str], *, sort: Sequence[str], limit: int = 0
    ) -> list[dict[str, Any]]:
        """Plain fields of structures that match, the smallest values of ``sort`` first."""
        order = [(name, ASCENDING) for name in sort]
        return self._retry(
            lambda: list(
                self._database.structures.find(
                    {"campaign": self.name, **query}, {"_id": 0, **dict.fromkeys(fields, 1)}
                )
                .sort(order)
                .limit(limit)
            )
        )

    def save_relaxed(self, results: Mapping[int, Relaxed]) -> None:
        """Store relaxations by structure index, unless a newer potential's is there."""
        writes = [
            UpdateOne(
                {
                    "campaign": self.name,
                    "index": index,
                    "stage": result.stage,
                    "$or": [
                        {"relaxed.potential": {"$exists": False}},
                        {"relaxed.potential": {"$lt": result.potential}},
                    ],
                },
                {"$set": {"relaxed": result.to_bson()}},
            )
            for index, result in results.items()
        ]
        self._bulk("structures", writes)

    def advance(self, indices: Iterable[int], stage: int) -> None:
        """Let structures enter a stage."""
        self._update_structures(indices, {"$set": {"stage": stage}, "$unset": {"dropped": ""}})

    def drop(self, reasons: Mapping[int, Mapping[str, Any]]) -> None:
        """Note why structures were left behind; the first reason stays."""
        writes = [
            UpdateOne(
                {"campaign": self.name, "index": index, "dropped": {"$exists": False}},
                {"$set": {"dropped": dict(reason)}},
            )
            for index, reason in reasons.items()
        ]
        self._bulk("structures", writes)

    def save_final(self, index: int, final: Mapping[str, Any]) -> None:
        """Note what DFT relaxation made of a structure, and under which key its result is."""
        query = {"campaign": self.name, "index": index}
        change = {"$set": {"final": dict(final)}}
        self._retry(lambda: self._database.structures.update_one(query, change))

    def _update_structures(self, indices: Iterable[int], change: Query) -> None:
        for part in _parts(list(indices), 10_000):
            query = {"campaign": self.name, "index": {"$in": part}}
            self._retry(lambda q=query: self._database.structures.update_many(q, change))

    # Rounds

    def insert_round(self, round_: RoundDocument, selected: Sequence[Selected]) -> None:
        """Begin a round; it counts from the moment its own document is there."""
        if self.find_round(round_.number) is not None:
            return
        self.discard_selected(round_.number)
        self._bulk("selected", [InsertOne(chosen.to_bson()) for chosen in selected])
        self._insert("rounds", round_.to_bson())

    def discard_selected(self, number: int) -> None:
        """Remove what a decision has left that was killed before its round began."""
        stale = {"campaign": self.name, "round": number}
        self._retry(lambda: self._database.selected.delete_many(stale))

    def find_round(self, number: int) -> RoundDocument | None:
        """A round by its number."""
        document = self._retry(
            lambda: self._database.rounds.find_one(
                {"campaign": self.name, "number": number}, {"_id": 0}
            )
        )
        return _round(document) if document else None

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
        change = {"$set": {"submitted": True}}
        self._retry(lambda: self._database.rounds.update_one(query, change))

    def last_round(self) -> RoundDocument | None:
        """The newest round."""
        rounds = self.rounds()
        return rounds[-1] if rounds else None

    def rounds(self) -> list[RoundDocument]:
        """All rounds in order."""
        documents = self._retry(
            lambda: list(
                self._database.rounds.find({"campaign": self.name}, {"_id": 0}).sort(
                    "number", ASCENDING
                )
            )
        )
        return [_round(document) for document in documents]

    def selected(self, **query: Any) -> list[Selected]:
        """Structures chosen for DFT, in order of round and number."""
        documents = self._retry(
            lambda: list(
                self._database.selected.find({"campaign": self.name, **query}, {"_id": 0}).sort(
                    [("round", ASCENDING), ("number", ASCENDING)]
                )
            )
        )
        return [
            Selected(
                **{
                    **document,
                    "species": unpack_species(document["species"]),
                    "geometry": Geometry.from_bson(document["geometry"]),
                }
            )
            for document in documents
        ]

    def selected_counts(self) -> dict[int, int]:
        """Number of structures chosen for DFT by round."""
        pipeline: list[Query] = [
            {"$match": {"campaign": self.name}},
            {"$group": {"_id": "$round", "n": {"$sum": 1}}},
        ]
        rows = self._retry(lambda: list(self._database.selected.aggregate(pipeline)))
        return {row["_id"]: row["n"] for row in rows}

    # Potentials

    def save_potential(self, potential: PotentialDocument) -> None:
        """Store a potential; the first of a number stays."""
        self._insert("potentials", potential.to_bson())

    def potential(self, number: int) -> PotentialDocument | None:
        """A potential by its round's number."""
        document = self._retry(
            lambda: self._database.potentials.find_one(
                {"campaign": self.name, "number": number}, {"_id": 0}
            )
        )
        return PotentialDocument(**document) if document else None

    def potentials(self, fields: Sequence[str]) -> list[dict[str, Any]]:
        """Some fields of all potentials, in order."""
        return self._retry(
            lambda: list(
                self._database.potentials.find(
                    {"campaign": self.name}, {"_id": 0, **dict.fromkeys(fields, 1)}
                ).sort("number", ASCENDING)
            )
        )

    # DFT results, shared by all campaigns of the database

    def dft_result(self, key: str) -> DFTDocument | None:
        """A calculation by its content."""
        return self.dft_results([key]).get(key)

    def dft_results(self, keys: Sequence[str]) -> dict[str, DFTDocument]:
        """Calculations by their content; keys without one are missing."""
        found: dict[str, DFTDocument] = {}
        for part in _parts(list(keys), 1000):
            documents = self._retry(
                lambda p=part: list(self._database.dft_results.find({"key": {"$in": p}}))
            )
            found |= {d["key"]: DFTDocument.from_bson(d) for d in documents}
        return found

    def save_dft(self, result: DFTDocument) -> None:
        """Store a calculation; one that is done is never replaced."""
        document = result.to_bson()
        query = {"key": result.key, "state": {"$ne": "done"}}
        try:
            self._retry(
                lambda: self._database.dft_results.replace_one(query, document, upsert=True)
            )
        except DuplicateKeyError:
            return

    def dft_costs(self) -> dict[str, dict[str, float]]:
        """Calculations, evaluations, failures and processor time that this campaign paid, by purpose."""
        pipeline = [
            {"$match": {"campaign": self.name}},
            {
                "$group": {
                    "_id": "$purpose",
                    "calculations": {"$sum": 1},
                    "evaluations": {"$sum": "$n_evaluations"},
                    "failed": {"$sum": {"$cond": [{"$eq": ["$state", "failed"]}, 1, 0]}},
                    "cpu_seconds": {"$sum": "$cpu_seconds"},
                }
            },
            {"$sort": {"_id": 1}},
        ]
        rows = self._retry(lambda: list(self._database.dft_results.aggregate(pipeline)))
        return {row.pop("_id"): row for row in rows}

    def borrowed_evaluations(self, keys: Sequence[str]) -> int:
        """Evaluations behind calculations of these keys that other campaigns have paid."""
        results = [r for r in self.dft_results(keys).values() if r.campaign != self.name]
        counted = sum(result.n_evaluations for result in results)
        # Those inside a relaxation may be stored one by one.
        parts: list[Query] = [
            {"campaign": r.campaign, "purpose": r.purpose, "structure_index": r.structure_index}
            for r in results
            if r.kind == "relaxation"
        ]
        for part in _parts(parts, 1000):
            query = {"kind": "single_point", "$or": part}
            counted += self._retry(partial(self._database.dft_results.count_documents, query))
        return counted

    def last_dft_at(self) -> datetime | None:
        """When the newest calculation of this campaign ended, UTC."""
        newest = self._retry(
            lambda: self._database.dft_results.find_one(
                {"campaign": self.name}, {"created_at": 1}, sort=[("created_at", DESCENDING)]
            )
        )
        return newest["created_at"] if newest else None

    def failed_dft(self) -> list[DFTDocument]:
        """Calculations of this campaign that failed."""
        query = {"campaign": self.name, "state": "failed"}
        documents = self._retry(lambda: list(self._database.dft_results.find(query)))
        return [DFTDocument.from_bson(document) for document in documents]

    # Brute force, shared by all campaigns of the database

    def reference_relaxations(self, keys: Sequence[str]) -> dict[str, ReferenceRelaxation]:
        """Brute-force relaxations by key; keys without one are missing."""
        found: dict[str, ReferenceRelaxation] = {}
        for part in _parts(list(keys), 1000):
            cursor = partial(self._database.reference_relaxations.find, {"key": {"$in": part}})
            documents = self._retry(partial(_all_of, cursor))
            found |= {d["key"]: ReferenceRelaxation.from_bson(d) for d in documents}
        return found

    def save_reference_relaxations(self, results: Iterable[ReferenceRelaxation]) -> None:
        """Store brute-force relaxations; one that is done is never replaced."""
        writes = [
            ReplaceOne(
                {"key": result.key, "state": {"$ne": "done"}}, result.to_bson(), upsert=True
            )
            for result in results
        ]
        self._bulk("reference_relaxations", writes)

    # Plumbing

    def _retry(self, operation: Callable[[], Result]) -> Result:
        return reconnecting(self._connection, operation)

    def _insert(self, collection: str, document: dict[str, Any]) -> None:
        try:
            self._retry(lambda: self._database[collection].insert_one(dict(document)))
        except DuplicateKeyError:
            return

    def _bulk(self, collection: str, writes: Sequence[Any]) -> None:
        """Many writes; documents that exist already are left as they are."""
        for part in _parts(list(writes), 2000):
            try:
                self._retry(lambda p=part: self._database[collection].bulk_write(p, ordered=False))
            except BulkWriteError as error:
                problems = error.details["writeErrors"]
                if any(problem["code"] != DUPLICATE_KEY for problem in problems):
                    raise


def _parts(items: list[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _all_of(find: Callable[[], Iterable[dict[str, Any]]]) -> list[dict[str, Any]]:
    return list(find())


def _round(document: Mapping[str, Any]) -> RoundDocument:
    values = dict(document)
    values["final_indices"] = tuple(values["final_indices"])
    return RoundDocument(**values)
