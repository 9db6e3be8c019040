"""The neighbour search beside ASE's list, seen through what a sum over pairs comes to.

With one radial function of one term, V_i = Σ_j c(z_i, z_j) (R_cut − r_ij)²: the site energy misses
nothing, counts nothing twice, and tells species apart if it is that of ASE's list. A neighbour at a
distance g from the cutoff weighs g², so all that lie deeper than 1e-5 Å are seen.
"""

import time
from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.neighborlist import neighbor_list
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hullscreen.potentials.moment_tensor_potential import untrained
from hullscreen.potentials.neighbours import reduce_cell
from hullscreen.potentials.structures import from_atoms, join

CUTOFF = 4.0
ELEMENTS = ("Al", "Ni", "Cu", "Pd")
seeds = st.integers(0, 2**32 - 1)
# Distances are rounded to 1e-15 of coordinates up to some hundred Å.
ROUNDING = 1e-12


@pytest.fixture(scope="module")
def potential():
    return pair_potential(CUTOFF)


def pair_potential(cutoff):
    """Level 2, one term of the radial basis, another coefficient for every pair of species."""
    start = untrained(2, ELEMENTS, cutoff=cutoff, min_distance=1.0, radial_basis_size=1)
    coefficients = np.random.default_rng(0).uniform(1.0, 2.0, size=(4, 4))
    return replace(start, radial=coefficients[:, :, None, None], linear=np.ones(1), scaling=1.0)


def assert_as_in_ase(potential, structures):
    """Compare site energies, forces, and shortest distances with sums over ASE's list."""
    result = potential.evaluate(structures)
    for i in range(len(structures)):
        cell, positions, species = structures.one(i)
        atoms = Atoms(f"H{len(species)}", positions=positions, cell=cell, pbc=True)
        first, second, r, vectors = neighbor_list("ijdD", atoms, potential.cutoff)
        c = potential.radial[species[first], species[second], 0, 0]
        gap = potential.cutoff - r
        n = len(species)
        energies = np.bincount(first, c * gap**2, minlength=n)
        pull = (2.0 * c * gap / r)[:, None] * vectors
        forces = np.stack(
            [
                np.bincount(second, pull[:, axis], minlength=n)
                - np.bincount(first, pull[:, axis], minlength=n)
                for axis in range(3)
            ],
            axis=1,
        )
        mine = slice(structures.offsets[i], structures.offsets[i + 1])
        allowed = ROUNDING * max(1.0, np.abs(positions).max()) * max(1.0, np.abs(energies).max())
        np.testing.assert_allclose(result.site_energies[mine], energies, rtol=0, atol=allowed)
        np.testing.assert_allclose(result.forces[mine], forces, rtol=0, atol=allowed)
        # Infinite without a neighbour; of a pair exactly at the cutoff rounding decides.
        # Coordinates of some hundred Å are rounded to 1e-13 Å, 1e-10 of the closest distances.
        nearest = min(result.shortest_distances[i], potential.cutoff)
        assert nearest == pytest.approx(min(r.min(initial=np.inf), potential.cutoff), rel=1e-9)


def anywhere(rng, n_atoms, volume, lengths=(1.0, 1.0, 1.0), skew=0.3):
    """Atoms at random places of a random cell; pairs may be close."""
    cell = np.diag(lengths) + skew * rng.normal(size=(3, 3)) * np.min(lengths)
    cell *= np.cbrt(volume * n_atoms / abs(np.linalg.det(cell)))
    positions = rng.random((n_atoms, 3)) @ cell
    return cell, positions, rng.integers(4, size=n_atoms).astype(np.int32)


@settings(max_examples=10, deadline=None, derandomize=True)
@given(seed=seeds)
def test_small_cells(seed, potential):
    rng = np.random.default_rng(seed)
    volumes = 10.0 ** rng.uniform(0.7, 2.5, size=20)
    batch = join(anywhere(rng, int(rng.integers(1, 13)), volume) for volume in volumes)
    assert_as_in_ase(potential, batch)


@settings(max_examples=10, deadline=None, derandomize=True)
@given(seed=seeds)
def test_flat_and_needle_shaped_cells(seed, potential):
    rng = np.random.default_rng(seed)
    lengths = [(1, 1, 12), (1, 12, 12), (12, 1, 1), (1, 4, 30)]
    batch = join(anywhere(rng, int(rng.integers(1, 5)), 15.0, which) for which in lengths)
    assert_as_in_ase(potential, batch)


@settings(max_examples=10, deadline=None, derandomize=True)
@given(seed=seeds, n_atoms=st.integers(100, 400))
@example(seed=1, n_atoms=159)
@example(seed=2, n_atoms=160)
@example(seed=3, n_atoms=161)
def test_large_cells(seed, n_atoms, potential):
    rng = np.random.default_rng(seed)
    # From many bins each way to a single one.
    lengths = [(1, 1, 1), (1, 1, 12), (1, 10, 12), (1, 1, 100)][seed % 4]
    batch = join([anywhere(rng, n_atoms, 15.0, lengths, skew=0.6)])
    assert_as_in_ase(potential, batch)


@pytest.mark.parametrize("cutoff", [2.0, 3.3, 6.0, 9.0])
def test_cutoffs(cutoff):
    rng = np.random.default_rng(int(10 * cutoff))
    batch = join(anywhere(rng, n_atoms, 12.0) for n_atoms in (1, 2, 7, 30, 200))
    assert_as_in_ase(pair_potential(cutoff), batch)


@pytest.mark.parametrize("far", [1, 40])
@pytest.mark.parametrize("n_atoms", [5, 300])
def test_atoms_outside_the_cell(far, n_atoms, potential):
    rng = np.random.default_rng(far)
    cell, positions, species = anywhere(rng, n_atoms, 15.0)
    images = rng.integers(-far, far + 1, size=positions.shape)
    assert_as_in_ase(potential, join([(cell, positions + images @ cell, species)]))


@pytest.mark.parametrize("repeat", [1, 2, 6])
@pytest.mark.parametrize("lattice", ["fcc", "bcc", "sc", "hcp", "diamond"])
def test_lattices_with_atoms_on_faces_and_shells_at_the_cutoff(lattice, repeat):
    # Fractional coordinates 0 and 1 fall on the borders of cells and bins; rounding decides on
    # which side a shell exactly at the cutoff lies, where it weighs nothing.
    atoms = bulk("Cu", lattice, a=3.6, **({"c": 5.9} if lattice == "hcp" else {})) * repeat
    atoms.positions[::2] += atoms.cell[0]
    shell = neighbor_list("d", atoms, 5.5)
    for cutoff in np.unique(np.round(shell, 9)):
        assert_as_in_ase(pair_potential(float(cutoff)), from_atoms([atoms], ELEMENTS))


def test_one_atom_is_its_own_neighbour_in_every_direction(potential):
    # 6 at 2 Å, 12 at √2 times that, 8 at √3 times; 6 lie exactly at the cutoff.
    cube = join([(2.0 * np.eye(3), np.zeros((1, 3)), np.zeros(1, np.int32))])
    r = np.linalg.norm(2.0 * (np.indices((5, 5, 5)).reshape(3, -1).T - 2), axis=1)
    inside = r[(r > 0) & (r <= CUTOFF)]
    assert len(inside) == 6 + 12 + 8 + 6
    expected = potential.radial[0, 0, 0, 0] * ((CUTOFF - inside) ** 2).sum()
    # Thirty-two terms, each rounded to 1e-16.
    assert potential.evaluate(cube).energies[0] == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("n_atoms", [2, 200])
@pytest.mark.parametrize("edge", [50.0, 3e4])
def test_a_cluster_in_a_vacuum(n_atoms, edge, potential):
    # As many bins as the cell has room for would fill any memory.
    rng = np.random.default_rng(n_atoms)
    positions = 12.0 * rng.random((n_atoms, 3))
    species = rng.integers(4, size=n_atoms).astype(np.int32)
    started = time.process_time()
    result = potential.evaluate(join([(edge * np.eye(3), positions, species)]))
    # A fraction of a millisecond; the limit only tells it from a loop over empty space.
    assert time.process_time() - started < 5.0
    r = np.linalg.norm(positions[:, None] - positions, axis=-1)
    inside = (r < CUTOFF) & (r > 0)
    c = potential.radial[species[:, None], species, 0, 0]
    expected = np.where(inside, c * (CUTOFF - r) ** 2, 0.0).sum(axis=1)
    # Fractional coordinates of a cell of 3e4 Å are rounded to 1e-12 Å; a sum has up to 40 terms.
    np.testing.assert_allclose(result.site_energies, expected, rtol=1e-11, atol=1e-9)


@given(st.integers(0, 2**32 - 1), st.floats(1e-3, 0.1))
def test_three_vectors_that_nearly_cancel_are_shortened(seed, shortest):
    rng = np.random.default_rng(seed)
    first, second = 3.0 * rng.normal(size=(2, 3))
    tiny = rng.normal(size=3)
    tiny *= shortest / np.linalg.norm(tiny)
    cell = np.array([first, second, tiny - first - second])
    reduced = reduce_cell(cell)
    lengths = np.linalg.norm(reduced, axis=1)
    assert lengths.min() <= shortest * (1 + 1e-9)
    steps = np.linalg.solve(cell.T, reduced.T).T
    # Whole numbers; the rounding grows as the cell flattens.
    assert abs(steps - np.rint(steps)).max() < 1e-6
    assert round(abs(np.linalg.det(np.rint(steps)))) == 1
