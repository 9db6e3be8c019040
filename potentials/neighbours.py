"""Compiled neighbour search: every pair within the cutoff, in lists made for vector arithmetic.

A list holds one atom's neighbours sorted by species and padded to whole lanes with a neighbour at
the cutoff, where a potential vanishes. Small cells are searched pair by pair over the translations
of a reduced cell; large ones over bins.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hullscreen.potentials.compiling import kernel
from hullscreen.potentials.lanes import WIDTH
from hullscreen.potentials.structures import FloatArray, IntArray

# Far more rounds than a cell reduction needs; it ends a cycle that rounding could make.
MAX_REDUCTIONS = 64


class Lists(NamedTuple):
    """Neighbours of ``n_sites`` atoms; those of site s begin at ``s * width`` in the flat arrays.

    Attributes
    ----------
    x, y, z
        From the atom to the neighbour in Å, shape (n_sites * width,).
    atoms
        Index of the neighbour in its cell, shape (n_sites * width,).
    ends
        ``ends[s, z]`` is how many neighbours of site s have a species up to z, shape (n_sites,
        n_species).
    width
        Room for each site's neighbours, a multiple of the lanes' width.
    """

    x: FloatArray
    y: FloatArray
    z: FloatArray
    atoms: IntArray
    ends: IntArray
    width: int


@kernel
def empty_lists(n_sites: int, n_species: int, width: int) -> Lists:
    """Lists with room for ``width`` neighbours of each site."""
    n = n_sites * width
    return Lists(
        np.empty(n),
        np.empty(n),
        np.empty(n),
        np.empty(n, np.int32),
        np.empty((n_sites, n_species), np.int32),
        width,
    )


@kernel
def reduce_cell(cell: FloatArray) -> FloatArray:
    """The same lattice's vectors, shortened by one another until none can be."""
    reduced = cell.copy()
    for _ in range(MAX_REDUCTIONS):
        changed = False
        for a in range(3):
            for b in range(3):
                if a == b:
                    continue
                dot = square = 0.0
                for axis in range(3):
                    dot += reduced[a, axis] * reduced[b, axis]
                    square += reduced[b, axis] ** 2
                shift = np.rint(dot / square)
                # Half a vector more or less is no gain, and rounding would repeat it for ever.
                if shift != 0.0 and abs(dot / square) > 0.5 + 1e-9:
                    for axis in range(3):
                        reduced[a, axis] -= shift * reduced[b, axis]
                    changed = True
        if not changed:
            break
    return reduced


@kernel
def inverse_cell(cell: FloatArray) -> FloatArray:
    """Inverse of a 3 × 3 matrix, without the cost of a library call."""
    inverse = np.empty((3, 3))
    for a in range(3):
        b, c = (a + 1) % 3, (a + 2) % 3
        for axis in range(3):
            u, v = (axis + 1) % 3, (axis + 2) % 3
            inverse[axis, a] = cell[b, u] * cell[c, v] - cell[b, v] * cell[c, u]
    volume = 0.0
    for axis in range(3):
        volume += cell[0, axis] * inverse[axis, 0]
    inverse /= volume
    return inverse


@kernel
def _translations(
    cell: FloatArray, inverse: FloatArray, reach: float
) -> tuple[FloatArray, int]:
    """Lattice translations shorter than ``reach``, the null one first, and their number."""
    bound = np.empty(3, np.int64)
    n = 1
    for a in range(3):
        height = 1.0 / np.sqrt(inverse[0, a] ** 2 + inverse[1, a] ** 2 + inverse[2, a] ** 2)
        bound[a] = int(reach / height)
        n *= 2 * bound[a] + 1
    found = np.empty((3, n))
    found[:, 0] = 0.0
    count = 1
    for n0 in range(bound[0] + 1):
        for n1 in range(-bound[1] if n0 else 0, bound[1] + 1):
            for n2 in range(-bound[2] if n0 or n1 else 1, bound[2] + 1):
                x = n0 * cell[0, 0] + n1 * cell[1, 0] + n2 * cell[2, 0]
                y = n0 * cell[0, 1] + n1 * cell[1, 1] + n2 * cell[2, 1]
                z = n0 * cell[0, 2] + n1 * cell[1, 2] + n2 * cell[2, 2]
                if x * x + y * y + z * z < reach * reach:
                    found[0, count], found[1, count], found[2, count] = x, y, z
                    found[0, count + 1], found[1, count + 1], found[2, count + 1] = -x, -y, -z
                    count += 2
    return found, count


@kernel
def _half_diameter(cell: FloatArray) -> float:
    """Half the longest diagonal of a cell: no wrapped distance between atoms is longer."""
    longest = 0.0
    for sign in range(4):
        length = 0.0
        for axis in range(3):
            along = cell[0, axis]
            along += cell[1, axis] if sign & 1 else -cell[1, axis]
            along += cell[2, axis] if sign & 2 else -cell[2, axis]
            length += along * along
        longest = max(longest, length)
    return 0.5 * np.sqrt(longest)


@kernel
def pad(lists: Lists, first: int, n_sites: int, cutoff: float) -> None:
    """Fill every list to whole lanes with neighbours at the cutoff."""
    for s in range(first, first + n_sites):
        n = lists.ends[s, -1]
        begin = s * lists.width
        for place in range(begin + n, begin + (n + WIDTH - 1) // WIDTH * WIDTH):
            lists.x[place], lists.y[place], lists.z[place] = cutoff, 0.0, 0.0
            lists.atoms[place] = 0


@kernel
def search_pairs(
    cell: FloatArray,
    positions: FloatArray,
    species: IntArray,
    cutoff: float,
    lists: Lists,
    first: int,
) -> float:
    """Fill lists ``first`` and following with all neighbours of a small cell's atoms.

    Returns
    -------
    The shortest distance in Å, infinite beyond the cutoff; minus the width to try next if the lists
    are too narrow.
    """
    n = len(species)
    n_species = lists.ends.shape[1]
    reduced = reduce_cell(cell)
    inverse = inverse_cell(reduced)
    reach = cutoff if n == 1 else cutoff + _half_diameter(reduced)
    translations, n_translations = _translations(reduced, inverse, reach)
    tx, ty, tz = translations[0], translations[1], translations[2]
    fractional = np.empty((n, 3))
    for i in range(n):
        for a in range(3):
            along = 0.0
            for axis in range(3):
                along += positions[i, axis] * inverse[axis, a]
            fractional[i, a] = along
    order = np.empty(n, np.int32)
    place = 0
    for kind in range(n_species):
        for i in range(n):
            if species[i] == kind:
                order[place] = i
                place += 1
    x, y, z, atoms, width = lists.x, lists.y, lists.z, lists.atoms, lists.width
    counts = np.zeros(n, np.int64)
    ends = lists.ends[first : first + n]
    ends[:] = 0
    limit = cutoff * cutoff
    shortest = np.inf
    for place in range(n):
        i = order[place]
        for other in range(place, n):
            j = order[other]
            d0 = fractional[j, 0] - fractional[i, 0]
            d1 = fractional[j, 1] - fractional[i, 1]
            d2 = fractional[j, 2] - fractional[i, 2]
            d0, d1, d2 = d0 - np.rint(d0), d1 - np.rint(d1), d2 - np.rint(d2)
            dx = d0 * reduced[0, 0] + d1 * reduced[1, 0] + d2 * reduced[2, 0]
            dy = d0 * reduced[0, 1] + d1 * reduced[1, 1] + d2 * reduced[2, 1]
            dz = d0 * reduced[0, 2] + d1 * reduced[1, 2] + d2 * reduced[2, 2]
            count = counts[i]
            if max(count, counts[j]) + n_translations + WIDTH > width:
                return -float(max(2 * width, (n_translations // WIDTH + 2) * WIDTH))
            begin = (first + i) * width
            start = begin + count
            end = start
            # Written always, kept only if within the cutoff: no branch to mispredict.
            for t in range(1 if i == j else 0, n_translations):
                px, py, pz = dx + tx[t], dy + ty[t], dz + tz[t]
                square = px * px + py * py + pz * pz
                x[end], y[end], z[end] = px, py, pz
                end += square < limit
                shortest = min(shortest, square)
            for entry in range(start, end):
                atoms[entry] = j
            counts[i] += end - start
            ends[i, species[j]] += end - start
            if i != j:
                mirrored = (first + j) * width + counts[j]
                for entry in range(end - start):
                    x[mirrored + entry] = -x[start + entry]
                    y[mirrored + entry] = -y[start + entry]
                    z[mirrored + entry] = -z[start + entry]
                    atoms[mirrored + entry] = i
                counts[j] += end - start
                ends[j, species[i]] += end - start
    for i in range(n):
        for kind in range(1, n_species):
            ends[i, kind] += ends[i, kind - 1]
    pad(lists, first, n, cutoff)
    return np.sqrt(shortest) if shortest < limit else np.inf
