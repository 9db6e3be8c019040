"""The structures with which a campaign begins to learn."""

import numpy as np
import pytest
import spglib
from ase.build import bulk

from hullscreen.potentials.structures import join
from hullscreen.workflows.seed import (
    PURE_SCALES,
    SEED_COMPOUNDS,
    SEED_DISPLACEMENT_ANGSTROM,
    SEED_STRAIN,
    campaign_seed,
    seed_indices,
    strained_seed,
    symmetric_part,
)
from hullscreen.workflows.symmetry import ask_spglib


def cells(species_lists, seed=0):
    """Slightly distorted fcc-like cells, an atom every 3 Å along one direction."""
    rng = np.random.default_rng(seed)
    parts = []
    for species in species_lists:
        n = len(species)
        cell = np.diag([3.0 * n, 3.0, 3.0]) + rng.normal(scale=0.05, size=(3, 3))
        positions = np.arange(n)[:, None] * np.array([[3.0, 0.0, 0.0]])
        positions = positions + rng.normal(scale=0.1, size=(n, 3))
        parts.append((cell, positions, np.array(species, dtype=np.int32)))
    return join(parts)


def test_the_seed_takes_pure_ones_first_and_small_compounds():
    counts = np.array([[1, 0], [1, 1], [0, 1], [2, 0], *[[1, k] for k in range(1, 40)]])
    chosen = seed_indices(counts, n_pure=2)
    assert chosen[:2].tolist() == [0, 2]
    assert chosen[2] == 1
    assert len(chosen) == 2 + SEED_COMPOUNDS
    assert len(set(chosen.tolist())) == len(chosen)
    assert seed_indices(counts[:4], n_pure=9).tolist() == [0, 2, 3, 1]


def test_pure_seeds_are_scaled_and_compounds_strained():
    structures = cells([[0], [1, 1], [0, 1], [0, 1, 1]])
    seed, sources = strained_seed(structures, 7)
    assert sources.tolist() == [0] * len(PURE_SCALES) + [1] * len(PURE_SCALES) + [2, 3]
    for i, source in enumerate(sources):
        cell, _, species = seed.one(i)
        original, _, kinds = structures.one(int(source))
        assert (species == kinds).all()
        scale = PURE_SCALES[i % 2] if source < 2 else 1.0
        deformation = np.linalg.solve(original, cell)
        # Nine Gaussian numbers stay within six standard deviations.
        assert 0 < abs(deformation - scale * np.eye(3)).max() < 6 * SEED_STRAIN
        fractional = seed.one(i)[1] @ np.linalg.inv(cell)
        before = structures.one(int(source))[1] @ np.linalg.inv(original)
        moved = (fractional - before) @ cell
        assert abs(moved).max() < 6 * SEED_DISPLACEMENT_ANGSTROM
        # An atom alone has nowhere to go.
        assert (abs(moved).max() > 1e-9) == (len(species) > 1)


def test_pure_seeds_keep_their_symmetry():
    crystals = [bulk("Cu"), bulk("Cu", "bcc", a=2.9), bulk("Cu", "hcp", a=2.6, c=4.2)]
    structures = join(
        (np.array(c.cell[:]), c.positions, np.zeros(len(c), dtype=np.int32)) for c in crystals
    )
    seed, sources = strained_seed(structures, 1)
    for i, source in enumerate(sources):
        cell, positions, _ = seed.one(i)
        crystal = crystals[source].copy()
        expected = ask_spglib(spglib.get_spacegroup, spglib_cell(crystal), symprec=1e-5)
        crystal.set_cell(cell)
        crystal.set_positions(positions)
        assert ask_spglib(spglib.get_spacegroup, spglib_cell(crystal), symprec=1e-5) == expected
    # The axes of hcp have two lengths that are free to change.
    ratios = [abs(seed.one(i)[0][2, 2]) / np.linalg.norm(seed.one(i)[0][0]) for i in (4, 5)]
    assert abs(ratios[0] - ratios[1]) > 1e-3


def spglib_cell(atoms):
    return atoms.cell[:], atoms.get_scaled_positions(), atoms.numbers


def test_what_is_symmetric_of_moves():
    """A sheet of atoms between two others may move along its normal if they differ."""
    cell = np.diag([3.0, 3.0, 9.0])
    positions = np.array([[0, 0, 0], [1.5, 1.5, 2.0], [0, 0, 4.0]])
    strain, moves = np.full((3, 3), 0.1), np.ones((3, 3))
    kept, moved = symmetric_part(cell, positions, np.array([0, 1, 2]), strain, moves)
    assert kept == pytest.approx(np.diag([0.1, 0.1, 0.1]), abs=1e-12)
    assert moved == pytest.approx(np.array([[0, 0, 1.0]] * 3), abs=1e-12)
    # Between two equal sheets it may not, and they only against each other.
    moves[2] = -1.0
    _, moved = symmetric_part(cell, positions, np.array([0, 1, 0]), strain, moves)
    assert moved == pytest.approx(np.array([[0, 0, 1.0], [0, 0, 0], [0, 0, -1.0]]), abs=1e-12)


def test_the_seed_is_the_same_for_the_same_number():
    structures = cells([[0], [0, 1]])
    first, again, other = (strained_seed(structures, n)[0] for n in (1, 1, 2))
    assert first.positions.tobytes() == again.positions.tobytes()
    assert abs(first.cells - other.cells).max() > 1e-3


def test_what_is_known_needs_no_seed():
    structures = cells([[0], [1], [2], [0, 1], [0, 2], [0, 1, 2]])
    whole, sources = campaign_seed(structures, 3, 1, 5)
    assert sorted(set(sources.tolist())) == [0, 1, 2, 3, 4, 5]
    known = [frozenset({0}), frozenset({1}), frozenset({0, 1})]
    part, left = campaign_seed(structures, 3, 1, 5, known)
    assert sorted(set(left.tolist())) == [2, 4, 5]
    # Those that stay are the same ones, so that results of another campaign serve.
    kept = np.flatnonzero(np.isin(sources, left))
    assert part.cells.tobytes() == whole.take(kept).cells.tobytes()
