"""Labelled cells to try things on: copper and gold with ASE's EMT potential in the place of DFT."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ase import Atoms


def copper_gold(n_structures: int, seed: int = 0) -> list[Atoms]:
    """Strained and rattled face-centred cells of four atoms, with energies, forces and stresses.

    Parameters
    ----------
    n_structures
        Compositions from Cu₄ to Au₄ take turns.
    seed
        Of the strains (3 %), displacements (0.08 Å) and the places of the species.

    Returns
    -------
    ``Atoms`` whose calculator holds EMT's results, in eV, eV/Å and eV/Å³.

    Examples
    --------
    >>> [str(atoms.symbols) for atoms in copper_gold(3)]
    ['Cu4', 'AuCu3', 'CuAu2Cu']
    """
    from ase.build import bulk
    from ase.calculators.emt import EMT
    from ase.calculators.singlepoint import SinglePointCalculator

    rng = np.random.default_rng(seed)
    frames = []
    for i in range(n_structures):
        n_gold = i % 5
        # Between the lattice constants of Cu and Au, 3.6 and 4.06 Å, a few per cent off.
        length = 3.6 + 0.115 * n_gold + 0.1 * rng.normal()
        atoms = bulk("Cu", a=length, cubic=True)
        atoms.symbols = rng.permutation(["Au"] * n_gold + ["Cu"] * (4 - n_gold))
        atoms.set_cell(atoms.cell @ (np.eye(3) + 0.03 * rng.normal(size=(3, 3))), scale_atoms=True)
        atoms.positions += 0.08 * rng.normal(size=(4, 3))
        emt = EMT()
        found = {
            "energy": emt.get_potential_energy(atoms),
            "forces": emt.get_forces(atoms),
            "stress": emt.get_stress(atoms),
        }
        atoms.calc = SinglePointCalculator(atoms, **found)
        frames.append(atoms)
    return frames
