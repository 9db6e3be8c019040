"""Queries of what DFT calculations have cost."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, combinations

from hullscreen.database.collections import Collections, Query
from hullscreen.database.dft_documents import DFTDocument

# More say nothing new about costs.
NEWEST = 500


class CostQueries(Collections):
    """DFT calculations of all campaigns that resemble those of one."""

    def costs_of(
        self, engines: Sequence[str], elements: Sequence[str], kind: str
    ) -> list[DFTDocument]:
        """Calculations that are done and took time, the newest ones.

        Parameters
        ----------
        engines
            Fingerprints: what changes energies is the same.
        elements
            A calculation has some of them, and no others.
        kind
            ``single_point`` or ``relaxation``.
        """
        symbols = sorted(elements)
        subsets = chain.from_iterable(combinations(symbols, n) for n in range(1, len(symbols) + 1))
        query: Query = {
            "engine": {"$in": list(engines)},
            "chemsys": {"$in": ["-".join(subset) for subset in subsets]},
            "kind": kind,
            "state": "done",
            "cpu_seconds": {"$gt": 0.0},
        }
        pipeline: list[Query] = [
            {"$match": query},
            {"$sort": {"created_at": -1}},
            {"$limit": NEWEST},
        ]
        return [DFTDocument.from_bson(row) for row in self._aggregate("dft_results", pipeline)]
