"""The hull of a campaign as plain data: entries, tie lines, and what screening dropped, in bins."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np

from hullscreen.database.campaign_store import CampaignStore
from hullscreen.database.census import Census, FormulaBin
from hullscreen.potentials.structures import FloatArray
from hullscreen.workflows.hull_entries import Entry
from hullscreen.workflows.results import SHOWN_AT_LEAST, SHOWN_DEPTHS, HullResult, final_hull

# Entries drawn one by one, those nearest to the hull; a page of them is a few hundred kilobytes.
ENTRIES_SHOWN = 1500
# Bins between the hull and the highest structure shown.
BINS = 60

Plain = dict[str, Any]


def hull_data(store: CampaignStore) -> Plain:
    """The hull of what DFT has relaxed so far.

    Returns
    -------
    ``elements, finished, n_pending, n_entries``;
    ``entries``: those nearest to the hull, stable ones first: ``index, formula, prototype,
    fractions, formation_energy, above`` (eV/atom) and ``stable``;
    ``edges``: pairs of places in ``entries`` that tie lines join; ``facets``: likewise;
    ``background``: ``fractions, energies, numbers`` of what screening dropped, binned.

    Raises
    ------
    CampaignError
        There is no hull yet.
    """
    result = final_hull(store)
    kept = result.entries[:ENTRIES_SHOWN]
    facets = [
        facet for facet in result.hull.facets.tolist() if all(place < len(kept) for place in facet)
    ]
    edges = sorted({pair for facet in facets for pair in combinations(sorted(facet), 2)})
    return {
        "elements": list(result.elements),
        "engine": result.engine,
        "finished": result.finished,
        "n_pending": result.n_pending,
        "n_entries": len(result.entries),
        "entries": [_plain(entry) for entry in kept],
        "edges": [list(pair) for pair in edges],
        "facets": facets,
        "background": _background(store, result),
    }


def stable_rows(result: Plain) -> list[Plain]:
    """One row for each stable composition, the lowest of it, in order of composition."""
    lowest: dict[str, Plain] = {}
    for entry in result["entries"]:
        known = lowest.get(entry["formula"])
        if entry["stable"] and (
            known is None or entry["formation_energy"] < known["formation_energy"]
        ):
            lowest[entry["formula"]] = entry
    return sorted(lowest.values(), key=lambda entry: [-x for x in entry["fractions"]])


def _plain(entry: Entry) -> Plain:
    n = sum(entry.counts)
    return {
        "index": entry.structure_index,
        "formula": str(entry.formula_pretty),
        "prototype": str(entry.prototype),
        "nsites": entry.nsites,
        "fractions": [round(count / n, 6) for count in entry.counts],
        "formation_energy": round(entry.formation_energy_per_atom, 7),
        "energy": round(entry.energy_per_atom, 7),
        "above": round(entry.energy_above_hull, 7),
        "stable": entry.is_stable,
    }


def _background(store: CampaignStore, result: HullResult) -> Plain:
    depth = -float(result.hull.formation_energies.min(initial=0.0))
    highest = max(SHOWN_DEPTHS * depth, SHOWN_AT_LEAST)
    bins = Census(store.connection, store.name).dropped(highest=highest, width=highest / BINS)
    known = [
        (one, fractions)
        for one in bins
        if (fractions := fractions_of(one.formula_pretty, result.elements)) is not None
    ]
    return _drawn(known, result)


def _drawn(known: Sequence[tuple[FormulaBin, list[float]]], result: HullResult) -> Plain:
    if not known:
        return {"fractions": [], "energies": [], "numbers": []}
    fractions: FloatArray = np.array([place for _, place in known], dtype=np.float64)
    heights = np.array([one.energy_above_hull for one, _ in known])
    energies = result.hull.hull_energy_at(fractions) + heights
    return {
        "fractions": np.round(fractions, 6).tolist(),
        "energies": np.round(energies, 5).tolist(),
        "numbers": [one.n for one, _ in known],
    }


def fractions_of(formula: str, elements: Sequence[str]) -> list[float] | None:
    """Atomic fractions of a formula; None if it is none of these elements.

    Examples
    --------
    >>> fractions_of("Cu3Pd", ["Cu", "Pd"])
    [0.75, 0.25]
    """
    parts = re.findall(r"([A-Z][a-z]?)(\d*)", formula)
    if "".join(symbol + number for symbol, number in parts) != formula or not parts:
        return None
    counts = dict.fromkeys(elements, 0)
    for symbol, number in parts:
        if symbol not in counts:
            return None
        counts[symbol] += int(number or 1)
    total = math.fsum(counts.values())
    return [count / total for count in counts.values()] if total else None
