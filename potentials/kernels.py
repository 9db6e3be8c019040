"""What compiled kernels know of an MTP, where they keep what they compute, and radial functions.

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
