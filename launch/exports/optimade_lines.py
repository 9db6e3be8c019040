"""OPTIMADE JSON lines of the DFT-relaxed structures, which its servers take in.

The first line is the header with the version of the specification, the second describes the
entries' own fields, and each further one is an entry of type ``structures``.
"""

from __future__ import annotations

import json
from datetime import UTC
from functools import reduce
from math import gcd
from pathlib import Path
from typing import Any

from hullscreen.launch.exports.contents import Contents
from hullscreen.workflows.exports import structure_of
from hullscreen.workflows.hull_entries import Entry

API_VERSION = "1.2.0"
PREFIX = "_hullscreen_"
# What the specification does not name: type, unit in its own words, and meaning.
FIELDS: dict[str, tuple[str, str | None, str]] = {
    "structure_index": ("integer", None, "Place in the campaign's pool of prototypes."),
    "prototype": ("string", None, "Prototype from which the structure was relaxed."),
    "formula_pretty": ("string", None, "Reduced formula in order of electronegativity."),
    "energy_per_atom": ("float", "eV/atom", "Total energy of the DFT engine."),
    "formation_energy_per_atom": ("float", "eV/atom", "Relative to the DFT-relaxed elements."),
    "energy_above_hull": ("float", "eV/atom", "Height above the hull of DFT-relaxed structures."),
    "is_stable": ("boolean", None, "Whether it lies on that hull."),
    "space_group_number": (
        "integer",
        None,
        "Number of the space group in the International Tables.",
    ),
    "volume": ("float", "angstrom^3", "Volume of the cell."),
    "density": ("float", "g/cm^3", "Mass density."),
    "dft_engine": ("string", None, "Name of the DFT engine."),
    "dft_key": ("string", None, "Key of the DFT calculation."),
    "campaign": ("string", None, "Campaign that found it."),
    "provisional": ("boolean", None, "Whether the campaign, and so its hull, is unfinished."),
}


def write(contents: Contents, path: Path) -> None:
    """Write the header with the provenance, the description of our fields, and the structures."""
    meta = {
        "api_version": API_VERSION,
        f"{PREFIX}provenance": contents.provenance,
    }
    lines = [{"x-optimade": {"meta": meta}}, _description()]
    with path.open("w", encoding="utf-8") as file:
        for line in (*lines, *(_entry(contents, entry) for entry in contents.entries)):
            file.write(json.dumps(line) + "\n")


def _description() -> dict[str, Any]:
    return {
        "type": "info",
        "id": "structures",
        "description": "Alloys on and near a convex hull, relaxed with DFT.",
        "properties": {
            f"{PREFIX}{name}": {
                "title": name,
                "type": kind,
                "description": meaning,
                "x-optimade-type": kind,
                "x-optimade-unit": unit or "inapplicable",
                "unit": unit or "inapplicable",
            }
            for name, (kind, unit, meaning) in FIELDS.items()
        },
    }


def _entry(contents: Contents, entry: Entry) -> dict[str, Any]:
    hull = contents.require_hull()
    structure = structure_of(entry)
    symbols = [site.specie.symbol for site in structure]
    elements = sorted(set(symbols))
    counts = [symbols.count(symbol) for symbol in elements]
    ours = {
        "structure_index": entry.structure_index,
        "prototype": entry.prototype,
        "formula_pretty": entry.formula_pretty,
        "energy_per_atom": entry.energy_per_atom,
        "formation_energy_per_atom": entry.formation_energy_per_atom,
        "energy_above_hull": entry.energy_above_hull,
        "is_stable": entry.is_stable,
        "space_group_number": entry.symmetry["number"],
        "volume": entry.volume,
        "density": entry.density,
        "dft_engine": hull.engine,
        "dft_key": entry.result.key,
        "campaign": hull.campaign,
        "provisional": not hull.finished,
    }
    changed = entry.result.created_at.astimezone(UTC)
    return {
        "type": "structures",
        "id": f"{hull.campaign}-{entry.structure_index}",
        "attributes": {
            "immutable_id": entry.result.key,
            "last_modified": changed.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "elements": elements,
            "nelements": len(elements),
            "elements_ratios": [n / len(symbols) for n in counts],
            "chemical_formula_descriptive": _formula(elements, counts),
            "chemical_formula_reduced": _reduced(elements, counts),
            "chemical_formula_anonymous": _anonymous(counts),
            "dimension_types": [1, 1, 1],
            "nperiodic_dimensions": 3,
            "lattice_vectors": structure.lattice.matrix.tolist(),
            "cartesian_site_positions": structure.cart_coords.tolist(),
            "nsites": len(symbols),
            "species": [
                {"name": symbol, "chemical_symbols": [symbol], "concentration": [1.0]}
                for symbol in elements
            ],
            "species_at_sites": symbols,
            "structure_features": [],
            **{f"{PREFIX}{name}": value for name, value in ours.items()},
        },
    }


def _formula(elements: list[str], counts: list[int]) -> str:
    parts = zip(elements, counts, strict=True)
    return "".join(symbol if n == 1 else f"{symbol}{n}" for symbol, n in parts)


def _reduced(elements: list[str], counts: list[int]) -> str:
    divisor = reduce(gcd, counts)
    return _formula(elements, [n // divisor for n in counts])


def _anonymous(counts: list[int]) -> str:
    """A2B for any compound of this kind: the most frequent element is A."""
    return _reduced(list("ABCDEFGH"[: len(counts)]), sorted(counts, reverse=True))
