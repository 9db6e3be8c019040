"""Compiled evaluation of an MTP: moments, energies and all their derivatives.

Sites, of one cell or of many, are taken eight at a time. Within a site the lanes are neighbours;
once the basic moments are summed, the lanes of their products are the eight sites.

Symbols, after Novikov et al., Mach. Learn.: Sci. Technol. 2, 025002 (2021): ``f[μ, j]`` radial
functions, ``q[β, j]`` the radial basis T_β(ξ(r)) (R_cut − r)² times the scaling, ``monomials[k]``
products x^a y^b z^c of unit vectors, ``values`` the basic moments Σ_j f[μ, j] monomials[k, j]
followed by their products, ``adjoints`` the derivatives of the site energy by each of them.

Monomials of a degree follow those of the degree below, and begin with x times each of these in
order; then come y times those free of x, then z times that free of x and y.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hullscreen.potentials.compiling import kernel
from hullscreen.potentials.lanes import (
    WIDTH,
    keep_first,
    load,
    spread,
    square_root,
    store,
    total,
)
from hullscreen.potentials.neighbours import Lists
from hullscreen.potentials.structures import FloatArray, IntArray


class Tables(NamedTuple):
    """An MTP as the kernels take it. Moments are named by their first lane: index times eight.

    Attributes
    ----------
    radial
        c[z_i, z_j, μ, β], shape (n_species, n_species, n_radial, radial_basis_size).
    shifts, linear
        Energy of each species (n_species,) and coefficient of each basis function (n_scalars,), eV.
    firsts
        Basic moments of μ are ``firsts[μ]:firsts[μ + 1]``, one for each of the first monomials;
        shape (n_radial + 1,).
    left, right, factor
        Operands and coefficient of each product, shape (n_products,).
    targets, ends
        Runs of products that add to the same moment: which one, and where the run ends; (n_runs,).
    scalars
        Which moments are the basis functions, shape (n_scalars,).
    degree
        Highest degree of a monomial.
    """

    radial: FloatArray
    shifts: FloatArray
    linear: FloatArray
    firsts: IntArray
    left: IntArray
    right: IntArray
    factor: FloatArray
    targets: IntArray
    ends: IntArray
    scalars: IntArray
    degree: int
    n_moments: int
    min_distance: float
    cutoff: float
    scaling: float


class Workspace(NamedTuple):
    """Scratch arrays of one thread, in flat C order.

    ``units`` (x, y, z, 1/r), ``q``, ``f``, ``df`` are kept for eight sites, shape (8, rows,
    width); ``dq``, ``slopes`` and ``pulls`` for the site at hand, (rows, width); ``values`` and
    ``adjoints`` are (n_moments, 8) with sites as lanes, ``sums``, ``monomials`` and ``weights``
    (rows, 8) with neighbours as lanes.
    """

    units: FloatArray
    q: FloatArray
    f: FloatArray
    df: FloatArray
    dq: FloatArray
    slopes: FloatArray
    pulls: FloatArray
    values: FloatArray
    adjoints: FloatArray
    sums: FloatArray
    monomials: FloatArray
    weights: FloatArray
    width: int


@kernel
def n_monomials(degree: int) -> int:
    """How many monomials have a degree up to ``degree``."""
    return (degree + 1) * (degree + 2) * (degree + 3) // 6


@kernel
def workspace(tables: Tables, width: int) -> Workspace:
    """Scratch for sites of at most ``width`` neighbours."""
    n_radial, n_beta = tables.radial.shape[2], tables.radial.shape[3]
    n_powers = n_monomials(tables.degree)
    # Lanes at the end of a species' neighbours reach beyond the last neighbour.
    width += WIDTH
    return Workspace(
        np.empty(WIDTH * 4 * width),
        np.empty(WIDTH * n_beta * width),
        np.empty(WIDTH * n_radial * width),
        np.empty(WIDTH * n_radial * width),
        np.empty(n_beta * width),
        np.empty(n_radial * width),
        np.empty(3 * width),
        np.empty(tables.n_moments * WIDTH),
        np.empty(tables.n_moments * WIDTH),
        np.empty(tables.firsts[-1] * WIDTH),
        np.empty(n_powers * WIDTH),
        np.empty(n_powers * WIDTH),
        width,
    )


@kernel
def radial_functions(
    tables: Tables, lists: Lists, site: int, lane: int, kind: int, work: Workspace
) -> None:
    """Unit vectors, radial basis and radial functions of a site, with their slopes."""
    n_species = tables.radial.shape[0]
    n_radial, n_beta = tables.radial.shape[2], tables.radial.shape[3]
    width = work.width
    first, n = site * lists.width, lists.ends[site, n_species - 1]
    if n == 0:
        return
    units, q, dq = work.units, work.q, work.dq
    unit, base = lane * 4 * width, lane * n_beta * width
    span = 2.0 / (tables.cutoff - tables.min_distance)
    middle = 0.5 * (tables.cutoff + tables.min_distance)
    for j in range(0, n, WIDTH):
        x, y, z = load(lists.x, first + j), load(lists.y, first + j), load(lists.z, first + j)
        r = square_root(x * x + y * y + z * z)
        inverse = 1.0 / r
        store(units, unit + j, x * inverse)
        store(units, unit + width + j, y * inverse)
        store(units, unit + 2 * width + j, z * inverse)
        store(units, unit + 3 * width + j, inverse)
        # The smoothing factor is in place from the start: the recursion is linear in it.
        xi = (r - middle) * span
        gap = tables.cutoff - r
        before, slope_before = tables.scaling * gap * gap, -2.0 * tables.scaling * gap
        store(q, base + j, before)
        store(dq, j, slope_before)
        if n_beta > 1:
            value, slope = xi * before, span * before + xi * slope_before
            store(q, base + width + j, value)
            store(dq, width + j, slope)
            twice, twice_span = 2.0 * xi, 2.0 * span
            for beta in range(2, n_beta):
                following = twice * value - before
                slope_following = twice * slope + twice_span * value - slope_before
                before, slope_before, value, slope = value, slope, following, slope_following
                store(q, base + beta * width + j, value)
                store(dq, beta * width + j, slope)
    f, df = work.f, work.df
    target = lane * n_radial * width
    last = (n + WIDTH - 1) // WIDTH * WIDTH
    for mu in range(n_radial):
        # What the lanes of the last species do not reach of the padding.
        store(f, target + mu * width + last - WIDTH, spread(0.0))
        store(df, target + mu * width + last - WIDTH, spread(0.0))
    begin = 0
    for other in range(n_species):
        end = lists.ends[site, other]
        for j in range(begin, end, WIDTH):
            # Lanes beyond this species' last neighbour are overwritten by the next species.
            for mu in range(n_radial):
                value, slope = spread(0.0), spread(0.0)
                for beta in range(n_beta):
                    c = tables.radial[kind, other, mu, beta]
                    value += c * load(q, base + beta * width + j)
                    slope += c * load(dq, beta * width + j)
                store(f, target + mu * width + j, value)
                store(df, target + mu * width + j, slope)
        begin = end


@kernel
def fill_monomials(degree: int, units: FloatArray, at: int, width: int, out: FloatArray) -> None:
    """Monomials up to ``degree`` of eight neighbours' unit vectors."""
    x, y, z = load(units, at), load(units, at + width), load(units, at + 2 * width)
    store(out, 0, spread(1.0))
    below, here = 0, WIDTH
    for d in range(1, degree + 1):
        n_below = d * (d + 1) // 2 * WIDTH
        for k in range(0, n_below, WIDTH):
            store(out, here + k, load(out, below + k) * x)
        free_of_x, target = here - d * WIDTH, here + n_below
        for k in range(0, d * WIDTH, WIDTH):
            store(out, target + k, load(out, free_of_x + k) * y)
        store(out, target + d * WIDTH, load(out, here - WIDTH) * z)
        below, here = here, target + (d + 1) * WIDTH


@kernel
def basic_moments(tables: Tables, n: int, lane: int, work: Workspace) -> None:
    """Sum a site's basic moments over its ``n`` neighbours, into its lane of ``values``."""
    n_radial, width = tables.radial.shape[2], work.width
    unit, radial = lane * 4 * width, lane * n_radial * width
    monomials, sums = work.monomials, work.sums
    n_basic = tables.firsts[-1]
    for b in range(0, n_basic, WIDTH):
        store(sums, b, spread(0.0))
    for j in range(0, n, WIDTH):
        fill_monomials(tables.degree, work.units, unit + j, width, monomials)
        for mu in range(n_radial):
            f = load(work.f, radial + mu * width + j)
            first = tables.firsts[mu]
            for k in range(0, tables.firsts[mu + 1] - first, WIDTH):
                store(sums, first + k, load(sums, first + k) + f * load(monomials, k))
    for b in range(0, n_basic, WIDTH):
        work.values[b + lane] = total(load(sums, b))


@kernel
def products(tables: Tables, work: Workspace) -> None:
    """All products of moments, for eight sites."""
    values = work.values
    for b in range(tables.firsts[-1], tables.n_moments * WIDTH, WIDTH):
        store(values, b, spread(0.0))
    begin = 0
    for run in range(len(tables.targets)):
        end, target = tables.ends[run], tables.targets[run]
        value = load(values, target)
        for p in range(begin, end):
            value += tables.factor[p] * load(values, tables.left[p]) * load(values, tables.right[p])
        store(values, target, value)
        begin = end


@kernel
def adjoint_products(tables: Tables, work: Workspace) -> None:
    """Derivatives of eight site energies by every moment (reverse mode)."""
    values, adjoints = work.values, work.adjoints
    for b in range(0, tables.n_moments * WIDTH, WIDTH):
        store(adjoints, b, spread(0.0))
    for alpha in range(len(tables.scalars)):
        scalar = tables.scalars[alpha]
        store(adjoints, scalar, load(adjoints, scalar) + spread(tables.linear[alpha]))
    for run in range(len(tables.targets) - 1, -1, -1):
        begin = tables.ends[run - 1] if run else 0
        slope = load(adjoints, tables.targets[run])
        for p in range(tables.ends[run] - 1, begin - 1, -1):
            left, right = tables.left[p], tables.right[p]
            a = tables.factor[p] * slope
            store(adjoints, left, load(adjoints, left) + a * load(values, right))
            store(adjoints, right, load(adjoints, right) + a * load(values, left))


@kernel
def pair_gradients(
    tables: Tables, n: int, lane: int, work: Workspace
) -> None:
    """Derivatives of a site energy by its neighbours' vectors, in ``pulls``.

    With W_k = Σ_μ adjoint_{μk} f_μ and P_μ = Σ_k adjoint_{μk} m_k, the derivative along a vector r u
    is Σ_μ P_μ f'_μ u + (G − (G·u) u) / r, where G = Σ_k W_k ∂m_k/∂u. P is left in ``slopes``.
    """
    n_radial, width = tables.radial.shape[2], work.width
    unit, radial = lane * 4 * width, lane * n_radial * width
    monomials, weights, adjoints = work.monomials, work.weights, work.adjoints
    n_powers = n_monomials(tables.degree) * WIDTH
    for j in range(0, n, WIDTH):
        at = unit + j
        fill_monomials(tables.degree, work.units, at, width, monomials)
        for k in range(0, n_powers, WIDTH):
            store(weights, k, spread(0.0))
        slope = spread(0.0)
        for mu in range(n_radial):
            f = load(work.f, radial + mu * width + j)
            first = tables.firsts[mu]
            polynomial = spread(0.0)
            for k in range(0, tables.firsts[mu + 1] - first, WIDTH):
                a = adjoints[first + k + lane]
                polynomial += a * load(monomials, k)
                store(weights, k, load(weights, k) + a * f)
            store(work.slopes, mu * width + j, polynomial)
            slope += polynomial * load(work.df, radial + mu * width + j)
        x, y, z = (
            load(work.units, at),
            load(work.units, at + width),
            load(work.units, at + 2 * width),
        )
        gx, gy, gz = spread(0.0), spread(0.0), spread(0.0)
        here = n_monomials(tables.degree - 1) * WIDTH
        for d in range(tables.degree, 0, -1):
            n_below = d * (d + 1) // 2 * WIDTH
            below = here - n_below
            free_of_x, target = here - d * WIDTH, here + n_below
            weight = load(weights, target + d * WIDTH)
            gz += weight * load(monomials, here - WIDTH)
            store(weights, here - WIDTH, load(weights, here - WIDTH) + weight * z)
            for k in range(0, d * WIDTH, WIDTH):
                weight = load(weights, target + k)
                gy += weight * load(monomials, free_of_x + k)
                store(weights, free_of_x + k, load(weights, free_of_x + k) + weight * y)
            for k in range(0, n_below, WIDTH):
                weight = load(weights, here + k)
                gx += weight * load(monomials, below + k)
                store(weights, below + k, load(weights, below + k) + weight * x)
            here = below
        inverse = load(work.units, at + 3 * width)
        along = slope - (gx * x + gy * y + gz * z) * inverse
        store(work.pulls, j, gx * inverse + along * x)
        store(work.pulls, width + j, gy * inverse + along * y)
        store(work.pulls, 2 * width + j, gz * inverse + along * z)


@kernel
def parameter_gradient(
    tables: Tables, lists: Lists, site: int, lane: int, kind: int, work: Workspace, row: FloatArray
) -> None:
    """Add the derivatives of a site energy by all parameters to ``row``, shape (n_parameters,).

    Order: radial coefficients (z_i, z_j, μ, β), species, linear coefficients.
    """
    n_species, _, n_radial, n_beta = tables.radial.shape
    width = work.width
    base = lane * n_beta * width
    begin = 0
    for other in range(n_species):
        end = lists.ends[site, other]
        for mu in range(n_radial):
            offset = ((kind * n_species + other) * n_radial + mu) * n_beta
            for beta in range(n_beta):
                value = spread(0.0)
                for j in range(begin, end, WIDTH):
                    value += keep_first(
                        load(work.slopes, mu * width + j) * load(work.q, base + beta * width + j),
                        end - j,
                    )
                row[offset + beta] += total(value)
        begin = end
    offset = n_species * n_species * n_radial * n_beta
    row[offset + kind] += 1.0
    offset += n_species
    for alpha in range(len(tables.scalars)):
        row[offset + alpha] += work.values[tables.scalars[alpha] + lane]


@kernel
def add_forces(
    lists: Lists,
    site: int,
    n: int,
    first_atom: int,
    atom: int,
    work: Workspace,
    forces: FloatArray,
    strain: FloatArray,
) -> None:
    """Add a site's ``pulls`` to the forces on its neighbours and to its cell's strain."""
    width, first = work.width, site * lists.width
    xx, yy, zz = spread(0.0), spread(0.0), spread(0.0)
    yz, xz, xy = spread(0.0), spread(0.0), spread(0.0)
    sx, sy, sz = spread(0.0), spread(0.0), spread(0.0)
    for j in range(0, n, WIDTH):
        x, y, z = load(lists.x, first + j), load(lists.y, first + j), load(lists.z, first + j)
        gx, gy, gz = (
            load(work.pulls, j),
            load(work.pulls, width + j),
            load(work.pulls, 2 * width + j),
        )
        sx, sy, sz = sx + gx, sy + gy, sz + gz
        xx, yy, zz = xx + gx * x, yy + gy * y, zz + gz * z
        yz, xz, xy = yz + gy * z, xz + gx * z, xy + gx * y
    forces[atom, 0] += total(sx)
    forces[atom, 1] += total(sy)
    forces[atom, 2] += total(sz)
    strain[0, 0] += total(xx)
    strain[1, 1] += total(yy)
    strain[2, 2] += total(zz)
    strain[1, 2] += total(yz)
    strain[0, 2] += total(xz)
    strain[0, 1] += total(xy)
    for j in range(n):
        other = first_atom + lists.atoms[first + j]
        forces[other, 0] -= work.pulls[j]
        forces[other, 1] -= work.pulls[width + j]
        forces[other, 2] -= work.pulls[2 * width + j]
