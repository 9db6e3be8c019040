"""A structure that DFT has relaxed: what is known of it, and what follows from its geometry."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import spglib
from ase.data import atomic_masses, chemical_symbols

from hullscreen.database.dft_documents import DFTDocument
from hullscreen.potentials.structures import FloatArray
from hullscreen.workflows.dft_jobs import stored_energy
from hullscreen.workflows.symmetry import ask_spglib

# A relaxation to 0.01 eV/Å and 0.1 GPa leaves displacements of about 0.01 Å in a soft crystal;
# distortions that matter are larger than this.
SYMPREC_ANGSTROM = 0.05
# An atomic mass unit per Å³.
GRAMS_PER_CM3 = 1.66053906660
# The last number of each crystal system (International Tables for Crystallography, volume A).
CRYSTAL_SYSTEMS = (
    (2, "Triclinic"),
    (15, "Monoclinic"),
    (74, "Orthorhombic"),
    (142, "Tetragonal"),
    (167, "Trigonal"),
    (194, "Hexagonal"),
    (230, "Cubic"),
)


@dataclass(frozen=True)
class Entry:
    """A structure that DFT has relaxed.

    Attributes
    ----------
    structure_index, prototype
        Place in the pool, and the prototype it began as.
    counts
        Atoms of each of the campaign's elements.
    formation_energy_per_atom, energy_above_hull
        In eV/atom, relative to the DFT-relaxed elements and to the hull of all entries.
    is_stable
        Whether it lies on the hull.
    result
        Geometry in Å, energy in eV, forces in eV/Å and stress in eV/Å³ (ASE's sign).
    """

    structure_index: int
    prototype: str
    formula_pretty: str
    counts: tuple[int, ...]
    formation_energy_per_atom: float
    energy_above_hull: float
    is_stable: bool
    result: DFTDocument

    @property
    def nsites(self) -> int:
        """Atoms in the cell."""
        return len(self.result.numbers)

    @property
    def energy_per_atom(self) -> float:
        """Total energy in eV/atom, from DFT."""
        return stored_energy(self.result) / self.nsites

    @property
    def symbols(self) -> list[str]:
        """Element of each atom."""
        return [chemical_symbols[z] for z in self.result.numbers]

    @property
    def volume(self) -> float:
        """Volume of the cell in Å³."""
        return abs(float(np.linalg.det(self.result.geometry.cell)))

    @property
    def density(self) -> float:
        """In g/cm³."""
        mass = float(atomic_masses[list(self.result.numbers)].sum())
        return mass / self.volume * GRAMS_PER_CM3

    @cached_property
    def symmetry(self) -> dict[str, Any]:
        """Space group within `SYMPREC_ANGSTROM`: symbol, number, crystal system."""
        cell, positions = self.result.geometry.cell, self.result.geometry.positions
        fractional = np.asarray(np.linalg.solve(cell.T, positions.T).T, dtype=np.float64)
        symbol, number = _space_group((cell, fractional, list(self.result.numbers)))
        system = next(name for last, name in CRYSTAL_SYSTEMS if number <= last)
        return {
            "symbol": symbol,
            "number": number,
            "crystal_system": system,
            "symprec": SYMPREC_ANGSTROM,
        }


def _space_group(crystal: tuple[FloatArray, FloatArray, list[int]]) -> tuple[str, int]:
    """Symbol and number; P1 for a crystal that spglib cannot make sense of."""
    found = ask_spglib(spglib.get_symmetry_dataset, crystal, symprec=SYMPREC_ANGSTROM)
    return (found.international, int(found.number)) if found else ("P1", 1)
