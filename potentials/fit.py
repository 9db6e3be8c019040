"""Fitting all parameters of an MTP to energies, forces and stresses.

The problem is separable: for given radial functions the best linear coefficients follow from one
linear system. Levenberg-Marquardt steps move all parameters, and after each the linear ones are
solved for anew, which straightens the curved valleys that stall descent methods. Normal equations
are summed over cells, so that memory does not grow with the training set. The loss is that of MLIP:
the mean over cells of w_E ΔE²/N + w_F Σ|ΔF|² + w_S |ΔPlusStress|²/N.

Source: Golub, Pereyra, Inverse Problems 19, R1 (2003), section 4; Marquardt, SIAM J. Appl. Math.
11, 431 (1963); the loss: Novikov et al., Mach. Learn.: Sci. Technol. 2, 025002 (2021), eq. 8.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from hullscreen.potentials.errors import InputError, PotentialError
from hullscreen.potentials.fit_kernels import STRAIN_COLUMN, STRAIN_ROW, jacobian_of_cell
from hullscreen.potentials.moment_tensor_potential import MomentTensorPotential
from hullscreen.potentials.structures import FloatArray, IndexArray, Structures, concatenate

EV_PER_CUBIC_ANGSTROM_IN_GPA = 160.21766208
# Marquardt's factor on the diagonal: above the first no step will help, below the second it is
# rounding.
LARGEST_DAMPING = 1e8
SMALLEST_DAMPING = 1e-12


@dataclass(frozen=True)
class TrainingSet:
    """Labelled cells.

    Attributes
    ----------
    structures
        The cells.
    energies
        Total energies in eV, shape (n_structures,).
    forces
        eV/Å, shape (n_atoms_total, 3); NaN where unknown.
    stresses
        eV/Å³ in ASE's sign, shape (n_structures, 3, 3); NaN where unknown.
    """

    structures: Structures
    energies: FloatArray
    forces: FloatArray
    stresses: FloatArray

    def __len__(self) -> int:
        return len(self.structures)

    def take(self, indices: Sequence[int] | IndexArray) -> TrainingSet:
        """The labelled cells named by ``indices``."""
        offsets = self.structures.offsets
        return TrainingSet(
            self.structures.take(indices),
            self.energies[indices],
            np.concatenate(
                [self.forces[offsets[i] : offsets[i + 1]] for i in indices] or [np.zeros((0, 3))]
            ),
            self.stresses[indices],
        )


@dataclass(frozen=True)
class Weights:
    """Weights of the loss: energy per atom², forces and stress, as in MLIP."""

    energy: float = 1.0
    force: float = 0.01
    stress: float = 0.001


@dataclass(frozen=True)
class Errors:
    """Root mean square and largest errors of a potential on labelled cells."""

    energy_rmse_mev_per_atom: float
    force_rmse_mev_per_angstrom: float
    stress_rmse_gpa: float
    energy_max_mev_per_atom: float
    force_max_mev_per_angstrom: float
    stress_max_gpa: float

    def known(self) -> dict[str, float | None]:
        """The numbers by name, None where no label was there to compare with."""
        return {name: value if np.isfinite(value) else None for name, value in asdict(self).items()}


@dataclass(frozen=True)
class FitResult:
    """A fitted potential.

    Attributes
    ----------
    potential
        The potential of lowest loss.
    losses
        Loss after each accepted step, the first one before any.
    condition
        Condition number of the normal equations at the last step.
    converged
        The loss had come to rest; false if the steps ran out.
    """

    potential: MomentTensorPotential
    losses: tuple[float, ...]
    condition: float
    converged: bool


def join_training_sets(*sets: TrainingSet) -> TrainingSet:
    """One training set of several."""
    return TrainingSet(
        concatenate([part.structures for part in sets]),
        np.concatenate([part.energies for part in sets]),
        np.concatenate([part.forces for part in sets]),
        np.concatenate([part.stresses for part in sets]),
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
        How much each structure counts beside the others, shape (n_structures,); one by default.
    tolerance
        Ends when five steps together lower the loss by less than this fraction.
    ridge
        Penalty on every parameter's square, relative to the spread of energies: it fixes what the
        data leave open, such as the scale shared by radial and linear coefficients.
    progress
        Called with the step and the loss.

    Raises
    ------
    InputError
        The training set is empty, or its energies are not finite.
    PotentialError
        The potential to start from gives no finite loss.
    """
    if not len(training):
        raise InputError("fitting needs at least one labelled structure, got none")
    if not np.isfinite(training.energies).all():
        raise InputError("fitting needs finite energies; remove the structures without one")
    potential.check(training.structures)
    shares = np.ones(len(training)) if emphasis is None else emphasis
    problem = _Problem(
        potential,
        training,
        weights or Weights(),
        shares / shares.sum(),
        ridge * _spread(training),
    )
    parameters, loss = problem.with_best_linear(potential.parameters)
    if not np.isfinite(loss):
        raise PotentialError("the potential to start from gives no finite loss on the training set")
    losses, damping, condition, converged = [loss], 1e-3, np.inf, False
    for iteration in range(max_iterations):
        hessian, gradient, _ = problem.normal_equations(parameters)
        condition = float(np.linalg.cond(hessian))
        while damping < LARGEST_DAMPING:
            damped = hessian + np.diag(damping * np.diag(hessian))
            trial, loss = problem.with_best_linear(parameters - _solve(damped, gradient))
            if loss < losses[-1]:
                break
            damping *= 4.0
        else:
            converged = True
            break
        parameters = trial
        losses.append(loss)
        damping = max(damping / 5.0, SMALLEST_DAMPING)
        if progress:
            progress(iteration + 1, loss)
        if len(losses) > 5 and losses[-6] - losses[-1] < tolerance * losses[-1]:
            converged = True
            break
    return FitResult(potential.with_parameters(parameters), tuple(losses), condition, converged)


def errors(potential: MomentTensorPotential, data: TrainingSet) -> Errors:
    """Errors of a potential on labelled cells; NaN for what carries no label."""
    result = potential.evaluate(data.structures)
    energy = 1e3 * (result.energies - data.energies) / data.structures.n_atoms
    force = 1e3 * np.linalg.norm(result.forces - data.forces, axis=1)
    stress = EV_PER_CUBIC_ANGSTROM_IN_GPA * (result.stresses - data.stresses)
    return Errors(
        _rms(energy),
        _rms(force) / np.sqrt(3.0),
        _rms(stress),
        _largest(energy),
        _largest(force),
        _largest(stress),
    )


def _rms(values: FloatArray) -> float:
    known = values[np.isfinite(values)]
    return float(np.sqrt(np.mean(known**2))) if known.size else float("nan")


def _largest(values: FloatArray) -> float:
    known = values[np.isfinite(values)]
    return float(np.abs(known).max()) if known.size else float("nan")


def _spread(training: TrainingSet) -> float:
    per_atom = training.energies / training.structures.n_atoms
    return max(float(np.var(per_atom)), 1e-4)


@dataclass(frozen=True)
class _Problem:
    """The separable least-squares problem of one training set."""

    potential: MomentTensorPotential
    training: TrainingSet
    weights: Weights
    shares: FloatArray
    penalty: float

    def with_best_linear(self, parameters: FloatArray) -> tuple[FloatArray, float]:
        """Parameters with the linear part that is best for their radial part, and the loss."""
        hessian, gradient, loss = self.normal_equations(parameters, linear_only=True)
        if not (np.isfinite(loss) and np.isfinite(hessian).all()):
            return parameters, np.inf
        step = -_solve(hessian, gradient)
        best = parameters.copy()
        best[self.potential.radial.size :] += step
        change = 2.0 * gradient @ step + step @ hessian @ step
        return best, loss + float(change)

    def normal_equations(
        self, parameters: FloatArray, *, linear_only: bool = False
    ) -> tuple[FloatArray, FloatArray, float]:
        """JᵀJ, Jᵀr (of all parameters, or without the radial ones) and the loss."""
        potential = self.potential.with_parameters(parameters)
        free = parameters[potential.radial.size :] if linear_only else parameters
        n = free.size
        hessian, gradient, loss = np.zeros((n, n)), np.zeros(n), 0.0
        block: list[FloatArray] = []
        width = 0
        for jacobian, residual in self.rows(potential, linear_only=linear_only):
            gradient += jacobian @ residual
            loss += float(residual @ residual)
            block.append(jacobian)
            width += jacobian.shape[1]
            if width > 4 * n:
                hessian += _gram(block)
                block, width = [], 0
        if block:
            hessian += _gram(block)
        hessian[np.diag_indices_from(hessian)] += self.penalty
        gradient += self.penalty * free
        return hessian, gradient, loss + self.penalty * float(parameters @ parameters)

    def rows(
        self, potential: MomentTensorPotential, *, linear_only: bool
    ) -> Iterator[tuple[FloatArray, FloatArray]]:
        """Weighted Jacobian (n_free, n_rows) and residuals (n_rows,) of each cell."""
        from hullscreen.potentials.old_kernels import old_tables

        training, tables = self.training, old_tables(potential)
        structures = training.structures
        for s in range(len(structures)):
            cell, positions, species = structures.one(s)
            energy, jacobian = jacobian_of_cell(tables, cell, positions, species, linear_only)
            n = len(species)
            begin, end = structures.offsets[s : s + 2]
            strain = training.stresses[s] * abs(np.linalg.det(cell))
            slopes = potential.linear @ jacobian[-potential.linear.size :, 1:]
            residual = np.concatenate(
                [
                    [energy - training.energies[s]],
                    slopes[: 3 * n] + training.forces[begin:end].ravel(),
                    slopes[3 * n :] - strain[STRAIN_ROW, STRAIN_COLUMN],
                ]
            )
            root = np.sqrt(_row_weights(n, self.weights) * self.shares[s])
            # Labels that are not there count nothing.
            root[np.isnan(residual)] = 0.0
            residual[np.isnan(residual)] = 0.0
            yield jacobian * root, residual * root


def _gram(block: list[FloatArray]) -> FloatArray:
    joined = np.concatenate(block, axis=1)
    return joined @ joined.T


def _solve(matrix: FloatArray, right: FloatArray) -> FloatArray:
    """Solve a positive semidefinite system, damping it as little as rounding demands."""
    if not np.isfinite(matrix).all():
        raise PotentialError("fitting met derivatives that are not finite; are atoms too close?")
    scale = 1.0 / np.sqrt(np.diag(matrix))
    scaled = matrix * scale[:, None] * scale
    for jitter in (1e-14, 1e-12, 1e-10, 1e-8, 1e-6):
        try:
            factor = cho_factor(scaled + jitter * np.eye(len(scaled)), lower=True)
        except LinAlgError:
            continue
        solution: FloatArray = scale * cho_solve(factor, scale * right)
        return solution
    raise PotentialError("the normal equations of the fit are not positive definite")


def _row_weights(n_atoms: int, weights: Weights) -> FloatArray:
    """Weights of E, 3N forces, and six strains of which the last three stand for two components."""
    shear = 2.0 * weights.stress / n_atoms
    return np.array(
        [weights.energy / n_atoms]
        + [weights.force] * (3 * n_atoms)
        + [weights.stress / n_atoms] * 3
        + [shear] * 3
    )
