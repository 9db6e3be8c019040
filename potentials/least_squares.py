"""The least-squares problem of a fit, separated into linear and radial parameters.

For given radial functions the best linear coefficients follow from one linear system, so that the
loss is a function of the radial ones alone. Its Gauss-Newton matrix is the Schur complement of the
linear block. Normal equations are summed over blocks of cells, so that memory does not grow with
the training set.

Source: Golub, Pereyra, Inverse Problems 19, R1 (2003), section 4; Kaufman, BIT 15, 49 (1975).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from hullscreen.potentials.errors import InputError, PotentialError
from hullscreen.potentials.fit_kernels import STRAIN_COLUMN, STRAIN_ROW, fill_jacobian
from hullscreen.potentials.input_checks import refuse_shared_sites
from hullscreen.potentials.labels import TrainingSet
from hullscreen.potentials.moment_tensor_potential import MomentTensorPotential
from hullscreen.potentials.structures import FloatArray, Structures

# Entries of a block of the Jacobian: 16 MB, if a single cell does not need more.
BLOCK_ENTRIES = 2_000_000
# A parameter that no row depends on is scaled as if it were this much weaker than the strongest.
WEAKEST = 1e-14
# What is added to the diagonal of a scaled matrix of normal equations if rounding made it
# indefinite.
JITTERS = (0.0, 1e-15, 1e-14, 1e-13, 1e-12, 1e-11, 1e-10)


@dataclass(frozen=True)
class Weights:
    """Weights of the loss, as in MLIP; a weight of zero leaves its labels out.

    Attributes
    ----------
    energy
        Of (ΔE)² / N, in 1/eV²; N is the number of atoms.
    force
        Of the sum of all |ΔF|² of a structure, in Å²/eV².
    stress
        Of (VΔσ)² / N summed over nine components, in 1/eV²; V is the volume.

    Raises
    ------
    InputError
        A weight is negative or not finite, or all are zero.
    """

    energy: float = 1.0
    force: float = 0.01
    stress: float = 0.001

    def __post_init__(self) -> None:
        weights = {"energy": self.energy, "force": self.force, "stress": self.stress}
        for name, weight in weights.items():
            if not 0.0 <= weight < np.inf:
                raise InputError(
                    f"the weight of the {name} is {weight}; expected a finite number that is not "
                    f"negative"
                )
        if not any(weights.values()):
            raise InputError(
                "the weights of energy, force and stress are all zero; give one of them more"
            )


@dataclass(frozen=True)
class LeastSquares:
    """Weighted rows to fit: of each cell E, its 3N position and its six strain derivatives.

    Attributes
    ----------
    structures
        The cells.
    targets
        What the rows should be, in eV, eV/Å and eV, shape (n_rows,); zero where unknown.
    roots
        Square roots of the rows' weights, shape (n_rows,); zero where unknown.
    ridge
        Penalty on the squares of the linear coefficients, each relative to the sum of the squares
        of its basis function's weighted rows.
    """

    structures: Structures
    targets: FloatArray
    roots: FloatArray
    ridge: float


@dataclass(frozen=True)
class NormalEquations:
    """Sums over the rows r = prediction − target, with derivatives J by the free parameters.

    Attributes
    ----------
    hessian, gradient
        JᵀJ, shape (n, n), and Jᵀr, shape (n,): of all parameters, or of all but the radial ones.
    loss
        Σ r².
    """

    hessian: FloatArray
    gradient: FloatArray
    loss: float


@dataclass(frozen=True)
class Model:
    """The loss around a potential as a quadratic function of the radial coefficients alone.

    Attributes
    ----------
    matrix, gradient
        Gauss-Newton matrix (n_radial, n_radial) and half the gradient (n_radial,).
    response
        Change of the best linear coefficients per change of the radial ones, (n_linear, n_radial).
    shift
        What the linear coefficients lack to be the best, (n_linear,).
    linear_matrix
        The linear system with its diagonal scaled to one, (n_linear, n_linear).
    """

    matrix: FloatArray
    gradient: FloatArray
    response: FloatArray
    shift: FloatArray
    linear_matrix: FloatArray

    def condition(self) -> float:
        """Condition number of the scaled linear system, the ridge included."""
        values = np.linalg.eigvalsh(self.linear_matrix)
        return float(values[-1] / max(values[0], np.finfo(float).eps * values[-1]))


def pose(training: TrainingSet, weights: Weights, shares: FloatArray, ridge: float) -> LeastSquares:
    """The rows of a training set.

    Parameters
    ----------
    shares
        Weight of each structure beside those of the labels, shape (n_structures,).
    """
    structures = training.structures
    n_atoms = structures.n_atoms
    first = 7 * np.arange(len(structures)) + 3 * structures.offsets[:-1]
    owner = np.repeat(np.arange(len(structures)), n_atoms)
    atom = 7 * owner + 3 * np.arange(len(owner)) + 1
    n_rows = 7 * len(structures) + 3 * len(owner)
    targets, weight = np.zeros(n_rows), np.zeros(n_rows)
    targets[first] = training.energies
    weight[first] = weights.energy * shares / n_atoms
    strains = training.stresses * structures.volumes[:, None, None]
    for k, (row, column) in enumerate(zip(STRAIN_ROW, STRAIN_COLUMN, strict=True)):
        place = first + 1 + 3 * n_atoms + k
        targets[place] = strains[:, row, column]
        # A shear stands for two components of the tensor.
        weight[place] = (1 if row == column else 2) * weights.stress * shares / n_atoms
    for axis in range(3):
        targets[atom + axis] = -training.forces[:, axis]
        weight[atom + axis] = weights.force * shares[owner]
    unknown = np.isnan(targets)
    targets[unknown] = weight[unknown] = 0.0
    return LeastSquares(structures, targets, np.sqrt(weight), ridge)


def normal_equations(
    problem: LeastSquares, potential: MomentTensorPotential, *, linear_only: bool
) -> NormalEquations:
    """Sum the normal equations of all cells at a potential.

    Raises
    ------
    InputError
        Two atoms of a structure lie on one site.
    PotentialError
        Derivatives are not finite.
    """
    cells, tables = problem.structures, potential.tables
    linear = potential.parameters[potential.radial.size :]
    n = linear.size + (0 if linear_only else potential.radial.size)
    hessian, gradient, loss = np.zeros((n, n)), np.zeros(n), 0.0
    firsts = 7 * np.arange(len(cells) + 1) + 3 * cells.offsets
    shortest = np.full(len(cells), np.inf)
    memory = np.empty(0)
    begin = 0
    while begin < len(cells):
        limit = firsts[begin] + BLOCK_ENTRIES // n
        end = max(int(np.searchsorted(firsts, limit, side="right")) - 1, begin + 1)
        rows, atoms = slice(firsts[begin], firsts[end]), slice(*cells.offsets[[begin, end]])
        roots = problem.roots[rows]
        if memory.size < n * roots.size:
            memory = np.empty(n * roots.size)
        jacobian = memory[: n * roots.size].reshape(n, roots.size)
        fill_jacobian(
            tables,
            cells.cells[begin:end],
            cells.positions[atoms],
            cells.species[atoms],
            cells.offsets[begin : end + 1] - cells.offsets[begin],
            linear_only,
            roots,
            shortest[begin:end],
            jacobian,
        )
        refuse_shared_sites(shortest)
        # What overflows here is refused below.
        with np.errstate(invalid="ignore", over="ignore"):
            residual = linear @ jacobian[-linear.size :] - problem.targets[rows] * roots
            hessian += jacobian @ jacobian.T
            gradient += jacobian @ residual
            loss += float(residual @ residual)
        begin = end
    if not (np.isfinite(loss) and np.isfinite(hessian).all()):
        closest = int(np.argmin(shortest))
        raise PotentialError(
            f"derivatives by the parameters are not finite; the closest atoms, "
            f"{shortest[closest]:.3g} Å apart, are in structure {closest}: leave it out, or start "
            f"from another potential"
        )
    return NormalEquations(hessian, gradient, loss)


def with_best_linear(
    problem: LeastSquares, potential: MomentTensorPotential
) -> tuple[MomentTensorPotential, float]:
    """The linear coefficients that are best for a potential's radial functions, and the loss.

    The loss includes the ridge. Errors are those of `normal_equations`.
    """
    system = normal_equations(problem, potential, linear_only=True)
    linear = potential.parameters[potential.radial.size :]
    penalty = problem.ridge * _scales(system.hessian)
    matrix = system.hessian + np.diag(penalty)
    gradient = system.gradient + penalty * linear
    step = -solve(matrix, gradient)
    parameters = potential.parameters
    parameters[potential.radial.size :] += step
    change = float((2.0 * gradient + matrix @ step) @ step)
    return potential.with_parameters(parameters), system.loss + float(penalty @ linear**2) + change


def model_around(problem: LeastSquares, potential: MomentTensorPotential) -> Model:
    """Sum all normal equations at a potential and eliminate its linear coefficients."""
    system = normal_equations(problem, potential, linear_only=False)
    n = potential.radial.size
    scales = _scales(system.hessian[n:, n:])
    penalty = problem.ridge * scales
    matrix = system.hessian[n:, n:] + np.diag(penalty)
    gradient = system.gradient[n:] + penalty * potential.parameters[n:]
    mixed = system.hessian[n:, :n]
    solution = solve(matrix, np.column_stack([mixed, gradient]))
    response, shift = -solution[:, :n], -solution[:, n]
    return Model(
        system.hessian[:n, :n] + mixed.T @ response,
        system.gradient[:n] + mixed.T @ shift,
        response,
        shift,
        matrix / np.sqrt(scales[:, None] * scales),
    )


def damped_step(model: Model, damping: float) -> tuple[FloatArray, float]:
    """Step of the radial coefficients (n_radial,), and by how much it should lower the loss.

    ``damping`` is Marquardt's: relative to the diagonal of the matrix.
    """
    scales = _scales(model.matrix)
    step = -solve(model.matrix + damping * np.diag(scales), model.gradient)
    return step, float(step @ (damping * scales * step - model.gradient))


def _scales(matrix: FloatArray) -> FloatArray:
    """Diagonal of a matrix of normal equations, none of it zero."""
    diagonal = np.diag(matrix)
    return np.maximum(diagonal, max(WEAKEST * float(diagonal.max()), np.finfo(float).tiny))


def solve(matrix: FloatArray, right: FloatArray) -> FloatArray:
    """Solve a positive semidefinite system, damping it as little as rounding demands.

    Raises
    ------
    PotentialError
        The matrix is far from positive semidefinite.
    """
    scale = 1.0 / np.sqrt(_scales(matrix))
    scaled = matrix * scale[:, None] * scale
    for jitter in JITTERS:
        try:
            factor = cho_factor(scaled + jitter * np.eye(len(scaled)), lower=True)
        except LinAlgError:
            continue
        solution: FloatArray = (cho_solve(factor, (right.T * scale).T).T * scale).T
        return solution
    raise PotentialError(
        "the fit is singular: its normal equations are not positive definite; "
        "raise the ridge, or add structures that differ"
    )
