"""How many structures there are of each kind, counted by the server: pictures of any pool."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pymongo.errors import OperationFailure

from hullscreen.database.collections import NO_SUCH_INDEX, Collections, Query, ascending
from hullscreen.database.indexes import BY_FORMULA, BY_ORDER
from hullscreen.database.structure_queries import LAST_STAGE, RELAXED_STAGES

# Grades are counted in so many bins per factor of ten.
BINS_PER_DECADE = 10


@dataclass(frozen=True)
class FormulaBin:
    """Structures of one formula at about one height above their hull.

    Attributes
    ----------
    formula_pretty
        Their formula.
    energy_above_hull
        The middle of the bin, eV/atom.
    n
        How many they are.
    """

    formula_pretty: str
    energy_above_hull: float
    n: int


class Census(Collections):
    """Numbers of a campaign's structures; one answer is small, however large the pool is."""

    def by_height(self, *, highest: float, width: float) -> list[FormulaBin]:
        """Structures that DFT has not relaxed, by formula and height above their hull.

        Parameters
        ----------
        highest
            Those higher above the hull are left out, eV/atom.
        width
            Of a bin, eV/atom.

        Notes
        -----
        Of all but the last stage everything asked for is in the index by formula, so that no
        structure is read.
        """
        height = {"energy_above_hull": {"$gte": 0.0, "$lt": highest}}
        # Bounded from the first field on, or MongoDB reads the structures after all.
        named = {"formula_pretty": {"$gt": ""}, "campaign": self.name}
        screened = {**named, "stage": {"$in": list(RELAXED_STAGES)}, **height}
        left_behind = {"campaign": self.name, "stage": LAST_STAGE, "final": None, **height}
        numbers: Counter[tuple[str, int]] = Counter()
        for query, along in ((screened, BY_FORMULA), (left_behind, BY_ORDER)):
            numbers.update(self._bins(query, width, along))
        return [
            FormulaBin(formula, (place + 0.5) * width, n)
            for (formula, place), n in sorted(numbers.items())
        ]

    def _bins(self, query: Query, width: float, along: Sequence[str]) -> dict[tuple[str, int], int]:
        height = {"$floor": {"$divide": ["$energy_above_hull", width]}}
        group = {"_id": {"formula": "$formula_pretty", "bin": height}, "n": {"$sum": 1}}
        rows = self._along(along, [{"$match": query}, {"$group": group}])
        return {(str(row["_id"]["formula"]), int(row["_id"]["bin"])): row["n"] for row in rows}

    def grades(self, *, every: int = 1) -> dict[int, dict[int, int]]:
        """Highest extrapolation grades of the newest relaxations, by stage.

        Parameters
        ----------
        every
            Grades are read of one structure in so many, which stands for all of them.

        Returns
        -------
        ``{stage: {bin: n}}``; a bin holds grades about ``10 ** (bin / BINS_PER_DECADE)``.
        """
        query = {
            "campaign": self.name,
            "stage": {"$in": [*RELAXED_STAGES, LAST_STAGE]},
            "relaxed.stage": {"$in": list(RELAXED_STAGES)},
            "order": {"$mod": [every, 0]},
            "relaxed.highest_grade": {"$gt": 0.0, "$lt": float("inf")},
        }
        decades = {"$multiply": [{"$log10": "$relaxed.highest_grade"}, BINS_PER_DECADE]}
        place = {"stage": "$relaxed.stage", "bin": {"$round": decades}}
        group = {"_id": place, "n": {"$sum": every}}
        found: dict[int, dict[int, int]] = {}
        for row in self._along(BY_ORDER, [{"$match": query}, {"$group": group}]):
            found.setdefault(row["_id"]["stage"], {})[int(row["_id"]["bin"])] = row["n"]
        return {stage: dict(sorted(bins.items())) for stage, bins in sorted(found.items())}

    def _along(self, index: Sequence[str], pipeline: list[Query]) -> list[dict[str, Any]]:
        """Result of a pipeline on the structures that goes along an index, if that is there."""
        hint = dict(ascending(index))
        aggregate = self._database.structures.aggregate
        try:
            return self._retry(lambda: list(aggregate(pipeline, hint=hint)))
        except OperationFailure as error:
            if error.code != NO_SUCH_INDEX:
                raise
        # A copy may lack it, and a user who may only read cannot make it.
        return self._aggregate("structures", pipeline)
