"""Compiled comparison of periodic structures: primitive cells and the isometries between them.

Kernels take contiguous arrays only. A crystal is (cell, fractions, species): lattice vectors as
rows in Å (3, 3), fractional positions (n_atoms, 3), species indices (n_atoms,). They live in one
module because a compiled caller does not notice that a callee in another file has changed.
"""

# numba publishes no types, so that a compiled function is untyped to its callers.
# mypy: disable-error-code="untyped-decorator,no-any-return"

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numba import njit
from numpy.typing import NDArray

from hullscreen.potentials.structures import FloatArray, IndexArray, IntArray

KeyArray: TypeAlias = NDArray[np.uint16]

# Relative gain in squared length below which a shorter lattice vector is only rounding.
LENGTH_GAIN = 1e-10
# Rounds of lattice reduction; cells of 30 Å and 2 Å need fewer than ten.
REDUCTION_ROUNDS = 200
# Distances of a key reach so far, in cube roots of the volume per atom: to the third shell of fcc.
KEY_REACH = 2.05
# Unit of a key's distances in Å, far below every tolerance; 16 bits reach 65 Å.
KEY_UNIT = 1e-3
LONGEST_KEY = 65_535
# Relative; what rounding may do to a bound.
BOUND_SLACK = 1e-6


@njit(cache=True, nogil=True)
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


@njit(cache=True, nogil=True)
def _sort_by_length(basis: FloatArray) -> None:
    for i in range(2):
        for j in range(2 - i):
            if np.dot(basis[j + 1], basis[j + 1]) < np.dot(basis[j], basis[j]):
                for axis in range(3):
                    kept = basis[j, axis]
                    basis[j, axis] = basis[j + 1, axis]
                    basis[j + 1, axis] = kept


@njit(cache=True, nogil=True)
def _rarest_atom(species: IntArray) -> int:
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


@njit(cache=True, nogil=True)
def _atoms_coincide(
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


@njit(cache=True, nogil=True)
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


@njit(cache=True, nogil=True)
def _unreduced(
    cell: FloatArray, positions: FloatArray, species: IntArray
) -> tuple[FloatArray, FloatArray, IntArray]:
    basis = reduce_cell(cell)
    return basis, np.dot(positions, np.linalg.inv(basis)), species.copy()


@njit(cache=True, nogil=True)
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
    first = _rarest_atom(species)
    shifts = np.zeros((n_atoms, 3))
    n_shifts = 1
    used = np.zeros(n_atoms, dtype=np.int32)
    for j in range(n_atoms):
        if j == first or species[j] != species[first]:
            continue
        shift = fractions[j] - fractions[first]
        if _atoms_coincide(cell, fractions, species, fractions, species, shift, tolerance, used):
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


@njit(cache=True, nogil=True)
def crystals_match(
    cell_a: FloatArray,
    fractions_a: FloatArray,
    species_a: IntArray,
    cell_b: FloatArray,
    fractions_b: FloatArray,
    species_b: IntArray,
    length_tolerance: float,
    position_tolerance: float,
) -> bool:
    """Whether an isometry, up to a small strain, maps one primitive crystal onto the other.

    Every triple of lattice vectors of B with A's metric is tried as the image of A's basis: the
    strain between them has a Frobenius norm of at most ``length_tolerance``. The bounds on single
    vectors and pairs follow from that, so no triple is missed.
    """
    n_atoms = len(species_a)
    if len(species_b) != n_atoms:
        return False
    n_kinds = max(species_a.max(), species_b.max()) + 1
    surplus = np.zeros(n_kinds, dtype=np.int64)
    for i in range(n_atoms):
        surplus[species_a[i]] += 1
        surplus[species_b[i]] -= 1
    for kind in range(n_kinds):
        if surplus[kind] != 0:
            return False
    stretch = 1.0 + 2.0 * length_tolerance
    squeeze = 1.0 - 2.0 * length_tolerance
    ratio = abs(np.linalg.det(cell_b) / np.linalg.det(cell_a))
    if ratio > stretch**1.5 or ratio < squeeze**1.5:
        return False

    gram_a = np.dot(cell_a, cell_a.T.copy())
    inverse_a = np.linalg.inv(cell_a)
    dual_b = np.linalg.inv(cell_b)
    reach = np.sqrt(stretch * max(gram_a[0, 0], gram_a[1, 1], gram_a[2, 2]))
    spans = np.zeros(3, dtype=np.int64)
    for axis in range(3):
        column = dual_b[:, axis].copy()
        spans[axis] = int(np.floor(reach * np.sqrt(np.dot(column, column)) + 1e-9))
    capacity = (2 * spans[0] + 1) * (2 * spans[1] + 1) * (2 * spans[2] + 1)
    indices = np.zeros((3, capacity, 3))
    vectors = np.zeros((3, capacity, 3))
    found = np.zeros(3, dtype=np.int64)
    for c0 in range(-spans[0], spans[0] + 1):
        for c1 in range(-spans[1], spans[1] + 1):
            for c2 in range(-spans[2], spans[2] + 1):
                vector = c0 * cell_b[0] + c1 * cell_b[1] + c2 * cell_b[2]
                length = np.dot(vector, vector)
                for row in range(3):
                    wanted = gram_a[row, row]
                    if squeeze * wanted <= length <= stretch * wanted:
                        indices[row, found[row], 0] = c0
                        indices[row, found[row], 1] = c1
                        indices[row, found[row], 2] = c2
                        vectors[row, found[row]] = vector
                        found[row] += 1

    slack = np.zeros((3, 3))
    for i in range(3):
        for j in range(3):
            slack[i, j] = 2.0 * length_tolerance * np.sqrt(gram_a[i, i] * gram_a[j, j])
    first = _rarest_atom(species_a)
    used = np.zeros(n_atoms, dtype=np.int32)
    turn = np.zeros((3, 3))
    image = np.zeros((3, 3))
    for i0 in range(found[0]):
        for i1 in range(found[1]):
            dot01 = np.dot(vectors[0, i0], vectors[1, i1])
            if abs(dot01 - gram_a[0, 1]) > slack[0, 1]:
                continue
            for i2 in range(found[2]):
                dot02 = np.dot(vectors[0, i0], vectors[2, i2])
                dot12 = np.dot(vectors[1, i1], vectors[2, i2])
                if abs(dot02 - gram_a[0, 2]) > slack[0, 2]:
                    continue
                if abs(dot12 - gram_a[1, 2]) > slack[1, 2]:
                    continue
                turn[0] = indices[0, i0]
                turn[1] = indices[1, i1]
                turn[2] = indices[2, i2]
                if abs(abs(np.linalg.det(turn)) - 1.0) > 0.5:
                    continue
                image[0] = vectors[0, i0]
                image[1] = vectors[1, i1]
                image[2] = vectors[2, i2]
                gradient = np.dot(inverse_a, image)
                strain = 0.0
                for i in range(3):
                    for j in range(3):
                        entry = -1.0 if i == j else 0.0
                        for k in range(3):
                            entry += gradient[i, k] * gradient[j, k]
                        strain += 0.25 * entry * entry
                if strain > length_tolerance * length_tolerance:
                    continue
                turned = np.dot(fractions_b, np.linalg.inv(turn))
                for j in range(n_atoms):
                    if species_b[j] != species_a[first]:
                        continue
                    shift = turned[j] - fractions_a[first]
                    if _atoms_coincide(
                        cell_a,
                        fractions_a,
                        species_a,
                        turned,
                        species_b,
                        shift,
                        position_tolerance,
                        used,
                    ):
                        return True
    return False


@njit(cache=True, nogil=True)
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


@njit(cache=True, nogil=True)
def _pair_distances(
    cell: FloatArray,
    fractions: FloatArray,
    species: IntArray,
    reach: float,
    ends: IndexArray,
    distances: KeyArray,
) -> None:
    """Distances up to ``reach`` in Å, in units of a key, each pair of species in its own place.

    ``ends`` holds where the distances of each pair begin and is moved on by their number;
    ``distances`` stays as it is where it is empty.
    """
    dual = np.linalg.inv(cell)
    spans = np.zeros(3, dtype=np.int64)
    for axis in range(3):
        norm = np.sqrt(dual[0, axis] ** 2 + dual[1, axis] ** 2 + dual[2, axis] ** 2)
        spans[axis] = int(np.floor(reach * norm + 0.5))
    for i in range(len(species)):
        for j in range(i, len(species)):
            low, high = min(species[i], species[j]), max(species[i], species[j])
            pair = high * (high + 1) // 2 + low
            d0 = fractions[j, 0] - fractions[i, 0]
            d1 = fractions[j, 1] - fractions[i, 1]
            d2 = fractions[j, 2] - fractions[i, 2]
            d0 -= np.rint(d0)
            d1 -= np.rint(d1)
            d2 -= np.rint(d2)
            # An atom and its own images: one of each two that lie opposite.
            for c0 in range(0 if i == j else -spans[0], spans[0] + 1):
                for c1 in range(0 if i == j and c0 == 0 else -spans[1], spans[1] + 1):
                    lowest = 1 if i == j and c0 == 0 and c1 == 0 else -spans[2]
                    for c2 in range(lowest, spans[2] + 1):
                        square = 0.0
                        for axis in range(3):
                            step = (d0 + c0) * cell[0, axis]
                            step += (d1 + c1) * cell[1, axis]
                            step += (d2 + c2) * cell[2, axis]
                            square += step * step
                        if square <= reach * reach:
                            if len(distances) > 0:
                                length = np.rint(np.sqrt(square) / KEY_UNIT)
                                distances[ends[pair]] = min(length, LONGEST_KEY)
                            ends[pair] += 1


@njit(cache=True, nogil=True)
def distance_keys(
    cells: FloatArray,
    fractions: FloatArray,
    species: IntArray,
    offsets: IndexArray,
    sizes: IndexArray,
    n_species: int,
) -> tuple[FloatArray, KeyArray, IndexArray]:
    """Short distances of primitive crystals, from which most pairs are seen to differ.

    Returns
    -------
    Reaches in Å (n,); the distances up to the reach, sorted, in units of ``KEY_UNIT``; and where
    those of each structure and pair of species begin, shape (n, n_pairs + 1).

    Notes
    -----
    Where atoms of two crystals correspond, the k-th shortest distance differs by no more than the
    distances of corresponding pairs do at most; so crystals that match have keys within bounds.
    """
    n_pairs = n_species * (n_species + 1) // 2
    starts = np.zeros((len(cells), n_pairs + 1), dtype=np.int64)
    reaches = np.zeros(len(cells))
    nothing = np.zeros(0, dtype=np.uint16)
    counts = np.zeros(n_pairs, dtype=np.int64)
    total = 0
    for i in range(len(cells)):
        atoms = slice(offsets[i], offsets[i] + sizes[i])
        volume = abs(np.linalg.det(cells[i])) / sizes[i]
        reaches[i] = KEY_REACH * volume ** (1.0 / 3.0)
        counts[:] = 0
        _pair_distances(cells[i], fractions[atoms], species[atoms], reaches[i], counts, nothing)
        for pair in range(n_pairs):
            starts[i, pair] = total
            total += counts[pair]
        starts[i, n_pairs] = total
    keys = np.zeros(max(total, 1), dtype=np.uint16)
    for i in range(len(cells)):
        atoms = slice(offsets[i], offsets[i] + sizes[i])
        counts[:] = starts[i, :n_pairs]
        _pair_distances(cells[i], fractions[atoms], species[atoms], reaches[i], counts, keys)
        for pair in range(n_pairs):
            keys[starts[i, pair] : starts[i, pair + 1]].sort()
    return reaches, keys, starts


@njit(cache=True, nogil=True)
def _keys_agree(
    a: int,
    b: int,
    reaches: FloatArray,
    keys: KeyArray,
    starts: IndexArray,
    length_tolerance: float,
    position_tolerance: float,
) -> bool:
    """Whether two keys are as near each other as those of one crystal must be.

    Two atoms each move by ``position_tolerance`` at most, and all lengths by the strain. What lies
    beyond the reach counts as lying there; the reach itself follows the strain.
    """
    stretch = np.sqrt(1.0 + 2.0 * length_tolerance)
    squeeze = np.sqrt(1.0 - 2.0 * length_tolerance)
    moved = 2.0 * position_tolerance / KEY_UNIT + 1.0
    reach_a = min(reaches[a] / KEY_UNIT, LONGEST_KEY)
    reach_b = min(reaches[b] / KEY_UNIT, LONGEST_KEY)
    for pair in range(starts.shape[1] - 1):
        first_a, first_b = starts[a, pair], starts[b, pair]
        n_a = starts[a, pair + 1] - first_a
        n_b = starts[b, pair + 1] - first_b
        for k in range(max(n_a, n_b)):
            distance_a = float(keys[first_a + k]) if k < n_a else reach_a
            distance_b = float(keys[first_b + k]) if k < n_b else reach_b
            if distance_b > (distance_a + moved) * stretch + 1.0:
                return False
            if distance_b < (distance_a - moved) * squeeze - 1.0:
                return False
    return True


@njit(cache=True, nogil=True)
def group_crystals(
    order: IndexArray,
    composition: IndexArray,
    energies: FloatArray,
    volumes: FloatArray,
    fingerprints: FloatArray,
    cells: FloatArray,
    fractions: FloatArray,
    species: IntArray,
    offsets: IndexArray,
    sizes: IndexArray,
    reaches: FloatArray,
    keys: KeyArray,
    starts: IndexArray,
    energy_tolerance: float,
    volume_tolerance: float,
    fingerprint_tolerance: float,
    length_tolerance: float,
    position_tolerance: float,
) -> IndexArray:
    """Index of each structure's representative, shape (n,).

    ``order`` sorts by composition, then by energy; so the representatives that a structure may
    join are the last few of its composition, and none is missed at the edge of a bin. Where
    energies do not tell structures apart, the lattice's shortest vectors and the keys of
    `distance_keys` do: both are bounds that hold for every two crystals that match.
    """
    labels = np.full(len(order), -1, dtype=np.int64)
    representatives = np.zeros(len(order), dtype=np.int64)
    stretch = 1.0 + 2.0 * length_tolerance + BOUND_SLACK
    squeeze = 1.0 - 2.0 * length_tolerance - BOUND_SLACK
    # Squared lengths of reduced bases: no strained copy has longer or shorter shortest vectors.
    squares = np.zeros((len(order), 3))
    norms = np.zeros(len(order))
    for i in range(len(order)):
        for row in range(3):
            squares[i, row] = np.dot(cells[i, row], cells[i, row])
        for column in range(fingerprints.shape[1]):
            norms[i] += fingerprints[i, column] ** 2
    oldest, newest = 0, 0
    for place in range(len(order)):
        i = order[place]
        if place == 0 or composition[i] != composition[order[place - 1]]:
            oldest, newest = 0, 0
        while oldest < newest and (
            energies[representatives[oldest]] < energies[i] - energy_tolerance
        ):
            oldest += 1
        for k in range(oldest, newest):
            r = representatives[k]
            if abs(volumes[i] - volumes[r]) > volume_tolerance * volumes[r]:
                continue
            near = True
            for row in range(3):
                ratio = squares[i, row] / squares[r, row]
                near = near and squeeze <= ratio <= stretch
            if not near:
                continue
            if not _keys_agree(r, i, reaches, keys, starts, length_tolerance, position_tolerance):
                continue
            apart = 0.0
            for column in range(fingerprints.shape[1]):
                difference = fingerprints[i, column] - fingerprints[r, column]
                apart += difference * difference
            if apart > fingerprint_tolerance**2 * max(norms[i], norms[r]):
                continue
            if crystals_match(
                cells[r],
                fractions[offsets[r] : offsets[r] + sizes[r]],
                species[offsets[r] : offsets[r] + sizes[r]],
                cells[i],
                fractions[offsets[i] : offsets[i] + sizes[i]],
                species[offsets[i] : offsets[i] + sizes[i]],
                length_tolerance,
                position_tolerance,
            ):
                labels[i] = r
                break
        if labels[i] < 0:
            labels[i] = i
            representatives[newest] = i
            newest += 1
    return labels
