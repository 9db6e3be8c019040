"""Compiled evaluation of whole batches of cells, in chunks of sites that share their scratch."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hullscreen.potentials.binned_neighbours import search_bins, sort_into_bins
from hullscreen.potentials.compiling import kernel
from hullscreen.potentials.kernels import (
    Tables,
    Workspace,
    add_forces,
    adjoint_products,
    basic_moments,
    pair_gradients,
    parameter_gradient,
    products,
    radial_functions,
    workspace,
)
from hullscreen.potentials.lanes import WIDTH, load, spread, store
from hullscreen.potentials.neighbours import Lists, empty_lists, search_pairs
from hullscreen.potentials.structures import FloatArray, IndexArray, IntArray

# Cells are taken together until they hold so many atoms: lanes are seldom idle then.
SITES_TOGETHER = 64
# From so many atoms on, a cell's pairs are found over bins instead of one by one.
BINNED_FROM = 160
FIRST_WIDTH = 128


class Scratch(NamedTuple):
    """What an evaluation needs beside its results; it grows with the number of neighbours."""

    lists: Lists
    work: Workspace


@kernel
def scratch(tables: Tables, width: int) -> Scratch:
    """Scratch for sites of at most ``width`` neighbours."""
    lists = empty_lists(SITES_TOGETHER + BINNED_FROM, tables.radial.shape[0], width)
    return Scratch(lists, workspace(tables, width))


@kernel
def evaluate_sites(
    tables: Tables,
    lists: Lists,
    n_sites: int,
    first_site: int,
    species: IntArray,
    cell_of: IndexArray,
    offsets: IndexArray,
    work: Workspace,
    energies: FloatArray,
    forces: FloatArray,
    strains: FloatArray,
    site_energies: FloatArray,
    rows: FloatArray,
    row_of: IndexArray,
) -> None:
    """Add what ``n_sites`` sites from atom ``first_site`` on give to their cells' results.

    Lists hold these sites; the other arrays are those of the whole batch. ``strains`` receives
    the upper triangles of dE/dε in eV, ``rows[row_of[atom]]`` the derivatives by the parameters
    unless ``row_of[atom]`` is negative.
    """
    n_species = tables.radial.shape[0]
    for block in range(0, n_sites, WIDTH):
        n_lanes = min(WIDTH, n_sites - block)
        if n_lanes < WIDTH:
            work.values[:] = 0.0
        for lane in range(n_lanes):
            site = block + lane
            radial_functions(tables, lists, site, lane, species[first_site + site], work)
            basic_moments(tables, lists.ends[site, n_species - 1], lane, work)
        products(tables, work)
        adjoint_products(tables, work)
        site_energy = spread(0.0)
        for alpha in range(len(tables.scalars)):
            site_energy += tables.linear[alpha] * load(work.values, tables.scalars[alpha])
        store(work.sums, 0, site_energy)
        for lane in range(n_lanes):
            site_energies[first_site + block + lane] = work.sums[lane]
        for lane in range(n_lanes):
            site = block + lane
            atom = first_site + site
            kind, cell = species[atom], cell_of[atom]
            n = lists.ends[site, n_species - 1]
            site_energies[atom] += tables.shifts[kind]
            energies[cell] += site_energies[atom]
            pair_gradients(tables, n, lane, work)
            add_forces(lists, site, n, offsets[cell], atom, work, forces, strains[cell])
            if row_of[atom] >= 0:
                parameter_gradient(tables, lists, site, lane, kind, work, rows[row_of[atom]])


@kernel
def evaluate_batch(
    tables: Tables,
    room: Scratch,
    cells: FloatArray,
    positions: FloatArray,
    species: IntArray,
    cell_of: IndexArray,
    offsets: IndexArray,
    energies: FloatArray,
    forces: FloatArray,
    strains: FloatArray,
    site_energies: FloatArray,
    shortest: FloatArray,
    rows: FloatArray,
    row_of: IndexArray,
) -> Scratch:
    """Evaluate every cell of a batch.

    Parameters
    ----------
    cells, positions, species, offsets
        As in `structures.Structures`; ``cell_of`` is the cell of each atom, shape (n_atoms_total,).
    energies, forces, strains, site_energies, shortest
        Receive energies in eV (n,), eV/Å (n_atoms_total, 3), dE/dε in eV (n, 3, 3), eV
        (n_atoms_total,), and the shortest distance of each cell in Å (n,).
    rows, row_of
        Row ``row_of[atom]`` receives the derivatives of the site's energy by the parameters, added
        to those of other sites with the same row; none if negative.

    Returns
    -------
    The scratch, grown if it had to be.
    """
    energies[:] = 0.0
    forces[:] = 0.0
    strains[:] = 0.0
    rows[:] = 0.0
    first = 0
    while first < len(cells):
        begin = offsets[first]
        following = first + 1
        if offsets[following] - begin >= BINNED_FROM:
            bins = sort_into_bins(
                cells[first],
                positions[begin : offsets[following]],
                species[begin : offsets[following]],
                tables.radial.shape[0],
                tables.cutoff,
            )
            shortest[first] = np.inf
            done = begin
            while done < offsets[following]:
                n = min(SITES_TOGETHER, offsets[following] - done)
                found = search_bins(bins, tables.cutoff, done - begin, n, room.lists)
                if found < 0.0:
                    room = scratch(tables, int(-found))
                    continue
                shortest[first] = min(shortest[first], found)
                evaluate_sites(
                    tables, room.lists, n, done, species, cell_of, offsets, room.work,
                    energies, forces, strains, site_energies, rows, row_of,
                )  # fmt: skip
                done += n
        else:
            following = first
            while following < len(cells) and offsets[following] - begin < SITES_TOGETHER:
                start, end = offsets[following], offsets[following + 1]
                if end - start >= BINNED_FROM:
                    break
                found = search_pairs(
                    cells[following],
                    positions[start:end],
                    species[start:end],
                    tables.cutoff,
                    room.lists,
                    start - begin,
                )
                if found < 0.0:
                    room = scratch(tables, int(-found))
                    following = first
                    continue
                shortest[following] = found
                following += 1
            evaluate_sites(
                tables, room.lists, offsets[following] - begin, begin, species, cell_of, offsets,
                room.work, energies, forces, strains, site_energies, rows, row_of,
            )  # fmt: skip
        first = following
    for s in range(len(cells)):
        for a in range(3):
            for b in range(a):
                strains[s, a, b] = strains[s, b, a]
    return room
