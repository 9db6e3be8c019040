"""D-optimality: which structures span what a potential has learnt, and how far others lie outside.

A row b holds the derivatives of a structure's energy per atom (or of a site energy) by the n
parameters. The active set is the n × n matrix A of rows with the largest |det|; the extrapolation
grade of a row is max |b A⁻¹|, at most one for the rows the set was chosen from.

Source: Podryabinkin, Shapeev, Comput. Mater. Sci. 140, 171 (2017); MaxVol: Goreinov et al., in
Matrix Methods: Theory, Algorithms and Applications, p. 247 (2010).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hullscreen.potentials.errors import PotentialError
from hullscreen.potentials.structures import FloatArray, IndexArray

# A starts as this multiple of the identity: whatever no structure has shown yet extrapolates
# strongly.
UNSEEN = 1e-6
# A swap must enlarge |det A| by more than this factor, or rounding would swap for ever.
SWAP_THRESHOLD = 1.001
# Rank-one updates of A⁻¹ gather rounding errors; it is inverted anew after so many.
SWAPS_BETWEEN_INVERSIONS = 50
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
    """

    rows: FloatArray
    inverse: FloatArray
    sources: IndexArray

    def grades(self, rows: FloatArray) -> FloatArray:
        """Extrapolation grades of rows (n, n_parameters), shape (n,)."""
        grades: FloatArray = np.abs(rows @ self.inverse).max(axis=1, initial=0.0)
        return grades


def empty_active_set(n_parameters: int) -> ActiveSet:
    """The active set of a potential that has seen nothing."""
    identity = np.eye(n_parameters)
    return ActiveSet(UNSEEN * identity, identity / UNSEEN, np.full(n_parameters, NOT_SET))


def select_active_set(
    rows: FloatArray,
    start: ActiveSet | None = None,
    *,
    threshold: float = SWAP_THRESHOLD,
    max_swaps: int = 100_000,
) -> ActiveSet:
    """MaxVol: swap rows in while one enlarges the set's volume by more than ``threshold``.

    Parameters
    ----------
    rows
        Candidates, shape (n_candidates, n_parameters).
    start
        The set to enlarge; its own rows keep ``NOT_SET`` as their source. Empty by default.

    Raises
    ------
    PotentialError
        Rows are not finite, or no end is reached in ``max_swaps``.
    """
    if not np.isfinite(rows).all():
        raise PotentialError("the active set got gradients that are not finite numbers")
    chosen = start or empty_active_set(rows.shape[1])
    matrix, inverse = chosen.rows.copy(), chosen.inverse.copy()
    sources = np.full(len(matrix), NOT_SET)
    if not len(rows):
        return ActiveSet(matrix, inverse, sources)
    coefficients = rows @ inverse
    for swap in range(max_swaps):
        candidate, place = np.unravel_index(np.argmax(np.abs(coefficients)), coefficients.shape)
        pivot = coefficients[candidate, place]
        if abs(pivot) <= threshold:
            return ActiveSet(matrix, inverse, sources)
        matrix[place] = rows[candidate]
        sources[place] = candidate
        if swap % SWAPS_BETWEEN_INVERSIONS == SWAPS_BETWEEN_INVERSIONS - 1:
            inverse = np.asarray(np.linalg.inv(matrix), dtype=np.float64)
            coefficients = rows @ inverse
        else:
            step = coefficients[candidate].copy()
            step[place] -= 1.0
            step /= pivot
            inverse -= np.outer(inverse[:, place], step)
            coefficients -= np.outer(coefficients[:, place], step)
    raise PotentialError(
        f"MaxVol did not end in {max_swaps} swaps; are the candidates' cells sane?"
    )


def select_candidates(
    active: ActiveSet, rows: FloatArray, *, threshold: float = SWAP_THRESHOLD
) -> IndexArray:
    """Indices of the candidates that enlarge an active set, by falling volume gained.

    Returns
    -------
    Indices into ``rows`` without repetition, shape (n_selected,).
    """
    enlarged = select_active_set(rows, active, threshold=threshold)
    chosen = np.unique(enlarged.sources[enlarged.sources != NOT_SET])
    return chosen[np.argsort(-active.grades(rows[chosen]), kind="stable")]
