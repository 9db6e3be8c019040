"""Compiled search for an isometry that maps one primitive crystal onto another.

Crystals are those of `primitive_crystals`.
"""

from __future__ import annotations

import numpy as np

from hullscreen.potentials.compiling import exact_kernel
from hullscreen.potentials.structures import FloatArray, IntArray
from hullscreen.workflows.primitive_crystals import atoms_coincide, rarest_atom


@exact_kernel
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
    first = rarest_atom(species_a)
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
                    if atoms_coincide(
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
