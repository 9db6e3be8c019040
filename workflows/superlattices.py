"""Superlattices of a parent: one of each kind, with the permutations of their sites.

A superlattice of n primitive cells is an integer matrix of determinant n in Hermite normal form;
those that a rotation of the parent maps onto each other are one.

Sources: G. Hart, R. Forcade, Phys. Rev. B 77, 224115 (2008), Secs. II-III, and 80, 014120 (2009)
for multilattices.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from hullscreen.potentials.compiling import exact_kernel
from hullscreen.potentials.errors import InputError
from hullscreen.potentials.structures import FloatArray, IndexArray, IntArray
from hullscreen.workflows.parent_lattices import ParentLattice, parent_lattice
from hullscreen.workflows.primitive_crystals import reduce_cell

# Lattice coordinates this close to 1 wrap to 0: rounding only, sites lie 1/n apart.
WRAP = 1e-9


@exact_kernel
def _hermite_form(matrix: IndexArray) -> None:
    """Lower triangular form of a nonsingular integer matrix under column operations, in place.

    Diagonal positive, and 0 <= entry < diagonal of its row left of the diagonal.
    """
    for row in range(3):
        # Euclid on the columns row..2 until one entry of this row is left, on the diagonal.
        while True:
            pivot = -1
            n_left = 0
            for column in range(row, 3):
                if matrix[row, column] != 0:
                    n_left += 1
                    if pivot < 0 or abs(matrix[row, column]) < abs(matrix[row, pivot]):
                        pivot = column
            if n_left == 1:
                break
            for column in range(row, 3):
                if column != pivot and matrix[row, column] != 0:
                    factor = matrix[row, column] // matrix[row, pivot]
                    for i in range(3):
                        matrix[i, column] -= factor * matrix[i, pivot]
        sign = 1 if matrix[row, pivot] > 0 else -1
        for i in range(3):
            kept = matrix[i, row]
            matrix[i, row] = sign * matrix[i, pivot]
            if pivot != row:
                matrix[i, pivot] = kept
        for column in range(row):
            factor = matrix[row, column] // matrix[row, row]
            for i in range(3):
                matrix[i, column] -= factor * matrix[i, row]


@exact_kernel
def _order(first: IndexArray, second: IndexArray) -> int:
    """-1, 0 or 1 as the first 3x3 matrix is before, equal to or after the second."""
    for i in range(3):
        for j in range(3):
            if first[i, j] != second[i, j]:
                return -1 if first[i, j] < second[i, j] else 1
    return 0


@exact_kernel
def _rotated(rotation: IndexArray, hermite: IndexArray, product: IndexArray) -> None:
    """Hermite form of ``rotation @ hermite`` into ``product``."""
    for i in range(3):
        for j in range(3):
            total = 0
            for k in range(3):
                total += rotation[i, k] * hermite[k, j]
            product[i, j] = total
    _hermite_form(product)


@exact_kernel
def _hermite_matrices(n_cells: int) -> IndexArray:
    """All Hermite normal forms of determinant ``n_cells``, shape (n, 3, 3)."""
    total = 0
    for a in range(1, n_cells + 1):
        if n_cells % a == 0:
            for c in range(1, n_cells // a + 1):
                if (n_cells // a) % c == 0:
                    f = n_cells // (a * c)
                    total += c * f * f
    matrices = np.zeros((total, 3, 3), dtype=np.int64)
    i_matrix = 0
    for a in range(1, n_cells + 1):
        if n_cells % a != 0:
            continue
        for c in range(1, n_cells // a + 1):
            if (n_cells // a) % c != 0:
                continue
            f = n_cells // (a * c)
            for b in range(c):
                for d in range(f):
                    for e in range(f):
                        matrix = matrices[i_matrix]
                        matrix[0, 0] = a
                        matrix[1, 0] = b
                        matrix[1, 1] = c
                        matrix[2, 0] = d
                        matrix[2, 1] = e
                        matrix[2, 2] = f
                        i_matrix += 1
    return matrices


@exact_kernel
def _is_representative(matrices: IndexArray, rotations: IndexArray) -> NDArray[np.bool_]:
    """Whether each matrix is the first of its orbit under the rotations."""
    first = np.ones(len(matrices), dtype=np.bool_)
    product = np.zeros((3, 3), dtype=np.int64)
    for i_matrix in range(len(matrices)):
        for rotation in rotations:
            _rotated(rotation, matrices[i_matrix], product)
            if _order(product, matrices[i_matrix]) < 0:
                first[i_matrix] = False
                break
    return first


@exact_kernel
def _cell_index(vector: IndexArray, hermite: IndexArray) -> int:
    """Number of the primitive cell at lattice ``vector`` modulo the superlattice."""
    a, c, f = hermite[0, 0], hermite[1, 1], hermite[2, 2]
    x, y, z = vector
    turns = x // a
    x -= turns * a
    y -= turns * hermite[1, 0]
    z -= turns * hermite[2, 0]
    turns = y // c
    y -= turns * c
    z -= turns * hermite[2, 1]
    index: int = (x * c + y) * f + z % f
    return index


@exact_kernel
def _site_permutations(
    hermite: IndexArray, rotations: IndexArray, site_images: IndexArray, site_shifts: IndexArray
) -> IntArray:
    """Permutations of the sites of a superlattice by the operations that keep it.

    Site ``s`` of primitive cell ``g`` has number ``g * n_sites + s``. The first n_cells rows are
    the translations, the identity before all; shape (n_permutations, n_cells * n_sites).
    """
    a, c, f = hermite[0, 0], hermite[1, 1], hermite[2, 2]
    n_cells = a * c * f
    n_sites = site_images.shape[1]
    kept = np.zeros(len(rotations), dtype=np.int64)
    n_kept = 0
    product = np.zeros((3, 3), dtype=np.int64)
    for i_rotation in range(len(rotations)):
        _rotated(rotations[i_rotation], hermite, product)
        if _order(product, hermite) == 0:
            kept[n_kept] = i_rotation
            n_kept += 1
    permutations = np.zeros((n_kept * n_cells, n_cells * n_sites), dtype=np.int32)
    vector = np.zeros(3, dtype=np.int64)
    for i_kept in range(n_kept):
        rotation = rotations[kept[i_kept]]
        for translation in range(n_cells):
            t = (translation // (c * f), (translation // f) % c, translation % f)
            row = permutations[i_kept * n_cells + translation]
            for cell in range(n_cells):
                g = (cell // (c * f), (cell // f) % c, cell % f)
                for site in range(n_sites):
                    for i in range(3):
                        vector[i] = t[i] + site_shifts[kept[i_kept], site, i]
                        for j in range(3):
                            vector[i] += rotation[i, j] * g[j]
                    image = _cell_index(vector, hermite)
                    row[cell * n_sites + site] = image * n_sites + site_images[kept[i_kept], site]
    return permutations


@dataclass(frozen=True, eq=False)
class Superlattice:
    """One superlattice of a parent, with the permutations of its sites.

    Attributes
    ----------
    number
        Its place among the distinct superlattices of this size, from 1; the same in every run.
    hermite
        Hermite normal form, columns are the superlattice vectors in lattice coordinates, (3, 3).
    cell
        Reduced superlattice vectors as rows, Å at one Å³ per atom, shape (3, 3).
    positions
        Cartesian positions inside ``cell`` in Å, shape (n_atoms, 3).
    permutations
        Shape (n_permutations, n_atoms); the first ``n_cells`` rows are translations.
    """

    number: int
    hermite: IndexArray
    cell: FloatArray
    positions: FloatArray
    permutations: IntArray

    @property
    def n_cells(self) -> int:
        """Primitive cells in the superlattice's cell."""
        return int(np.prod(np.diag(self.hermite)))

    @property
    def n_atoms(self) -> int:
        """Atoms in the superlattice's cell."""
        return len(self.positions)


def reduced_cell(cell: FloatArray) -> FloatArray:
    """Shortest possible, right-handed lattice vectors of the same lattice.

    Parameters
    ----------
    cell
        Lattice vectors as rows, shape (3, 3), linearly independent.
    """
    basis: FloatArray = reduce_cell(np.ascontiguousarray(cell, dtype=np.float64))
    return basis if np.linalg.det(basis) > 0.0 else -basis


def wrapped(positions: FloatArray, cell: FloatArray) -> FloatArray:
    """Cartesian ``positions`` (n, 3) moved into the home cell by lattice vectors of ``cell``."""
    coordinates = positions @ np.linalg.inv(cell)
    inside: FloatArray = (coordinates - np.floor(coordinates + WRAP)) @ cell
    return inside


def hermite_matrices(n_cells: int) -> IndexArray:
    """All 3x3 Hermite normal forms of determinant ``n_cells``, shape (n, 3, 3)."""
    _check_positive("n_cells", n_cells)
    matrices: IndexArray = _hermite_matrices(n_cells)
    return matrices


@lru_cache(maxsize=64)
def superlattices(lattice: str, n_cells: int) -> tuple[Superlattice, ...]:
    """Symmetry-distinct superlattices of ``n_cells`` primitive cells, in a fixed order.

    Raises
    ------
    InputError
        The lattice is unknown or ``n_cells`` is not positive.
    """
    parent = parent_lattice(lattice)
    matrices = hermite_matrices(n_cells)
    distinct = matrices[_is_representative(matrices, parent.rotations)]
    return tuple(_superlattice(parent, i + 1, matrix) for i, matrix in enumerate(distinct))


def _superlattice(parent: ParentLattice, number: int, hermite: IndexArray) -> Superlattice:
    permutations = _site_permutations(
        hermite, parent.rotations, parent.site_images, parent.site_shifts
    )
    a, c, f = np.diag(hermite)
    origins = np.stack(np.meshgrid(*map(np.arange, (a, c, f)), indexing="ij"), axis=-1)
    coordinates = origins.reshape(-1, 1, 3) + parent.sites[None, :, :]
    cell = reduced_cell(hermite.T @ parent.cell)
    positions = wrapped(coordinates.reshape(-1, 3) @ parent.cell, cell)
    return Superlattice(number, hermite, cell, positions, permutations)


def _check_positive(name: str, value: int) -> None:
    if value < 1:
        raise InputError(f"{name} must be at least 1, got {value}")
