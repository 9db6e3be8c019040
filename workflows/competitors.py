"""Against which phases a structure lost its place on a hull, or by how much it holds it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hullscreen.database.campaign_store import CampaignStore
from hullscreen.potentials.errors import CompositionError
from hullscreen.workflows.campaign import FINAL_STAGE
from hullscreen.workflows.hull import convex_hull
from hullscreen.workflows.output_tails import safe_line
from hullscreen.workflows.rounds import fractions

NEXT_SHOWN = 3
Plain = dict[str, Any]


def competitors_below(
    store: CampaignStore,
    document: Mapping[str, Any],
    dropped: Mapping[str, Any],
    round_number: int | None,
) -> list[Plain]:
    """What a dropped structure decomposes to on the hull by which it was dropped.

    Returns
    -------
    ``structure_index, formula`` and ``amount``, the share of the atoms; empty where nobody has
    kept the corners of that hull.
    """
    round_ = None if round_number is None else store.find_round(round_number)
    if round_ is None:
        return []
    by_label = dropped.get("stage") == FINAL_STAGE
    corners = round_.labelled_hull if by_label else round_.predicted_hull
    numbers = [corner["structure_index"] for corner in corners]
    found = store.documents({"index": {"$in": numbers}}, ["index", "counts"])
    counts = {one["index"]: one["counts"] for one in found}
    entries = [
        {**corner, "index": corner["structure_index"], "counts": counts.get(number)}
        for number, corner in zip(numbers, corners, strict=True)
    ]
    return _decomposition(entries, document)[0]


def place_of_stable(store: CampaignStore, document: Mapping[str, Any]) -> Plain:
    """What would take the place of a stable structure, and what comes next at its composition.

    Returns
    -------
    ``below_others``: how far the hull would rise without it, eV/atom, None for the last structure
    of an element; ``replaced_by``: what would be stable there; ``next``: the lowest others of its
    composition, with ``energy_above_hull`` in eV/atom.
    """
    relaxed = [
        entry
        for entry in store.search(
            {"is_stable": {"$in": [True, False]}},
            ["index", "counts", "formula_pretty", "energy_per_atom", "energy_above_hull"],
            sort=["energy_above_hull", "index"],
        )
        if entry["index"] != document["index"]
    ]
    instead, energy = _decomposition(relaxed, document)
    own: Any = document.get("energy_per_atom")
    same = [e for e in relaxed if e.get("formula_pretty") == document.get("formula_pretty")]
    return {
        "below_others": energy - own if energy is not None and _is_number(own) else None,
        "replaced_by": instead,
        "next": [
            {
                "structure_index": entry["index"],
                "energy_above_hull": entry["energy_above_hull"],
            }
            for entry in same[:NEXT_SHOWN]
            if _is_number(entry.get("energy_above_hull"))
        ],
    }


def _decomposition(
    entries: Sequence[Mapping[str, Any]], document: Mapping[str, Any]
) -> tuple[list[Plain], float | None]:
    """Phases in equilibrium at a structure's composition, and their energy in eV/atom."""
    own = document.get("counts")
    usable = [e for e in entries if _are_counts(e.get("counts"), own)]
    usable = [e for e in usable if _is_number(e.get("energy_per_atom"))]
    if not usable or not isinstance(own, list):
        return [], None
    energies = np.array([entry["energy_per_atom"] for entry in usable])
    shares_of = fractions(np.array([entry["counts"] for entry in usable]))
    try:
        hull = convex_hull(shares_of, energies)
        shares = hull.decomposition_at(fractions(np.array([own]))[0])
    except CompositionError:
        # Without the elements there is no hull.
        return [], None
    products = [
        {
            "structure_index": usable[i]["index"],
            "formula": safe_line(str(usable[i].get("formula_pretty", ""))),
            "amount": share,
        }
        for i, share in shares.items()
    ]
    return products, float(sum(energies[i] * share for i, share in shares.items()))


def _are_counts(value: Any, like: Any) -> bool:
    """Whether these are atoms of each element, as many elements as another structure has."""
    return (
        isinstance(value, list)
        and isinstance(like, list)
        and len(value) == len(like)
        and all(isinstance(n, int) and n >= 0 for n in (*value, *like))
        and sum(value) > 0
        and sum(like) > 0
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
