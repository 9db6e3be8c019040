"""Compiled search for the primitive cell of a crystal.

Kernels take contiguous arrays only. A crystal is (cell, fractions, species): lattice vectors as
rows in Å (3, 3), fractional positions (n_atoms, 3), species indices (n_atoms,).
"""

from __future__ import annotations

import numpy as np

from hullscreen.potentials.compiling import exact_kernel
from hullscreen.potentials.structures import FloatArray, IndexArray, IntArray

# Relative gain in squared length below which a shorter lattice vector is only rounding.
LENGTH_GAIN = 1e-10
# Rounds of lattice reduction; cells of 30 Å and 2 Å need fewer than ten.
REDUCTION_ROUNDS = 200


@exact_kernel
def reduce_cell(cell: FloatArray) -> FloatArray:
    """Minkowski-reduced basis of the lattice, shortest vector first, shape (3, 3).

    Source: Semaev, in: Cryptography and Lattices, LNCS 2146, 181 (2001).
    """
    basis = cell.copy()
    for _ in range(REDUCTION_ROUNDS):
        _sort_by_length(basis)
        changed = False
        # Gauss: the second vector against the first.
        turns = np.rint(np.dot(basis[0], basis[1]) / np.dot(basis[0], basis[0]))
        if turns != 0.0:
            shorter = basis[1] - turns * basis[0]
            if np.dot(shorter, shorter) < np.dot(basis[1], basis[1]) * (1.0 - LENGTH_GAIN):
                basis[1] = shorter
                changed = True
        if changed:
            continue
        # The third vector against the plane of the other two, with all near neighbours tried.
        g00 = np.dot(basis[0], basis[0])
        g01 = np.dot(basis[0], basis[1])
        g11 = np.dot(basis[1], basis[1])
        g02 = np.dot(basis[0], basis[2])
        g12 = np.dot(basis[1], basis[2])
        area = g00 * g11 - g01 * g01
        x0 = np.rint((g02 * g11 - g12 * g01) / area)
        x1 = np.rint((g12 * g00 - g02 * g01) / area)
        best = np.dot(basis[2], basis[2]) * (1.0 - LENGTH_GAIN)
        shortest = basis[2].copy()
        for d0 in range(-1, 2):
            for d1 in range(-1, 2):
                shorter = basis[2] - (x0 + d0) * basis[0] - (x1 + d1) * basis[1]
                length = np.dot(shorter, shorter)
                if length < best:
                    best = length
                    shortest = shorter
                    changed = True
        basis[2] = shortest
        if not changed:
            break
    return basis


@exact_kernel
def _sort_by_length(basis: FloatArray) -> None:
    for i in range(2):
        for j in range(2 - i):
            if np.dot(basis[j + 1], basis[j + 1]) < np.dot(basis[j], basis[j]):
                for axis in range(3):
                    kept = basis[j, axis]
                    basis[j, axis] = basis[j + 1, axis]
                    basis[j + 1, axis] = kept


@exact_kernel
def rarest_atom(species: IntArray) -> int:
    """First atom of the species with the fewest atoms (the lower index on a tie)."""
    counts = np.zeros(species.max() + 1, dtype=np.int64)
    for kind in species:
        counts[kind] += 1
    rarest = -1
    for kind in range(len(counts)):
        if counts[kind] > 0 and (rarest < 0 or counts[kind] < counts[rarest]):
            rarest = kind
    for i_atom in range(len(species)):
        if species[i_atom] == rarest:
            return i_atom
    return -1


@exact_kernel
def atoms_coincide(
    cell: FloatArray,
    fractions_a: FloatArray,
    species_a: IntArray,
    fractions_b: FloatArray,
    species_b: IntArray,
    shift: FloatArray,
    tolerance: float,
    used: IntArray,
) -> bool:
    """Whether A moved by ``shift`` lies atom by atom on B, each within ``tolerance`` in Å.

    The shift is found from one pair of atoms, whose own errors it carries; so atoms are paired
    within twice the tolerance, ``shift`` is moved (in place) to the mean of all pairs, and only
    then is the tolerance applied.
    """
    n_atoms = len(species_a)
    offsets = np.zeros((n_atoms, 3))
    mean = np.zeros(3)
    loose = 4.0 * tolerance * tolerance
    used[:] = 0
    for i in range(n_atoms):
        partner = -1
        nearest = loose
        for j in range(n_atoms):
            if used[j] or species_b[j] != species_a[i]:
                continue
            d0 = fractions_b[j, 0] - fractions_a[i, 0] - shift[0]
            d1 = fractions_b[j, 1] - fractions_a[i, 1] - shift[1]
            d2 = fractions_b[j, 2] - fractions_a[i, 2] - shift[2]
            d0 -= np.rint(d0)
            d1 -= np.rint(d1)
            d2 -= np.rint(d2)
            x = d0 * cell[0, 0] + d1 * cell[1, 0] + d2 * cell[2, 0]
            y = d0 * cell[0, 1] + d1 * cell[1, 1] + d2 * cell[2, 1]
            z = d0 * cell[0, 2] + d1 * cell[1, 2] + d2 * cell[2, 2]
            distance = x * x + y * y + z * z
            if distance <= nearest:
                nearest = distance
                partner = j
                offsets[i, 0] = d0
                offsets[i, 1] = d1
                offsets[i, 2] = d2
        if partner < 0:
            return False
        used[partner] = 1
        mean += offsets[i]
    mean /= n_atoms
    for i in range(n_atoms):
        distance = 0.0
        for axis in range(3):
            component = 0.0
            for k in range(3):
                component += (offsets[i, k] - mean[k]) * cell[k, axis]
            distance += component * component
        if distance > tolerance * tolerance:
            return False
    shift += mean
    return True


@exact_kernel
def _hermite_form(rows: IndexArray) -> IndexArray:
    """Upper triangular basis of the lattice that integer ``rows`` span, shape (3, 3)."""
    work = rows.copy()
    for column in range(3):
        while True:
            pivot = -1
            for i in range(column, len(work)):
                if work[i, column] != 0 and (
                    pivot < 0 or abs(work[i, column]) < abs(work[pivot, column])
                ):
                    pivot = i
            for k in range(3):
                kept = work[column, k]
                work[column, k] = work[pivot, k]
                work[pivot, k] = kept
            done = True
            for i in range(column + 1, len(work)):
                turns = work[i, column] // work[column, column]
                for k in range(3):
                    work[i, k] -= turns * work[column, k]
                done = done and work[i, column] == 0
            if done:
                break
    return work[:3].copy()


@exact_kernel
def _unreduced(
    cell: FloatArray, positions: FloatArray, species: IntArray
) -> tuple[FloatArray, FloatArray, IntArray]:
    basis = reduce_cell(cell)
    return basis, np.dot(positions, np.linalg.inv(basis)), species.copy()


@exact_kernel
def primitive_crystal(
    cell: FloatArray, positions: FloatArray, species: IntArray, tolerance: float
) -> tuple[FloatArray, FloatArray, IntArray]:
    """Primitive, reduced cell of a structure, equivalent atoms averaged.

    Parameters
    ----------
    cell, positions, species
        Cartesian structure in Å: shapes (3, 3), (n_atoms, 3), (n_atoms,).
    tolerance
        Atoms that a translation moves onto each other agree within this, in Å.

    Returns
    -------
    Cell, fractional positions and species of the primitive structure. Translations that do not
    form a group (the tolerance cuts through noise) leave the structure with its own cell.
    """
    n_atoms = len(species)
    fractions = np.dot(positions, np.linalg.inv(cell))
    first = rarest_atom(species)
    shifts = np.zeros((n_atoms, 3))
    n_shifts = 1
    used = np.zeros(n_atoms, dtype=np.int32)
    for j in range(n_atoms):
        if j == first or species[j] != species[first]:
            continue
        shift = fractions[j] - fractions[first]
        if atoms_coincide(cell, fractions, species, fractions, species, shift, tolerance, used):
            shifts[n_shifts] = shift
            n_shifts += 1
    if n_shifts == 1:
        return _unreduced(cell, positions, species)
    # A group of m translations has coordinates that are multiples of 1/m exactly.
    rows = np.zeros((n_shifts + 2, 3), dtype=np.int64)
    for axis in range(3):
        rows[axis, axis] = n_shifts
    for i in range(1, n_shifts):
        for axis in range(3):
            rows[i + 2, axis] = int(np.rint(n_shifts * shifts[i, axis]))
    form = _hermite_form(rows)
    if abs(form[0, 0] * form[1, 1] * form[2, 2]) != n_shifts * n_shifts:
        return _unreduced(cell, positions, species)
    basis = reduce_cell(np.dot(form.astype(np.float64), cell) / n_shifts)
    fractions = np.dot(positions, np.linalg.inv(basis))
    kept = np.zeros((n_atoms, 3))
    kinds = np.zeros(n_atoms, dtype=np.int32)
    used[:] = 0
    n_kept = 0
    for i in range(n_atoms):
        if used[i]:
            continue
        mean = np.zeros(3)
        members = 0
        for j in range(i, n_atoms):
            if used[j] or species[j] != species[i]:
                continue
            offset = fractions[j] - fractions[i]
            for axis in range(3):
                offset[axis] -= np.rint(offset[axis])
            distance = 0.0
            for axis in range(3):
                component = 0.0
                for k in range(3):
                    component += offset[k] * basis[k, axis]
                distance += component * component
            if distance <= 9.0 * tolerance * tolerance:
                used[j] = 1
                members += 1
                mean += offset
        if members != n_shifts:
            return _unreduced(cell, positions, species)
        kept[n_kept] = fractions[i] + mean / members
        kinds[n_kept] = species[i]
        n_kept += 1
    return basis, kept[:n_kept].copy(), kinds[:n_kept].copy()


@exact_kernel
def primitive_crystals(
    cells: FloatArray,
    positions: FloatArray,
    species: IntArray,
    offsets: IndexArray,
    tolerance: float,
) -> tuple[FloatArray, FloatArray, IntArray, IndexArray]:
    """Primitive crystals of a batch, in arrays of the batch's shape.

    Returns
    -------
    Cells (n, 3, 3), fractions (n_atoms_total, 3), species (n_atoms_total,) and the number of
    atoms of each primitive cell (n,), which sit at the start of the structure's old range.
    """
    new_cells = np.zeros_like(cells)
    fractions = np.zeros_like(positions)
    kinds = np.zeros_like(species)
    sizes = np.zeros(len(cells), dtype=np.int64)
    for i in range(len(cells)):
        start, stop = offsets[i], offsets[i + 1]
        cell, inside, types = primitive_crystal(
            cells[i], positions[start:stop], species[start:stop], tolerance
        )
        new_cells[i] = cell
        sizes[i] = len(types)
        fractions[start : start + sizes[i]] = inside
        kinds[start : start + sizes[i]] = types
    return new_cells, fractions, kinds, sizes
