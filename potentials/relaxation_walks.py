"""Compiled walks of relaxing cells: their variables, the geometries they propose, their gradients.

Variables are positions q in the undeformed cell and a symmetric strain ε: cell = cell₀ (1 + ε) and
positions q (1 + ε), so that cells do not rotate. The strain is scaled such that it is as stiff as
an atom.

Source: Pfrommer et al., J. Comput. Phys. 131, 233 (1997).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hullscreen.potentials.compiling import kernel
from hullscreen.potentials.input_checks import SMALLEST_VOLUME_PER_ATOM
from hullscreen.potentials.neighbours import LEAST_TRANSLATION, reduce_cell, shortest_vector
from hullscreen.potentials.spring_model import ATOM_STIFFNESS, LATTICE_STIFFNESS
from hullscreen.potentials.structures import FloatArray, IndexArray

UNDECIDED = -1
CONVERGED = 0
STEP_LIMIT = 1
EXTRAPOLATING = 2
TOO_CLOSE = 3
VOLUME_LIMIT = 4
ENERGY_LIMIT = 5
STALLED = 6


class Limits(NamedTuple):
    """When a relaxation ends.

    ``force`` eV/Å, ``stress`` eV/Å³, ``evaluations``, ``break_grade``, ``distance`` shortest
    allowed Å, ``volume_ratio`` largest factor between start and present volume, ``energy`` lowest
    allowed eV/atom, ``step`` longest displacement of an atom in one step in Å.
    """

    force: float
    stress: float
    evaluations: int
    break_grade: float
    distance: float
    volume_ratio: float
    energy: float
    step: float


class Walks(NamedTuple):
    """The relaxations under way, one row each.

    Attributes
    ----------
    structure
        Which structure it is, negative for none.
    n_atoms, place
        Its atoms, and where it is in the batch that is evaluated; negative if it is not.
    cell, reduced, deformation
        Undeformed cell, a reduced one of the same lattice, and 1 + ε; shape (3, 3) each.
    start_volume, volume, scale
        Å³, Å³, and Å by which strains are multiplied.
    variables, accepted, gradient, trial_gradient, step
        Shape (3 most_atoms + 6,) each, of which the first 3 n_atoms + 6 count.
    inverse
        Inverse Hessian, shape (3 most_atoms + 6,) twice.
    energy, slope, fraction
        Of the accepted point, along the step from there, and how much of the step is tried.
    residual
        Largest force or stress so far in units of its tolerance, the smallest of all points.
    evaluations, backtracks, idle, updates
        Counts; of ``updates`` of the inverse since it was last guessed.
    """

    structure: IndexArray
    n_atoms: IndexArray
    place: IndexArray
    cell: FloatArray
    reduced: FloatArray
    deformation: FloatArray
    start_volume: FloatArray
    volume: FloatArray
    scale: FloatArray
    variables: FloatArray
    accepted: FloatArray
    gradient: FloatArray
    trial_gradient: FloatArray
    step: FloatArray
    inverse: FloatArray
    energy: FloatArray
    slope: FloatArray
    fraction: FloatArray
    residual: FloatArray
    evaluations: IndexArray
    backtracks: IndexArray
    idle: IndexArray
    updates: IndexArray


@kernel
def empty_walks(n: int, most_atoms: int) -> Walks:
    """Rows for so many walks of cells of at most ``most_atoms`` atoms, all of them free."""
    size = 3 * most_atoms + 6
    return Walks(
        np.full(n, -1),
        np.zeros(n, np.int64),
        np.zeros(n, np.int64),
        np.zeros((n, 3, 3)),
        np.zeros((n, 3, 3)),
        np.zeros((n, 3, 3)),
        np.zeros(n),
        np.zeros(n),
        np.zeros(n),
        np.zeros((n, size)),
        np.zeros((n, size)),
        np.zeros((n, size)),
        np.zeros((n, size)),
        np.zeros((n, size)),
        np.zeros((n, size * size)),
        np.zeros(n),
        np.zeros(n),
        np.zeros(n),
        np.zeros(n),
        np.zeros(n, np.int64),
        np.zeros(n, np.int64),
        np.zeros(n, np.int64),
        np.zeros(n, np.int64),
    )


@kernel
def inverse_of(walks: Walks, k: int) -> FloatArray:
    """The inverse Hessian of a walk, contiguous."""
    size = 3 * walks.n_atoms[k] + 6
    return walks.inverse[k, : size * size].reshape((size, size))


@kernel
def dot(a: FloatArray, b: FloatArray) -> float:
    """Product of two vectors."""
    result = 0.0
    for i in range(len(a)):
        result += a[i] * b[i]
    return result


@kernel
def is_finite(value: float) -> bool:
    """Neither infinite nor NaN; `numpy.isfinite` of a sum is always true if sums are reordered."""
    return abs(value) < np.inf


@kernel
def times(matrix: FloatArray, vector: FloatArray, out: FloatArray) -> None:
    """Product of a matrix and a vector; what BLAS returns may depend on its number of threads."""
    for a in range(len(matrix)):
        out[a] = dot(matrix[a], vector)


@kernel
def multiply(a: FloatArray, b: FloatArray, out: FloatArray) -> None:
    """Product of rows of three, shape (n, 3), and a matrix (3, 3)."""
    for i in range(len(a)):
        for axis in range(3):
            out[i, axis] = a[i, 0] * b[0, axis] + a[i, 1] * b[1, axis] + a[i, 2] * b[2, axis]


@kernel
def _determinant(m: FloatArray) -> float:
    """Of a matrix (3, 3)."""
    return float(
        m[0, 0] * (m[1, 1] * m[2, 2] - m[1, 2] * m[2, 1])
        - m[0, 1] * (m[1, 0] * m[2, 2] - m[1, 2] * m[2, 0])
        + m[0, 2] * (m[1, 0] * m[2, 1] - m[1, 1] * m[2, 0])
    )


@kernel
def begin_walk(walks: Walks, k: int, s: int, cell: FloatArray, positions: FloatArray) -> None:
    """Let a structure begin its walk in row ``k``."""
    n = len(positions)
    walks.structure[k], walks.n_atoms[k] = s, n
    walks.cell[k] = cell
    walks.reduced[k] = reduce_cell(cell)
    walks.start_volume[k] = abs(_determinant(cell))
    walks.scale[k] = np.sqrt(walks.start_volume[k] * LATTICE_STIFFNESS / ATOM_STIFFNESS)
    walks.variables[k] = 0.0
    for i in range(n):
        for axis in range(3):
            walks.variables[k, 3 * i + axis] = positions[i, axis]
    walks.energy[k], walks.slope[k], walks.fraction[k] = np.inf, 0.0, 1.0
    walks.residual[k] = np.inf
    walks.evaluations[k], walks.backtracks[k], walks.idle[k], walks.updates[k] = 0, 0, 0, 0


@kernel
def propose(walks: Walks, k: int, limits: Limits, cell: FloatArray, positions: FloatArray) -> int:
    """Fill in a reduced cell and the positions to evaluate, or tell why they are not worth it.

    Denser than spheres of the shortest allowed distance can be packed, or with a lattice vector
    below it, atoms are too close; they are not evaluated, for they would have neighbours without
    number.
    """
    n = walks.n_atoms[k]
    deformation = walks.deformation[k]
    e = walks.variables[k, 3 * n : 3 * n + 6]
    half, scale = np.sqrt(0.5), walks.scale[k]
    for axis in range(3):
        deformation[axis, axis] = 1.0 + e[axis] / scale
    deformation[1, 2] = deformation[2, 1] = half * e[3] / scale
    deformation[0, 2] = deformation[2, 0] = half * e[4] / scale
    deformation[0, 1] = deformation[1, 0] = half * e[5] / scale
    start = walks.start_volume[k]
    # A deformation that turned the lattice inside out went through no volume at all.
    volume = walks.volume[k] = start * _determinant(deformation)
    if not start / limits.volume_ratio < volume < start * limits.volume_ratio:
        return VOLUME_LIMIT
    if volume < n * max(limits.distance**3 / np.sqrt(2.0), SMALLEST_VOLUME_PER_ATOM):
        return TOO_CLOSE
    multiply(walks.reduced[k], deformation, cell)
    if shortest_vector(reduce_cell(cell)) < max(limits.distance, LEAST_TRANSLATION):
        return TOO_CLOSE
    multiply(walks.variables[k, : 3 * n].reshape((n, 3)), deformation, positions)
    return UNDECIDED


@kernel
def fill_gradient(walks: Walks, k: int, forces: FloatArray, strain: FloatArray) -> bool:
    """Derivatives of the energy by the variables; whether forces and strains are finite."""
    n = walks.n_atoms[k]
    gradient, d = walks.trial_gradient[k], walks.deformation[k]
    multiply(forces, d, gradient[: 3 * n].reshape((n, 3)))
    for i in range(3 * n):
        gradient[i] = -gradient[i]
    inverse, g = np.empty((3, 3)), np.empty((3, 3))
    determinant = _determinant(d)
    for a in range(3):
        b, c = (a + 1) % 3, (a + 2) % 3
        for axis in range(3):
            u, v = (axis + 1) % 3, (axis + 2) % 3
            inverse[axis, a] = (d[b, u] * d[c, v] - d[b, v] * d[c, u]) / determinant
    multiply(inverse, strain, g)
    root, scale = np.sqrt(0.5), walks.scale[k]
    for axis in range(3):
        gradient[3 * n + axis] = g[axis, axis] / scale
    gradient[3 * n + 3] = root * (g[1, 2] + g[2, 1]) / scale
    gradient[3 * n + 4] = root * (g[0, 2] + g[2, 0]) / scale
    gradient[3 * n + 5] = root * (g[0, 1] + g[1, 0]) / scale
    # Their squares too, or lengths could not be told.
    squares = dot(gradient[: 3 * n + 6], gradient[: 3 * n + 6])
    return is_finite(squares + dot(forces.ravel(), forces.ravel()))
