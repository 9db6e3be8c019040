"""The hull of a campaign as plain data: entries, tie lines, and all others in bins."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
from pymatgen.core import Composition

from hullscreen.database.campaign_store import CampaignStore
from hullscreen.database.census import Census
from hullscreen.potentials.errors import CampaignError
from hullscreen.potentials.structures import FloatArray
from hullscreen.workflows.hull import Hull, convex_hull
from hullscreen.workflows.hull_entries import Entry
from hullscreen.workflows.results import SHOWN_AT_LEAST, SHOWN_DEPTHS, final_hull

# Entries drawn one by one, those nearest to the hull; a page of them is a few hundred kilobytes.
ENTRIES_SHOWN = 1500
# Entries above the hull that stand in the table of stable phases.
NEAREST = 50
# Bins between the hull and the highest structure shown.
BINS = 60
# Whose energies those of a hull are.
RELAXED, SINGLE_POINTS = "relaxed with DFT", "DFT single point"

Plain = dict[str, Any]


def hull_data(store: CampaignStore) -> Plain:
    """The hull of what DFT has relaxed so far; before there is one, that of the last screening.

    Returns
    -------
    ``elements, finished, n_pending, n_entries``; ``energies``: whose they are;
    ``entries``: those nearest to the hull, stable ones first: ``index, formula, prototype,
    fractions, formation_energy, above`` (eV/atom) and ``stable``;
    ``edges``: pairs of places in ``entries`` that tie lines join; ``facets``: likewise;
    ``background``: ``fractions, energies, numbers`` of what DFT has not relaxed, in bins.

    Raises
    ------
    CampaignError
        There is no hull yet.
    """
    try:
        result = final_hull(store)
    except CampaignError:
        screened = _of_screening(store)
        if screened is None:
            raise
        return screened
    return {
        "elements": list(result.elements),
        "energies": RELAXED,
        "finished": result.finished,
        "n_pending": result.n_pending,
        "n_entries": len(result.entries),
        "entries": [_plain(entry) for entry in result.entries[:ENTRIES_SHOWN]],
        **_drawn(store, result.elements, result.hull),
    }


def _of_screening(store: CampaignStore) -> Plain | None:
    """The hull by which structures were dropped last; None before any were."""
    elements = tuple(store.campaign()["elements"])
    for round_ in reversed(store.rounds()):
        for corners, source in (
            (round_.labelled_hull, SINGLE_POINTS),
            (round_.predicted_hull, f"MTP of screen {round_.stage}"),
        ):
            if corners:
                return _of_corners(store, elements, corners, source)
    return None


def _of_corners(
    store: CampaignStore, elements: tuple[str, ...], corners: Sequence[Plain], source: str
) -> Plain:
    fractions = [fractions_of(corner["formula_pretty"], elements) for corner in corners]
    energies = np.array([corner["energy_per_atom"] for corner in corners], dtype=np.float64)
    hull = convex_hull(np.array(fractions, dtype=np.float64), energies)
    indices = [corner["structure_index"] for corner in corners]
    found = {
        document["index"]: document
        for document in store.documents({"index": {"$in": indices}}, ["prototype", "nsites"])
    }
    return {
        "elements": list(elements),
        "energies": source,
        "finished": False,
        "n_pending": 0,
        "n_entries": len(corners),
        "entries": [
            {
                "index": corner["structure_index"],
                "formula": str(corner["formula_pretty"]),
                "prototype": str(found.get(corner["structure_index"], {}).get("prototype", "")),
                "nsites": int(found.get(corner["structure_index"], {}).get("nsites", 0)),
                "fractions": np.round(hull.fractions[i], 6).tolist(),
                "formation_energy": round(float(hull.formation_energies[i]), 7),
                "energy": round(float(energies[i]), 7),
                "above": round(float(hull.energies_above_hull[i]), 7),
                "stable": bool(hull.stable[i]),
            }
            for i, corner in enumerate(corners)
        ],
        **_drawn(store, elements, hull),
    }


def stable_data(hull: Plain) -> Plain:
    """Stable phases, and what comes next.

    Parameters
    ----------
    hull
        As `hull_data` gives it.

    Returns
    -------
    ``rows``: one entry for each stable composition, the lowest of it, in order of composition;
    ``nearest``: of all others `NEAREST`, the lowest above the hull first;
    ``energies, finished``: as the hull has them.
    """
    stable, others = parted(hull["entries"])
    return {
        "rows": sorted(stable, key=lambda row: [-x for x in row["fractions"]]),
        # In order of their height, as the hull has them.
        "nearest": others[:NEAREST],
        "energies": hull["energies"],
        "finished": hull["finished"],
    }


def parted(entries: Sequence[Plain]) -> tuple[list[Plain], list[Plain]]:
    """The lowest entry of each stable composition, and all others."""
    stable = lowest_stable(entries)
    chosen = {entry["index"] for entry in stable}
    return stable, [entry for entry in entries if entry["index"] not in chosen]


def lowest_stable(entries: Sequence[Plain]) -> list[Plain]:
    """Of the stable entries one for each formula, the lowest."""
    lowest: dict[str, Plain] = {}
    for entry in entries:
        known = lowest.get(entry["formula"])
        if entry["stable"] and (
            known is None or entry["formation_energy"] < known["formation_energy"]
        ):
            lowest[entry["formula"]] = entry
    return list(lowest.values())


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


def _drawn(store: CampaignStore, elements: tuple[str, ...], hull: Hull) -> Plain:
    """Tie lines and facets between the entries shown, and what is behind them."""
    facets = [facet for facet in hull.facets.tolist() if max(facet) < ENTRIES_SHOWN]
    edges = {pair for facet in facets for pair in combinations(sorted(facet), 2)}
    return {
        "edges": [list(pair) for pair in sorted(edges)],
        "facets": facets,
        "background": _background(store, elements, hull),
    }


def _background(store: CampaignStore, elements: tuple[str, ...], hull: Hull) -> Plain:
    depth = -float(hull.formation_energies.min(initial=0.0))
    highest = max(SHOWN_DEPTHS * depth, SHOWN_AT_LEAST)
    bins = Census(store.connection, store.name).by_height(highest=highest, width=highest / BINS)
    formulas = {one.formula_pretty for one in bins}
    places = {formula: fractions_of(formula, elements) for formula in formulas}
    drawn = [(one, place) for one in bins if (place := places[one.formula_pretty]) is not None]
    if not drawn:
        return {"fractions": [], "energies": [], "numbers": []}
    fractions: FloatArray = np.array([place for _, place in drawn], dtype=np.float64)
    heights = np.array([one.energy_above_hull for one, _ in drawn])
    # Heights above hulls of their own, so that errors of a potential's elements cancel.
    energies = hull.hull_energy_at(fractions) + heights
    return {
        "fractions": np.round(fractions, 6).tolist(),
        "energies": np.round(energies, 5).tolist(),
        "numbers": [one.n for one, _ in drawn],
    }


def fractions_of(formula: str, elements: Sequence[str]) -> list[float] | None:
    """Atomic fractions of a formula; None if it is none of these elements.

    Examples
    --------
    >>> fractions_of("Cu(NiPt)2", ["Cu", "Ni", "Pt"])
    [0.2, 0.4, 0.4]
    """
    try:
        composition = Composition(formula)
    except (ValueError, KeyError, RecursionError):
        return None
    total = composition.num_atoms
    amounts = [float(composition[symbol]) for symbol in elements]
    if not 0.0 < total < math.inf or not math.isclose(math.fsum(amounts), total):
        return None
    return [amount / total for amount in amounts]
