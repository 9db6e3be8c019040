"""Compiled relaxation of cell and positions, one cell after another, watched at every evaluation.

Variables are positions q in the undeformed cell and a symmetric strain ε: cell = cell₀ (1 + ε) and
positions q (1 + ε), so that cells do not rotate. The strain is scaled such that one initial
stiffness serves both. Quasi-Newton steps (BFGS, dense inverse Hessian) with a step limit and
backtracking.

Source: Nocedal, Wright, Numerical Optimization, 2nd ed., sections 3.1 and 6.1; Pfrommer et al., J.
Comput. Phys. 131, 233 (1997) for cell and positions together.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hullscreen.potentials.compiling import kernel
from hullscreen.potentials.evaluation_kernels import Batch, Results, evaluate_batch, scratch
from hullscreen.potentials.kernels import Tables
from hullscreen.potentials.structures import FloatArray, IndexArray, IntArray

CONVERGED = 0
STEP_LIMIT = 1
EXTRAPOLATING = 2
TOO_CLOSE = 3
VOLUME_LIMIT = 4
ENERGY_LIMIT = 5
STALLED = 6

# Typical stiffness of a metal: of an atom in eV/Å², of the lattice in eV/Å³ (190 GPa).
ATOM_STIFFNESS = 8.0
LATTICE_STIFFNESS = 1.2
SUFFICIENT_DECREASE = 1e-4
# Energies closer than this, relative, are equal to rounding and cannot guide a line search.
ROUNDING = 1e-13
MAX_BACKTRACKS = 12


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


@kernel
def _deform(
    variables: FloatArray, scale: float, cell: FloatArray, state: Batch, deformation: FloatArray
) -> None:
    """Cell and positions from the variables."""
    n = len(state.positions)
    e = variables[3 * n :] / scale
    half = np.sqrt(0.5)
    deformation[0, 0], deformation[1, 1], deformation[2, 2] = 1 + e[0], 1 + e[1], 1 + e[2]
    deformation[1, 2] = deformation[2, 1] = half * e[3]
    deformation[0, 2] = deformation[2, 0] = half * e[4]
    deformation[0, 1] = deformation[1, 0] = half * e[5]
    state.cells[0] = cell @ deformation
    state.positions[:] = variables[: 3 * n].reshape((n, 3)) @ deformation


@kernel
def _gradient(found: Results, deformation: FloatArray, scale: float, gradient: FloatArray) -> None:
    """Derivatives of the energy by the variables."""
    n = len(found.forces)
    gradient[: 3 * n] = -(found.forces @ deformation).ravel()
    g = np.linalg.inv(deformation) @ found.strains[0]
    root = np.sqrt(0.5)
    gradient[3 * n + 0] = g[0, 0] / scale
    gradient[3 * n + 1] = g[1, 1] / scale
    gradient[3 * n + 2] = g[2, 2] / scale
    gradient[3 * n + 3] = root * (g[1, 2] + g[2, 1]) / scale
    gradient[3 * n + 4] = root * (g[0, 2] + g[2, 0]) / scale
    gradient[3 * n + 5] = root * (g[0, 1] + g[1, 0]) / scale


@kernel
def _limit_step(step: FloatArray, n_atoms: int, scale: float, longest: float) -> None:
    """Shorten a step so that no atom moves, and no lattice point strains, too far."""
    largest = 0.0
    for i in range(n_atoms):
        largest = max(largest, np.sqrt((step[3 * i : 3 * i + 3] ** 2).sum()))
    # An atomic distance is about 2.5 Å long: a strain moves neighbours that far times itself.
    largest = max(largest, 2.5 * np.abs(step[3 * n_atoms :]).max() / scale)
    if largest > longest:
        step *= longest / largest


@kernel
def _update_inverse(inverse: FloatArray, step: FloatArray, change: FloatArray) -> None:
    """BFGS update of the inverse Hessian; skipped where the curvature is not positive."""
    curvature = step @ change
    if curvature <= 1e-10 * np.sqrt((step @ step) * (change @ change)):
        return
    image = inverse @ change
    factor = (1.0 + (change @ image) / curvature) / curvature
    n = len(step)
    for a in range(n):
        for b in range(n):
            inverse[a, b] += (
                factor * step[a] * step[b] - (image[a] * step[b] + step[a] * image[b]) / curvature
            )


@kernel
def _grade(rows: FloatArray, active_inverse: FloatArray, n_atoms: int) -> float:
    if not len(rows):
        return 0.0
    return float(np.abs(rows[0] @ active_inverse).max() / n_atoms)


@kernel
def relax_batch(
    tables: Tables,
    active_inverse: FloatArray,
    limits: Limits,
    cells: FloatArray,
    positions: FloatArray,
    species: IntArray,
    offsets: IndexArray,
    energies: FloatArray,
    outcomes: IntArray,
    evaluations: IntArray,
    grades: FloatArray,
    highest_grades: FloatArray,
    snapshot_cells: FloatArray,
    snapshot_positions: FloatArray,
    max_forces: FloatArray,
    max_stresses: FloatArray,
) -> None:
    """Relax every cell in place; a cell that fails ends alone.

    ``active_inverse`` is A⁻¹ of the active set, or has no rows if grades are not wanted. Snapshots
    hold the geometry of the highest grade seen on accepted steps.
    """
    n_parameters = len(active_inverse)
    n_rows = 1 if n_parameters else 0
    room = scratch(tables)
    deformation = np.eye(3)
    for s in range(len(cells)):
        begin, end = offsets[s], offsets[s + 1]
        n = end - begin
        kinds = species[begin:end]
        start_cell = cells[s].copy()
        start_volume = abs(np.linalg.det(start_cell))
        state = Batch(
            start_cell.reshape((1, 3, 3)).copy(),
            positions[begin:end].copy(),
            kinds,
            np.array([0, n]),
            np.zeros(n, np.int64),
        )
        found = Results(
            np.empty(1),
            np.empty(n),
            np.empty((n, 3)),
            np.empty((1, 3, 3)),
            np.empty(1),
            np.empty((n_rows, n_parameters)),
            np.full(n, n_rows - 1),
        )
        size = 3 * n + 6
        scale = np.sqrt(start_volume * LATTICE_STIFFNESS / ATOM_STIFFNESS)
        variables = np.zeros(size)
        variables[: 3 * n] = positions[begin:end].ravel()
        accepted = variables.copy()
        gradient, trial_gradient = np.zeros(size), np.zeros(size)
        inverse = np.eye(size) / ATOM_STIFFNESS
        step = np.zeros(size)
        energy, slope, fraction = np.inf, 0.0, 1.0
        n_backtracks, fresh = 0, True
        outcome, count = -1, 0
        highest = -1.0
        while outcome < 0:
            _deform(variables, scale, start_cell, state, deformation)
            volume = abs(np.linalg.det(state.cells[0]))
            sane = start_volume / limits.volume_ratio < volume < start_volume * limits.volume_ratio
            trial, shortest = np.inf, 0.0
            if sane:
                room = evaluate_batch(tables, room, state, found)
                shortest = found.shortest[0]
                if shortest > limits.distance:
                    trial = found.energies[0]
                    count += 1
            first = count <= 1 and energy == np.inf
            usable = np.isfinite(trial) and trial >= limits.energy * n
            if usable:
                _gradient(found, deformation, scale, trial_gradient)
            flat = usable and abs(trial - energy) <= ROUNDING * n * max(1.0, abs(energy) / n) * 100
            lower = usable and trial <= energy + SUFFICIENT_DECREASE * fraction * slope
            if (first and not usable) or (not usable and n_backtracks >= MAX_BACKTRACKS):
                if not sane:
                    outcome = VOLUME_LIMIT
                elif shortest <= limits.distance:
                    outcome = TOO_CLOSE
                else:
                    outcome = ENERGY_LIMIT
                break
            if not (lower or flat or first):
                # Too far: go back part of the way, by the parabola through both energies.
                n_backtracks += 1
                if n_backtracks > MAX_BACKTRACKS or count >= limits.evaluations:
                    if fresh or count >= limits.evaluations:
                        outcome = STEP_LIMIT if count >= limits.evaluations else STALLED
                        break
                    inverse[:] = np.eye(size) / ATOM_STIFFNESS
                    fresh = True
                    step[:] = -gradient / ATOM_STIFFNESS
                    _limit_step(step, n, scale, limits.step)
                    slope, fraction, n_backtracks = float(step @ gradient), 1.0, 0
                else:
                    shrink = 0.25
                    if usable:
                        rise = trial - energy - fraction * slope
                        shrink = min(max(-0.5 * fraction * slope / rise, 0.1), 0.5)
                    fraction *= shrink
                variables[:] = accepted + fraction * step
                continue
            if not first:
                _update_inverse(inverse, variables - accepted, trial_gradient - gradient)
                fresh = False
            energy = trial
            accepted[:] = variables
            gradient[:] = trial_gradient
            cells[s] = state.cells[0]
            positions[begin:end] = state.positions
            energies[s] = energy
            grades[s] = _grade(found.rows, active_inverse, n)
            max_forces[s] = np.sqrt((found.forces**2).sum(axis=1).max())
            max_stresses[s] = np.abs(found.strains).max() / volume
            if grades[s] > highest:
                highest = grades[s]
                snapshot_cells[s] = state.cells[0]
                snapshot_positions[begin:end] = state.positions
            # A grade that is not a number is no small one.
            if not grades[s] < limits.break_grade:
                outcome = EXTRAPOLATING
            elif max_forces[s] < limits.force and max_stresses[s] < limits.stress:
                outcome = CONVERGED
            elif count >= limits.evaluations:
                outcome = STEP_LIMIT
            else:
                step[:] = -(inverse @ gradient)
                slope = float(step @ gradient)
                if slope >= 0.0:
                    inverse[:] = np.eye(size) / ATOM_STIFFNESS
                    fresh = True
                    step[:] = -gradient / ATOM_STIFFNESS
                _limit_step(step, n, scale, limits.step)
                slope = float(step @ gradient)
                fraction, n_backtracks = 1.0, 0
                variables[:] = accepted + step
        outcomes[s] = outcome
        evaluations[s] = count
        highest_grades[s] = max(highest, 0.0)
