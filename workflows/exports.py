"""DFT-relaxed structures as other programs know them: pymatgen's object, CIF, POSCAR."""

from __future__ import annotations

import re

import numpy as np
from pymatgen.core import Lattice, Structure
from pymatgen.io.cif import CifWriter
from pymatgen.io.vasp import Poscar

from hullscreen.workflows.hull_entries import Entry

# Fractions of a lattice vector nearer to zero than this are rounding: 1e-9 Å.
FRACTION_ROUNDING = 1e-10
# Letters of a prototype in the name of a file; file systems allow 255 in all.
LONGEST_PROTOTYPE = 80


def file_stem(entry: Entry) -> str:
    """Name for the file of an entry, safe on any file system and different for each.

    Examples
    --------
    ``CuPd3_fcc-4-5-0111_37``
    """
    safe = re.sub(r"[^A-Za-z0-9.+-]+", "-", entry.prototype)[:LONGEST_PROTOTYPE].strip("-.")
    return f"{entry.formula_pretty}_{safe}_{entry.structure_index}"


def structure_of(entry: Entry) -> Structure:
    """The cell that DFT relaxed as pymatgen's object, right-handed as VASP needs it."""
    cell, positions = entry.result.geometry.cell, entry.result.geometry.positions
    if np.linalg.det(cell) < 0:
        # The same lattice and the same atoms: only the vectors point the other way.
        cell = -cell
    fractional = np.linalg.solve(cell.T, positions.T).T
    fractional -= np.floor(fractional + FRACTION_ROUNDING)
    fractional[np.abs(fractional) < FRACTION_ROUNDING] = 0.0
    return Structure(Lattice(cell), entry.symbols, fractional)


def cif_text(entry: Entry) -> str:
    """CIF of the cell as DFT relaxed it, in P1: nothing is rounded to a symmetry."""
    return f"# {_title(entry)}\n{CifWriter(structure_of(entry), significant_figures=10)}"


def poscar_text(entry: Entry, origin: str = "") -> str:
    """POSCAR of VASP, the atoms of each element together.

    Parameters
    ----------
    origin
        Where it comes from, on the first line beside what it is.
    """
    structure = structure_of(entry).get_sorted_structure()
    comment = f"{_title(entry)}; {origin}" if origin else _title(entry)
    return str(Poscar(structure, comment=comment).get_str(significant_figures=12))


def _title(entry: Entry) -> str:
    prototype = re.sub(r"[^\x20-\x7e]", "?", entry.prototype)
    return (
        f"{entry.formula_pretty} {prototype} number {entry.structure_index}, "
        f"formation energy {entry.formation_energy_per_atom:.6f} eV/atom, "
        f"{1e3 * entry.energy_above_hull:.2f} meV/atom above the hull"
    )
