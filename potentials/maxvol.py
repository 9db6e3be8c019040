"""MaxVol over any number of candidates: which n of them, as rows of A, make |det A| largest.

The candidates come block by block, and are gone through until none enlarges the set; only the set,
one part of the candidates and the best of what was left over are in memory at a time. After each
pass that changed the set, two swaps at once and detours over smaller volumes are tried among those
left over.

Source: Goreinov et al., in Matrix Methods: Theory, Algorithms and Applications, p. 247 (2010).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hullscreen.potentials.errors import PotentialError
from hullscreen.potentials.maxvol_kernels import enlarge, wander
from hullscreen.potentials.structures import FloatArray, IndexArray

# Rank-one updates of R A⁻¹ gather rounding errors; A is inverted anew after so many swaps.
SWAPS_BETWEEN_INVERSIONS = 256
# Rows that are multiplied by A⁻¹ at a time: the product of 900 parameters takes 15 MB.
ROWS_AT_ONCE = 2048
# Rows of such a grade may enlarge the set together where none does alone; so many of them per
# parameter, those of the highest grades, are remembered until the end of a pass.
CONTENDING_GRADE = 0.5
CONTENDERS = 4
# Tabu search among them gives up after so many swaps without a gain, and keeps a row that has left
# outside for so many: longer detours gained little on pools of 100 to 1,200 structures.
PATIENCE = 100
TENURE = 15


class Limits(NamedTuple):
    """Smallest factor of the volume that is worth a swap, and the largest number of swaps."""

    threshold: float
    max_swaps: int


class Rows(NamedTuple):
    """Rows, shape (n, n_parameters), and a number that names each, shape (n,)."""

    rows: FloatArray
    names: IndexArray

    def take(self, which: IndexArray | NDArray[np.bool_]) -> Rows:
        """Those at the given places."""
        return Rows(self.rows[which], self.names[which])

    def joined_by(self, others: Rows) -> Rows:
        """These, then others."""
        return Rows(
            np.concatenate([self.rows, others.rows]), np.concatenate([self.names, others.names])
        )


class Chosen(NamedTuple):
    """A, A⁻¹, the names of A's rows, and the number of swaps that led there."""

    rows: FloatArray
    inverse: FloatArray
    names: IndexArray
    n_swaps: int


class _Contenders(NamedTuple):
    """Rows outside the set with the highest grades."""

    outside: Rows
    grades: FloatArray


def largest_volume(blocks: Iterable[FloatArray], start: Chosen, limits: Limits) -> Chosen:
    """Enlarge |det A| until no candidate does so alone by more than the threshold.

    Parameters
    ----------
    blocks
        Candidates, each block of shape (n, n_parameters); they are gone through several times.
    start
        The set to begin with; rows of it that leave may come back. Its names are negative.

    Returns
    -------
    The set; candidates are named by their number over all blocks.

    Raises
    ------
    PotentialError
        Rows are not finite or of another length, or there is no end.
    """
    found = start
    beginning = Rows(start.rows, start.names)
    while True:
        n_swaps = found.n_swaps
        contenders = _Contenders(beginning.take(np.arange(0)), np.zeros(0))
        for part in _parts(blocks, beginning):
            found, grades = _absorb(found, part, limits)
            near = (grades > CONTENDING_GRADE) & ~np.isin(part.names, found.names)
            contenders = _best(contenders, part.take(near), grades[near])
        if found.n_swaps == n_swaps:
            return found
        outside = contenders.outside
        # What the start spans enters only if it enlarges the set alone: it would teach little.
        beyond = largest_coefficients(outside.rows, start.inverse) > limits.threshold
        found = _deepen(found, outside.take(beyond | (outside.names < 0)), limits)


def largest_coefficients(rows: FloatArray, inverse: FloatArray) -> FloatArray:
    """Largest magnitude in each row of R A⁻¹, the grade; shape (n_rows,).

    One matrix product for every `ROWS_AT_ONCE` rows.
    """
    largest = np.empty(len(rows))
    for first in range(0, len(rows), ROWS_AT_ONCE):
        part = slice(first, first + ROWS_AT_ONCE)
        coefficients = rows[part] @ inverse
        np.abs(coefficients, out=coefficients)
        coefficients.max(axis=1, initial=0.0, out=largest[part])
    # What is not a number is not known: it must not pass for small.
    largest[np.isnan(largest)] = np.inf
    return largest


def _parts(blocks: Iterable[FloatArray], start: Rows) -> Iterator[Rows]:
    """Candidates, `ROWS_AT_ONCE` whatever the size of the blocks, and at last the start's rows."""
    n_before, n_waiting, waiting = 0, 0, list[FloatArray]()
    for block in blocks:
        if block.ndim != 2 or block.shape[1] != len(start.rows):
            raise PotentialError(
                f"the active set has {len(start.rows)} parameters, but a block of rows after "
                f"candidate {n_before + n_waiting} has the shape {block.shape}; evaluate them with "
                f"the same potential"
            )
        first = 0
        while first < len(block):
            waiting.append(block[first : first + ROWS_AT_ONCE - n_waiting])
            first += len(waiting[-1])
            n_waiting += len(waiting[-1])
            if n_waiting == ROWS_AT_ONCE:
                yield _joined(waiting, n_before)
                n_before, n_waiting, waiting = n_before + n_waiting, 0, []
    if waiting:
        yield _joined(waiting, n_before)
    yield start


def _joined(rows: list[FloatArray], first: int) -> Rows:
    """One part from pieces of blocks, whose candidates are counted from ``first``."""
    joined = rows[0] if len(rows) == 1 else np.concatenate(rows)
    joined = np.ascontiguousarray(joined, dtype=np.float64)
    return Rows(joined, first + np.arange(len(joined)))


def _absorb(found: Chosen, part: Rows, limits: Limits) -> tuple[Chosen, FloatArray]:
    """Swap until no row of the part enlarges the set alone; the set, and the part's grades."""
    while True:
        # What is not finite is named below.
        with np.errstate(invalid="ignore", over="ignore"):
            grades = largest_coefficients(part.rows, found.inverse)
        strange = np.flatnonzero(~np.isfinite(grades))
        if strange.size:
            name = part.names[strange[0]]
            owner = f"candidate {name}" if name >= 0 else f"row {-1 - name} of the active set"
            raise PotentialError(
                f"the derivatives of {owner} by the parameters are not finite numbers; are its "
                f"cell and positions sane?"
            )
        larger = grades > limits.threshold
        if not larger.any():
            return found, grades
        found, _ = _swap(found, part.take(larger), limits, pairs=False)


def _best(contenders: _Contenders, others: Rows, grades: FloatArray) -> _Contenders:
    """The best of the contenders and of others."""
    all_grades = np.concatenate([contenders.grades, grades])
    best = np.argsort(-all_grades, kind="stable")[: CONTENDERS * others.rows.shape[1]]
    return _Contenders(contenders.outside.joined_by(others).take(best), all_grades[best])


def _swap(found: Chosen, outside: Rows, limits: Limits, *, pairs: bool) -> tuple[Chosen, Rows]:
    """Swap until none of these rows enlarges the set; the set, and what is then outside."""
    while True:
        members, others = _numbers(found, outside)
        limit = min(SWAPS_BETWEEN_INVERSIONS, limits.max_swaps - found.n_swaps + 1)
        n_swaps = enlarge(
            outside.rows @ found.inverse, members, others, limits.threshold, limit, pairs
        )
        if not n_swaps:
            return found, outside
        found, outside = _rearranged(found, outside, members, others, n_swaps, limits)


def _deepen(found: Chosen, outside: Rows, limits: Limits) -> Chosen:
    """Look further than one swap, as long as that enlarges the set."""
    while True:
        found, outside = _swap(found, outside, limits, pairs=True)
        members, others = _numbers(found, outside)
        n_swaps = wander(
            outside.rows @ found.inverse, members, others, limits.threshold, PATIENCE, TENURE
        )
        if not n_swaps:
            return found
        found, outside = _rearranged(found, outside, members, others, n_swaps, limits)


def _numbers(found: Chosen, outside: Rows) -> tuple[IndexArray, IndexArray]:
    """The set's rows and those outside, counted through."""
    n = len(found.rows)
    return np.arange(n), np.arange(n, n + len(outside.rows))


def _rearranged(
    found: Chosen,
    outside: Rows,
    members: IndexArray,
    others: IndexArray,
    n_swaps: int,
    limits: Limits,
) -> tuple[Chosen, Rows]:
    """The set and what is outside after swaps, with the exact inverse.

    ``members`` and ``others`` are the `_numbers`, permuted.
    """
    n_swaps += found.n_swaps
    if n_swaps > limits.max_swaps:
        raise PotentialError(
            f"MaxVol did not end in {limits.max_swaps} swaps; are the candidates' cells sane?"
        )
    everything = Rows(found.rows, found.names).joined_by(outside)
    rows, names = everything.take(members)
    try:
        inverse = np.asarray(np.linalg.inv(rows), dtype=np.float64)
    except np.linalg.LinAlgError as error:
        raise PotentialError(
            f"the active set became singular, with derivatives up to {np.abs(rows).max():.1e}; "
            f"are the candidates' cells sane?"
        ) from error
    return Chosen(rows, inverse, names, n_swaps), everything.take(others)
