"""How many structures there are of each kind, counted by the server: pictures of any pool."""

from __future__ import annotations

from dataclasses import dataclass

from hullscreen.database.collections import BY_FORMULA, Collections, Query, ascending

# Grades are counted in so many bins per factor of ten.
BINS_PER_DECADE = 10


@dataclass(frozen=True)
class FormulaBin:
    """Structures of one formula that were dropped at about one height.

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

    def dropped(self, *, highest: float, width: float) -> list[FormulaBin]:
        """Structures that screening dropped, by formula and height above the hull.

        Parameters
        ----------
        highest
            Those higher above the hull are left out, eV/atom.
        width
            Of a bin, eV/atom.

        Notes
        -----
        Everything asked for is in the index by formula, so that no structure is read.
        """
        height = "$dropped.energy_above_hull"
        pipeline: list[Query] = [
            {
                "$match": {
                    "campaign": self.name,
                    "dropped.energy_above_hull": {"$gte": 0.0, "$lt": highest},
                }
            },
            {
                "$group": {
                    "_id": {
                        "formula": "$formula_pretty",
                        "bin": {"$floor": {"$divide": [height, width]}},
                    },
                    "n": {"$sum": 1},
                }
            },
        ]
        rows = self._retry(
            lambda: list(
                self._database.structures.aggregate(pipeline, hint=dict(ascending(BY_FORMULA)))
            )
        )
        bins = [
            FormulaBin(str(row["_id"]["formula"]), (row["_id"]["bin"] + 0.5) * width, row["n"])
            for row in rows
        ]
        return sorted(bins, key=lambda one: (one.formula_pretty, one.energy_above_hull))

    def grades(self) -> dict[int, dict[int, int]]:
        """Highest extrapolation grades of the newest relaxations, by stage.

        Returns
        -------
        ``{stage: {bin: n}}``; a bin holds grades about ``10 ** (bin / BINS_PER_DECADE)``.
        """
        decade = {"$log10": "$relaxed.highest_grade"}
        pipeline: list[Query] = [
            {
                "$match": {
                    "campaign": self.name,
                    "relaxed.stage": {"$in": [1, 2]},
                    "relaxed.highest_grade": {"$gt": 0.0, "$lt": float("inf")},
                }
            },
            {
                "$group": {
                    "_id": {
                        "stage": "$relaxed.stage",
                        "bin": {"$round": {"$multiply": [decade, BINS_PER_DECADE]}},
                    },
                    "n": {"$sum": 1},
                }
            },
        ]
        found: dict[int, dict[int, int]] = {}
        for row in self._aggregate("structures", pipeline):
            place = row["_id"]
            found.setdefault(int(place["stage"]), {})[int(place["bin"])] = row["n"]
        return {stage: dict(sorted(bins.items())) for stage, bins in sorted(found.items())}
