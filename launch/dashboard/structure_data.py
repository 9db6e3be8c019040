"""One structure for a picture in three dimensions: atoms, cell, numbers and what became of it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hullscreen.database.campaign_store import CampaignStore
from hullscreen.database.documents import Geometry, unpack_species
from hullscreen.launch.story_text import sentences
from hullscreen.potentials.errors import DatabaseError, InputError
from hullscreen.potentials.structures import FloatArray
from hullscreen.workflows.story import story
from hullscreen.workflows.structure_filters import Wanted, reduced_formula
from hullscreen.workflows.structure_search import search

Plain = dict[str, Any]

# Field, its name in words, unit, factor to that unit, digits.
NUMBERS = (
    ("formation_energy_per_atom", "formation energy", "meV/atom", 1e3, 1),
    ("energy_above_hull", "energy above the hull", "meV/atom", 1e3, 1),
    ("energy_per_atom", "energy", "eV/atom", 1.0, 4),
    ("volume", "volume", "Å³", 1.0, 2),
    ("density", "density", "g/cm³", 1.0, 2),
)
SHOWN = (
    "formula_pretty",
    "prototype",
    "final",
    "species",
    "symmetry",
    "energy_from",
    *(field for field, *_ in NUMBERS),
)


def structure_data(store: CampaignStore, index: int) -> Plain:
    """A structure as it is known best: relaxed with DFT, else with the potential, else its start.

    Parameters
    ----------
    index
        Its place in the pool.

    Returns
    -------
    ``index, formula, prototype, nsites``; ``state``: where the geometry comes from;
    ``cell`` (3, 3) and ``positions`` (n_atoms, 3) in Å, ``symbols``; ``elements`` of the campaign;
    ``facts``: pairs of words; ``story``: sentences.

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
        "elements": elements,
        "facts": _facts(document),
        "story": _told(store, index),
    }


def structure_named(store: CampaignStore, text: str, entries: Sequence[Mapping[str, Any]]) -> int:
    """The structure that a person means by a number or a formula.

    Parameters
    ----------
    text
        A place in the pool, or any formula of a composition.
    entries
        As `hullscreen.launch.dashboard.hull_data.hull_data` gives them.

    Returns
    -------
    Its place in the pool; of a composition the lowest that the hull shows, else the lowest.

    Raises
    ------
    InputError
        The text is no formula of the campaign's elements, or there is no structure of it.
    """
    if re.fullmatch("[0-9]{1,9}", text):
        return int(text)
    formula = reduced_formula(text, store.campaign()["elements"])
    shown = [entry["index"] for entry in entries if entry["formula"] == formula]
    if shown:
        return int(shown[0])
    rows = search(store, None, Wanted(formula=formula), limit=1).rows
    if not rows:
        raise InputError(
            f"campaign {store.name!r} has no structure of the composition {formula}; choose one "
            "from the table"
        )
    return int(rows[0]["structure_index"])


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
    source = f" ({document['energy_from']})" if document.get("energy_from") else ""
    for field, words, unit, factor, digits in NUMBERS:
        value: Any = document.get(field)
        if _is_number(value):
            facts.append(
                [
                    f"{words}{source if 'energy' in field else ''}",
                    _signed(factor * value, digits, unit),
                ]
            )
    symmetry = document.get("symmetry")
    if isinstance(symmetry, dict):
        group = f"{symmetry.get('symbol', '')} (number {symmetry.get('number', '')})"
        facts.append(["space group", group])
    return facts


def _told(store: CampaignStore, index: int) -> list[str]:
    """The structure's story; one sentence where the documents are damaged."""
    try:
        return sentences(story(store, index))
    except DatabaseError as error:
        return [str(error)]


def _signed(value: float, digits: int, unit: str) -> str:
    return f"{value:.{digits}f} {unit}".replace("-", "−")


def _is_number(value: Any) -> bool:
    return (
        isinstance(value, (int, float)) and not isinstance(value, bool) and bool(np.isfinite(value))
    )
