"""Queries and writes of the structures of a campaign."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from dataclasses import fields as fields_of
from functools import partial, reduce
from operator import getitem
from typing import Any

import numpy as np
from pymongo import InsertOne, UpdateOne
from pymongo.errors import OperationFailure

from hullscreen.database.collections import (
    BY_INDEX,
    BY_ORDER,
    BY_OUTCOME,
    NO_SUCH_INDEX,
    Collections,
    Query,
    ascending,
    parts_of,
)
from hullscreen.database.documents import (
    INTEGERS,
    Known,
    Prototype,
    Relaxed,
    RoundDocument,
    now,
    unpack,
    unpack_species,
)
from hullscreen.database.structure_indexes import index_for
from hullscreen.potentials.structures import FloatArray, IndexArray, Structures

LAST_STAGE = 3
# Those that relax with a potential.
RELAXED_STAGES = (1, 2)
INDICES_AT_ONCE = 10_000
# Documents held in memory at once: tens of megabytes.
READ_AT_ONCE = 10_000
# What is known of energies, and what only a hull of DFT relaxations tells.
KNOWN_FIELDS = tuple(entry.name for entry in fields_of(Known))
HULL_FIELDS = ("is_stable", "decomposes_to", "symmetry", "volume", "density")
BATCH_FIELDS = [
    "index",
    "counts",
    "species",
    "relaxed.energy_per_atom",
    "relaxed.potential",
    "relaxed.highest_grade",
    "relaxed.outcome",
]


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


class StructureQueries(Collections):
    """Structures, from prototype to DFT relaxation."""

    def insert_prototypes(self, prototypes: Iterable[Prototype]) -> None:
        """Add prototypes; those that are there stay as they are."""
        writes = (InsertOne(prototype.to_bson()) for prototype in prototypes)
        self._bulk("structures", writes)

    def count(self, **query: Any) -> int:
        """Number of structures that match."""
        return self._retry(
            lambda: self._database.structures.count_documents({"campaign": self.name, **query})
        )

    def orders(self, stage: int) -> IndexArray:
        """Places, in the order of waves, of the structures that have reached a stage; sorted."""
        # Named one by one, the stages' parts of the index are merged and nothing is sorted.
        reached = {"$in": list(range(stage, LAST_STAGE + 1))}
        relaxed = {"$in": [None, *RELAXED_STAGES]}
        query = {"campaign": self.name, "stage": reached, "relaxed.stage": relaxed}
        return self._orders(query)

    def _orders(self, query: Query) -> IndexArray:
        parts = self._read_in_parts("structures", query, [], along=BY_ORDER, size=READ_AT_ONCE)
        orders = [document["order"] for part in parts for document in part]
        return np.array(orders, dtype=np.int64)

    def waiting_orders(self, round_: RoundDocument) -> IndexArray:
        """Places, in the order of waves, of what a round has still to relax; sorted."""
        new, *others = self._waiting(round_, 0, round_.wave)
        orders = [self._orders(new)]
        for query in others:
            found = self._find("structures", query, ["order"], along=BY_OUTCOME)
            orders.append(np.array([document["order"] for document in found], dtype=np.int64))
        return np.sort(np.concatenate(orders))

    def waiting(self, round_: RoundDocument, first: int, last: int, limit: int) -> StructureBatch:
        """Some of what a round has still to relax among the places ``first`` to ``last``.

        The geometries are those from which it relaxes them.
        """
        geometry = "relaxed.geometry" if round_.again else "start"
        fields = [*BATCH_FIELDS, geometry]
        found: list[dict[str, Any]] = []
        queries = self._waiting(round_, first, min(last, round_.wave))
        for query, along in zip(queries, (BY_ORDER, BY_OUTCOME), strict=False):
            if len(found) < limit:
                room = limit - len(found)
                found += self._find("structures", query, fields, limit=room, along=along)
        return _batch(found, geometry)

    def _waiting(self, round_: RoundDocument, first: int, last: int) -> list[Query]:
        """Queries for what a round has still to relax, along the orders and along the outcomes."""
        query: Query = {
            "campaign": self.name,
            "stage": round_.stage,
            "order": {"$gte": first, "$lt": last},
            "dropped": {"$exists": False},
        }
        older = {"relaxed.stage": round_.stage, "relaxed.potential": {"$lt": round_.potential}}
        if round_.again:
            return [query | older]
        new = {"relaxed.stage": {"$in": [None, *range(1, round_.stage)]}}
        # What did not converge is tried again with every new potential.
        return [query | new, query | older | {"relaxed.outcome": {"$ne": "converged"}}]

    def structures(
        self, query: Query, *, geometry: str = "relaxed.geometry", limit: int = 0
    ) -> StructureBatch:
        """Structures that match, in order of their index, all at once.

        Parameters
        ----------
        geometry
            ``start``, ``relaxed.geometry`` or ``relaxed.snapshot``; those without it are left out.
        """
        full = self._with_geometry(query, geometry)
        fields = [*BATCH_FIELDS, geometry]
        return _batch(self._find("structures", full, fields, sort=["index"], limit=limit), geometry)

    def batches(
        self, query: Query, *, geometry: str = "relaxed.geometry"
    ) -> Iterator[StructureBatch]:
        """The same of any number of structures, as many at once as memory easily holds."""
        full = self._with_geometry(query, geometry)
        fields = [*BATCH_FIELDS, geometry]
        for part in self._in_order_of_index(full, fields):
            yield _batch(part, geometry)

    def _with_geometry(self, query: Query, geometry: str) -> Query:
        return {"campaign": self.name, **query, geometry: {"$type": "object"}}

    def documents(self, query: Query, fields: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Plain fields of structures that match, in order of their index."""
        full = {"campaign": self.name, **query}
        for part in self._in_order_of_index(full, fields):
            yield from part

    def _in_order_of_index(
        self, query: Query, fields: Sequence[str]
    ) -> Iterator[list[dict[str, Any]]]:
        return self._read_in_parts("structures", query, fields, along=BY_INDEX, size=READ_AT_ONCE)

    def tally(self, *fields: str, **query: Any) -> dict[tuple[Any, ...], int]:
        """Number of structures by the values of some fields, None where one is missing.

        Values are looked up and counted one by one along an index that begins with the query's
        fields and goes on with these: no structure is read, however many there are.
        """
        full = {"campaign": self.name, **query}
        total = self._retry(lambda: self._database.structures.count_documents(full))
        return self._tally(full, fields, total) if total else {}

    def _tally(self, query: Query, fields: Sequence[str], total: int) -> dict[tuple[Any, ...], int]:
        if not fields:
            return {(): total}
        first, rest = fields[0], fields[1:]
        values = self._retry(lambda: self._database.structures.distinct(first, query))
        found: dict[tuple[Any, ...], int] = {}
        for value in [value for value in values if value is not None]:
            part = {**query, first: value}
            n = self._retry(partial(self._database.structures.count_documents, part))
            if n:
                found |= {(value, *more): k for more, k in self._tally(part, rest, n).items()}
            total -= n
        if total > 0:
            found[(None,) * len(fields)] = total
        return found

    def search(
        self, query: Query, fields: Sequence[str], *, sort: Sequence[str], limit: int = 0
    ) -> list[dict[str, Any]]:
        """Plain fields of structures that match, the smallest values of ``sort`` first."""
        full = {"campaign": self.name, **query}
        # One structure has no order.
        order = [] if isinstance(query.get("index"), int) else sort
        along = index_for(query, order)
        return self._find("structures", full, fields, sort=order, limit=limit, along=along)

    def number_of(self, query: Query) -> int:
        """Number of structures that match, counted along an index that suits the query."""
        full = {"campaign": self.name, **query}
        hint = ascending(index_for(query)) or None
        count = self._database.structures.count_documents
        try:
            return self._retry(lambda: count(full, hint=hint) if hint else count(full))
        except OperationFailure as error:
            if hint is None or error.code != NO_SUCH_INDEX:
                raise
            # A copy may lack it, and a user who may only read cannot make it.
            return self._retry(lambda: count(full))

    def save_relaxed(self, results: Mapping[int, Relaxed]) -> None:
        """Store relaxations by structure index, unless a newer potential's is there.

        Their numbers are added to those of earlier ones.
        """
        moment = now()
        writes = (
            UpdateOne(
                {
                    "campaign": self.name,
                    "index": index,
                    "stage": result.stage,
                    # Also where there is none yet.
                    "relaxed.potential": {"$not": {"$gte": result.potential}},
                },
                {
                    "$set": {"relaxed": result.to_bson(), "last_updated": moment},
                    "$push": {"relaxations": result.numbers()},
                },
                hint=ascending(BY_INDEX),
            )
            for index, result in results.items()
        )
        self._bulk("structures", writes)

    def advance(self, indices: Iterable[int], stage: int) -> None:
        """Let structures enter a stage; those that are further stay there."""
        change = {"$set": {"stage": stage, "last_updated": now()}, "$unset": {"dropped": ""}}
        for part in parts_of(list(indices), INDICES_AT_ONCE):
            query = {
                "campaign": self.name,
                "index": {"$in": part},
                "stage": {"$lte": stage},
            }
            self._update("structures", query, change)

    def return_to_first_stage(self) -> None:
        """Forget what screening made of the structures, their DFT relaxations too.

        The numbers of their relaxations stay, for the potentials do.
        """
        found = ("relaxed", "dropped", "final", *KNOWN_FIELDS, *HULL_FIELDS)
        change = {
            "$set": {"stage": 1, "last_updated": now()},
            "$unset": dict.fromkeys(found, ""),
        }
        self._update("structures", {"campaign": self.name}, change)

    def drop(
        self,
        reasons: Iterable[tuple[int, Mapping[str, Any]]],
        known: Mapping[int, Known] | None = None,
    ) -> None:
        """Note, by index, why structures were left behind; the first reason stays.

        What is ``known`` of the energies of some of them is written at the same time.
        """
        moment, known = now(), known or {}
        writes = (
            UpdateOne(
                {"campaign": self.name, "index": index, "dropped": {"$exists": False}},
                {
                    "$set": {
                        "dropped": dict(reason),
                        **(asdict(known[index]) if index in known else {}),
                        "last_updated": moment,
                    }
                },
                hint=ascending(BY_INDEX),
            )
            for index, reason in reasons
        )
        self._bulk("structures", writes)

    def save_known(self, known: Mapping[int, Known]) -> None:
        """Write, by index, what is known of energies now; it takes the place of what was."""
        moment = now()
        writes = (
            UpdateOne(
                {"campaign": self.name, "index": index},
                {"$set": {**asdict(one), "last_updated": moment}},
                hint=ascending(BY_INDEX),
            )
            for index, one in known.items()
        )
        self._bulk("structures", writes)

    def take_back(self, *, stage: int, up_to: float) -> None:
        """Forget that a stage dropped structures at heights up to this one, eV/atom."""
        query = {
            "campaign": self.name,
            "dropped.stage": stage,
            "dropped.energy_above_hull": {"$lte": up_to},
        }
        change = {"$unset": {"dropped": ""}, "$set": {"last_updated": now()}}
        self._update("structures", query, change)

    def dropped_heights(self, stage: int) -> tuple[FloatArray, IndexArray]:
        """How high a stage's structures lay when they were dropped, and how many of each height.

        Heights are in units of the σ by which they were dropped, to two digits; shape (n,) each.
        """
        known = {"dropped.energy_above_hull": {"$gte": 0.0}, "dropped.sigma": {"$gt": 0.0}}
        ratio = {"$divide": ["$dropped.energy_above_hull", "$dropped.sigma"]}
        pipeline: list[Query] = [
            {"$match": {"campaign": self.name, "dropped.stage": stage, **known}},
            {"$group": {"_id": {"$round": [ratio, 2]}, "n": {"$sum": 1}}},
        ]
        rows = self._aggregate("structures", pipeline)
        heights = np.array([row["_id"] for row in rows], dtype=np.float64)
        return heights, np.array([row["n"] for row in rows], dtype=np.int64)

    def save_final(self, index: int, final: Mapping[str, Any]) -> None:
        """Note what DFT relaxation made of a structure, and under which key its result is.

        What was said of an earlier result is forgotten; the same one changes nothing.
        """
        query = {"campaign": self.name, "index": index, "final": {"$ne": dict(final)}}
        change = {
            "$set": {"final": dict(final), "last_updated": now()},
            "$unset": dict.fromkeys(HULL_FIELDS, ""),
        }
        self._update("structures", query, change)


def _batch(documents: Sequence[Mapping[str, Any]], geometry: str) -> StructureBatch:
    """Arrays of many documents: bytes are joined first, for an array of each costs more."""
    path = geometry.split(".")
    found: list[Any] = [reduce(getitem, path, document) for document in documents]
    species = [document["species"] for document in documents]
    offsets = np.zeros(len(documents) + 1, dtype=np.int64)
    np.cumsum([len(kinds) // INTEGERS.itemsize for kinds in species], out=offsets[1:])
    structures = Structures(
        unpack(b"".join([one["cell"] for one in found])).reshape(-1, 3, 3),
        unpack(b"".join([one["positions"] for one in found])),
        unpack_species(b"".join(species)),
        offsets,
    )
    relaxed = [document.get("relaxed", {}) for document in documents]
    return StructureBatch(
        np.array([document["index"] for document in documents], dtype=np.int64),
        np.array([document["counts"] for document in documents], dtype=np.int64),
        structures,
        np.array([entry.get("energy_per_atom") for entry in relaxed], dtype=np.float64),
        np.array([entry.get("potential", -1) for entry in relaxed], dtype=np.int64),
        np.array([entry.get("highest_grade", np.nan) for entry in relaxed]),
        [entry.get("outcome", "") for entry in relaxed],
    )
