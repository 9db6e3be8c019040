"""How a potential is trained: each label's weight, the fit, the rows of the active set."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hullscreen.potentials.active_set import ActiveSet, select_active_set
from hullscreen.potentials.fit import FitResult, best_start, fit
from hullscreen.potentials.gradient_rows import energy_rows
from hullscreen.potentials.labels import TrainingSet
from hullscreen.potentials.moment_tensor_potential import MomentTensorPotential, untrained
from hullscreen.potentials.structures import FloatArray, Structures
from hullscreen.workflows.hull import convex_hull

# Labels count less the higher they lie above the hull of all labels, as (width / (width +
# height))². The first potential has to hold for whatever it meets, the second one near the hull,
# eV/atom.
EMPHASIS_WIDTHS = {1: 0.3, 2: 0.05}
SMALLEST_EMPHASIS = 1e-3

# A new potential is begun from several random radial functions; the best start is fitted to the
# end.
N_STARTS = 6
FIRST_ITERATIONS = 40
LATER_ITERATIONS = 15


def fingerprints(potential: MomentTensorPotential, structures: Structures) -> FloatArray:
    """Mean of each basis function over the atoms, shape (n_structures, n_scalars)."""
    return energy_rows(potential, structures)[:, -potential.linear.size :]


def emphasis(training: TrainingSet, n_elements: int, stage: int) -> FloatArray:
    """Weight of each label by its height above the hull of all labels, shape (n_structures,)."""
    n_atoms = training.structures.n_atoms
    fractions = training.structures.counts(n_elements) / n_atoms[:, None]
    height = convex_hull(fractions, training.energies / n_atoms).energies_above_hull
    width = EMPHASIS_WIDTHS[stage]
    return np.maximum((width / (width + height)) ** 2, SMALLEST_EMPHASIS)


def train(
    training: TrainingSet,
    *,
    elements: Sequence[str],
    stage: int,
    level: int,
    cutoff: float,
    min_distance: float,
    radial_basis_size: int,
    seed: int,
    start: MomentTensorPotential | None,
) -> tuple[FitResult, ActiveSet]:
    """Fit the potential of a stage and choose its active set from the labels.

    Parameters
    ----------
    start
        The last potential of the same stage; without one the best of several random starts is used.
    """
    weights = emphasis(training, len(elements), stage)
    iterations = LATER_ITERATIONS
    if start is None:
        iterations = FIRST_ITERATIONS
        starts = [
            untrained(
                level,
                tuple(elements),
                cutoff=cutoff,
                min_distance=min_distance,
                radial_basis_size=radial_basis_size,
                seed=seed + attempt,
            )
            for attempt in range(N_STARTS)
        ]
        start = best_start(starts, training, emphasis=weights)
    result = fit(start, training, emphasis=weights, max_iterations=iterations)
    active = select_active_set(energy_rows(result.potential, training.structures))
    return result, active


def shortest_bond(volumes_per_atom: FloatArray) -> float:
    """Nearest-neighbour distance in Å of fcc at the smallest of the volumes in Å³."""
    return float(np.sqrt(0.5) * (4.0 * np.min(volumes_per_atom)) ** (1.0 / 3.0))
