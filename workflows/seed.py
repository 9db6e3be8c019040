"""The structures with which a campaign begins to learn."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import spglib

from hullscreen.potentials.structures import (
    FloatArray,
    IndexArray,
    IntArray,
    Structures,
    join,
)
from hullscreen.workflows.symmetry import ask_spglib

# The seed: every pure prototype at two scales, and the smallest compounds, all strained at random
# by these amounts, so that a first potential knows which way volumes and positions move.
SEED_COMPOUNDS = 20
PURE_SCALES = (1.0, 0.95)
SEED_STRAIN = 0.025
SEED_DISPLACEMENT_ANGSTROM = 0.05
SYMMETRY_ANGSTROM = 1e-4  # to find the symmetry of prototypes, which are exact
# It is chosen among so many members of the pool, the smallest cells.
SEED_POOL = 1000
SEED_STREAM = 3


def seed_indices(counts: IndexArray, n_pure: int) -> IndexArray:
    """Members of a pool (small cells first) to begin training with: pure ones, then compounds.

    Parameters
    ----------
    counts
        Atoms of each element, shape (n_structures, n_elements).
    n_pure
        Pure prototypes to take, at most.
    """
    pure = np.flatnonzero((counts > 0).sum(axis=1) == 1)[:n_pure]
    compounds = np.flatnonzero((counts > 0).sum(axis=1) > 1)[:SEED_COMPOUNDS]
    return np.concatenate([pure, compounds])


def strained_seed(structures: Structures, seed: int) -> tuple[Structures, IndexArray]:
    """Randomly strained copies: pure structures at each of `PURE_SCALES`, compounds once.

    Pure structures keep their symmetry: without it a cell of one atom has as many k points as a
    DFT code can ask for, and costs ten times as much.

    Returns
    -------
    The copies, and which of ``structures`` each one came from.
    """
    rng = np.random.default_rng(seed)
    parts, sources = [], []
    for i in range(len(structures)):
        cell, positions, species = structures.one(i)
        pure = len(np.unique(species)) == 1
        for scale in PURE_SCALES if pure else (1.0,):
            strain = rng.normal(scale=SEED_STRAIN, size=(3, 3))
            moves = rng.normal(scale=SEED_DISPLACEMENT_ANGSTROM, size=positions.shape)
            if pure:
                strain, moves = symmetric_part(cell, positions, species, strain, moves)
            deformation = scale * np.eye(3) + strain
            parts.append((cell @ deformation, positions @ deformation + moves, species))
            sources.append(i)
    return join(parts), np.array(sources, dtype=np.int64)


def symmetric_part(
    cell: FloatArray,
    positions: FloatArray,
    species: IntArray,
    strain: FloatArray,
    moves: FloatArray,
) -> tuple[FloatArray, FloatArray]:
    """What of a strain (3, 3) and of displacements (n_atoms, 3) keeps all symmetry of a crystal.

    The mean over its space group: of R ε Rᵀ, and of the displacements R u that each atom is given.
    """
    fractional = positions @ np.linalg.inv(cell)
    crystal = (cell, fractional, species)
    group = ask_spglib(spglib.get_symmetry, crystal, symprec=SYMMETRY_ANGSTROM)
    if group is None:
        return strain, moves
    kept_strain, kept_moves = np.zeros((3, 3)), np.zeros_like(moves)
    strain = (strain + strain.T) / 2.0
    for rotation, shift in zip(group["rotations"], group["translations"], strict=True):
        cartesian = cell.T @ rotation @ np.linalg.inv(cell.T)
        kept_strain += cartesian @ strain @ cartesian.T
        images = fractional @ rotation.T + shift
        apart = images[:, None] - fractional
        onto = np.abs(apart - np.rint(apart)).sum(axis=2).argmin(axis=1)
        kept_moves[onto] += moves @ cartesian.T
    n_operations = len(group["rotations"])
    return kept_strain / n_operations, kept_moves / n_operations


def campaign_seed(
    smallest: Structures,
    n_elements: int,
    n_lattices: int,
    seed: int,
    known: Collection[frozenset[int]] = (),
) -> tuple[Structures, IndexArray]:
    """The structures with which a campaign begins training.

    Parameters
    ----------
    smallest
        The first `SEED_POOL` members of its pool, or all if there are fewer.
    n_elements, n_lattices
        Of the pool; it holds each element once on each lattice.
    seed
        The campaign's seed.
    known
        Sets of elements of which labels are there already: these need no seed.

    Returns
    -------
    The strained structures, and which of ``smallest`` each one came from.
    """
    n_pure = max(n_lattices * n_elements, n_elements)
    chosen = seed_indices(smallest.counts(n_elements), n_pure)
    structures, sources = strained_seed(smallest.take(chosen), seed + SEED_STREAM)
    new = np.array(
        [
            frozenset(np.unique(structures.one(i)[2]).tolist()) not in known
            for i in range(len(structures))
        ],
        dtype=np.bool_,
    )
    return structures.take(np.flatnonzero(new)), chosen[sources[new]]
