"""Compiled Jacobian of cells' energies, forces and strain derivatives by all parameters.

Sites are independent of one another: each adds its rows along the directions it feels to those of
its cell.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hullscreen.potentials.binned_neighbours import search_bins, sort_into_bins
from hullscreen.potentials.compiling import kernel
from hullscreen.potentials.evaluation_kernels import (
    BINNED_FROM,
    COMMON_NEIGHBOURS,
    SITES_TOGETHER,
)
from hullscreen.potentials.kernels import Tables, radial_functions
from hullscreen.potentials.lanes import WIDTH
from hullscreen.potentials.moment_kernels import (
    adjoint_products,
    basic_moments,
    products,
    summed_adjoints,
)
from hullscreen.potentials.neighbours import Lists, Pairs, empty_lists, empty_pairs, search_pairs
from hullscreen.potentials.site_jacobian import Room, add_site, make_room
from hullscreen.potentials.structures import FloatArray, IndexArray, IntArray

# Order of the six strains: xx, yy, zz, yz, xz, xy.
STRAIN_ROW = np.array([0, 1, 2, 1, 0, 0])
STRAIN_COLUMN = np.array([0, 1, 2, 2, 2, 1])


class Search(NamedTuple):
    """Scratch of the neighbour search."""

    pairs: Pairs
    lists: Lists


@kernel
def make_search(tables: Tables, n_neighbours: int) -> Search:
    """Scratch for so many pairs of a cell, or neighbours of its sites in all."""
    lists = empty_lists(BINNED_FROM, tables.radial.shape[0], n_neighbours)
    return Search(empty_pairs(BINNED_FROM, n_neighbours), lists)


@kernel
def _add_sites(
    tables: Tables,
    room: Room,
    lists: Lists,
    first: int,
    n_sites: int,
    species: IntArray,
    linear_only: bool,
    jacobian: FloatArray,
) -> None:
    """Add the rows of a cell's atoms from ``first`` on, whose lists are the first ``n_sites``."""
    n_species, work = tables.radial.shape[0], room.work
    for block in range(0, n_sites, WIDTH):
        n_lanes = min(WIDTH, n_sites - block)
        if n_lanes < WIDTH:
            work.values[:] = 0.0
        for lane in range(n_lanes):
            site = block + lane
            radial_functions(tables, lists, site, lane, species[first + site], work)
            basic_moments(tables, lists.ends[site, n_species - 1], lane, work)
        products(tables, work)
        if not linear_only:
            adjoint_products(tables, work)
            summed_adjoints(tables, work)
        for lane in range(n_lanes):
            site = block + lane
            kind = species[first + site]
            add_site(
                tables,
                room,
                lists,
                site,
                lane,
                first + site,
                kind,
                len(species),
                linear_only,
                jacobian,
            )


@kernel
def fill_jacobian(
    tables: Tables,
    cells: FloatArray,
    positions: FloatArray,
    species: IntArray,
    offsets: IndexArray,
    linear_only: bool,
    factors: FloatArray,
    shortest: FloatArray,
    jacobian: FloatArray,
) -> None:
    """Jacobian of a batch of cells.

    Parameters
    ----------
    cells, positions, species, offsets
        As in `structures.Structures`.
    linear_only
        Whether to leave out the rows of the radial coefficients, which are the costlier ones.
    factors
        What to multiply each column with, shape (n_columns,).
    shortest
        Receives the shortest distance of each cell in Å, shape (n_cells,).
    jacobian
        Receives the derivatives by the parameters, one in a row, shape (n_rows, n_columns). Columns
        of each cell are E, ∂E/∂r of its atoms (minus forces), and ∂E/∂ε for strains xx, yy, zz, yz,
        xz, xy; those of cell s begin at 7 s + 3 offsets[s].
    """
    n_rows = jacobian.shape[0]
    largest = 0
    for s in range(len(cells)):
        largest = max(largest, offsets[s + 1] - offsets[s])
    search = make_search(tables, BINNED_FROM * COMMON_NEIGHBOURS)
    room = make_room(tables, COMMON_NEIGHBOURS, largest, linear_only)
    memory = np.empty(n_rows * (7 + 3 * largest))
    for s in range(len(cells)):
        begin, n = offsets[s], offsets[s + 1] - offsets[s]
        kinds, places = species[begin : begin + n], positions[begin : begin + n]
        n_columns = 7 + 3 * n
        local = memory[: n_rows * n_columns].reshape(n_rows, n_columns)
        local[:] = 0.0
        shortest[s] = np.inf
        done, n_sites = 0, n if n < BINNED_FROM else SITES_TOGETHER
        if n >= BINNED_FROM:
            bins = sort_into_bins(cells[s], places, kinds, tables.radial.shape[0], tables.cutoff)
        while done < n:
            if n < BINNED_FROM:
                found, n_pairs, needed = search_pairs(
                    cells[s], places, kinds, tables.cutoff, search.pairs, search.lists, 0
                )
            else:
                n_pairs, n_sites = 0, min(SITES_TOGETHER, n - done)
                found, needed = search_bins(bins, tables.cutoff, done, n_sites, search.lists)
            if max(n_pairs, needed) > len(search.lists.x):
                search = make_search(tables, 3 * max(n_pairs, needed) // 2)
                continue
            longest = np.max(np.diff(search.lists.starts[: n_sites + 1]))
            if longest + WIDTH > room.work.width:
                room = make_room(tables, 3 * longest // 2, largest, linear_only)
            shortest[s] = min(shortest[s], found)
            _add_sites(tables, room, search.lists, done, n_sites, kinds, linear_only, local)
            done += n_sites
        first = 7 * s + 3 * begin
        for row in range(n_rows):
            for column in range(n_columns):
                jacobian[row, first + column] = local[row, column] * factors[first + column]
