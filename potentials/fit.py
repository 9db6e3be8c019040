"""Fitting all parameters of an MTP to energies, forces and stresses.

The loss is that of MLIP: the mean over cells of

    w_E ΔE² / N + w_F Σ_i |ΔF_i|² + w_S |ΔPlusStress|² / N,

where PlusStress is −V times the stress, |·|² the sum over all nine components, and N the number of
atoms. A ridge is added: a tiny penalty on the linear coefficients, in units in which the size of
the basis functions does not matter. It settles what the data leave open.

Levenberg-Marquardt steps move the radial coefficients; the linear ones are solved for anew after
each, which straightens the curved valleys that stall descent methods.

Source: the loss: Novikov et al., Mach. Learn.: Sci. Technol. 2, 025002 (2021), eq. 8; variable
projection: see `least_squares`; the damping: Nielsen, IMM-REP-1999-05, Technical University of
Denmark (1999).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from hullscreen.potentials.errors import InputError, PotentialError
from hullscreen.potentials.input_checks import check_labels, checked_emphasis
from hullscreen.potentials.labels import (
    EV_PER_CUBIC_ANGSTROM_IN_GPA,
    Errors,
    TrainingSet,
    errors,
    errors_by_group,
    join_training_sets,
)
from hullscreen.potentials.least_squares import (
    LeastSquares,
    Model,
    Weights,
    damped_step,
    model_around,
    pose,
    with_best_linear,
)
from hullscreen.potentials.moment_tensor_potential import MomentTensorPotential, untrained
from hullscreen.potentials.structures import FloatArray, Structures

__all__ = [
    "EV_PER_CUBIC_ANGSTROM_IN_GPA",
    "Errors",
    "FitResult",
    "TrainingSet",
    "Weights",
    "best_start",
    "compile_fit",
    "errors",
    "errors_by_group",
    "fit",
    "join_training_sets",
]

# Damping relative to the diagonal of the matrix: to begin with; above the second no step will help;
# below the third it is rounding.
FIRST_DAMPING = 1e-2
LARGEST_DAMPING = 1e8
SMALLEST_DAMPING = 1e-12
# Starts are compared after so many steps on so many structures; the better half goes on for as many
# again, until one is left.
STEPS_OF_A_START = 4
STRUCTURES_OF_A_START = 100


@dataclass(frozen=True)
class FitResult:
    """A fitted potential.

    Attributes
    ----------
    potential
        The potential of lowest loss.
    losses
        Loss after each accepted step, the first one before any but with the best linear
        coefficients; the ridge is included.
    condition
        Condition number of the linear system at the last step, its diagonal scaled to one.
    converged
        The loss had come to rest; false if the steps ran out.
    """

    potential: MomentTensorPotential
    losses: tuple[float, ...]
    condition: float
    converged: bool

    def __repr__(self) -> str:
        end = "converged" if self.converged else "not converged"
        return (
            f"FitResult({end} after {len(self.losses) - 1} steps, loss {self.losses[-1]:.3g}, "
            f"{self.potential})"
        )


def fit(
    potential: MomentTensorPotential,
    training: TrainingSet,
    *,
    weights: Weights | None = None,
    emphasis: FloatArray | None = None,
    max_iterations: int = 50,
    tolerance: float = 1e-2,
    ridge: float = 1e-10,
    progress: Callable[[int, float], None] | None = None,
) -> FitResult:
    """Fit linear and radial parameters, starting from ``potential``.

    Parameters
    ----------
    emphasis
        How much each structure counts beside the others, shape (n_structures,), not negative; one
        by default.
    tolerance
        Ends when five steps together lower the loss by less than this fraction, or when less than
        a fifth of that is in sight for the next one.
    ridge
        Penalty on the squares of the linear coefficients, each relative to the sum of squares of
        its basis function over the training set: 1e-10 changes a coefficient that the data
        determine by 1e-10 of itself.
    progress
        Called with the step and the loss.

    Raises
    ------
    InputError
        The training set is empty, its labels are not finite (unknown forces and stresses are NaN),
        two atoms lie on one site, or the emphasis is not one number for each structure.
    PotentialError
        The potential to start from gives no finite loss.

    Examples
    --------
    >>> from hullscreen.potentials import (
    ...     fit_potential, prediction_errors, training_set_from_atoms, untrained)
    >>> from hullscreen.potentials.example_data import copper_gold
    >>> start = untrained(6, ("Cu", "Au"), cutoff=4.5, min_distance=2.0)
    >>> training = training_set_from_atoms(copper_gold(30), start.elements)
    >>> result = fit_potential(start, training)
    >>> result.converged, result.losses[-1] < 0.1 * result.losses[0]
    (True, True)
    >>> prediction_errors(result.potential, training).energy_rmse_mev_per_atom < 5.0
    True
    """
    problem = _pose(potential, training, weights, emphasis, ridge)
    current, loss = with_best_linear(problem, potential)
    model = model_around(problem, current)
    losses, damping, converged = [loss], FIRST_DAMPING, False
    while not converged and len(losses) <= max_iterations:
        if len(losses) > 1:
            model = model_around(problem, current)
        trial = _search(problem, current, model, losses[-1], damping, tolerance)
        converged = trial is None
        if trial is not None:
            current, loss, damping = trial
            losses.append(loss)
            if progress:
                progress(len(losses) - 1, loss)
            converged = len(losses) > 5 and losses[-6] - losses[-1] < tolerance * losses[-1]
    return FitResult(current, tuple(losses), model.condition(), converged)


def best_start(
    starts: Sequence[MomentTensorPotential],
    training: TrainingSet,
    *,
    weights: Weights | None = None,
    emphasis: FloatArray | None = None,
    ridge: float = 1e-10,
    progress: Callable[[int, int], None] | None = None,
) -> MomentTensorPotential:
    """The start that promises most: small potentials may end in a poor minimum from some.

    All take a few steps on a part of the training set, then the better half of them a few more,
    until one is left. Parameters and errors are those of `fit`.

    Parameters
    ----------
    progress
        Called with the attempts that are done, and how many there will be in all.
    """
    if not starts:
        raise InputError("expected at least one potential to start from, got none")
    remaining = list(starts)
    step = max(1, len(training) // STRUCTURES_OF_A_START)
    part = training.take(range(0, len(training), step)) if step > 1 else training
    shares = None if emphasis is None else checked_emphasis(emphasis, len(training))[::step]
    rounds = [len(remaining)]
    while rounds[-1] > 1:
        rounds.append(rounds[-1] // 2)
    done, total = 0, sum(rounds[:-1])
    while len(remaining) > 1:
        attempts = []
        for start in remaining:
            attempts.append(
                fit(
                    start,
                    part,
                    weights=weights,
                    emphasis=shares,
                    max_iterations=STEPS_OF_A_START,
                    ridge=ridge,
                )
            )
            done += 1
            if progress:
                progress(done, total)
        attempts.sort(key=lambda attempt: attempt.losses[-1])
        remaining = [attempt.potential for attempt in attempts[: len(attempts) // 2]]
    return remaining[0]


def compile_fit() -> None:
    """Compile what a fit needs, or read it from numba's cache, so that later times are a fit's."""
    atom = Structures(
        3.0 * np.eye(3)[None], np.zeros((1, 3)), np.zeros(1, np.int32), np.array([0, 1])
    )
    labels = TrainingSet(atom, np.zeros(1), np.zeros((1, 3)), np.zeros((1, 3, 3)))
    fit(untrained(2, ("X",), cutoff=4.0, min_distance=2.0), labels, max_iterations=1)


def _pose(
    potential: MomentTensorPotential,
    training: TrainingSet,
    weights: Weights | None,
    emphasis: FloatArray | None,
    ridge: float,
) -> LeastSquares:
    """Check a training set and write it as rows."""
    check_labels(training)
    structures = potential.check(training.structures)
    checked = TrainingSet(structures, training.energies, training.forces, training.stresses)
    n = len(training)
    shares = np.ones(n) if emphasis is None else checked_emphasis(emphasis, n)
    return pose(checked, weights or Weights(), shares / shares.sum(), ridge)


def _search(
    problem: LeastSquares,
    potential: MomentTensorPotential,
    model: Model,
    loss: float,
    damping: float,
    tolerance: float,
) -> tuple[MomentTensorPotential, float, float] | None:
    """The next potential, its loss and the damping after it; None if no step is worth it."""
    n = potential.radial.size
    growth = 2.0
    while damping < LARGEST_DAMPING:
        step, promise = damped_step(model, damping)
        # A heavily damped step promises little whatever lies beyond it.
        if promise < tolerance / 5.0 * loss and (damping < FIRST_DAMPING or growth > 2.0):
            return None
        parameters = potential.parameters
        parameters[:n] += step
        # The system of the linear coefficients is solved for their change: from close by.
        parameters[n:] += model.shift + model.response @ step
        try:
            trial, lowered = with_best_linear(problem, potential.with_parameters(parameters))
        except PotentialError:
            lowered = np.inf
        if lowered < loss:
            gain = (loss - lowered) / promise
            factor = max(1.0 / 3.0, 1.0 - (2.0 * gain - 1.0) ** 3)
            return trial, lowered, max(damping * factor, SMALLEST_DAMPING)
        damping *= growth
        growth *= 2.0
    return None
