"""Compiled evaluation of an MTP: moments, energies and all their derivatives.

Sites, of one cell or of many, are taken eight at a time. Within a site the lanes are neighbours;
once the basic moments are summed, the lanes of their products are the eight sites.

Symbols, after Novikov et al., Mach. Learn.: Sci. Technol. 2, 025002 (2021): ``f[μ, j]`` radial
functions, ``q[β, j]`` the radial basis T_β(ξ(r)) (R_cut − r)² times the scaling, ``monomials[k]``
products x^a y^b z^c of unit vectors, ``values`` the basic moments Σ_j f[μ, j] monomials[k, j]
followed by their products, ``adjoints`` the derivatives of the site energy by each of them.

Of the monomials only those free of z² are summed over neighbours: since x² + y² + z² = 1 for unit
vectors, the moments of the others are differences of these. Those of degree d are x^d, x^(d-1) y,
..., y^d, then z times those of degree d - 1 that are free of z: 2d + 1 in all.
"""

from __future__ import annotations

from typing import NamedTuple

from hullscreen.potentials.compiling import inlined, kernel
from hullscreen.potentials.lanes import (
    WIDTH,
    aligned,
    first_bits,
    keep,
    load,
    spread,
    square_root,
    store,
    total,
)
from hullscreen.potentials.neighbours import Lists, whole_lanes
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
        Basic moments of μ are ``firsts[μ]:firsts[μ + 1]``, one for each monomial up to some degree,
        by degree and falling powers of x, then y; shape (n_radial + 1,).
    summed, slots
        Where those of μ begin that are summed over neighbours (n_radial + 1,), and which moment
        each is (n_summed,).
    differences
        Rows (a, b, c, d): basic moment a is b − c − d, in order; shape (n_differences, 4).
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
    summed: IntArray
    slots: IntArray
    differences: IntArray
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
    width); ``slopes``, ``pulls`` (rows, width) and ``own_adjoints`` (n_summed,) for the site at
    hand; ``values`` and ``adjoints`` are (n_moments, 8) with sites as lanes, ``dq``, ``sums``,
    ``monomials`` and ``weights`` (rows, 8) with neighbours as lanes.
    """

    units: FloatArray
    q: FloatArray
    f: FloatArray
    df: FloatArray
    dq: FloatArray
    slopes: FloatArray
    pulls: FloatArray
    own_adjoints: FloatArray
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
    n_powers = (tables.degree + 1) ** 2
    width = whole_lanes(width)
    return Workspace(
        aligned(WIDTH * 4 * width),
        aligned(WIDTH * n_beta * width),
        aligned(WIDTH * n_radial * width),
        aligned(WIDTH * n_radial * width),
        aligned(n_beta * WIDTH),
        aligned(n_radial * width),
        aligned(3 * width),
        aligned(len(tables.slots)),
        aligned(tables.n_moments * WIDTH),
        aligned(tables.n_moments * WIDTH),
        aligned(tables.summed[-1]),
        aligned(n_powers * WIDTH),
        aligned(n_powers * WIDTH),
        width,
    )


@inlined
def radial_functions(
    tables: Tables, lists: Lists, site: int, lane: int, kind: int, work: Workspace
) -> None:
    """Unit vectors, radial basis and radial functions of a site, with their slopes."""
    n_species = tables.radial.shape[0]
    n_radial, n_beta = tables.radial.shape[2], tables.radial.shape[3]
    width = work.width
    first, n = lists.starts[site], lists.ends[site, n_species - 1]
    units, q, dq = work.units, work.q, work.dq
    unit, base, radial = lane * 4 * width, lane * n_beta * width, lane * n_radial * width
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
        store(dq, 0, slope_before)
        if n_beta > 1:
            value, slope = xi * before, span * before + xi * slope_before
            store(q, base + width + j, value)
            store(dq, WIDTH, slope)
            twice, twice_span = 2.0 * xi, 2.0 * span
            for beta in range(2, n_beta):
                following = twice * value - before
                slope_following = twice * slope + twice_span * value - slope_before
                before, slope_before, value, slope = value, slope, following, slope_following
                store(q, base + beta * width + j, value)
                store(dq, beta * WIDTH, slope)
        for mu in range(n_radial):
            value, slope = spread(0.0), spread(0.0)
            begin = 0
            for other in range(n_species):
                end = lists.ends[site, other]
                if begin < j + WIDTH and end > j:
                    own_value, own_slope = spread(0.0), spread(0.0)
                    for beta in range(n_beta):
                        c = tables.radial[kind, other, mu, beta]
                        own_value += c * load(q, base + beta * width + j)
                        own_slope += c * load(dq, beta * WIDTH)
                    bits = first_bits(end - j) & ~first_bits(begin - j)
                    value += keep(own_value, bits)
                    slope += keep(own_slope, bits)
                begin = end
            store(work.f, radial + mu * width + j, value)
            store(work.df, radial + mu * width + j, slope)


@inlined
def fill_monomials(degree: int, units: FloatArray, at: int, width: int, out: FloatArray) -> None:
    """Monomials free of z² up to ``degree`` of eight neighbours' unit vectors."""
    x, y, z = load(units, at), load(units, at + width), load(units, at + 2 * width)
    store(out, 0, spread(1.0))
    below, here = 0, WIDTH
    for d in range(WIDTH, (degree + 1) * WIDTH, WIDTH):
        for k in range(0, d, WIDTH):
            store(out, here + k, load(out, below + k) * x)
            store(out, here + d + WIDTH + k, load(out, below + k) * z)
        store(out, here + d, load(out, below + d - WIDTH) * y)
        below, here = here, here + 2 * d + WIDTH


@inlined
def basic_moments(tables: Tables, n: int, lane: int, work: Workspace) -> None:
    """Sum a site's moments over its ``n`` neighbours, into its lane of ``values``."""
    n_radial, width = tables.radial.shape[2], work.width
    unit, radial = lane * 4 * width, lane * n_radial * width
    monomials, sums = work.monomials, work.sums
    for b in range(0, tables.summed[-1], WIDTH):
        store(sums, b, spread(0.0))
    for j in range(0, n, WIDTH):
        fill_monomials(tables.degree, work.units, unit + j, width, monomials)
        for mu in range(n_radial):
            f = load(work.f, radial + mu * width + j)
            first = tables.summed[mu]
            for k in range(0, tables.summed[mu + 1] - first, WIDTH):
                store(sums, first + k, load(sums, first + k) + f * load(monomials, k))
    for b in range(len(tables.slots)):
        work.values[tables.slots[b] + lane] = total(load(sums, b * WIDTH))


@inlined
def products(tables: Tables, work: Workspace) -> None:
    """The other basic moments and all products of moments, for eight sites."""
    values = work.values
    for d in range(len(tables.differences)):
        target, plus, minus, minus_too = tables.differences[d]
        value = load(values, plus) - load(values, minus) - load(values, minus_too)
        store(values, target, value)
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


@inlined
def site_energies(tables: Tables, work: Workspace) -> FloatArray:
    """Energies of eight sites without those of their species, eV, shape (8,)."""
    energy = spread(0.0)
    for alpha in range(len(tables.scalars)):
        energy += tables.linear[alpha] * load(work.values, tables.scalars[alpha])
    store(work.sums, 0, energy)
    return work.sums[:WIDTH]


@inlined
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


@inlined
def summed_adjoints(tables: Tables, work: Workspace) -> None:
    """Turn derivatives by every basic moment into those by the moments that are summed."""
    adjoints = work.adjoints
    for d in range(len(tables.differences) - 1, -1, -1):
        target, plus, minus, minus_too = tables.differences[d]
        slope = load(adjoints, target)
        store(adjoints, plus, load(adjoints, plus) + slope)
        store(adjoints, minus, load(adjoints, minus) - slope)
        store(adjoints, minus_too, load(adjoints, minus_too) - slope)


@inlined
def pair_gradients(tables: Tables, n: int, lane: int, work: Workspace) -> None:
    """Derivatives of a site energy by its neighbours' vectors, in ``pulls``.

    With W_k = Σ_μ adjoint_{μk} f_μ and P_μ = Σ_k adjoint_{μk} m_k, the derivative by a vector r u
    is Σ_μ P_μ f'_μ u + (G − (G·u) u) / r, where G = Σ_k W_k ∂m_k/∂u. P is left in ``slopes``.
    """
    n_radial, width = tables.radial.shape[2], work.width
    unit, radial = lane * 4 * width, lane * n_radial * width
    monomials, weights, adjoints = work.monomials, work.weights, work.own_adjoints
    for b in range(len(tables.slots)):
        adjoints[b] = work.adjoints[tables.slots[b] + lane]
    top = tables.degree * WIDTH
    for j in range(0, n, WIDTH):
        at = unit + j
        fill_monomials(tables.degree, work.units, at, width, monomials)
        slope = spread(0.0)
        for mu in range(n_radial):
            f = load(work.f, radial + mu * width + j)
            first, end = tables.summed[mu] // WIDTH, tables.summed[mu + 1] // WIDTH
            polynomial = spread(0.0)
            if mu == 0:
                for k in range(end):
                    polynomial += adjoints[k] * load(monomials, k * WIDTH)
                    store(weights, k * WIDTH, adjoints[k] * f)
                for k in range(end, (tables.degree + 1) ** 2):
                    store(weights, k * WIDTH, spread(0.0))
            else:
                for k in range(end - first):
                    a = adjoints[first + k]
                    polynomial += a * load(monomials, k * WIDTH)
                    store(weights, k * WIDTH, load(weights, k * WIDTH) + a * f)
            store(work.slopes, mu * width + j, polynomial)
            slope += polynomial * load(work.df, radial + mu * width + j)
        x, y, z = (
            load(work.units, at),
            load(work.units, at + width),
            load(work.units, at + 2 * width),
        )
        gx, gy, gz = spread(0.0), spread(0.0), spread(0.0)
        here = tables.degree * top
        for d in range(top, 0, -WIDTH):
            below = here - 2 * d + WIDTH
            last = below + d - WIDTH
            weight = load(weights, here + d)
            gy += weight * load(monomials, last)
            store(weights, last, load(weights, last) + weight * y)
            for k in range(0, d, WIDTH):
                monomial = load(monomials, below + k)
                along_x, along_z = load(weights, here + k), load(weights, here + d + WIDTH + k)
                gx += along_x * monomial
                gz += along_z * monomial
                weight = load(weights, below + k) + along_x * x + along_z * z
                store(weights, below + k, weight)
            here = below
        inverse = load(work.units, at + 3 * width)
        along = slope - (gx * x + gy * y + gz * z) * inverse
        store(work.pulls, j, gx * inverse + along * x)
        store(work.pulls, width + j, gy * inverse + along * y)
        store(work.pulls, 2 * width + j, gz * inverse + along * z)


@inlined
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
                for j in range(begin // WIDTH * WIDTH, end, WIDTH):
                    value += keep(
                        load(work.slopes, mu * width + j) * load(work.q, base + beta * width + j),
                        first_bits(end - j) & ~first_bits(begin - j),
                    )
                row[offset + beta] += total(value)
        begin = end
    offset = n_species * n_species * n_radial * n_beta
    row[offset + kind] += 1.0
    offset += n_species
    for alpha in range(len(tables.scalars)):
        row[offset + alpha] += work.values[tables.scalars[alpha] + lane]


@inlined
def add_forces(
    lists: Lists,
    site: int,
    first_atom: int,
    atom: int,
    work: Workspace,
    forces: FloatArray,
    strain: FloatArray,
) -> None:
    """Add a site's ``pulls`` to the forces on its neighbours and to its cell's strain.

    Of the strain only the upper triangle is changed.
    """
    width, first, n = work.width, lists.starts[site], lists.ends[site, -1]
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
