"""Compiled derivatives of a site's basic moments along the directions that it feels.

Those are six strains of its cell and the coordinates of the atoms around it; its own coordinates
are minus the sum of these. What depends on one neighbour is

    g_a = q' m u_a + q (∂m/∂u_a − deg(m) m u_a) / r

for a monomial m of its unit vector u and a function q of its distance r. These are summed with
monomials as lanes; as in `kernels`, only those free of z² are.

Sums come in rows: first the sum of q m itself, then the strains xx, yy, zz, yz, xz, xy, then three
for each atom around the site.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hullscreen.potentials.compiling import inlined, kernel
from hullscreen.potentials.kernels import Tables, Workspace
from hullscreen.potentials.lanes import WIDTH, load, spread, square_root, store
from hullscreen.potentials.neighbours import Lists, whole_lanes
from hullscreen.potentials.structures import FloatArray, IndexArray

# Where the rows of strains and of atoms begin.
STRAINS, OTHERS = 1, 7
# Terms of a monomial at a neighbour.
N_TERMS = 7


class Channels(NamedTuple):
    """Functions of distance whose sums with monomials are formed, and where those are kept.

    Attributes
    ----------
    starts
        Sums of a channel begin here in a row, a multiple of the lanes' width, shape (n + 1,).
    apart
        Whether neighbours of each species are summed on their own.
    """

    starts: IndexArray
    apart: bool


class Surroundings(NamedTuple):
    """The distinct atoms that a site feels: itself first, then its neighbours.

    Attributes
    ----------
    atoms, species
        Their indices in the cell, and their species, shape (at least n,).
    places
        Where an atom of the cell stands in ``atoms``, −1 if nowhere, shape (n_atoms,).
    run_ends, run_places
        Neighbours that follow one another in the site's list and are images of one atom form a
        run: where it ends in the list, and the atom's place, shape (at least n_runs,).
    first_runs
        The first run of each species, and their number, shape (n_species + 1,).
    """

    atoms: IndexArray
    species: IndexArray
    places: IndexArray
    run_ends: IndexArray
    run_places: IndexArray
    first_runs: IndexArray


@kernel
def radial_channels(tables: Tables) -> Channels:
    """The radial functions: a row holds basic moments."""
    n_radial = tables.radial.shape[2]
    starts = np.zeros(n_radial + 1, np.int64)
    for mu in range(n_radial):
        n = (tables.summed[mu + 1] - tables.summed[mu]) // WIDTH
        starts[mu + 1] = starts[mu] + whole_lanes(n)
    return Channels(starts, apart=False)


@kernel
def basis_channels(tables: Tables) -> Channels:
    """The radial basis: a row holds what basic moments are linear combinations of."""
    n_beta = tables.radial.shape[3]
    n = whole_lanes((tables.degree + 1) ** 2)
    return Channels(np.arange(n_beta + 1) * n, apart=True)


@kernel
def surroundings(n_near: int, n_atoms: int, n_species: int, width: int) -> Surroundings:
    """Room for ``n_near`` atoms and ``width`` neighbours."""
    return Surroundings(
        np.empty(n_near, np.int64),
        np.empty(n_near, np.int64),
        np.empty(n_atoms, np.int64),
        np.empty(width, np.int64),
        np.empty(width, np.int64),
        np.empty(n_species + 1, np.int64),
    )


@kernel
def find_surroundings(lists: Lists, site: int, atom: int, found: Surroundings) -> int:
    """Fill ``found`` with the atoms that site ``site``, atom ``atom`` of its cell, feels."""
    found.places[:] = -1
    found.places[atom] = 0
    found.atoms[0] = atom
    n, n_runs, first, begin = 1, 0, lists.starts[site], 0
    for kind in range(lists.ends.shape[1]):
        end = lists.ends[site, kind]
        found.first_runs[kind] = n_runs
        for j in range(begin, end):
            other = lists.atoms[first + j]
            if found.places[other] < 0:
                found.places[other] = n
                found.atoms[n] = other
                found.species[n] = kind
                n += 1
            if j > begin and lists.atoms[first + j - 1] == other:
                found.run_ends[n_runs - 1] = j + 1
            else:
                found.run_places[n_runs], found.run_ends[n_runs] = found.places[other], j + 1
                n_runs += 1
        begin = end
    found.first_runs[-1] = n_runs
    return n


@kernel
def basis_slopes(
    tables: Tables, lists: Lists, site: int, lane: int, work: Workspace, slopes: FloatArray
) -> None:
    """Derivatives of the radial basis at a site's neighbours, shape (n_beta, work.width)."""
    n_beta, width, first = tables.radial.shape[3], work.width, lists.starts[site]
    span = 2.0 / (tables.cutoff - tables.min_distance)
    middle = 0.5 * (tables.cutoff + tables.min_distance)
    for j in range(0, lists.ends[site, -1], WIDTH):
        x, y, z = load(lists.x, first + j), load(lists.y, first + j), load(lists.z, first + j)
        r = square_root(x * x + y * y + z * z)
        xi, gap = (r - middle) * span, tables.cutoff - r
        q = lane * n_beta * width + j
        before = -2.0 * tables.scaling * gap
        store(slopes, j, before)
        if n_beta > 1:
            slope = span * load(work.q, q) + xi * before
            store(slopes, width + j, slope)
            for beta in range(2, n_beta):
                value = load(work.q, q + (beta - 1) * width)
                following = 2.0 * xi * slope + 2.0 * span * value - before
                before, slope = slope, following
                store(slopes, beta * width + j, slope)


@inlined
def _fill_powers(degree: int, x: float, y: float, z: float, powers: FloatArray) -> None:
    """Monomials of one unit vector, then their derivatives by x, y and z; monomials are lanes.

    Beyond the last monomial of each row are zeros.
    """
    row = powers.size // 4
    gx, gy, gz = row, 2 * row, 3 * row
    powers[0] = 1.0
    below, here = 0, 1
    for d in range(1, degree + 1):
        after = here + d + 1
        for k in range(0, d, WIDTH):
            store(powers, here + k, x * load(powers, below + k))
            value = load(powers, below + k)
            store(powers, gx + here + k, value + x * load(powers, gx + below + k))
            store(powers, gy + here + k, x * load(powers, gy + below + k))
            store(powers, gz + here + k, spread(0.0))
        value, last = powers[below + d - 1], here + d
        powers[last] = y * value
        powers[gx + last] = 0.0
        powers[gy + last] = value + y * powers[gy + below + d - 1]
        powers[gz + last] = 0.0
        for k in range(0, d, WIDTH):
            value = load(powers, below + k)
            store(powers, after + k, z * value)
            store(powers, gx + after + k, z * load(powers, gx + below + k))
            store(powers, gy + after + k, z * load(powers, gy + below + k))
            store(powers, gz + after + k, value)
        below, here = here, after + d
    for start in (here, gx + here, gy + here, gz + here):
        store(powers, start, spread(0.0))


@kernel
def fill_terms(
    degrees: FloatArray,
    n: int,
    lane: int,
    work: Workspace,
    powers: FloatArray,
    terms: FloatArray,
) -> None:
    """What g consists of, for every monomial and each of a site's ``n`` neighbours.

    ``terms`` has shape (n_monomials / 8, n, 7, 8): m, the three m u_a, and the three
    (∂m/∂u_a − deg(m) m u_a) / r.
    """
    width, row = work.width, powers.size // 4
    unit = 4 * lane * width
    degree, n_blocks = int(degrees[-1]), len(degrees) // WIDTH
    for j in range(n):
        x, y, z = (
            work.units[unit + j],
            work.units[unit + width + j],
            work.units[unit + 2 * width + j],
        )
        inverse = work.units[unit + 3 * width + j]
        _fill_powers(degree, x, y, z, powers)
        for block in range(n_blocks):
            k = block * WIDTH
            m = load(powers, k)
            at = (block * n + j) * N_TERMS * WIDTH
            store(terms, at, m)
            store(terms, at + WIDTH, m * x)
            store(terms, at + 2 * WIDTH, m * y)
            store(terms, at + 3 * WIDTH, m * z)
            m = m * load(degrees, k)
            gx = load(powers, row + k) - m * x
            gy = load(powers, 2 * row + k) - m * y
            gz = load(powers, 3 * row + k) - m * z
            store(terms, at + 4 * WIDTH, gx * inverse)
            store(terms, at + 5 * WIDTH, gy * inverse)
            store(terms, at + 6 * WIDTH, gz * inverse)


@kernel
def sum_channels(
    channels: Channels,
    lists: Lists,
    site: int,
    width: int,
    values: FloatArray,
    slopes: FloatArray,
    near: Surroundings,
    n_near: int,
    terms: FloatArray,
    out: FloatArray,
) -> None:
    """Sum a site's channels times monomials, and their derivatives, over its neighbours.

    ``values`` and ``slopes`` are the channels and their derivatives at each neighbour, shape
    (n_channels, width), ``terms`` those of `fill_terms`; ``out`` receives the rows: the first seven
    once for each species if these are kept apart, then three for each atom around the site.
    """
    n_species, n, first = lists.ends.shape[1], lists.ends[site, -1], lists.starts[site]
    n_channels = len(channels.starts) - 1
    stride = channels.starts[n_channels]
    largest = np.max(np.diff(channels.starts))
    n_groups = n_species if channels.apart else 1
    others = OTHERS * n_groups
    out[others * stride : (others + 3 * (n_near - 1)) * stride] = 0.0
    begin = 0
    for group in range(n_groups):
        first_run = near.first_runs[group]
        last_run = near.first_runs[group + 1 if channels.apart else n_species]
        # The terms of eight monomials stay in the cache while all channels are summed.
        for k in range(0, largest, WIDTH):
            block = k // WIDTH * n
            for c in range(n_channels):
                at = channels.starts[c] + k
                if at >= channels.starts[c + 1]:
                    continue
                value, j = spread(0.0), begin
                xx, yy, zz = spread(0.0), spread(0.0), spread(0.0)
                yz, xz, xy = spread(0.0), spread(0.0), spread(0.0)
                for run in range(first_run, last_run):
                    sx, sy, sz = spread(0.0), spread(0.0), spread(0.0)
                    end = near.run_ends[run]
                    while j < end:
                        x, y, z = lists.x[first + j], lists.y[first + j], lists.z[first + j]
                        q, dq = values[c * width + j], slopes[c * width + j]
                        term = (block + j) * N_TERMS * WIDTH
                        value += q * load(terms, term)
                        gx = dq * load(terms, term + WIDTH) + q * load(terms, term + 4 * WIDTH)
                        gy = dq * load(terms, term + 2 * WIDTH) + q * load(terms, term + 5 * WIDTH)
                        gz = dq * load(terms, term + 3 * WIDTH) + q * load(terms, term + 6 * WIDTH)
                        sx, sy, sz = sx + gx, sy + gy, sz + gz
                        xx, yy, zz = xx + gx * x, yy + gy * y, zz + gz * z
                        yz, xz, xy = yz + gy * z, xz + gx * z, xy + gx * y
                        j += 1
                    # Images of the site itself move with it.
                    if near.run_places[run] > 0:
                        p = (others + 3 * (near.run_places[run] - 1)) * stride + at
                        store(out, p, load(out, p) + sx)
                        store(out, p + stride, load(out, p + stride) + sy)
                        store(out, p + 2 * stride, load(out, p + 2 * stride) + sz)
                p = OTHERS * group * stride + at
                store(out, p, value)
                p += STRAINS * stride
                store(out, p, xx)
                store(out, p + stride, yy)
                store(out, p + 2 * stride, zz)
                store(out, p + 3 * stride, yz)
                store(out, p + 4 * stride, xz)
                store(out, p + 5 * stride, xy)
        begin = int(near.run_ends[last_run - 1]) if last_run > 0 else 0


@kernel
def combine_channels(
    tables: Tables,
    channels: Channels,
    basis: Channels,
    kind: int,
    near: Surroundings,
    n_near: int,
    sums: FloatArray,
    out: FloatArray,
) -> None:
    """Rows of basic moments from those of the radial basis, for a site of species ``kind``."""
    n_species, _, n_radial, n_beta = tables.radial.shape
    stride, width = channels.starts[n_radial], basis.starts[n_beta]
    for row in range(OTHERS + 3 * (n_near - 1)):
        shared = row < OTHERS
        first = 0 if shared else near.species[1 + (row - OTHERS) // 3]
        last = n_species if shared else first + 1
        for mu in range(n_radial):
            at = row * stride + channels.starts[mu]
            for k in range(0, channels.starts[mu + 1] - channels.starts[mu], WIDTH):
                moment = spread(0.0)
                for other in range(first, last):
                    source = (other if shared else n_species - 1) * OTHERS
                    source = (source + row) * width + k
                    for beta in range(n_beta):
                        c = tables.radial[kind, other, mu, beta]
                        moment += c * load(sums, source + basis.starts[beta])
                store(out, at + k, moment)
