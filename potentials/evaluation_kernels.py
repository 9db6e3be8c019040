"""Compiled evaluation of whole batches of cells, in chunks of sites that share their scratch."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hullscreen.potentials.binned_neighbours import Bins, search_bins, sort_into_bins
from hullscreen.potentials.compiling import kernel
from hullscreen.potentials.gradient_kernels import add_forces, pair_gradients, parameter_gradient
from hullscreen.potentials.kernels import Tables, Workspace, radial_functions, workspace
from hullscreen.potentials.lanes import WIDTH
from hullscreen.potentials.moment_kernels import (
    adjoint_products,
    basic_moments,
    products,
    site_energies,
    summed_adjoints,
)
from hullscreen.potentials.neighbours import (
    Lists,
    Pairs,
    empty_lists,
    empty_pairs,
    half_diameter,
    search_pairs,
)
from hullscreen.potentials.structures import FloatArray, IndexArray, IntArray

# Cells are taken together until they hold so many atoms: lanes are seldom idle then.
SITES_TOGETHER = 64
# From so many atoms on, a cell's pairs are found over bins instead of one by one.
BINNED_FROM = 160
# Or if half its diagonal is so many cutoffs long.
LONG_CELL = 8.0
# Room for so many neighbours of each site, until some have more.
COMMON_NEIGHBOURS = 64


class Batch(NamedTuple):
    """Cells as in `structures.Structures`, and the cell of each atom, shape (n_atoms_total,)."""

    cells: FloatArray
    positions: FloatArray
    species: IntArray
    offsets: IndexArray
    cell_of: IndexArray


class Results(NamedTuple):
    """What an evaluation fills in.

    Attributes
    ----------
    energies, site_energies
        eV, shape (n_structures,) and (n_atoms_total,).
    forces
        eV/Å, shape (n_atoms_total, 3).
    strains
        dE/dε in eV, ASE's stress times the volume, shape (n_structures, 3, 3).
    shortest
        Shortest distance of each cell in Å, infinite beyond the cutoff; shape (n_structures,).
    rows
        Sums of the derivatives of site energies by the parameters, shape (n_rows, n_parameters).
    row_of
        The row to which each atom adds, negative for none; shape (n_atoms_total,).
    """

    energies: FloatArray
    site_energies: FloatArray
    forces: FloatArray
    strains: FloatArray
    shortest: FloatArray
    rows: FloatArray
    row_of: IndexArray


class Scratch(NamedTuple):
    """What an evaluation needs beside its results; it grows with the number of neighbours."""

    pairs: Pairs
    lists: Lists
    work: Workspace


@kernel
def scratch(tables: Tables) -> Scratch:
    """Scratch for cells of common density."""
    n_sites = SITES_TOGETHER + BINNED_FROM
    room = SITES_TOGETHER * COMMON_NEIGHBOURS
    lists = empty_lists(n_sites, tables.radial.shape[0], room)
    return Scratch(empty_pairs(BINNED_FROM, room), lists, workspace(tables, COMMON_NEIGHBOURS))


@kernel
def _with_room(tables: Tables, room: Scratch, n_sites: int) -> Scratch:
    """The scratch, with a workspace that takes the longest of the first lists."""
    longest = 0
    for site in range(n_sites):
        longest = max(longest, room.lists.starts[site + 1] - room.lists.starts[site])
    if longest <= room.work.width:
        return room
    return Scratch(room.pairs, room.lists, workspace(tables, 2 * longest))


@kernel
def _with_longer_lists(room: Scratch, n_pairs: int, n_neighbours: int) -> Scratch:
    """The scratch, with so much room for pairs and for neighbours at least."""
    pairs, lists = room.pairs, room.lists
    if n_pairs > len(pairs.x):
        pairs = empty_pairs(BINNED_FROM, n_pairs)
    if n_neighbours > len(lists.x):
        lists = empty_lists(len(lists.ends), lists.ends.shape[1], 3 * n_neighbours // 2)
    return Scratch(pairs, lists, room.work)


@kernel
def _evaluate_sites(
    tables: Tables, room: Scratch, n_sites: int, first_atom: int, batch: Batch, results: Results
) -> None:
    """Add what the sites in the lists, from ``first_atom`` on, give to their cells' results.

    Of the strains only the upper triangles are filled.
    """
    lists, work = room.lists, room.work
    n_species = tables.radial.shape[0]
    for block in range(0, n_sites, WIDTH):
        n_lanes = min(WIDTH, n_sites - block)
        if n_lanes < WIDTH:
            work.values[:] = 0.0
        for lane in range(n_lanes):
            kind = batch.species[first_atom + block + lane]
            radial_functions(tables, lists, block + lane, lane, kind, work)
            basic_moments(tables, lists.ends[block + lane, n_species - 1], lane, work)
        products(tables, work)
        adjoint_products(tables, work)
        summed_adjoints(tables, work)
        energies = site_energies(tables, work)
        for lane in range(n_lanes):
            site = block + lane
            atom = first_atom + site
            kind, cell = batch.species[atom], batch.cell_of[atom]
            energy = tables.shifts[kind] + energies[lane]
            results.site_energies[atom] = energy
            results.energies[cell] += energy
            pair_gradients(tables, lists.ends[site, n_species - 1], lane, work)
            add_forces(
                lists, site, batch.offsets[cell], atom, work, results.forces, results.strains[cell]
            )
            if results.row_of[atom] >= 0:
                row = results.rows[results.row_of[atom]]
                parameter_gradient(tables, lists, site, lane, kind, work, row)


@kernel
def _wants_bins(cell: FloatArray, n_atoms: int, cutoff: float) -> bool:
    """Whether atoms are so many, or so far apart, that most pairs are out of reach."""
    return n_atoms >= BINNED_FROM or (n_atoms > 1 and half_diameter(cell) > LONG_CELL * cutoff)


@kernel
def _search_small_cells(
    tables: Tables, room: Scratch, first: int, batch: Batch, shortest: FloatArray
) -> tuple[Scratch, int]:
    """Lists of cells from ``first`` on, until they hold enough sites; and the cell after these."""
    offsets = batch.offsets
    cell = first
    while cell < len(batch.cells) and offsets[cell] - offsets[first] < SITES_TOGETHER:
        begin, end = offsets[cell], offsets[cell + 1]
        if _wants_bins(batch.cells[cell], end - begin, tables.cutoff):
            break
        shortest[cell], n_pairs, needed = search_pairs(
            batch.cells[cell],
            batch.positions[begin:end],
            batch.species[begin:end],
            tables.cutoff,
            room.pairs,
            room.lists,
            begin - offsets[first],
        )
        if n_pairs > len(room.pairs.x) or needed > len(room.lists.x):
            room = _with_longer_lists(room, n_pairs, needed)
            cell = first
        else:
            cell += 1
    return room, cell


@kernel
def _search_large_cell(
    tables: Tables, room: Scratch, bins: Bins, first: int, n: int, shortest: FloatArray
) -> Scratch:
    """Lists of ``n`` atoms of a binned cell from its atom ``first`` on."""
    found, needed = search_bins(bins, tables.cutoff, first, n, room.lists)
    while needed > len(room.lists.x):
        room = _with_longer_lists(room, 0, needed)
        found, needed = search_bins(bins, tables.cutoff, first, n, room.lists)
    shortest[0] = min(shortest[0], found)
    return room


@kernel
def evaluate_batch(tables: Tables, room: Scratch, batch: Batch, results: Results) -> Scratch:
    """Evaluate every cell of a batch, and return the scratch, grown if it had to be."""
    results.energies[:] = 0.0
    results.forces[:] = 0.0
    results.strains[:] = 0.0
    results.rows[:] = 0.0
    results.shortest[:] = np.inf
    offsets = batch.offsets
    n_cells = len(batch.cells)
    cell, done = 0, 0
    while cell < n_cells:
        begin, end = offsets[cell], offsets[cell + 1]
        if not _wants_bins(batch.cells[cell], end - begin, tables.cutoff):
            room, cell = _search_small_cells(tables, room, cell, batch, results.shortest)
            n_sites = offsets[cell] - begin
        else:
            if done == begin:
                bins = sort_into_bins(
                    batch.cells[cell],
                    batch.positions[begin:end],
                    batch.species[begin:end],
                    tables.radial.shape[0],
                    tables.cutoff,
                )
            n_sites = min(SITES_TOGETHER, end - done)
            shortest = results.shortest[cell : cell + 1]
            room = _search_large_cell(tables, room, bins, done - begin, n_sites, shortest)
            if done + n_sites == end:
                cell += 1
        room = _with_room(tables, room, n_sites)
        _evaluate_sites(tables, room, n_sites, done, batch, results)
        done += n_sites
    for cell in range(n_cells):
        for a in range(3):
            for b in range(a):
                results.strains[cell, a, b] = results.strains[cell, b, a]
    return room


@kernel
def evaluate(tables: Tables, batch: Batch, results: Results) -> None:
    """Evaluate every cell of a batch with scratch of its own."""
    evaluate_batch(tables, scratch(tables), batch, results)
