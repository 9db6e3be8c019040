"""A key for structures, so that one computed under another name is not computed again."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

from hullscreen.potentials.errors import InputError
from hullscreen.potentials.structures import FloatArray, IndexArray

if TYPE_CHECKING:
    from ase import Atoms

ROUNDING_ANGSTROM = 1e-6
# Positions along each lattice vector are counted in steps whose number is a multiple of 1..12, so
# that the fractions of crystals (1/2, 1/3, 5/12 …) fall on a step, not between two.
STEP_MULTIPLE = 27720
# Cells are rounded on a grid shifted by this odd fraction: lattice vectors are decimal numbers
# halved and quartered, which would sit exactly between two steps.
CELL_SHIFT = 0.271828182845905


def structure_key(atoms: Atoms) -> str:
    """Content hash of a periodic structure, up to translation and the order of its atoms.

    Equal keys mean equal cells (as three Cartesian vectors) and equal positions to
    `ROUNDING_ANGSTROM`, so energies, forces and stress may be shared: forces in the order of
    `canonical_order`. Structures that differ by a rotation, or by the choice of lattice vectors,
    get different keys, and so may, rarely, two that differ by less than the rounding.

    Raises
    ------
    InputError
        The structure is not periodic in three directions, or has no atoms.
    """
    lattice, rows, _ = _canonical(atoms)
    digest = hashlib.sha256()
    for part in (lattice, rows):
        digest.update(np.array(part.shape, dtype="<i8").tobytes())
        digest.update(np.ascontiguousarray(part, dtype="<i8").tobytes())
    return digest.hexdigest()


def canonical_order(atoms: Atoms) -> IndexArray:
    """Order of the atoms that is the same in all structures with one key, shape (n_atoms,).

    Per-atom results stored as ``forces[canonical_order(atoms)]`` are brought back to another
    structure's order by ``restored[canonical_order(other)] = stored``.
    """
    return _canonical(atoms)[2]


def _canonical(atoms: Atoms) -> tuple[IndexArray, IndexArray, IndexArray]:
    """Rounded cell (3, 3), sorted rows of species and rounded positions (n, 4), and the order."""
    if len(atoms) == 0 or not all(atoms.pbc) or atoms.cell.rank != 3:
        raise InputError(
            f"a structure key needs atoms and three periodic lattice vectors, got "
            f"{len(atoms)} atoms, periodic {list(map(bool, atoms.pbc))}, cell rank "
            f"{atoms.cell.rank}"
        )
    cell: FloatArray = np.array(atoms.cell[:], dtype=np.float64)
    lattice = np.floor(cell / ROUNDING_ANGSTROM + CELL_SHIFT).astype(np.int64)
    lengths = np.linalg.norm(cell, axis=1)
    steps = STEP_MULTIPLE * np.ceil(lengths / (ROUNDING_ANGSTROM * STEP_MULTIPLE))
    fractional = np.linalg.solve(cell.T, np.array(atoms.positions).T).T
    numbers = np.asarray(atoms.numbers, dtype=np.int64)

    # The origin is an atom of the rarest element; of those, the one that gives the first rows.
    kinds, counts = np.unique(numbers, return_counts=True)
    rarest = kinds[np.lexsort((kinds, counts))[0]]
    best: tuple[bytes, IndexArray, IndexArray] | None = None
    for origin in np.flatnonzero(numbers == rarest):
        shifted = np.rint((fractional - fractional[origin]) * steps) % steps
        rows = np.column_stack([numbers, shifted.astype(np.int64)])
        order = np.lexsort(rows.T[::-1])
        rows = rows[order]
        candidate = (rows.astype(">i8").tobytes(), rows, order.astype(np.int64))
        if best is None or candidate[0] < best[0]:
            best = candidate
    assert best is not None  # noqa: S101 - there is at least one atom, so an origin
    return lattice, best[1], best[2]
