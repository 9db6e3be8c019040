"""Compiled neighbour search: every pair within the cutoff, in lists made for vector arithmetic.

A list holds one atom's neighbours sorted by species and padded to whole lanes with a neighbour at
the cutoff, where a potential vanishes. Small cells are searched pair by pair over the translations
of a reduced cell; large ones over bins.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hullscreen.potentials.compiling import inlined, kernel
from hullscreen.potentials.lanes import (
    WIDTH,
    aligned,
    below,
    least_of,
    lesser,
    load,
    n_bits,
    pack,
    spread,
    store,
    store_index,
)
from hullscreen.potentials.structures import FloatArray, IndexArray, IntArray

# Far more rounds than a cell reduction needs; it ends a cycle that rounding could make.
MAX_REDUCTIONS = 64
# Translations are sorted by length into so many shells.
N_SHELLS = 32
# In Å: closer lattice points are one, since pairs within a cutoff would be beyond counting.
LEAST_TRANSLATION = 0.1
# In Å, farther than any cutoff; its square is a number.
OUT_OF_REACH = 1e9


class Lists(NamedTuple):
    """Neighbours of some atoms; those of site s begin at ``starts[s]`` in the flat arrays.

    Attributes
    ----------
    x, y, z
        From the atom to the neighbour in Å, shape (room,).
    atoms
        Index of the neighbour in its cell, shape (room,).
    starts
        A multiple of the lanes' width for each site, shape (n_sites + 1,).
    ends
        ``ends[s, z]`` is how many neighbours of site s have a species up to z, shape (n_sites,
        n_species).
    """

    x: FloatArray
    y: FloatArray
    z: FloatArray
    atoms: IntArray
    starts: IndexArray
    ends: IntArray


@kernel
def empty_lists(n_sites: int, n_species: int, room: int) -> Lists:
    """Lists for some sites with room for so many neighbours in all."""
    return Lists(
        aligned(room),
        aligned(room),
        aligned(room),
        np.empty(room + WIDTH, np.int32),
        np.zeros(n_sites + 1, np.int64),
        np.empty((n_sites, n_species), np.int32),
    )


@kernel
def whole_lanes(n: int) -> int:
    """The next multiple of the lanes' width."""
    return (n + WIDTH - 1) // WIDTH * WIDTH


@kernel
def reduce_cell(cell: FloatArray) -> FloatArray:
    """The same lattice's vectors, shortened by one another until none can be.

    Three vectors that nearly cancel are of no length that pairs of them would show; however flat
    their cell is, it would take any number of translations to fill a sphere with it.
    """
    reduced = cell.copy()
    for _ in range(MAX_REDUCTIONS):
        _shorten_by_pairs(reduced)
        if not _shorten_by_triple(reduced):
            break
    return reduced


@kernel
def _shorten_by_pairs(reduced: FloatArray) -> None:
    """Subtract vectors from one another while that shortens one."""
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


@kernel
def _shorten_by_triple(reduced: FloatArray) -> bool:
    """Replace the longest vector by its sum with ± the others if that is shorter; whether it is."""
    longest, most = 0, 0.0
    for a in range(3):
        square = reduced[a, 0] ** 2 + reduced[a, 1] ** 2 + reduced[a, 2] ** 2
        if square > most:
            longest, most = a, square
    b, c = (longest + 1) % 3, (longest + 2) % 3
    best, least = -1, most * (1.0 - 1e-9)
    for signs in range(4):
        square = 0.0
        for axis in range(3):
            step = (1 - 2 * (signs & 1)) * reduced[b, axis] + (1 - (signs & 2)) * reduced[c, axis]
            square += (reduced[longest, axis] + step) ** 2
        if square < least:
            best, least = signs, square
    if best < 0:
        return False
    for axis in range(3):
        step = (1 - 2 * (best & 1)) * reduced[b, axis] + (1 - (best & 2)) * reduced[c, axis]
        reduced[longest, axis] += step
    return True


@kernel
def shortest_vector(cell: FloatArray) -> float:
    """Length of the shortest of three vectors."""
    shortest = np.inf
    for a in range(3):
        shortest = min(shortest, cell[a, 0] ** 2 + cell[a, 1] ** 2 + cell[a, 2] ** 2)
    return float(np.sqrt(shortest))


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
) -> tuple[FloatArray, IndexArray]:
    """Lattice translations shorter than ``reach`` by length, the null one first.

    Returns
    -------
    Translations, shape (3, room), and how many of them have a length below (n + 1) / N_SHELLS of
    the reach, shape (N_SHELLS,). Lanes that begin among them end at translations out of reach.
    """
    bound = np.empty(3, np.int64)
    n = 1
    for a in range(3):
        height = 1.0 / np.sqrt(inverse[0, a] ** 2 + inverse[1, a] ** 2 + inverse[2, a] ** 2)
        bound[a] = int(reach / height)
        n *= 2 * bound[a] + 1
    found = np.empty((4, n // 2))
    counts = np.zeros(N_SHELLS, np.int64)
    count = 0
    for n0 in range(bound[0] + 1):
        for n1 in range(-bound[1] if n0 else 0, bound[1] + 1):
            for n2 in range(-bound[2] if n0 or n1 else 1, bound[2] + 1):
                x = n0 * cell[0, 0] + n1 * cell[1, 0] + n2 * cell[2, 0]
                y = n0 * cell[0, 1] + n1 * cell[1, 1] + n2 * cell[2, 1]
                z = n0 * cell[0, 2] + n1 * cell[1, 2] + n2 * cell[2, 2]
                square = x * x + y * y + z * z
                if square < reach * reach:
                    # A length just below the reach may come out as the reach itself.
                    shell = min(int(np.sqrt(square) / reach * N_SHELLS), N_SHELLS - 1)
                    found[0, count], found[1, count], found[2, count] = x, y, z
                    found[3, count] = shell
                    counts[shell] += 2
                    count += 1
    # The null translation precedes all.
    counts[0] += 1
    ends = np.cumsum(counts)
    ordered = np.full((3, ends[-1] + WIDTH), OUT_OF_REACH)
    ordered[:, 0] = 0.0
    filled = ends - counts
    filled[0] = 1
    for t in range(count):
        shell = int(found[3, t])
        place = filled[shell]
        filled[shell] += 2
        for axis in range(3):
            ordered[axis, place] = found[axis, t]
            ordered[axis, place + 1] = -found[axis, t]
    return ordered, ends


@kernel
def half_diameter(cell: FloatArray) -> float:
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
    return float(0.5 * np.sqrt(longest))


@inlined
def room_for(n_neighbours: int) -> int:
    """Room that a list takes: whole lanes, and as much as copying by lanes may write beyond."""
    return whole_lanes(n_neighbours) + WIDTH


@inlined
def pad(lists: Lists, site: int, cutoff: float) -> None:
    """Fill a site's list to whole lanes with neighbours at the cutoff."""
    end = lists.starts[site] + lists.ends[site, -1]
    store(lists.x, end, spread(cutoff))
    store(lists.y, end, spread(0.0))
    store(lists.z, end, spread(0.0))
    store_index(lists.atoms, end, 0)


@kernel
def _by_species(species: IntArray, n_species: int) -> IntArray:
    order = np.empty(len(species), np.int32)
    place = 0
    for kind in range(n_species):
        for i in range(len(species)):
            if species[i] == kind:
                order[place] = i
                place += 1
    return order


class Pairs(NamedTuple):
    """Scratch for the pairs of one cell: run n joins two atoms, and ends at ``ends[n]``."""

    x: FloatArray
    y: FloatArray
    z: FloatArray
    first: IntArray
    second: IntArray
    ends: IndexArray


@kernel
def empty_pairs(n_atoms: int, room: int) -> Pairs:
    """Scratch for cells of at most ``n_atoms`` atoms and so many pairs."""
    n_runs = n_atoms * (n_atoms + 1) // 2
    return Pairs(
        np.empty(room),
        np.empty(room),
        np.empty(room),
        np.empty(n_runs, np.int32),
        np.empty(n_runs, np.int32),
        np.empty(n_runs, np.int64),
    )


@kernel
def _find_pairs(
    cell: FloatArray, positions: FloatArray, order: IntArray, cutoff: float, pairs: Pairs
) -> tuple[float, int]:
    """Every pair within the cutoff once, an atom's with its own images twice.

    Pairs of two atoms form a run, in the lexicographic order that ``order`` gives the atoms.
    Returns the shortest distance, and the room that pairs need: if there is less, they end early. A
    lattice whose points almost coincide has the distance zero, and no pairs.
    """
    n = len(order)
    reduced = reduce_cell(cell)
    if shortest_vector(reduced) < LEAST_TRANSLATION:
        pairs.ends[: n * (n + 1) // 2] = 0
        for run in range(n * (n + 1) // 2):
            pairs.first[run], pairs.second[run] = 0, 0
        return 0.0, 0
    inverse = inverse_cell(reduced)
    reach = cutoff if n == 1 else cutoff + half_diameter(reduced)
    translations, n_within = _translations(reduced, inverse, reach)
    tx, ty, tz = translations[0], translations[1], translations[2]
    fractional = np.zeros((n, 3))
    for i in range(n):
        for a in range(3):
            for axis in range(3):
                fractional[i, a] += positions[i, axis] * inverse[axis, a]
    x, y, z = pairs.x, pairs.y, pairs.z
    limit = cutoff * cutoff
    shortest = spread(OUT_OF_REACH)
    run = end = 0
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
            longest = cutoff + np.sqrt(dx * dx + dy * dy + dz * dz)
            shell = min(int(longest / reach * N_SHELLS), N_SHELLS - 1)
            n_translations = n_within[shell]
            if end + n_translations + WIDTH > len(x):
                return 0.0, 2 * (end + n_translations + WIDTH)
            for t in range(1 if i == j else 0, n_translations, WIDTH):
                px, py, pz = dx + load(tx, t), dy + load(ty, t), dz + load(tz, t)
                square = px * px + py * py + pz * pz
                bits = below(square, limit)
                store(x, end, pack(px, bits))
                store(y, end, pack(py, bits))
                store(z, end, pack(pz, bits))
                end += n_bits(bits)
                shortest = lesser(shortest, square)
            pairs.first[run], pairs.second[run], pairs.ends[run] = i, j, end
            run += 1
    least = least_of(shortest)
    return np.sqrt(least) if least < limit else np.inf, end + WIDTH


@inlined
def _copy_run(
    pairs: Pairs, begin: int, end: int, sign: float, lists: Lists, at: int, atom: int
) -> None:
    """Copy pairs to a list; what is written beyond them, later copies or the padding replace."""
    for offset in range(0, end - begin, WIDTH):
        store(lists.x, at + offset, sign * load(pairs.x, begin + offset))
        store(lists.y, at + offset, sign * load(pairs.y, begin + offset))
        store(lists.z, at + offset, sign * load(pairs.z, begin + offset))
        store_index(lists.atoms, at + offset, atom)


@kernel
def search_pairs(
    cell: FloatArray,
    positions: FloatArray,
    species: IntArray,
    cutoff: float,
    pairs: Pairs,
    lists: Lists,
    site: int,
) -> tuple[float, int, int]:
    """Fill the lists from ``site`` on with all neighbours of a small cell's atoms.

    Returns
    -------
    The shortest distance in Å, infinite beyond the cutoff, and the room that pairs and lists must
    have: if one has less, the lists are not filled.
    """
    n = len(species)
    n_species = lists.ends.shape[1]
    n_runs = n * (n + 1) // 2
    order = _by_species(species, n_species)
    shortest, n_pairs = _find_pairs(cell, positions, order, cutoff, pairs)
    if n_pairs > len(pairs.x):
        return shortest, n_pairs, 0
    ends, starts = lists.ends[site : site + n], lists.starts[site : site + n + 1]
    ends[:] = 0
    begin = 0
    for run in range(n_runs):
        i, j = pairs.first[run], pairs.second[run]
        ends[i, species[j]] += pairs.ends[run] - begin
        if i != j:
            ends[j, species[i]] += pairs.ends[run] - begin
        begin = pairs.ends[run]
    for i in range(n):
        for kind in range(1, n_species):
            ends[i, kind] += ends[i, kind - 1]
        starts[i + 1] = starts[i] + room_for(ends[i, -1])
    if starts[n] > len(lists.x):
        return shortest, n_pairs, starts[n]
    filled = starts[:n].copy()
    begin = 0
    for run in range(n_runs):
        i, j, end = pairs.first[run], pairs.second[run], pairs.ends[run]
        _copy_run(pairs, begin, end, 1.0, lists, filled[i], j)
        filled[i] += end - begin
        if i != j:
            _copy_run(pairs, begin, end, -1.0, lists, filled[j], i)
            filled[j] += end - begin
        begin = end
    for i in range(n):
        pad(lists, site + i, cutoff)
    return shortest, n_pairs, starts[n]
