"""Compiled moments of a site's neighbourhood, their products, and the reverse mode of both.

Symbols and the order of monomials are those of `kernels`.
"""

from __future__ import annotations

from hullscreen.potentials.compiling import inlined
from hullscreen.potentials.kernels import Tables, Workspace
from hullscreen.potentials.lanes import WIDTH, load, spread, store, total
from hullscreen.potentials.structures import FloatArray


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
