"""Compiled first guess of a relaxation's inverse Hessian: atoms joined by springs.

Each pair of near atoms resists a change of its distance with a stiffness that falls off with that
distance; so the guess knows which atoms move together and how strain drags them along. It replaces
what a quasi-Newton method would otherwise learn in a third of its steps.

Variables are those of `relaxation_kernels`: atoms' positions q, then six strains times ``scale``.

Source: Packwood et al., J. Chem. Phys. 144, 164109 (2016), with springs along bonds instead of
isotropic ones, as in Lindh et al., Chem. Phys. Lett. 241, 423 (1995).
"""

from __future__ import annotations

import numpy as np

from hullscreen.potentials.compiling import kernel
from hullscreen.potentials.evaluation_kernels import Scratch
from hullscreen.potentials.neighbours import half_diameter, search_pairs
from hullscreen.potentials.structures import FloatArray, IntArray

# Stiffness of a bond as long as in the close-packed metal of the same density, eV/Å²; what a wrong
# one costs, the first step's curvature limits.
BOND_STIFFNESS = 1.5
# It falls by exp(-DECAY) while the bond grows by its own length ...
DECAY = 6.0
# ... up to so many lengths, and rises no further below so many.
LONGEST_BOND = 1.3
SHORTEST_BOND = 0.7
# Stiffness against what stretches no bond, eV/Å².
LOOSE_STIFFNESS = 0.3
# Without springs: of an atom in a metal, eV/Å², and of the lattice, eV/Å³ (190 GPa).
ATOM_STIFFNESS = 8.0
LATTICE_STIFFNESS = 1.2
# Larger cells start from one stiffness for all: inverting costs the cube of the number of atoms,
# and the bonds of long empty cells are not worth their search.
MOST_ATOMS = 40
LONGEST_CELL = 40.0


@kernel
def invert(matrix: FloatArray) -> None:
    """Invert a symmetric positive definite matrix in place, by Gauss-Jordan elimination."""
    n = len(matrix)
    for k in range(n):
        pivot = 1.0 / matrix[k, k]
        matrix[k, k] = 1.0
        for b in range(n):
            matrix[k, b] *= pivot
        for a in range(n):
            if a != k:
                factor = matrix[a, k]
                matrix[a, k] = 0.0
                for b in range(n):
                    matrix[a, b] -= factor * matrix[k, b]


@kernel
def first_inverse(
    cell: FloatArray,
    positions: FloatArray,
    species: IntArray,
    scale: float,
    room: Scratch,
    inverse: FloatArray,
) -> None:
    """Fill the inverse Hessian, shape (3 n_atoms + 6,) twice, in Å²/eV.

    Parameters
    ----------
    cell, positions
        A reduced cell in Å, shape (3, 3), and its atoms, shape (n_atoms, 3).
    scale
        Variables of strain are strains times this, in Å.
    room
        Scratch for the search of neighbours, which is overwritten.
    """
    n = len(positions)
    inverse[:] = 0.0
    for a in range(len(inverse)):
        inverse[a, a] = 1.0 / ATOM_STIFFNESS
    if n > MOST_ATOMS or half_diameter(cell) > LONGEST_CELL:
        return
    # Nearest neighbours in a close-packed lattice of this density.
    length = (np.sqrt(2.0) * abs(np.linalg.det(cell)) / n) ** (1.0 / 3.0)
    lists = room.lists
    _, n_pairs, needed = search_pairs(
        cell, positions, species, LONGEST_BOND * length, room.pairs, lists, 0
    )
    if n_pairs > len(room.pairs.x) or needed > len(lists.x):
        return
    for a in range(len(inverse)):
        inverse[a, a] = LOOSE_STIFFNESS
    places, along = np.empty(12, np.int64), np.empty(12)
    for m in range(6):
        places[6 + m] = 3 * n + m
    for i in range(n):
        for place in range(lists.starts[i], lists.starts[i] + lists.ends[i, -1]):
            j = lists.atoms[place]
            bond = np.sqrt(lists.x[place] ** 2 + lists.y[place] ** 2 + lists.z[place] ** 2)
            x, y, z = lists.x[place] / bond, lists.y[place] / bond, lists.z[place] / bond
            stretch = max(bond / length, SHORTEST_BOND) - 1.0
            # Each pair is in the lists of both atoms.
            stiffness = 0.5 * BOND_STIFFNESS * np.exp(-DECAY * stretch)
            for axis in range(3):
                places[axis], places[3 + axis] = 3 * i + axis, 3 * j + axis
            along[0], along[1], along[2] = -x, -y, -z
            along[3], along[4], along[5] = x, y, z
            root = np.sqrt(2.0)
            along[6], along[7], along[8] = x * x, y * y, z * z
            along[9], along[10], along[11] = root * y * z, root * x * z, root * x * y
            for m in range(6, 12):
                along[m] *= bond / scale
            # An image of the atom itself moves with it: only strain stretches that bond.
            for a in range(6 if i == j else 0, 12):
                for b in range(6 if i == j else 0, 12):
                    inverse[places[a], places[b]] += stiffness * along[a] * along[b]
    invert(inverse)
