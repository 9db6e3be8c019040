"""Compiled Jacobian of a cell's energy, forces and strain derivative by all parameters.

All rows come from one pass in tangent mode: the radial-basis moments m[k, z, β] = Σ_j q_β(r_j)
m_k(u_j) and their derivatives along every coordinate and strain depend on geometry only; the
parameters enter as coefficients of these sums.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from hullscreen.potentials.old_kernels import (
    FAST,
    Neighbours,
    Tables,
    Workspace,
    backward,
    find_neighbours,
    forward,
    workspace,
)
from hullscreen.potentials.structures import FloatArray, IntArray

# Order of the six strains: xx, yy, zz, yz, xz, xy.
STRAIN_ROW = np.array([0, 1, 2, 1, 0, 0])
STRAIN_COLUMN = np.array([0, 1, 2, 2, 2, 1])


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def _basis_moments(
    tables: Tables,
    neighbours: Neighbours,
    i: int,
    work: Workspace,
    sums: FloatArray,
    tangents: FloatArray,
) -> None:
    """Radial-basis moments of atom ``i`` and their derivatives along every direction."""
    first = neighbours.starts[i]
    n_beta = tables.radial.shape[3]
    n_coordinates = tangents.shape[3] - 6
    slope = np.empty(3)
    turn = np.empty(3)
    sums[:] = 0.0
    tangents[:] = 0.0
    for other in range(len(tables.shifts)):
        for place in range(neighbours.groups[i, other], neighbours.groups[i, other + 1]):
            j = place - first
            d = (neighbours.x[place], neighbours.y[place], neighbours.z[place])
            u = (work.ux[j], work.uy[j], work.uz[j])
            theirs = 3 * neighbours.atoms[place]
            for k in range(len(tables.powers)):
                m = work.monomials[k, j]
                degree = tables.powers[k].sum()
                for axis in range(3):
                    power = tables.powers[k, axis]
                    lowered = power * work.monomials[tables.lower[k, axis], j] if power else 0.0
                    slope[axis] = m * u[axis]
                    turn[axis] = (lowered - degree * m * u[axis]) / work.r[j]
                for beta in range(n_beta):
                    sums[k, other, beta] += work.q[beta, j] * m
                    row = tangents[k, other, beta]
                    for axis in range(3):
                        g = work.dq[beta, j] * slope[axis] + work.q[beta, j] * turn[axis]
                        row[theirs + axis] += g
                        row[3 * i + axis] -= g
                        for strain in range(6):
                            if STRAIN_ROW[strain] == axis:
                                row[n_coordinates + strain] += g * d[STRAIN_COLUMN[strain]]


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def _moment_tangents(
    tables: Tables, neighbours: Neighbours, i: int, work: Workspace, moment_tangents: FloatArray
) -> None:
    """Derivatives of atom ``i``'s basic moments along every direction, added up at once."""
    first = neighbours.starts[i]
    n_coordinates = moment_tangents.shape[1] - 6
    for b in range(len(tables.basic)):
        mu, k = tables.basic[b, 0], tables.basic[b, 1]
        degree = tables.powers[k].sum()
        row = moment_tangents[b]
        for place in range(first, neighbours.starts[i + 1]):
            j = place - first
            d = (neighbours.x[place], neighbours.y[place], neighbours.z[place])
            u = (work.ux[j], work.uy[j], work.uz[j])
            m = work.monomials[k, j]
            theirs = 3 * neighbours.atoms[place]
            for axis in range(3):
                power = tables.powers[k, axis]
                lowered = power * work.monomials[tables.lower[k, axis], j] if power else 0.0
                turn = (lowered - degree * m * u[axis]) / work.r[j]
                g = work.df[mu, j] * m * u[axis] + work.f[mu, j] * turn
                row[theirs + axis] += g
                row[3 * i + axis] -= g
                for strain in range(6):
                    if STRAIN_ROW[strain] == axis:
                        row[n_coordinates + strain] += g * d[STRAIN_COLUMN[strain]]


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def cell_jacobian(
    tables: Tables,
    neighbours: Neighbours,
    species: IntArray,
    work: Workspace,
    jacobian: FloatArray,
    linear_only: bool,
) -> float:
    """Energy of a cell; fills the Jacobian of energy, position and strain derivatives.

    ``jacobian`` has shape (n_rows, 1 + 3 n_atoms + 6): columns are E, ∂E/∂r (minus forces), and
    ∂E/∂ε for strains xx, yy, zz, yz, xz, xy; rows are all parameters, or without the radial ones
    if ``linear_only``, which leaves out the costlier half of the work.
    """
    n_species, _, n_radial, n_beta = tables.radial.shape
    n_directions = 3 * len(species) + 6
    n_monomials, n_basic = len(tables.powers), len(tables.basic)
    sums = np.empty((n_monomials, n_species, n_beta))
    n_sums = 0 if linear_only else n_monomials
    tangents = np.empty((n_sums, n_species, n_beta, n_directions))
    moment_tangents = np.empty((tables.n_moments, n_directions))
    n_adjoints = 0 if linear_only else tables.n_moments
    adjoint_tangents = np.empty((n_adjoints, n_directions))
    jacobian[:] = 0.0
    energy = 0.0
    first_shift = 0 if linear_only else n_species * n_species * n_radial * n_beta
    first_linear = first_shift + n_species
    for i in range(len(species)):
        kind = species[i]
        forward(tables, neighbours, i, kind, work)
        moment_tangents[:] = 0.0
        if linear_only:
            _moment_tangents(tables, neighbours, i, work, moment_tangents)
        else:
            _basis_moments(tables, neighbours, i, work, sums, tangents)
            for b in range(n_basic):
                mu, k = tables.basic[b, 0], tables.basic[b, 1]
                for other in range(n_species):
                    for beta in range(n_beta):
                        c = tables.radial[kind, other, mu, beta]
                        for d in range(n_directions):
                            moment_tangents[b, d] += c * tangents[k, other, beta, d]
        moments, adjoints = work.moments, work.adjoints
        for p in range(len(tables.left)):
            left, right, target = tables.left[p], tables.right[p], tables.target[p]
            a = tables.factor[p] * moments[left]
            c = tables.factor[p] * moments[right]
            for d in range(n_directions):
                moment_tangents[target, d] += (
                    a * moment_tangents[right, d] + c * moment_tangents[left, d]
                )
        energy += tables.shifts[kind]
        jacobian[first_shift + kind, 0] += 1.0
        for alpha in range(len(tables.scalars)):
            scalar = tables.scalars[alpha]
            energy += tables.linear[alpha] * moments[scalar]
            jacobian[first_linear + alpha, 0] += moments[scalar]
            for d in range(n_directions):
                jacobian[first_linear + alpha, 1 + d] += moment_tangents[scalar, d]
        if linear_only:
            continue
        backward(tables, work)
        adjoint_tangents[:] = 0.0
        for p in range(len(tables.left) - 1, -1, -1):
            left, right, target = tables.left[p], tables.right[p], tables.target[p]
            a = tables.factor[p] * adjoints[target]
            for d in range(n_directions):
                slope = tables.factor[p] * adjoint_tangents[target, d]
                adjoint_tangents[left, d] += slope * moments[right] + a * moment_tangents[right, d]
                adjoint_tangents[right, d] += slope * moments[left] + a * moment_tangents[left, d]
        for b in range(n_basic):
            mu, k = tables.basic[b, 0], tables.basic[b, 1]
            for other in range(n_species):
                for beta in range(n_beta):
                    row = jacobian[((kind * n_species + other) * n_radial + mu) * n_beta + beta]
                    s = sums[k, other, beta]
                    row[0] += adjoints[b] * s
                    for d in range(n_directions):
                        row[1 + d] += (
                            adjoint_tangents[b, d] * s + adjoints[b] * tangents[k, other, beta, d]
                        )
    return energy


@njit(cache=True, nogil=True)
def jacobian_of_cell(
    tables: Tables,
    cell: FloatArray,
    positions: FloatArray,
    species: IntArray,
    linear_only: bool,
) -> tuple[float, FloatArray]:
    """Energy of one cell and its Jacobian, as in `cell_jacobian`."""
    n_species = len(tables.shifts)
    n_rows = n_species + len(tables.scalars) + (0 if linear_only else tables.radial.size)
    jacobian = np.empty((n_rows, 1 + 3 * len(species) + 6))
    neighbours = find_neighbours(cell, positions, species, n_species, tables.cutoff)
    work = workspace(tables, np.max(np.diff(neighbours.starts)) + 1)
    energy = cell_jacobian(tables, neighbours, species, work, jacobian, linear_only)
    return energy, jacobian
