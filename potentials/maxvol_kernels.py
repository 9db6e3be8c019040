"""Compiled MaxVol on a table of coefficients: which rows should change places with which.

Coefficients C = R A⁻¹ write candidates R in terms of the rows of A. Putting candidate i in place j
multiplies |det A| by |C_ij|; two such swaps at once, (i, j) and (k, l), multiply it by the minor
|C_ij C_kl - C_il C_kj|. The row that leaves A becomes a candidate, so that it may come back.

Source: Goreinov et al., in Matrix Methods: Theory, Algorithms and Applications, p. 247 (2010).
"""

from __future__ import annotations

import numpy as np
from numba import njit

from hullscreen.potentials.structures import FloatArray, IndexArray

# Magnitudes of finite doubles are ordered as their bits without the sign, and the largest of many
# integers is found with vector instructions, which the order of NaN forbids for floats.
MAGNITUDE = np.int64(0x7FFF_FFFF_FFFF_FFFF)
# Of two entries whose minor exceeds t, while none exceeds t, each is larger than this: their
# product (or that of the other two) exceeds t/2, and the larger of them is at most t.
SMALLEST_IN_PAIR = 0.5
# A swap that costs more than this factor leads nowhere, and rounding errors grow by its inverse.
SMALLEST_PIVOT = 0.1


@njit(cache=True, nogil=True)
def enlarge(
    coefficients: FloatArray,
    members: IndexArray,
    candidates: IndexArray,
    threshold: float,
    max_swaps: int,
    pairs: bool,
) -> int:
    """Swap while one swap, or two at once, multiply the volume by more than ``threshold``.

    Parameters
    ----------
    coefficients
        C, finite, shape (n_candidates, n_parameters); in the end those of the rows left over.
    members, candidates
        Names of the rows of A and of the rows of C, shapes (n_parameters,) and (n_candidates,);
        they change places as the rows do.
    max_swaps
        No more are made than this, or one more.
    pairs
        Whether to look for two swaps at once where no single one helps.

    Returns
    -------
    Number of swaps made; below ``max_swaps`` no other one is left.
    """
    largest = _largest_magnitudes(coefficients)
    n_swaps = 0
    while n_swaps < max_swaps and largest.size:
        i = 0
        for k in range(largest.size):
            if largest[k] > largest[i]:
                i = k
        j = _largest_place(coefficients[i])
        if abs(coefficients[i, j]) > threshold:
            _exchange(coefficients, largest, members, candidates, i, j)
            n_swaps += 1
            continue
        if not pairs:
            break
        gain, i, j, k, m = _best_pair(coefficients, threshold)
        if gain <= threshold:
            break
        _exchange(coefficients, largest, members, candidates, i, j)
        _exchange(coefficients, largest, members, candidates, k, m)
        n_swaps += 2
    return n_swaps


@njit(cache=True, nogil=True)
def wander(
    coefficients: FloatArray,
    members: IndexArray,
    candidates: IndexArray,
    threshold: float,
    patience: int,
    tenure: int,
) -> int:
    """Make the swaps that cost the least volume, in the hope of a larger one behind them.

    A row that has left stays outside for ``tenure`` swaps, or the first swap would be undone by the
    second (tabu search; Glover, ORSA J. Comput. 1, 190 (1989)).

    Parameters
    ----------
    coefficients, members, candidates
        As in `enlarge`; names are those of the largest volume met, coefficients are used up.
    patience
        Swaps since the last larger volume after which to give up.

    Returns
    -------
    Number of swaps to a volume more than ``threshold`` times the first one, zero if there is none.
    """
    largest = _largest_magnitudes(coefficients)
    returns = np.zeros(largest.size, dtype=np.int64)
    best_members, best_candidates = members.copy(), candidates.copy()
    volume, best_volume, best_swap, swap = 1.0, 1.0, 0, 0
    while largest.size and swap < best_swap + patience:
        i = -1
        for k in range(largest.size):
            if returns[k] <= swap and (i < 0 or largest[k] > largest[i]):
                i = k
        if i < 0:
            break
        j = _largest_place(coefficients[i])
        pivot = abs(coefficients[i, j])
        if pivot < SMALLEST_PIVOT:
            break
        _exchange(coefficients, largest, members, candidates, i, j)
        swap += 1
        returns[i] = swap + tenure
        volume *= pivot
        if volume > threshold * best_volume:
            best_volume, best_swap = volume, swap
            best_members[:], best_candidates[:] = members, candidates
    members[:], candidates[:] = best_members, best_candidates
    return best_swap


@njit(cache=True, nogil=True)
def _largest_magnitudes(coefficients: FloatArray) -> IndexArray:
    """Bits of the largest magnitude of each row."""
    bits = coefficients.view(np.int64)
    largest = np.zeros(bits.shape[0], dtype=np.int64)
    for i in range(bits.shape[0]):
        for j in range(bits.shape[1]):
            largest[i] = max(largest[i], bits[i, j] & MAGNITUDE)
    return largest


@njit(cache=True, nogil=True)
def _largest_place(row: FloatArray) -> int:
    """Where the largest magnitude of a row is."""
    place = 0
    for j in range(row.size):
        if abs(row[j]) > abs(row[place]):
            place = j
    return place


@njit(cache=True, nogil=True, fastmath={"contract"})
def _exchange(
    coefficients: FloatArray,
    largest: IndexArray,
    members: IndexArray,
    candidates: IndexArray,
    i: int,
    j: int,
) -> None:
    """Candidate ``i`` and the row in place ``j`` change places; C follows by a rank-one update."""
    pivot = coefficients[i, j]
    step = np.empty(members.size)
    for m in range(step.size):
        step[m] = coefficients[i, m] / pivot
        coefficients[i, m] = -step[m]
    coefficients[i, j] = 1.0 / pivot
    bits = coefficients.view(np.int64)
    for k in range(coefficients.shape[0]):
        factor = coefficients[k, j]
        if k != i:
            if factor == 0.0:
                continue
            for m in range(step.size):
                coefficients[k, m] -= factor * step[m]
            # Without the cancellation of the line above.
            coefficients[k, j] = factor / pivot
        magnitude = np.int64(0)
        for m in range(step.size):
            magnitude = max(magnitude, bits[k, m] & MAGNITUDE)
        largest[k] = magnitude
    candidates[i], members[j] = members[j], candidates[i]


@njit(cache=True, nogil=True)
def _best_pair(coefficients: FloatArray, threshold: float) -> tuple[float, int, int, int, int]:
    """Largest minor of two rows and two columns of C: its magnitude and (i, j), (k, l)."""
    rows, columns, values = [0][:0], [0][:0], [0.0][:0]
    for i in range(coefficients.shape[0]):
        for j in range(coefficients.shape[1]):
            if abs(coefficients[i, j]) > SMALLEST_IN_PAIR:
                rows.append(i)
                columns.append(j)
                values.append(coefficients[i, j])
    best = (0.0, 0, 0, 0, 0)
    half = 0.5 * threshold
    for a in range(len(values)):
        if values[a] * values[a] <= half:
            continue
        for b in range(len(values)):
            product = values[a] * values[b]
            if abs(product) > half:
                crossed = coefficients[rows[a], columns[b]] * coefficients[rows[b], columns[a]]
                minor = abs(product - crossed)
                if minor > best[0]:
                    best = (minor, rows[a], columns[a], rows[b], columns[b])
    return best
