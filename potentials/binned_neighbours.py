"""Compiled neighbour search in large cells, over bins about as wide as the cutoff."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hullscreen.potentials.compiling import kernel
from hullscreen.potentials.neighbours import (
    LEAST_TRANSLATION,
    Lists,
    inverse_cell,
    pad,
    reduce_cell,
    room_for,
    shortest_vector,
)
from hullscreen.potentials.structures import FloatArray, IndexArray, IntArray

# Bins of a sparse cell hold a few atoms each, lest empty ones are all the work.
ATOMS_PER_BIN = 2


class Bins(NamedTuple):
    """The atoms of one cell, sorted by bin and, within a bin, by species.

    Attributes
    ----------
    cell
        A reduced cell of the same lattice, shape (3, 3).
    members
        Atoms in order, shape (n_atoms,).
    x, y, z
        Their positions within the cell in Å, each shape (n_atoms,).
    starts
        Where the atoms of each bin and species begin, shape (n_bins * n_species + 1,).
    places
        The bin of each atom along each axis, shape (n_atoms, 3).
    positions
        Positions of all atoms within the cell, in their own order, shape (n_atoms, 3).
    counts, reach
        Number of bins along each axis, and how many bins off a neighbour may be; shape (3,).
    """

    cell: FloatArray
    members: IntArray
    x: FloatArray
    y: FloatArray
    z: FloatArray
    starts: IndexArray
    places: IndexArray
    positions: FloatArray
    counts: IndexArray
    reach: IndexArray


@kernel
def sort_into_bins(
    cell: FloatArray, positions: FloatArray, species: IntArray, n_species: int, cutoff: float
) -> Bins:
    """Bins of a cell for neighbours within ``cutoff``."""
    n = len(species)
    reduced = reduce_cell(cell)
    inverse = inverse_cell(reduced)
    counts, reach = np.empty(3, np.int64), np.empty(3, np.int64)
    most = max(1, int((n / ATOMS_PER_BIN) ** (1.0 / 3.0)) * 4)
    for a in range(3):
        height = 1.0 / np.sqrt(inverse[0, a] ** 2 + inverse[1, a] ** 2 + inverse[2, a] ** 2)
        counts[a] = min(max(1, int(height / cutoff)), most)
        reach[a] = int(cutoff * counts[a] / height * (1.0 + 1e-12)) + 1
    places, wrapped = np.empty((n, 3), np.int64), np.empty((n, 3))
    keys = np.empty(n, np.int64)
    starts = np.zeros(counts[0] * counts[1] * counts[2] * n_species + 1, np.int64)
    for i in range(n):
        wrapped[i] = 0.0
        for a in range(3):
            along = 0.0
            for axis in range(3):
                along += positions[i, axis] * inverse[axis, a]
            along -= np.floor(along)
            places[i, a] = min(int(along * counts[a]), counts[a] - 1)
            for axis in range(3):
                wrapped[i, axis] += along * reduced[a, axis]
        box = (places[i, 0] * counts[1] + places[i, 1]) * counts[2] + places[i, 2]
        keys[i] = box * n_species + species[i]
        starts[keys[i] + 1] += 1
    starts = np.cumsum(starts)
    filled = starts.copy()
    members = np.empty(n, np.int32)
    x, y, z = np.empty(n), np.empty(n), np.empty(n)
    for i in range(n):
        place = filled[keys[i]]
        filled[keys[i]] += 1
        members[place] = i
        x[place], y[place], z[place] = wrapped[i, 0], wrapped[i, 1], wrapped[i, 2]
    return Bins(reduced, members, x, y, z, starts, places, wrapped, counts, reach)


@kernel
def search_bins(
    bins: Bins, cutoff: float, first_atom: int, n_sites: int, lists: Lists
) -> tuple[float, int]:
    """Fill the lists with all neighbours of ``n_sites`` atoms from ``first_atom`` on.

    Returns
    -------
    As `neighbours.search_pairs`.
    """
    n_species = lists.ends.shape[1]
    x, y, z, atoms = lists.x, lists.y, lists.z, lists.atoms
    cell, counts, reach = bins.cell, bins.counts, bins.reach
    limit = cutoff * cutoff
    shortest = np.inf
    for site in range(n_sites):
        i = first_atom + site
        begin = lists.starts[site]
        end = begin
        own_x, own_y, own_z = bins.positions[i, 0], bins.positions[i, 1], bins.positions[i, 2]
        if shortest_vector(cell) < LEAST_TRANSLATION:
            lists.ends[site, :] = 0
            lists.starts[site + 1] = begin + room_for(0)
            shortest = 0.0
            continue
        for kind in range(n_species):
            for o0 in range(bins.places[i, 0] - reach[0], bins.places[i, 0] + reach[0] + 1):
                s0 = o0 // counts[0]
                b0 = (o0 - s0 * counts[0]) * counts[1]
                for o1 in range(bins.places[i, 1] - reach[1], bins.places[i, 1] + reach[1] + 1):
                    s1 = o1 // counts[1]
                    b1 = (b0 + o1 - s1 * counts[1]) * counts[2]
                    for o2 in range(bins.places[i, 2] - reach[2], bins.places[i, 2] + reach[2] + 1):
                        s2 = o2 // counts[2]
                        box = (b1 + o2 - s2 * counts[2]) * n_species + kind
                        first, last = bins.starts[box], bins.starts[box + 1]
                        if room_for(end + last - first) > len(x):
                            return shortest, 2 * len(x)
                        tx = s0 * cell[0, 0] + s1 * cell[1, 0] + s2 * cell[2, 0] - own_x
                        ty = s0 * cell[0, 1] + s1 * cell[1, 1] + s2 * cell[2, 1] - own_y
                        tz = s0 * cell[0, 2] + s1 * cell[1, 2] + s2 * cell[2, 2] - own_z
                        itself = s0 == 0 and s1 == 0 and s2 == 0
                        for place in range(first, last):
                            px = bins.x[place] + tx
                            py = bins.y[place] + ty
                            pz = bins.z[place] + tz
                            square = px * px + py * py + pz * pz
                            if itself and bins.members[place] == i:
                                square = limit
                            x[end], y[end], z[end] = px, py, pz
                            atoms[end] = bins.members[place]
                            end += square < limit
                            shortest = min(shortest, square)
            lists.ends[site, kind] = end - begin
        lists.starts[site + 1] = begin + room_for(end - begin)
        pad(lists, site, cutoff)
    return np.sqrt(shortest) if shortest < limit else np.inf, 0
