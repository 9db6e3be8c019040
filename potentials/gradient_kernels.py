"""Compiled derivatives of a site energy by its neighbours' places and by all parameters.

Symbols and the order of monomials are those of `kernels`.
"""

from __future__ import annotations

from hullscreen.potentials.compiling import inlined
from hullscreen.potentials.kernels import Tables, Workspace
from hullscreen.potentials.lanes import WIDTH, first_bits, keep, load, spread, store, total
from hullscreen.potentials.moment_kernels import fill_monomials
from hullscreen.potentials.neighbours import Lists
from hullscreen.potentials.structures import FloatArray


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
