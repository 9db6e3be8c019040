"""DFT-relaxed structures in the formats of other programs: CIF, POSCAR, extended XYZ, pymatgen."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io.extxyz import write_extxyz
from monty.json import MontyEncoder
from pymatgen.core import Lattice, Structure
from pymatgen.entries.computed_entries import ComputedStructureEntry
from pymatgen.io.cif import CifWriter
from pymatgen.io.vasp import Poscar

from hullscreen.workflows.hull_entries import Entry
from hullscreen.workflows.results import HullResult

# Fractions of a lattice vector nearer to zero than this are rounding: 1e-9 Å.
FRACTION_ROUNDING = 1e-10


def file_stem(entry: Entry) -> str:
    """Name for the file of an entry, safe on any file system and different for each.

    Examples
    --------
    ``CuPd3_fcc-4-5-0111_37``
    """
    safe = re.sub(r"[^A-Za-z0-9.+-]+", "-", entry.prototype).strip("-.")
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


def poscar_text(entry: Entry) -> str:
    """POSCAR of VASP, the atoms of each element together."""
    structure = structure_of(entry).get_sorted_structure()
    return str(Poscar(structure, comment=_title(entry)).get_str(significant_figures=12))


def extxyz_text(result: HullResult, entries: Sequence[Entry]) -> str:
    """Extended XYZ with energies, forces and stresses, and the Materials Project's names."""
    stream = io.StringIO()
    write_extxyz(stream, [_atoms(result, entry) for entry in entries])
    return stream.getvalue()


def entries_text(result: HullResult, entries: Sequence[Entry]) -> str:
    """JSON list of pymatgen's ``ComputedStructureEntry``; a ``PhaseDiagram`` of them is this hull.

    Examples
    --------
    >>> from monty.serialization import loadfn
    >>> from pymatgen.analysis.phase_diagram import PhaseDiagram
    >>> PhaseDiagram(loadfn("entries.json")).stable_entries
    """
    computed = [
        ComputedStructureEntry(
            structure_of(entry),
            entry.energy_per_atom * entry.nsites,
            parameters={"dft_engine": result.engine},
            data=_data(entry),
            entry_id=f"{result.campaign}-{entry.structure_index}",
        )
        for entry in entries
    ]
    return json.dumps(computed, cls=MontyEncoder, indent=1) + "\n"


def _atoms(result: HullResult, entry: Entry) -> Atoms:
    stored = entry.result
    atoms = Atoms(
        stored.numbers, positions=stored.geometry.positions, cell=stored.geometry.cell, pbc=True
    )
    atoms.info = {**_data(entry), "campaign": result.campaign}
    atoms.calc = SinglePointCalculator(
        atoms, energy=stored.energy, forces=stored.forces, stress=stored.stress
    )
    return atoms


def _data(entry: Entry) -> dict[str, Any]:
    return {
        "structure_index": entry.structure_index,
        "prototype": entry.prototype,
        "formula_pretty": entry.formula_pretty,
        "formation_energy_per_atom": entry.formation_energy_per_atom,
        "energy_above_hull": entry.energy_above_hull,
        "is_stable": entry.is_stable,
    }


def _title(entry: Entry) -> str:
    return (
        f"{entry.formula_pretty} {entry.prototype} number {entry.structure_index}, "
        f"formation energy {entry.formation_energy_per_atom:.6f} eV/atom, "
        f"{1e3 * entry.energy_above_hull:.2f} meV/atom above the hull"
    )
