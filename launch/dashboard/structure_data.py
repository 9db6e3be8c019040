"""One structure for a picture in three dimensions: atoms, cell, numbers and what became of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from hullscreen.database.campaign_store import CampaignStore
from hullscreen.database.documents import Geometry, unpack_species
from hullscreen.potentials.errors import InputError
from hullscreen.potentials.structures import FloatArray

Plain = dict[str, Any]

SHOWN = ("formula_pretty", "prototype", "nsites", "stage", "dropped", "final", "species")


def structure_data(store: CampaignStore, index: int) -> Plain:
    """A structure as it is known best: relaxed with DFT, else with the potential, else its start.

    Parameters
    ----------
    index
        Its place in the pool.

    Returns
    -------
    ``index, formula, prototype, nsites``; ``state``: where the geometry comes from;
    ``cell`` (3, 3) and ``positions`` (n_atoms, 3) in Å, ``symbols``; ``facts``: pairs of words.

    Raises
    ------
    InputError
        There is none of this number, or its document is not as it should be.
    """
    fields = [*SHOWN, "start", "relaxed"]
    found = store.search({"index": index}, fields, sort=[])
    if not found:
        raise InputError(
            f"campaign {store.name!r} has no structure {index}; choose one from the table"
        )
    document = found[0]
    try:
        elements = [str(symbol) for symbol in store.campaign()["elements"]]
        symbols = [elements[kind] for kind in unpack_species(document["species"])]
        geometry, state = _best_geometry(store, document)
    except (LookupError, TypeError, ValueError) as error:
        raise InputError(
            f"structure {index} of campaign {store.name!r} has a document that cannot be read "
            f"({type(error).__name__}); restore it from a dump"
        ) from error
    return {
        "index": index,
        "formula": str(document.get("formula_pretty", "")),
        "prototype": str(document.get("prototype", "")),
        "nsites": len(symbols),
        "state": state,
        "cell": geometry.cell.tolist(),
        "positions": wrapped(geometry.cell, geometry.positions).tolist(),
        "symbols": symbols,
        "facts": _facts(document),
    }


def structure_facts(structure: Plain) -> list[list[str]]:
    """Pairs of words about a structure, from what `structure_data` gives."""
    return [
        ["prototype", structure["prototype"]],
        ["atoms in the cell", str(structure["nsites"])],
        ["shown as", structure["state"]],
        *structure["facts"],
    ]


def _best_geometry(store: CampaignStore, document: Mapping[str, Any]) -> tuple[Geometry, str]:
    final = document.get("final") or {}
    if final.get("state") == "done":
        result = store.dft_result(final["key"])
        if result is not None:
            return result.geometry, "relaxed with DFT"
    relaxed = document.get("relaxed")
    if relaxed:
        return Geometry.from_bson(relaxed["geometry"]), "relaxed with the potential"
    return Geometry.from_bson(document["start"]), "prototype, not relaxed yet"


def wrapped(cell: FloatArray, positions: FloatArray) -> FloatArray:
    """Positions moved into the cell, (n_atoms, 3) in Å; those on a face stay on the near one."""
    fractional = np.linalg.solve(cell.T, positions.T).T
    # Rounding must not put an atom of the origin at the far end.
    inside = fractional - np.floor(fractional + 1e-6)
    return np.asarray(inside @ cell, dtype=np.float64)


def _facts(document: Mapping[str, Any]) -> list[list[str]]:
    """What the document says of the structure, in words and numbers with their units."""
    facts = []
    relaxed = document.get("relaxed") or {}
    if relaxed:
        facts.append(["relaxation with the potential", str(relaxed.get("outcome", "unknown"))])
    if _is_number(relaxed.get("highest_grade")):
        facts.append(["highest extrapolation grade", f"{relaxed['highest_grade']:.2f}"])
    if _is_number(relaxed.get("energy_per_atom")):
        facts.append(["energy, potential", _signed(relaxed["energy_per_atom"], 4, "eV/atom")])
    final = document.get("final") or {}
    if _is_number(final.get("energy_per_atom")):
        facts.append(["energy, DFT", _signed(final["energy_per_atom"], 4, "eV/atom")])
    if final.get("reason"):
        facts.append(["DFT relaxation", str(final["reason"])])
    dropped = document.get("dropped") or {}
    if dropped:
        facts.append(["dropped", str(dropped.get("reason", "for no reason on record"))])
    if _is_number(dropped.get("energy_above_hull")):
        height = f"{1e3 * dropped['energy_above_hull']:.1f} meV/atom above the hull"
        facts.append(["height when dropped", height])
    return facts


def _signed(value: float, digits: int, unit: str) -> str:
    return f"{value:.{digits}f} {unit}".replace("-", "−")


def _is_number(value: Any) -> bool:
    return (
        isinstance(value, (int, float)) and not isinstance(value, bool) and bool(np.isfinite(value))
    )
