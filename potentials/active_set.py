"""D-optimality: which structures span what a potential has learnt, and how far others lie outside.

A row b holds the derivatives of a structure's energy per atom (or of a site energy) by the n
parameters. The active set is the n × n matrix A of rows with the largest |det|; the extrapolation
grade of a row is max |b A⁻¹|, at most one for the rows the set was chosen from.

Candidates may come as one array or block by block, as `GradientRows` makes them, any number of
them. The blocks are gone through until none holds a row that enlarges the set; only the set, one
block and the best of what was left over are in memory at a time.

Source: Podryabinkin, Shapeev, Comput. Mater. Sci. 140, 171 (2017); MaxVol: Goreinov et al., in
Matrix Methods: Theory, Algorithms and Applications, p. 247 (2010).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hullscreen.potentials.errors import InputError, PotentialError
from hullscreen.potentials.maxvol import Chosen, Limits, largest_coefficients, largest_volume
from hullscreen.potentials.structures import FloatArray, IndexArray

if TYPE_CHECKING:
    from hullscreen.potentials.moment_tensor_potential import MomentTensorPotential

# A starts as this multiple of the identity: whatever no structure has shown yet extrapolates
# strongly.
UNSEEN = 1e-6
# A swap must enlarge |det A| by more than this factor, or rounding would swap for ever.
SWAP_THRESHOLD = 1.001
MAX_SWAPS = 100_000
NOT_SET = -1


@dataclass(frozen=True)
class ActiveSet:
    """The rows of largest volume.

    Attributes
    ----------
    rows, inverse
        A and A⁻¹, each shape (n_parameters, n_parameters).
    sources
        Which of the candidates each row came from, ``NOT_SET`` where none did; shape
        (n_parameters,).

    Examples
    --------
    Grades of cells that a potential was not fitted to: like the others, and far too large.

    >>> from hullscreen.potentials import (
    ...     energy_rows, fit_potential, from_atoms, select_active_set, training_set_from_atoms,
    ...     untrained)
    >>> from hullscreen.potentials.example_data import copper_gold
    >>> start = untrained(6, ("Cu", "Au"), cutoff=4.5, min_distance=2.0)
    >>> training = training_set_from_atoms(copper_gold(200), start.elements)
    >>> potential = fit_potential(start, training.take(range(40))).potential
    >>> rows = energy_rows(potential, training.structures)
    >>> active = select_active_set(rows)
    >>> bool(active.grades(rows).max() < 1.01)
    True
    >>> alike = copper_gold(1, seed=1)[0]
    >>> larger = alike.copy()
    >>> larger.set_cell(1.2 * larger.cell, scale_atoms=True)
    >>> others = from_atoms([alike, larger], potential.elements)
    >>> grades = active.grades(energy_rows(potential, others))
    >>> bool(grades[0] < 2.0), bool(grades[1] > 10.0)
    (True, True)
    """

    rows: FloatArray
    inverse: FloatArray
    sources: IndexArray

    def __repr__(self) -> str:
        n_chosen = np.count_nonzero(self.sources != NOT_SET)
        return f"ActiveSet({len(self.rows)} parameters, {n_chosen} rows from the candidates)"

    def grades(self, rows: FloatArray) -> FloatArray:
        """Extrapolation grades of rows (n, n_parameters), shape (n,)."""
        return largest_coefficients(rows, self.inverse)


def checked_active_set(active_set: object, potential: MomentTensorPotential) -> ActiveSet:
    """The active set, if it is one and that of the potential.

    Raises
    ------
    InputError
        It is something else, such as the `Selection` of an ``.almtp`` file, or belongs to a
        potential with another number of parameters.
    """
    if not isinstance(active_set, ActiveSet):
        raise InputError(
            f"expected an ActiveSet, got a {type(active_set).__name__}; "
            f"of what `read_almtp` returns, give `selection.active_set`"
        )
    n = potential.parameters.size
    if active_set.inverse.shape != (n, n):
        raise InputError(
            f"the active set belongs to a potential of {len(active_set.inverse)} parameters, "
            f"this one has {n}; select it anew"
        )
    return active_set


def empty_active_set(n_parameters: int) -> ActiveSet:
    """The active set of a potential that has seen nothing."""
    identity = np.eye(n_parameters)
    return ActiveSet(UNSEEN * identity, identity / UNSEEN, np.full(n_parameters, NOT_SET))


def select_active_set(
    rows: FloatArray | Iterable[FloatArray],
    start: ActiveSet | None = None,
    *,
    threshold: float = SWAP_THRESHOLD,
    max_swaps: int = MAX_SWAPS,
) -> ActiveSet:
    """MaxVol: swap rows in while they enlarge the set's volume by more than ``threshold``.

    In the end no candidate does so alone. Once one did, swaps of two at once and detours over
    smaller volumes are tried as well, among the rows of the start and the candidates that it does
    not span: the volume becomes larger than by one swap at a time.

    Parameters
    ----------
    rows
        Candidates, shape (n_candidates, n_parameters), or blocks of such rows that can be gone
        through several times (a list, `GradientRows`; not a generator).
    start
        The set to enlarge, by default the empty one. Rows of it that stay keep their places and
        have ``NOT_SET`` as their source; rows that left may come back.

    Returns
    -------
    The set; its sources count candidates over all blocks.

    Raises
    ------
    PotentialError
        Rows are not finite, or do not have as many columns as there are parameters, or no end is
        reached in ``max_swaps``.

    Examples
    --------
    >>> select_active_set(np.array([[1.0, 0.0], [0.0, 3.0], [0.0, 2.0]])).sources
    array([0, 1])
    """
    blocks = [rows] if isinstance(rows, np.ndarray) else rows
    if isinstance(blocks, Iterator):
        raise PotentialError(
            "MaxVol goes through the candidates several times, but got an iterator, which ends "
            "after the first time; give a list of blocks, or GradientRows"
        )
    start = start or empty_active_set(_n_parameters(blocks))
    # Candidates are named by their number; rows of the start by -1 - place.
    names = -1 - np.arange(len(start.rows))
    found = Chosen(start.rows.copy(), start.inverse.copy(), names, 0)
    return _in_place(largest_volume(blocks, found, Limits(threshold, max_swaps)))


def select_candidates(
    active: ActiveSet,
    rows: FloatArray | Iterable[FloatArray],
    *,
    threshold: float = SWAP_THRESHOLD,
) -> IndexArray:
    """Indices of the candidates that enlarge an active set, by falling extrapolation grade.

    Parameters
    ----------
    rows
        As for `select_active_set`, which says what it raises.

    Returns
    -------
    Indices into ``rows``, over all blocks, without repetition, shape (n_selected,).
    """
    enlarged = select_active_set(rows, active, threshold=threshold)
    new = enlarged.sources != NOT_SET
    chosen, grades = enlarged.sources[new], active.grades(enlarged.rows[new])
    by_grade: IndexArray = chosen[np.lexsort((chosen, -grades))]
    return by_grade


def _n_parameters(blocks: Iterable[FloatArray]) -> int:
    """Columns of the first block."""
    for block in blocks:
        if block.ndim == 2:
            return int(block.shape[1])
        raise PotentialError(
            f"MaxVol expected rows of shape (n_candidates, n_parameters), got {block.shape}"
        )
    raise PotentialError("MaxVol got neither candidates nor an active set to start from")


def _in_place(found: Chosen) -> ActiveSet:
    """The set with what is left of the start in its old places."""
    kept = found.names < 0
    order = np.full(len(kept), NOT_SET)
    order[-1 - found.names[kept]] = np.flatnonzero(kept)
    order[order == NOT_SET] = np.flatnonzero(~kept)
    return ActiveSet(
        found.rows[order],
        np.ascontiguousarray(found.inverse[:, order]),
        np.where(kept, NOT_SET, found.names)[order],
    )
