"""Queries and writes of DFT results, which all campaigns of a database share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import partial

from pymongo import DESCENDING, ReplaceOne, ReturnDocument
from pymongo.errors import DuplicateKeyError

from hullscreen.database.collections import KEYS_AT_ONCE, Collections, Query, parts_of
from hullscreen.database.dft_documents import DFTDocument, ReferenceRelaxation

QUARANTINED = "quarantined"
BY_HAND = "by hand"


class DFTQueries(Collections):
    """DFT calculations by their content, and brute force's relaxations."""

    def dft_result(self, key: str) -> DFTDocument | None:
        """A calculation by its content."""
        return self.dft_results([key]).get(key)

    def dft_results(self, keys: Sequence[str]) -> dict[str, DFTDocument]:
        """Calculations by their content; keys without one are missing."""
        found: dict[str, DFTDocument] = {}
        for part in parts_of(keys, KEYS_AT_ONCE):
            documents = self._find("dft_results", {"key": {"$in": part}})
            found |= {d["key"]: DFTDocument.from_bson(d) for d in documents}
        return found

    def dft_states(self, keys: Sequence[str]) -> dict[str, str]:
        """States of calculations by their content; keys without one are missing."""
        found: dict[str, str] = {}
        for part in parts_of(keys, KEYS_AT_ONCE):
            documents = self._find("dft_results", {"key": {"$in": part}}, ["key", "state"])
            found |= {document["key"]: document["state"] for document in documents}
        return found

    def save_dft(self, result: DFTDocument) -> None:
        """Store a calculation; one that is done, or quarantined, is never replaced."""
        document = result.to_bson()
        query = {"key": result.key, "state": {"$nin": ["done", QUARANTINED]}}
        try:
            self._retry(
                lambda: self._database.dft_results.replace_one(query, document, upsert=True)
            )
        except DuplicateKeyError:
            return

    def count_attempt(self, key: str, run: str) -> int:
        """Note that a process of a run begins a calculation, and say how many have so far."""
        change = {"$inc": {"n": 1}}
        found = self._retry(
            lambda: self._database.attempts.find_one_and_update(
                {"key": key, "run": run},
                change,
                upsert=True,
                return_document=ReturnDocument.AFTER,
            )
        )
        return int(found["n"]) if found else 1

    def forget_attempt(self, key: str, run: str) -> None:
        """Take back what `count_attempt` noted: the calculation was given up in order."""
        change = {"$inc": {"n": -1}}
        query = {"key": key, "run": run, "n": {"$gt": 0}}
        self._retry(lambda: self._database.attempts.update_one(query, change))

    def count_dft(self) -> int:
        """Calculations of this campaign that have ended, one way or the other."""
        query = {"campaign": self.name}
        return self._retry(lambda: self._database.dft_results.count_documents(query))

    def dft_costs(self) -> dict[str, dict[str, float]]:
        """What this campaign paid by purpose: calculations, evaluations, failures, CPU time."""
        pipeline: list[Query] = [
            {"$match": {"campaign": self.name}},
            {
                "$group": {
                    "_id": "$purpose",
                    "calculations": {"$sum": 1},
                    # Those inside a relaxation included, where an engine's can be stored.
                    "single_points": _number_where("kind", "single_point"),
                    "relaxations": _number_where("kind", "relaxation"),
                    "evaluations": {"$sum": "$n_evaluations"},
                    "failed": _number_where("state", "failed"),
                    "quarantined": _number_where("state", QUARANTINED),
                    "cpu_seconds": {"$sum": "$cpu_seconds"},
                }
            },
            {"$sort": {"_id": 1}},
        ]
        rows = self._aggregate("dft_results", pipeline)
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
        for part in parts_of(parts, KEYS_AT_ONCE):
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
        return self._in_state("failed")

    def quarantined_here(self) -> list[DFTDocument]:
        """Quarantined calculations that this campaign has computed."""
        return self._in_state(QUARANTINED)

    def _in_state(self, state: str) -> list[DFTDocument]:
        documents = self._find("dft_results", {"campaign": self.name, "state": state})
        return [DFTDocument.from_bson(document) for document in documents]

    def quarantined_dft(self, keys: Sequence[str]) -> dict[str, DFTDocument]:
        """Which of these calculations are quarantined, whoever computed or judged them."""
        found: dict[str, DFTDocument] = {}
        for part in parts_of(keys, KEYS_AT_ONCE):
            query = {"key": {"$in": part}, "state": QUARANTINED}
            documents = self._find("dft_results", query)
            found |= {d["key"]: DFTDocument.from_bson(d) for d in documents}
        return found

    def selected_keys(self) -> list[str]:
        """Keys of the single points that the campaign has asked for, by round and number."""
        found = self._find("selected", {"campaign": self.name}, ["key"], sort=["round", "number"])
        return [document["key"] for document in found]

    def final_keys(self) -> list[str]:
        """Keys of the relaxations of its final stage that have a result."""
        query = {"campaign": self.name, "stage": 3, "final.key": {"$exists": True}}
        found = self._find("structures", query, ["final.key"])
        return [document["final"]["key"] for document in found]

    def quarantine(self, key: str, *, reason: str, judged: str, judged_by: str) -> None:
        """Put a calculation aside, unless somebody has released it by hand."""
        query = {"key": key, "state": "done", "judged": {"$ne": BY_HAND}}
        change = {"state": QUARANTINED, "reason": reason, "judged": judged, "judged_by": judged_by}
        self._update("dft_results", query, {"$set": change})

    def release_dft(self, key: str) -> None:
        """Let a quarantined calculation count, and let no judgement put it aside again."""
        query = {"key": key, "state": QUARANTINED}
        change = {"state": "done", "reason": "", "judged": BY_HAND, "judged_by": self.name}
        self._update("dft_results", query, {"$set": change})

    def remove_dft(self, result: DFTDocument) -> None:
        """Forget a calculation; of a relaxation also evaluations that no campaign has asked for.

        The relaxation itself goes last: until then it can be removed again.
        """
        if result.kind == "relaxation":
            query = {
                "campaign": result.campaign,
                "purpose": result.purpose,
                "structure_index": result.structure_index,
                "kind": "single_point",
            }
            keys = {document["key"] for document in self._find("dft_results", query, ["key"])}
            for part in parts_of(sorted(keys - self._asked_for(keys)), KEYS_AT_ONCE):
                self._remove_keys(part)
        self._remove_keys([result.key])

    def _remove_keys(self, keys: Sequence[str]) -> None:
        query = {"key": {"$in": list(keys)}}
        self._retry(lambda: self._database.dft_results.delete_many(query))

    def _asked_for(self, keys: Iterable[str]) -> set[str]:
        """Which of these single points some campaign has asked for as labels."""
        campaigns = [document["name"] for document in self._find("campaigns", {}, ["name"])]
        asked: set[str] = set()
        for part in parts_of(keys, KEYS_AT_ONCE):
            # With the campaigns, so that the index serves.
            query = {"campaign": {"$in": campaigns}, "key": {"$in": part}}
            asked |= {document["key"] for document in self._find("selected", query, ["key"])}
        return asked

    def reference_relaxations(self, keys: Sequence[str]) -> dict[str, ReferenceRelaxation]:
        """Brute-force relaxations by key; keys without one are missing."""
        found: dict[str, ReferenceRelaxation] = {}
        for part in parts_of(keys, KEYS_AT_ONCE):
            documents = self._find("reference_relaxations", {"key": {"$in": part}})
            found |= {d["key"]: ReferenceRelaxation.from_bson(d) for d in documents}
        return found

    def save_reference_relaxations(self, results: Iterable[ReferenceRelaxation]) -> None:
        """Store brute-force relaxations; one that is done is never replaced."""
        writes = [
            ReplaceOne({"key": result.key, "state": {"$ne": "done"}}, result.to_bson(), upsert=True)
            for result in results
        ]
        self._bulk("reference_relaxations", writes)


def _number_where(field: str, value: str) -> Query:
    """Accumulator that counts documents with a value."""
    return {"$sum": {"$cond": [{"$eq": [f"${field}", value]}, 1, 0]}}
