"""Compiled evaluation of an MTP: neighbours, moments, energy and all its derivatives.

Everything is per atom and its neighbours, which lie in structure-of-arrays form sorted by species,
so that each inner loop runs over neighbours with constant coefficients and vectorises.

Symbols, after Novikov et al., Mach. Learn.: Sci. Technol. 2, 025002 (2021): ``f[μ, j]`` radial
functions, ``q[β, j]`` the radial basis T_β(ξ(r)) (R_cut − r)² times the scaling, ``monomials[k,
j]`` products x^a y^b z^c of unit vectors, ``moments`` the basic moments followed by their products,
``adjoints`` the derivatives of the site energy by each moment.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from hullscreen.potentials.structures import FloatArray, IndexArray, IntArray

# Sums may be reordered and fused; NaN and infinity keep their meaning, since the relaxer watches
# for them.
FAST = {"reassoc", "contract", "nsz", "arcp"}


class Tables(NamedTuple):
    """An MTP as the kernels take it.

    Attributes
    ----------
    radial
        c[z_i, z_j, μ, β], shape (n_species, n_species, n_radial, radial_basis_size).
    shifts, linear
        Energy of each species (n_species,) and coefficient of each basis function (n_scalars,), eV.
    basic
        Radial function and monomial of each basic moment, shape (n_basic, 2).
    left, right, target, factor
        Products in order, each shape (n_products,).
    scalars
        Which moments are the basis functions, shape (n_scalars,).
    powers, lower
        Powers (a, b, c) of each monomial, and the monomials with one power less of x, y, z;
        (n_monomials, 3).
    """

    radial: FloatArray
    shifts: FloatArray
    linear: FloatArray
    basic: IntArray
    left: IntArray
    right: IntArray
    target: IntArray
    factor: FloatArray
    scalars: IntArray
    powers: IntArray
    lower: IntArray
    n_moments: int
    min_distance: float
    cutoff: float
    scaling: float


class Neighbours(NamedTuple):
    """Neighbours of every atom of one cell; those of atom i are ``starts[i]:starts[i + 1]``.

    ``x, y, z`` lead from the atom to the neighbour, ``atoms`` is the neighbour's index in the cell;
    ``groups[i, z]`` is where neighbours of species z begin, shape (n_atoms, n_species + 1).
    """

    x: FloatArray
    y: FloatArray
    z: FloatArray
    atoms: IntArray
    starts: IntArray
    groups: IntArray
    shortest: float


class Workspace(NamedTuple):
    """Scratch arrays of one thread; the last axis is the neighbour."""

    ux: FloatArray
    uy: FloatArray
    uz: FloatArray
    r: FloatArray
    q: FloatArray
    dq: FloatArray
    f: FloatArray
    df: FloatArray
    monomials: FloatArray
    weights: FloatArray
    slopes: FloatArray
    gx: FloatArray
    gy: FloatArray
    gz: FloatArray
    moments: FloatArray
    adjoints: FloatArray


@njit(cache=True, nogil=True)
def workspace(tables: Tables, n_neighbours: int) -> Workspace:
    """Scratch for atoms of at most ``n_neighbours`` neighbours."""
    n_radial, n_beta = tables.radial.shape[2], tables.radial.shape[3]
    n_monomials = len(tables.powers)
    n = n_neighbours
    return Workspace(
        np.empty(n),
        np.empty(n),
        np.empty(n),
        np.empty(n),
        np.empty((n_beta, n)),
        np.empty((n_beta, n)),
        np.empty((n_radial, n)),
        np.empty((n_radial, n)),
        np.empty((n_monomials, n)),
        np.empty((n_monomials, n)),
        np.empty((n_monomials, n)),
        np.empty(n),
        np.empty(n),
        np.empty(n),
        np.empty(tables.n_moments),
        np.empty(tables.n_moments),
    )


@njit(cache=True, nogil=True)
def fits(work: Workspace, neighbours: Neighbours) -> bool:
    """Whether the scratch is large enough for each atom's neighbours."""
    return bool(len(work.r) >= np.max(np.diff(neighbours.starts)))


@njit(cache=True, nogil=True)
def find_neighbours(
    cell: FloatArray, positions: FloatArray, species: IntArray, n_species: int, cutoff: float
) -> Neighbours:
    """Every pair within the cutoff, atoms outside the cell and skewed cells included.

    For each pair and each choice of two lattice translations the third one's range follows from a
    quadratic equation, so that next to no distance is computed in vain.
    """
    n_atoms = len(species)
    inverse = np.linalg.inv(cell)
    fractional = positions @ inverse
    reach = cutoff * np.sqrt((inverse**2).sum(axis=0))
    third = cell[2]
    third_squared = (third**2).sum()
    order = np.argsort(species, kind="mergesort")
    capacity = 64 * n_atoms
    x, y, z = np.empty(capacity), np.empty(capacity), np.empty(capacity)
    index = np.empty(capacity, dtype=np.int32)
    starts = np.zeros(n_atoms + 1, dtype=np.int32)
    groups = np.zeros((n_atoms, n_species + 1), dtype=np.int32)
    shortest_squared = np.inf
    count = 0
    limit = cutoff**2
    for i in range(n_atoms):
        starts[i] = count
        current = 0
        groups[i, 0] = count
        for j in order:
            while current < species[j]:
                current += 1
                groups[i, current] = count
            d = fractional[j] - fractional[i]
            for n0 in range(int(np.ceil(-reach[0] - d[0])), int(np.floor(reach[0] - d[0])) + 1):
                for n1 in range(int(np.ceil(-reach[1] - d[1])), int(np.floor(reach[1] - d[1])) + 1):
                    vx = positions[j, 0] - positions[i, 0] + n0 * cell[0, 0] + n1 * cell[1, 0]
                    vy = positions[j, 1] - positions[i, 1] + n0 * cell[0, 1] + n1 * cell[1, 1]
                    vz = positions[j, 2] - positions[i, 2] + n0 * cell[0, 2] + n1 * cell[1, 2]
                    middle = -(vx * third[0] + vy * third[1] + vz * third[2]) / third_squared
                    distance_squared = (
                        (vx + middle * third[0]) ** 2
                        + (vy + middle * third[1]) ** 2
                        + (vz + middle * third[2]) ** 2
                    )
                    if distance_squared >= limit:
                        continue
                    half = np.sqrt((limit - distance_squared) / third_squared)
                    for n2 in range(int(np.ceil(middle - half)), int(np.floor(middle + half)) + 1):
                        if i == j and n0 == 0 and n1 == 0 and n2 == 0:
                            continue
                        dx = vx + n2 * third[0]
                        dy = vy + n2 * third[1]
                        dz = vz + n2 * third[2]
                        r_squared = dx * dx + dy * dy + dz * dz
                        if r_squared >= limit:
                            continue
                        if count == capacity:
                            capacity *= 2
                            x, y, z = _grown(x), _grown(y), _grown(z)
                            index = np.concatenate((index, np.empty_like(index)))
                        x[count], y[count], z[count] = dx, dy, dz
                        index[count] = j
                        shortest_squared = min(shortest_squared, r_squared)
                        count += 1
        while current < n_species:
            current += 1
            groups[i, current] = count
    starts[n_atoms] = count
    return Neighbours(x, y, z, index, starts, groups, np.sqrt(shortest_squared))


@njit(cache=True, nogil=True)
def _grown(array: FloatArray) -> FloatArray:
    return np.concatenate((array, np.empty_like(array)))


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def forward(tables: Tables, neighbours: Neighbours, i: int, kind: int, work: Workspace) -> None:
    """Radial functions, monomials and moments of atom ``i`` of species ``kind``."""
    first = neighbours.starts[i]
    n = neighbours.starts[i + 1] - first
    n_radial, n_beta = tables.radial.shape[2], tables.radial.shape[3]
    r, ux, uy, uz, q, dq = work.r, work.ux, work.uy, work.uz, work.q, work.dq
    span = 2.0 / (tables.cutoff - tables.min_distance)
    for j in range(n):
        x, y, z = neighbours.x[first + j], neighbours.y[first + j], neighbours.z[first + j]
        distance = np.sqrt(x * x + y * y + z * z)
        r[j] = distance
        ux[j] = x / distance
        uy[j] = y / distance
        uz[j] = z / distance
        # T_0 and T_1 with the smoothing factor already in place: the recursion is linear in it.
        xi = (distance - 0.5 * (tables.cutoff + tables.min_distance)) * span
        gap = tables.cutoff - distance
        q[0, j] = tables.scaling * gap * gap
        dq[0, j] = -2.0 * tables.scaling * gap
        if n_beta > 1:
            q[1, j] = xi * q[0, j]
            dq[1, j] = span * q[0, j] + xi * dq[0, j]
    middle = 0.5 * (tables.cutoff + tables.min_distance)
    for beta in range(2, n_beta):
        for j in range(n):
            xi = (r[j] - middle) * span
            q[beta, j] = 2.0 * xi * q[beta - 1, j] - q[beta - 2, j]
            dq[beta, j] = 2.0 * (span * q[beta - 1, j] + xi * dq[beta - 1, j]) - dq[beta - 2, j]
    f, df = work.f, work.df
    for other in range(len(tables.shifts)):
        begin = neighbours.groups[i, other] - first
        end = neighbours.groups[i, other + 1] - first
        for mu in range(n_radial):
            for j in range(begin, end):
                f[mu, j] = 0.0
                df[mu, j] = 0.0
            for beta in range(n_beta):
                c = tables.radial[kind, other, mu, beta]
                for j in range(begin, end):
                    f[mu, j] += c * q[beta, j]
                    df[mu, j] += c * dq[beta, j]
    monomials = work.monomials
    for j in range(n):
        monomials[0, j] = 1.0
    for k in range(1, len(tables.powers)):
        if tables.powers[k, 0]:
            low = tables.lower[k, 0]
            for j in range(n):
                monomials[k, j] = monomials[low, j] * ux[j]
        elif tables.powers[k, 1]:
            low = tables.lower[k, 1]
            for j in range(n):
                monomials[k, j] = monomials[low, j] * uy[j]
        else:
            low = tables.lower[k, 2]
            for j in range(n):
                monomials[k, j] = monomials[low, j] * uz[j]
    moments = work.moments
    for b in range(len(tables.basic)):
        mu, k = tables.basic[b, 0], tables.basic[b, 1]
        total = 0.0
        for j in range(n):
            total += f[mu, j] * monomials[k, j]
        moments[b] = total
    for b in range(len(tables.basic), tables.n_moments):
        moments[b] = 0.0
    for p in range(len(tables.left)):
        moments[tables.target[p]] += (
            tables.factor[p] * moments[tables.left[p]] * moments[tables.right[p]]
        )


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def site_energy(tables: Tables, kind: int, work: Workspace) -> float:
    """Energy of the atom whose moments are in ``work``, eV."""
    energy: float = tables.shifts[kind]
    for alpha in range(len(tables.scalars)):
        energy += tables.linear[alpha] * work.moments[tables.scalars[alpha]]
    return energy


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def backward(tables: Tables, work: Workspace) -> None:
    """Derivatives of the site energy by every moment (reverse mode)."""
    adjoints, moments = work.adjoints, work.moments
    for b in range(tables.n_moments):
        adjoints[b] = 0.0
    for alpha in range(len(tables.scalars)):
        adjoints[tables.scalars[alpha]] += tables.linear[alpha]
    for p in range(len(tables.left) - 1, -1, -1):
        a = tables.factor[p] * adjoints[tables.target[p]]
        adjoints[tables.left[p]] += a * moments[tables.right[p]]
        adjoints[tables.right[p]] += a * moments[tables.left[p]]


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def pair_gradients(tables: Tables, n: int, work: Workspace) -> None:
    """Derivative of the site energy by each neighbour's vector, in ``work.gx, gy, gz``.

    With Q_k = Σ_μ adjoint_{μk} f_μ and the monomials m_k of degree ν_k homogeneous in the unit
    vector u: g = Σ_k [Q'_k m_k u + Q_k (∇m_k − ν_k m_k u) / r].
    """
    weights, slopes, monomials = work.weights, work.slopes, work.monomials
    gx, gy, gz = work.gx, work.gy, work.gz
    for k in range(len(tables.powers)):
        for j in range(n):
            weights[k, j] = 0.0
            slopes[k, j] = 0.0
    for b in range(len(tables.basic)):
        mu, k = tables.basic[b, 0], tables.basic[b, 1]
        a = work.adjoints[b]
        for j in range(n):
            weights[k, j] += a * work.f[mu, j]
            slopes[k, j] += a * work.df[mu, j]
    along = work.dq[0]  # free once the radial functions are summed
    for j in range(n):
        gx[j] = 0.0
        gy[j] = 0.0
        gz[j] = 0.0
        along[j] = 0.0
    for k in range(len(tables.powers)):
        a, b, c = tables.powers[k, 0], tables.powers[k, 1], tables.powers[k, 2]
        degree = a + b + c
        for j in range(n):
            along[j] += (slopes[k, j] - degree * weights[k, j] / work.r[j]) * monomials[k, j]
        if a:
            low = tables.lower[k, 0]
            for j in range(n):
                gx[j] += a * weights[k, j] * monomials[low, j]
        if b:
            low = tables.lower[k, 1]
            for j in range(n):
                gy[j] += b * weights[k, j] * monomials[low, j]
        if c:
            low = tables.lower[k, 2]
            for j in range(n):
                gz[j] += c * weights[k, j] * monomials[low, j]
    for j in range(n):
        gx[j] = gx[j] / work.r[j] + along[j] * work.ux[j]
        gy[j] = gy[j] / work.r[j] + along[j] * work.uy[j]
        gz[j] = gz[j] / work.r[j] + along[j] * work.uz[j]


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def parameter_gradient(
    tables: Tables, neighbours: Neighbours, i: int, kind: int, work: Workspace, row: FloatArray
) -> None:
    """Add the derivatives of a site energy by all parameters to ``row``, shape (n_parameters,).

    Order: radial coefficients (z_i, z_j, μ, β), species, linear coefficients. Overwrites the
    scratch ``weights``.
    """
    first = neighbours.starts[i]
    n = neighbours.starts[i + 1] - first
    n_species, _, n_radial, n_beta = tables.radial.shape
    sums = work.weights
    for mu in range(n_radial):
        for j in range(n):
            sums[0, j] = 0.0
        for b in range(len(tables.basic)):
            if tables.basic[b, 0] == mu:
                k = tables.basic[b, 1]
                a = work.adjoints[b]
                for j in range(n):
                    sums[0, j] += a * work.monomials[k, j]
        for other in range(n_species):
            begin = neighbours.groups[i, other] - first
            end = neighbours.groups[i, other + 1] - first
            offset = ((kind * n_species + other) * n_radial + mu) * n_beta
            for beta in range(n_beta):
                total = 0.0
                for j in range(begin, end):
                    total += sums[0, j] * work.q[beta, j]
                row[offset + beta] += total
    offset = n_species * n_species * n_radial * n_beta
    row[offset + kind] += 1.0
    offset += n_species
    for alpha in range(len(tables.scalars)):
        row[offset + alpha] += work.moments[tables.scalars[alpha]]


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def evaluate_cell(
    tables: Tables,
    neighbours: Neighbours,
    species: IntArray,
    work: Workspace,
    forces: FloatArray,
    strain: FloatArray,
    site_energies: FloatArray,
    rows: FloatArray,
) -> float:
    """Energy of one cell; fills forces, strain derivative and site energies.

    ``strain`` is dE/dε in eV, shape (3, 3): ASE's stress times the volume. ``rows`` receives
    derivatives by the parameters: shape (0, n) none, (1, n) summed over the cell, (n_atoms, n) for
    each site.
    """
    energy = 0.0
    forces[:] = 0.0
    strain[:] = 0.0
    rows[:] = 0.0
    for i in range(len(species)):
        kind = species[i]
        first = neighbours.starts[i]
        n = neighbours.starts[i + 1] - first
        forward(tables, neighbours, i, kind, work)
        backward(tables, work)
        site_energies[i] = site_energy(tables, kind, work)
        energy += site_energies[i]
        pair_gradients(tables, n, work)
        for j in range(n):
            other = neighbours.atoms[first + j]
            g = (work.gx[j], work.gy[j], work.gz[j])
            d = (neighbours.x[first + j], neighbours.y[first + j], neighbours.z[first + j])
            for axis in range(3):
                forces[other, axis] -= g[axis]
                forces[i, axis] += g[axis]
                for along in range(3):
                    strain[axis, along] += g[axis] * d[along]
        if len(rows) == 1:
            parameter_gradient(tables, neighbours, i, kind, work, rows[0])
        elif len(rows) > 1:
            parameter_gradient(tables, neighbours, i, kind, work, rows[i])
    return energy


@njit(cache=True, nogil=True)
def evaluate_batch(
    tables: Tables,
    cells: FloatArray,
    positions: FloatArray,
    species: IntArray,
    offsets: IndexArray,
    energies: FloatArray,
    forces: FloatArray,
    strains: FloatArray,
    site_energies: FloatArray,
    shortest: FloatArray,
    rows: FloatArray,
    row_offsets: IndexArray,
) -> None:
    """Evaluate every cell of a batch; rows of cell i are ``row_offsets[i]:row_offsets[i + 1]``."""
    work = workspace(tables, 128)
    for s in range(len(cells)):
        begin, end = offsets[s], offsets[s + 1]
        kinds = species[begin:end]
        neighbours = find_neighbours(
            cells[s], positions[begin:end], kinds, len(tables.shifts), tables.cutoff
        )
        if not fits(work, neighbours):
            work = workspace(tables, 2 * np.max(np.diff(neighbours.starts)))
        energies[s] = evaluate_cell(
            tables,
            neighbours,
            kinds,
            work,
            forces[begin:end],
            strains[s],
            site_energies[begin:end],
            rows[row_offsets[s] : row_offsets[s + 1]],
        )
        shortest[s] = neighbours.shortest



def old_tables(potential):
    """Tables of the former kernels."""
    monomials = [
        (a, b, degree - a - b)
        for degree in range(int(potential.basis.basic[:, 1:].sum(axis=1).max()) + 1)
        for a in range(degree, -1, -1)
        for b in range(degree - a, -1, -1)
    ]
    number = {powers: k for k, powers in enumerate(monomials)}
    lower = [
        [number.get((a - (x == 0), b - (x == 1), c - (x == 2)), 0) for x in range(3)]
        for a, b, c in monomials
    ]
    basic = [(mu, number[a, b, c]) for mu, a, b, c in potential.basis.basic.tolist()]
    left, right, factor, target = potential.basis.products.T
    return Tables(
        radial=np.ascontiguousarray(potential.radial, dtype=np.float64),
        shifts=np.ascontiguousarray(potential.shifts, dtype=np.float64),
        linear=np.ascontiguousarray(potential.linear, dtype=np.float64),
        basic=np.array(basic, dtype=np.int32),
        left=np.ascontiguousarray(left),
        right=np.ascontiguousarray(right),
        target=np.ascontiguousarray(target),
        factor=factor.astype(np.float64),
        scalars=potential.basis.scalars,
        powers=np.array(monomials, dtype=np.int32),
        lower=np.array(lower, dtype=np.int32),
        n_moments=potential.basis.n_moments,
        min_distance=float(potential.min_distance),
        cutoff=float(potential.cutoff),
        scaling=float(potential.scaling),
    )
