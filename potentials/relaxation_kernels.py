"""Compiled relaxation of cell and positions, some cells abreast, watched at every evaluation.

Quasi-Newton steps (BFGS, dense inverse Hessian) with a step limit and backtracking, in the
variables of `relaxation_walks`. Cells are evaluated several at a time, for full lanes; each goes
its own way, whichever are beside it: no sum runs over more than one cell.

Source: Nocedal, Wright, Numerical Optimization, 2nd ed., sections 3.1 and 6.1.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hullscreen.potentials.compiling import kernel
from hullscreen.potentials.evaluation_kernels import (
    SITES_TOGETHER,
    Batch,
    Results,
    Scratch,
    evaluate_batch,
    scratch,
)
from hullscreen.potentials.kernels import Tables
from hullscreen.potentials.lanes import WIDTH, load, spread, store
from hullscreen.potentials.relaxation_walks import (
    CONVERGED,
    ENERGY_LIMIT,
    EXTRAPOLATING,
    STALLED,
    STEP_LIMIT,
    TOO_CLOSE,
    UNDECIDED,
    Limits,
    Walks,
    begin_walk,
    dot,
    empty_walks,
    fill_gradient,
    inverse_of,
    is_finite,
    multiply,
    propose,
    times,
)
from hullscreen.potentials.spring_model import first_inverse
from hullscreen.potentials.structures import FloatArray, IndexArray, IntArray

# Cells that are relaxed abreast.
ABREAST = 16
SUFFICIENT_DECREASE = 1e-4
# Energies closer than this, relative, are equal to rounding and cannot guide a line search.
ROUNDING = 1e-11
MAX_BACKTRACKS = 12
# Steps in a row that change the energy by rounding only and bring no smaller force or stress.
MAX_IDLE = 10
# In eV/Å and eV/Å³, for tolerances of zero.
LEAST_TOLERANCE = 1e-12
# A first guess of the stiffness that is wrong by more than this factor is corrected.
MISJUDGED = 2.0
# Grades are computed for this many columns of A⁻¹ at a time.
COLUMNS = 4


class Outputs(NamedTuple):
    """What is filled in for each structure, see `relaxation.Relaxed`; geometries hold the start."""

    cells: FloatArray
    positions: FloatArray
    energies: FloatArray
    outcomes: IntArray
    evaluations: IntArray
    grades: FloatArray
    highest_grades: FloatArray
    snapshot_cells: FloatArray
    snapshot_positions: FloatArray
    max_forces: FloatArray
    max_stresses: FloatArray


@kernel
def _fill_step(walks: Walks, k: int, longest: float) -> None:
    """A quasi-Newton step in which no atom moves, and no lattice point strains, too far."""
    n = walks.n_atoms[k]
    step, gradient = walks.step[k, : 3 * n + 6], walks.gradient[k, : 3 * n + 6]
    times(inverse_of(walks, k), gradient, step)
    largest = 0.0
    for i in range(n):
        largest = max(
            largest, np.sqrt(step[3 * i] ** 2 + step[3 * i + 1] ** 2 + step[3 * i + 2] ** 2)
        )
    # An atomic distance is about 2.5 Å long: a strain moves neighbours that far times itself.
    for m in range(6):
        largest = max(largest, 2.5 * abs(step[3 * n + m]) / walks.scale[k])
    factor = longest / largest if largest > longest else 1.0
    for i in range(3 * n + 6):
        step[i] *= -factor
    walks.slope[k] = dot(step, gradient)
    walks.fraction[k], walks.backtracks[k] = 1.0, 0


@kernel
def _restart(walks: Walks, k: int, species: IntArray, longest: float, room: Scratch) -> None:
    """Forget what was learnt of the Hessian, and step from the accepted point."""
    n = walks.n_atoms[k]
    positions = walks.accepted[k, : 3 * n].reshape((n, 3))
    first_inverse(walks.reduced[k], positions, species, walks.scale[k], room, inverse_of(walks, k))
    walks.updates[k] = 0
    _fill_step(walks, k, longest)


@kernel
def _learn(walks: Walks, k: int) -> None:
    """BFGS update of the inverse Hessian; skipped where the curvature is not positive."""
    size = 3 * walks.n_atoms[k] + 6
    inverse = inverse_of(walks, k)
    step, change, image = np.empty(size), np.empty(size), np.empty(size)
    for i in range(size):
        step[i] = walks.variables[k, i] - walks.accepted[k, i]
        change[i] = walks.trial_gradient[k, i] - walks.gradient[k, i]
    curvature = dot(step, change)
    if not curvature > 1e-10 * np.sqrt(dot(step, step) * dot(change, change)):
        return
    times(inverse, change, image)
    if not walks.updates[k]:
        ratio = curvature / dot(change, image)
        if ratio > MISJUDGED or ratio < 1.0 / MISJUDGED:
            inverse *= ratio
            image *= ratio
    walks.updates[k] += 1
    factor = (1.0 + dot(change, image) / curvature) / curvature
    for a in range(size):
        along, across = factor * step[a] - image[a] / curvature, step[a] / curvature
        for b in range(size):
            inverse[a, b] += along * step[b] - across * image[b]


@kernel
def _back_off(
    walks: Walks, k: int, trial: float, limits: Limits, species: IntArray, room: Scratch
) -> int:
    """Go back part of the way, by the parabola through both energies if the trial has one."""
    walks.backtracks[k] += 1
    if walks.evaluations[k] >= limits.evaluations:
        return STEP_LIMIT
    if walks.backtracks[k] > MAX_BACKTRACKS:
        if not walks.updates[k]:
            return STALLED
        _restart(walks, k, species, limits.step, room)
    else:
        shrink = 0.25
        if is_finite(trial):
            expected = walks.fraction[k] * walks.slope[k]
            rise = trial - walks.energy[k] - expected
            shrink = min(max(-0.5 * expected / rise, 0.1), 0.5)
        walks.fraction[k] *= shrink
    for i in range(3 * walks.n_atoms[k] + 6):
        walks.variables[k, i] = walks.accepted[k, i] + walks.fraction[k] * walks.step[k, i]
    return UNDECIDED


@kernel
def _accept(
    walks: Walks,
    k: int,
    grade: float,
    forces: FloatArray,
    strain: FloatArray,
    positions: FloatArray,
    out: Outputs,
    begin: int,
) -> None:
    """Take the trial as the present point, and note it among the results."""
    n, s = walks.n_atoms[k], walks.structure[k]
    for i in range(3 * n + 6):
        walks.accepted[k, i] = walks.variables[k, i]
        walks.gradient[k, i] = walks.trial_gradient[k, i]
    multiply(walks.cell[k], walks.deformation[k], out.cells[s])
    out.positions[begin : begin + n] = positions
    out.energies[s], out.grades[s] = walks.energy[k], grade
    longest = largest = 0.0
    for i in range(n):
        longest = max(longest, forces[i, 0] ** 2 + forces[i, 1] ** 2 + forces[i, 2] ** 2)
    for a in range(3):
        for b in range(3):
            largest = max(largest, abs(strain[a, b]))
    out.max_forces[s], out.max_stresses[s] = np.sqrt(longest), largest / walks.volume[k]
    if grade > out.highest_grades[s] or not walks.evaluations[k] > 1:
        out.highest_grades[s] = grade
        out.snapshot_cells[s] = out.cells[s]
        out.snapshot_positions[begin : begin + n] = positions


@kernel
def _ending(walks: Walks, k: int, grade: float, limits: Limits, out: Outputs, idle: bool) -> int:
    """How a walk ends at the point it has just accepted, or `UNDECIDED`."""
    s = walks.structure[k]
    force, stress = out.max_forces[s], out.max_stresses[s]
    if not grade < limits.break_grade:
        return EXTRAPOLATING
    if force < limits.force and stress < limits.stress:
        return CONVERGED
    if walks.evaluations[k] >= limits.evaluations:
        return STEP_LIMIT
    residual = max(
        force / max(limits.force, LEAST_TOLERANCE), stress / max(limits.stress, LEAST_TOLERANCE)
    )
    walks.idle[k] = walks.idle[k] + 1 if idle and not residual < walks.residual[k] else 0
    walks.residual[k] = min(residual, walks.residual[k])
    return STALLED if walks.idle[k] >= MAX_IDLE else UNDECIDED


@kernel
def _judge(
    walks: Walks,
    k: int,
    reason: int,
    grade: float,
    batch: Batch,
    found: Results,
    limits: Limits,
    species: IntArray,
    out: Outputs,
    begin: int,
    room: Scratch,
) -> int:
    """Decide over a trial: how the walk ends, or `UNDECIDED` and where it goes next."""
    n, place = walks.n_atoms[k], walks.place[k]
    first = walks.energy[k] == np.inf
    trial = np.inf
    if reason == UNDECIDED:
        atoms = slice(batch.offsets[place], batch.offsets[place] + n)
        forces, strain = found.forces[atoms], found.strains[place]
        close = not found.shortest[place] > limits.distance
        # A structure that cannot even begin counts none.
        if not (first and close):
            walks.evaluations[k] += 1
        if close:
            reason = TOO_CLOSE
        else:
            energy = found.energies[place]
            sound = fill_gradient(walks, k, forces, strain) and is_finite(grade)
            if sound and is_finite(energy) and energy >= limits.energy * n:
                trial = energy
            else:
                reason = ENERGY_LIMIT
    if reason != UNDECIDED:
        if first or walks.backtracks[k] >= MAX_BACKTRACKS:
            return reason
        return _back_off(walks, k, trial, limits, species, room)
    flat = abs(trial - walks.energy[k]) <= ROUNDING * max(float(n), abs(walks.energy[k]))
    expected = walks.fraction[k] * walks.slope[k]
    if not (first or flat or trial <= walks.energy[k] + SUFFICIENT_DECREASE * expected):
        return _back_off(walks, k, trial, limits, species, room)
    if not first:
        _learn(walks, k)
    walks.energy[k] = trial
    _accept(walks, k, grade, forces, strain, batch.positions[atoms], out, begin)
    ending = _ending(walks, k, grade, limits, out, flat)
    if ending != UNDECIDED:
        return ending
    if not first:
        _fill_step(walks, k, limits.step)
    if first or not walks.slope[k] < 0.0:
        _restart(walks, k, species, limits.step, room)
    for i in range(3 * n + 6):
        walks.variables[k, i] = walks.accepted[k, i] + walks.step[k, i]
    return UNDECIDED


@kernel
def _fill_grades(
    rows: FloatArray, active_inverse: FloatArray, offsets: IndexArray, grades: FloatArray
) -> None:
    """Grades of up to eight cells, one to a lane, from their rows of summed gradients.

    ``active_inverse`` has a multiple of `COLUMNS` columns. What is not a number gives an infinite
    grade.
    """
    n_cells, n = rows.shape
    width = active_inverse.shape[1]
    turned = np.zeros((n, WIDTH))
    for cell in range(n_cells):
        for i in range(n):
            turned[i, cell] = rows[cell, i]
    products = np.empty(COLUMNS * WIDTH)
    grades[:n_cells] = 0.0
    for j in range(0, width, COLUMNS):
        p0, p1, p2, p3 = spread(0.0), spread(0.0), spread(0.0), spread(0.0)
        for i in range(n):
            row = load(turned, i * WIDTH)
            p0 += active_inverse[i, j] * row
            p1 += active_inverse[i, j + 1] * row
            p2 += active_inverse[i, j + 2] * row
            p3 += active_inverse[i, j + 3] * row
        store(products, 0, p0)
        store(products, WIDTH, p1)
        store(products, 2 * WIDTH, p2)
        store(products, 3 * WIDTH, p3)
        for column in range(COLUMNS):
            for cell in range(n_cells):
                size = abs(products[column * WIDTH + cell])
                grades[cell] = max(grades[cell], size if is_finite(size) else np.inf)
    for cell in range(n_cells):
        grades[cell] /= offsets[cell + 1] - offsets[cell]


@kernel
def relax_batch(
    tables: Tables,
    active_inverse: FloatArray,
    limits: Limits,
    species: IntArray,
    offsets: IndexArray,
    out: Outputs,
) -> None:
    """Relax every structure in place; one that fails ends alone.

    ``active_inverse`` is A⁻¹ of the active set, with columns of zeros up to a multiple of
    `COLUMNS`; it has no rows if grades are not wanted. Snapshots hold the geometry of the highest
    grade seen on accepted steps.
    """
    n_structures = len(offsets) - 1
    most = 0
    for s in range(n_structures):
        most = max(most, offsets[s + 1] - offsets[s])
    # A large cell fills the lanes alone, and its inverse Hessian much memory.
    abreast = min(ABREAST, n_structures) if most <= SITES_TOGETHER else min(1, n_structures)
    n_parameters = len(active_inverse)
    graded = n_parameters > 0
    walks = empty_walks(abreast, most)
    room = scratch(tables)
    n_sites = abreast * most
    cells, positions = np.empty((abreast, 3, 3)), np.empty((n_sites, 3))
    kinds, cell_of = np.empty(n_sites, np.int32), np.empty(n_sites, np.int64)
    row_of = np.full(n_sites, -1)
    ends, grades = np.zeros(abreast + 1, np.int64), np.zeros(abreast)
    reasons = np.zeros(abreast, np.int64)
    energies, shortest = np.empty(abreast), np.empty(abreast)
    site_energies, forces = np.empty(n_sites), np.empty((n_sites, 3))
    strains = np.empty((abreast, 3, 3))
    rows = np.empty((abreast if graded else 0, n_parameters))
    waiting = 0
    while True:
        n_cells = n_walking = 0
        for k in range(abreast):
            if walks.structure[k] < 0 and waiting < n_structures:
                atoms = slice(offsets[waiting], offsets[waiting + 1])
                begin_walk(walks, k, waiting, out.cells[waiting], out.positions[atoms])
                waiting += 1
            s = walks.structure[k]
            if s < 0:
                continue
            n_walking += 1
            first, last = ends[n_cells], ends[n_cells] + walks.n_atoms[k]
            reasons[k] = propose(walks, k, limits, cells[n_cells], positions[first:last])
            if reasons[k] != UNDECIDED:
                continue
            walks.place[k] = n_cells
            ends[n_cells + 1] = last
            for i in range(first, last):
                kinds[i] = species[offsets[s] + i - first]
                cell_of[i] = n_cells
                if graded:
                    row_of[i] = n_cells
            n_cells += 1
        if not n_walking:
            break
        here = slice(0, ends[n_cells])
        batch = Batch(
            cells[:n_cells], positions[here], kinds[here], ends[: n_cells + 1], cell_of[here]
        )
        found = Results(
            energies[:n_cells],
            site_energies[here],
            forces[here],
            strains[:n_cells],
            shortest[:n_cells],
            rows[: n_cells if graded else 0],
            row_of[here],
        )
        room = evaluate_batch(tables, room, batch, found)
        if graded:
            for c in range(0, n_cells, WIDTH):
                end = min(c + WIDTH, n_cells)
                _fill_grades(rows[c:end], active_inverse, ends[c : end + 1], grades[c:end])
        for k in range(abreast):
            s = walks.structure[k]
            if s < 0:
                continue
            grade = grades[walks.place[k]] if reasons[k] == UNDECIDED else 0.0
            own = species[offsets[s] : offsets[s + 1]]
            outcome = _judge(
                walks, k, reasons[k], grade, batch, found, limits, own, out, offsets[s], room
            )
            if outcome != UNDECIDED:
                out.outcomes[s] = outcome
                out.evaluations[s] = walks.evaluations[k]
                walks.structure[k] = -1
