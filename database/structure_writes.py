"""Writes of the structures of a campaign: keyed by their index, and harmless when repeated."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from pymongo import InsertOne, UpdateOne

from hullscreen.database.collections import Collections, ascending, parts_of
from hullscreen.database.documents import Known, Prototype, Relaxed, now
from hullscreen.database.indexes import BY_INDEX
from hullscreen.database.structure_queries import HULL_FIELDS, KNOWN_FIELDS

INDICES_AT_ONCE = 10_000


class StructureWrites(Collections):
    """Changes of structures, from prototype to DFT relaxation."""

    def insert_prototypes(self, prototypes: Iterable[Prototype]) -> None:
        """Add prototypes; those that are there stay as they are."""
        writes = (InsertOne(prototype.to_bson()) for prototype in prototypes)
        self._bulk("structures", writes)

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
