"""Compiled grouping of primitive crystals that are one: cheap bounds first, then the comparison.

Crystals are those of `primitive_crystals`.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from hullscreen.potentials.compiling import exact_kernel
from hullscreen.potentials.structures import FloatArray, IndexArray, IntArray
from hullscreen.workflows.crystal_matching import crystals_match

KeyArray: TypeAlias = NDArray[np.uint16]

# Distances of a key reach so far, in cube roots of the volume per atom: to the third shell of fcc.
KEY_REACH = 2.05
# Unit of a key's distances in Å, far below every tolerance; 16 bits reach 65 Å.
KEY_UNIT = 1e-3
LONGEST_KEY = 65_535
# Relative; what rounding may do to a bound.
BOUND_SLACK = 1e-6


@exact_kernel
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


@exact_kernel
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


@exact_kernel
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


@exact_kernel
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
