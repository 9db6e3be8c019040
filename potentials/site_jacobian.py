"""Compiled rows of one site in the Jacobian of its cell: from basic moments to all parameters.

Products of moments are differentiated with directions as lanes, sixteen at a time, so that all
moments' tangents stay in the cache. The radial coefficients enter as factors of sums that depend on
geometry only: their rows follow from these sums and from the derivatives of the energy by the basic
moments, the *adjoints*.

Directions are numbered as the rows of sums in `tangent_kernels`: 0 stands for the energy itself.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hullscreen.potentials.compiling import inlined, kernel
from hullscreen.potentials.kernels import Tables, Workspace, workspace
from hullscreen.potentials.lanes import WIDTH, aligned, load, spread, store, total
from hullscreen.potentials.neighbours import Lists, whole_lanes
from hullscreen.potentials.structures import FloatArray, IndexArray
from hullscreen.potentials.tangent_kernels import (
    N_TERMS,
    OTHERS,
    STRAINS,
    Channels,
    Surroundings,
    basis_channels,
    basis_slopes,
    combine_channels,
    fill_terms,
    find_surroundings,
    radial_channels,
    sum_channels,
    surroundings,
)

# Directions taken together: two lanes, whose sums do not wait for one another.
TOGETHER = 2 * WIDTH


class Room(NamedTuple):
    """Scratch for the sites of one cell, arrays in flat C order.

    ``sums`` are those of the radial basis (none for linear rows alone), ``moments`` those of basic
    moments; ``values`` and ``adjoints`` belong to one site, shape (n_moments,), ``tangents`` and
    ``adjoint_tangents`` to sixteen directions of it, (n_moments, 16); ``weights`` are adjoints of
    the basic moments, arranged as a row of ``moments``; ``rows`` are a site's radial rows,
    (n_species, n_radial, n_beta, n_directions); ``columns`` is where each direction belongs in the
    cell's Jacobian.
    """

    work: Workspace
    channels: Channels
    basis: Channels
    near: Surroundings
    degrees: FloatArray
    powers: FloatArray
    terms: FloatArray
    slopes: FloatArray
    sums: FloatArray
    moments: FloatArray
    values: FloatArray
    adjoints: FloatArray
    tangents: FloatArray
    adjoint_tangents: FloatArray
    weights: FloatArray
    rows: FloatArray
    columns: IndexArray


@kernel
def _whole_blocks(n: int) -> int:
    return (n + TOGETHER - 1) // TOGETHER * TOGETHER


@kernel
def make_room(tables: Tables, width: int, n_atoms: int, linear_only: bool) -> Room:
    """Scratch for cells of at most ``n_atoms``, sites of at most ``width`` neighbours."""
    n_species, _, n_radial, n_beta = tables.radial.shape
    channels, basis = radial_channels(tables), basis_channels(tables)
    work = workspace(tables, width)
    n_near = min(n_atoms, work.width + 1)
    n_directions = _whole_blocks(OTHERS + 3 * n_near)
    n_powers = (tables.degree + 1) ** 2
    degrees = np.full(whole_lanes(n_powers), float(tables.degree))
    for d in range(tables.degree):
        degrees[d * d : (d + 1) ** 2] = d
    n_sums = 0 if linear_only else (n_species * OTHERS + 3 * n_near) * basis.starts[n_beta]
    n_adjoints = 0 if linear_only else tables.n_moments
    weights = aligned(channels.starts[n_radial])
    weights[:] = 0.0
    return Room(
        work,
        channels,
        basis,
        surroundings(n_near, n_atoms, n_species, work.width),
        degrees,
        np.zeros(4 * (whole_lanes(n_powers) + WIDTH)),
        aligned(whole_lanes(n_powers) * N_TERMS * work.width),
        aligned(n_beta * work.width),
        aligned(n_sums),
        aligned(n_directions * channels.starts[n_radial]),
        aligned(tables.n_moments),
        aligned(n_adjoints),
        aligned(tables.n_moments * TOGETHER),
        aligned(n_adjoints * TOGETHER),
        weights,
        aligned(n_species * n_radial * n_beta * n_directions),
        np.empty(n_directions, np.int64),
    )


@kernel
def _product_tangents(tables: Tables, values: FloatArray, tangents: FloatArray) -> None:
    """Tangents of all moments in sixteen directions, given those of the summed ones."""
    for i in range(len(tables.differences)):
        target, plus, minus, minus_too = tables.differences[i]
        for half in range(0, TOGETHER, WIDTH):
            value = load(tangents, 2 * plus + half) - load(tangents, 2 * minus + half)
            store(tangents, 2 * target + half, value - load(tangents, 2 * minus_too + half))
    for b in range(2 * tables.firsts[-1], tables.n_moments * TOGETHER, WIDTH):
        store(tangents, b, spread(0.0))
    begin = 0
    for run in range(len(tables.targets)):
        end, target = tables.ends[run], 2 * tables.targets[run]
        one, two = load(tangents, target), load(tangents, target + WIDTH)
        for p in range(begin, end):
            left, right, factor = tables.left[p], tables.right[p], tables.factor[p]
            a, b = factor * values[left // WIDTH], factor * values[right // WIDTH]
            left, right = 2 * left, 2 * right
            one += a * load(tangents, right) + b * load(tangents, left)
            two += a * load(tangents, right + WIDTH) + b * load(tangents, left + WIDTH)
        store(tangents, target, one)
        store(tangents, target + WIDTH, two)
        begin = end


@kernel
def _adjoint_tangents(
    tables: Tables,
    values: FloatArray,
    adjoints: FloatArray,
    tangents: FloatArray,
    out: FloatArray,
) -> None:
    """Derivatives in sixteen directions of the adjoints of all moments."""
    for b in range(0, tables.n_moments * TOGETHER, WIDTH):
        store(out, b, spread(0.0))
    for run in range(len(tables.targets) - 1, -1, -1):
        begin = tables.ends[run - 1] if run else 0
        target = tables.targets[run]
        adjoint = adjoints[target // WIDTH]
        one, two = load(out, 2 * target), load(out, 2 * target + WIDTH)
        for p in range(tables.ends[run] - 1, begin - 1, -1):
            left, right, factor = tables.left[p], tables.right[p], tables.factor[p]
            a, b = factor * values[right // WIDTH], factor * values[left // WIDTH]
            c = factor * adjoint
            left, right = 2 * left, 2 * right
            beside, after = load(tangents, right), load(tangents, right + WIDTH)
            store(out, left, load(out, left) + (a * one + c * beside))
            store(out, left + WIDTH, load(out, left + WIDTH) + (a * two + c * after))
            beside, after = load(tangents, left), load(tangents, left + WIDTH)
            store(out, right, load(out, right) + (b * one + c * beside))
            store(out, right + WIDTH, load(out, right + WIDTH) + (b * two + c * after))
    for i in range(len(tables.differences) - 1, -1, -1):
        target, plus, minus, minus_too = tables.differences[i]
        for half in range(0, TOGETHER, WIDTH):
            slope = load(out, 2 * target + half)
            for moment, sign in ((plus, 1.0), (minus, -1.0), (minus_too, -1.0)):
                at = 2 * moment + half
                store(out, at, load(out, at) + sign * slope)


@kernel
def _radial_rows_by_tangents(tables: Tables, room: Room, block: int, n_directions: int) -> None:
    """Radial rows along sixteen directions: tangents of adjoints times sums of the radial basis."""
    n_species, _, n_radial, n_beta = tables.radial.shape
    starts, width = room.basis.starts, room.basis.starts[n_beta]
    sums, tangents, rows, slots = room.sums, room.adjoint_tangents, room.rows, tables.slots
    for mu in range(n_radial):
        first = tables.summed[mu] // WIDTH
        n = tables.summed[mu + 1] // WIDTH - first
        for other in range(n_species):
            source = other * OTHERS * width
            row = (other * n_radial + mu) * n_beta
            for beta in range(0, n_beta, 2):
                # Two at a time; an odd last one by itself, twice.
                following = min(beta + 1, n_beta - 1)
                s, t = source + starts[beta], source + starts[following]
                a0, a1, b0, b1 = spread(0.0), spread(0.0), spread(0.0), spread(0.0)
                for k in range(n):
                    at = 2 * slots[first + k]
                    one, two = load(tangents, at), load(tangents, at + WIDTH)
                    a0, a1 = a0 + sums[s + k] * one, a1 + sums[s + k] * two
                    b0, b1 = b0 + sums[t + k] * one, b1 + sums[t + k] * two
                at = (row + beta) * n_directions + block
                store(rows, at, a0)
                store(rows, at + WIDTH, a1)
                at = (row + following) * n_directions + block
                store(rows, at, b0)
                store(rows, at + WIDTH, b1)


@kernel
def _radial_rows_by_sums(tables: Tables, room: Room, n_near: int, n_directions: int) -> None:
    """Add adjoints times the tangents of the sums of the radial basis."""
    n_species, _, n_radial, n_beta = tables.radial.shape
    width, weights = room.basis.starts[n_beta], room.weights
    for d in range(OTHERS + 3 * (n_near - 1)):
        shared = d < OTHERS
        first = 0 if shared else room.near.species[1 + (d - OTHERS) // 3]
        last = n_species if shared else first + 1
        for other in range(first, last):
            source = (other if shared else n_species - 1) * OTHERS
            source = (source + d) * width
            for beta in range(n_beta):
                at = source + room.basis.starts[beta]
                for mu in range(n_radial):
                    begin = room.channels.starts[mu]
                    value = spread(0.0)
                    for k in range(0, room.channels.starts[mu + 1] - begin, WIDTH):
                        value += load(weights, begin + k) * load(room.sums, at + k)
                    row = (other * n_radial + mu) * n_beta + beta
                    room.rows[row * n_directions + d] += total(value)


@inlined
def _add_directions(
    columns: IndexArray,
    own: int,
    block: int,
    n: int,
    source: FloatArray,
    first: int,
    row: FloatArray,
) -> None:
    """Add ``n`` directions from ``block`` on to a row; the site itself moves against others."""
    for d in range(block, block + n):
        value = source[first + d - block]
        row[columns[d]] += value
        if d >= OTHERS:
            row[own + (d - OTHERS) % 3] -= value


@kernel
def _fill_moments(
    tables: Tables,
    room: Room,
    lists: Lists,
    site: int,
    lane: int,
    kind: int,
    n_near: int,
    linear_only: bool,
) -> None:
    """Sums of a site's basic moments, and with radial rows what those need beside them."""
    work, near, channels, n_radial = room.work, room.near, room.channels, tables.radial.shape[2]
    width = work.width
    fill_terms(room.degrees, lists.ends[site, -1], lane, work, room.powers, room.terms)
    if linear_only:
        first = lane * n_radial * width
        sum_channels(
            channels, lists, site, width, work.f[first:], work.df[first:], near, n_near, room.terms,
            room.moments,
        )  # fmt: skip
        return
    basis_slopes(tables, lists, site, lane, work, room.slopes)
    first = lane * tables.radial.shape[3] * width
    sum_channels(
        room.basis, lists, site, width, work.q[first:], room.slopes, near, n_near, room.terms,
        room.sums,
    )  # fmt: skip
    combine_channels(tables, channels, room.basis, kind, near, n_near, room.sums, room.moments)
    for m in range(tables.n_moments):
        room.adjoints[m] = work.adjoints[m * WIDTH + lane]
    for mu in range(n_radial):
        first = tables.summed[mu] // WIDTH
        for k in range(tables.summed[mu + 1] // WIDTH - first):
            moment = tables.slots[first + k] // WIDTH
            room.weights[channels.starts[mu] + k] = room.adjoints[moment]


@kernel
def add_site(
    tables: Tables,
    room: Room,
    lists: Lists,
    site: int,
    lane: int,
    atom: int,
    kind: int,
    n_atoms: int,
    linear_only: bool,
    jacobian: FloatArray,
) -> None:
    """Add one site's rows to its cell's Jacobian.

    Its ``lane`` of the workspace must hold its radial functions, moments and adjoints. Rows and
    columns are those of `fit_kernels.fill_jacobian`.
    """
    n_species, _, n_radial, n_beta = tables.radial.shape
    columns, values, tangents, moments = room.columns, room.values, room.tangents, room.moments
    for m in range(tables.n_moments):
        values[m] = room.work.values[m * WIDTH + lane]
    n_near = find_surroundings(lists, site, atom, room.near)
    used = OTHERS + 3 * (n_near - 1)
    n_directions = _whole_blocks(used)
    columns[0] = 0
    for strain in range(6):
        columns[STRAINS + strain] = 1 + 3 * n_atoms + strain
    for place in range(1, n_near):
        for axis in range(3):
            columns[OTHERS + 3 * (place - 1) + axis] = 1 + 3 * room.near.atoms[place] + axis
    own = 1 + 3 * atom
    _fill_moments(tables, room, lists, site, lane, kind, n_near, linear_only)
    stride = room.channels.starts[n_radial]
    # The energy is no direction, and what fills the last block is none.
    moments[:stride] = 0.0
    moments[used * stride : n_directions * stride] = 0.0
    first_shift = 0 if linear_only else tables.radial.size
    first_linear = first_shift + n_species
    for block in range(0, n_directions, TOGETHER):
        for mu in range(n_radial):
            source = block * stride + room.channels.starts[mu]
            for b in range(tables.summed[mu] // WIDTH, tables.summed[mu + 1] // WIDTH):
                at = 2 * tables.slots[b]
                for d in range(TOGETHER):
                    tangents[at + d] = moments[source + d * stride]
                source += 1
        _product_tangents(tables, values, tangents)
        n = min(TOGETHER, used - block)
        for alpha in range(len(tables.scalars)):
            row = jacobian[first_linear + alpha]
            _add_directions(columns, own, block, n, tangents, 2 * tables.scalars[alpha], row)
        if not linear_only:
            _adjoint_tangents(tables, values, room.adjoints, tangents, room.adjoint_tangents)
            _radial_rows_by_tangents(tables, room, block, n_directions)
    jacobian[first_shift + kind, 0] += 1.0
    for alpha in range(len(tables.scalars)):
        jacobian[first_linear + alpha, 0] += values[tables.scalars[alpha] // WIDTH]
    if not linear_only:
        _radial_rows_by_sums(tables, room, n_near, n_directions)
        n_rows = n_species * n_radial * n_beta
        for i in range(n_rows):
            row = jacobian[kind * n_rows + i]
            _add_directions(columns, own, 0, used, room.rows, i * n_directions, row)
