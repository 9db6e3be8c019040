"""An MTP knows neither axes, order of atoms, nor the choice of a cell: properties on random cells.

Cells are drawn by shape (one atom, thin, dense, skewed, without neighbours, ...) from a seed, so a
failure is repeated with hypothesis' printout alone.
"""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hullscreen.potentials.moment_tensor_potential import untrained
from hullscreen.potentials.structures import concatenate, join

ELEMENTS = ("Al", "Ni", "Cu", "Pd", "Ag", "Pt")
LEVELS = [2, 8, 16, 20]
CUTOFF = 4.2
# Positions that are turned, shifted, or written in another basis are rounded to 1e-15 or 1e-14 Å;
# the slopes of what is added up (Chebyshev polynomials of degree 4 over 2.4 Å, products of four
# moments) are up to a hundred times their values per Å. In thousands of draws the worst energies
# were off by 3e-14 of the terms' magnitude, forces and strains by 3e-13, gradients by 1e-12.
ENERGY_ROUNDING = 2e-13
FORCE_ROUNDING = 2e-12
GRADIENT_ROUNDING = 1e-11

seeds = st.integers(0, 2**32 - 1)
few = settings(max_examples=12, deadline=None, derandomize=True)


@pytest.fixture(scope="module", params=LEVELS, ids=lambda level: f"level{level}")
def level(request):
    return request.param


@pytest.fixture(scope="module")
def potentials(level):
    """Random potentials by number of species; drawn once, the kernels know them by their form."""
    return {n: random_potential(level, n) for n in range(1, 7)}


def random_potential(level, n_species):
    start = untrained(
        level, ELEMENTS[:n_species], cutoff=CUTOFF, min_distance=1.8, radial_basis_size=5
    )
    rng = np.random.default_rng(level + n_species)
    return replace(
        start, shifts=rng.normal(size=n_species), linear=rng.normal(size=start.linear.size)
    )


# Cells


def random_cell(rng, n_atoms, volume=16.0, closest=1.6):
    """Atoms anywhere in any cell, at least ``closest`` Å apart."""
    while True:
        cell = (volume * n_atoms) ** (1 / 3) * (np.eye(3) + 0.25 * rng.normal(size=(3, 3)))
        positions = rng.random((n_atoms, 3)) @ cell
        if np.linalg.det(cell) > 0.5 * volume * n_atoms and shortest(cell, positions) > closest:
            return cell, positions


def shortest(cell, positions):
    shifts = np.indices((5, 5, 5)).reshape(3, -1).T - 2
    vectors = positions[:, None, None] - positions[None, :, None] + shifts @ cell
    distances = np.linalg.norm(vectors, axis=-1)
    return distances[distances > 1e-9].min()


def one_atom(rng):
    return random_cell(rng, 1)


def several_atoms(rng):
    return random_cell(rng, int(rng.integers(2, 6)))


def thin(rng):
    """Two vectors of some 2 Å and one of 40, not at right angles."""
    cell = np.diag([2.1, 2.3, 40.0]) + 0.2 * rng.normal(size=(3, 3))
    return cell, np.linspace(0, 1, 4)[:3, None] * cell[2] + rng.random(3)


def dense(rng):
    """Rows of atoms 1.5 Å apart, pressed and sheared: more than a hundred neighbours each."""
    cell = 1.5 * np.diag([1.0, 1.0, 2.0]) @ (np.eye(3) + 0.03 * rng.normal(size=(3, 3)))
    return cell, np.array([[0.0, 0.0, 0.0], 0.5 * cell[2]]) + 0.02 * rng.normal(size=(2, 3))


def too_close(rng):
    """A pair far below the interval of the Chebyshev polynomials."""
    cell, positions = random_cell(rng, 2)
    return cell, np.array([positions[0], positions[0] + [0.5, 0.3, 0.9]])


def without_neighbours(rng):
    return 12.0 * np.eye(3) + rng.normal(size=(3, 3)), np.array([[0.0, 0.0, 0.0], [5.0, 4.0, 5.0]])


def skewed(rng):
    cell, positions = random_cell(rng, 3)
    return unimodular(rng) @ cell, positions


SHAPES = [one_atom, several_atoms, thin, dense, too_close, without_neighbours, skewed]


def unimodular(rng):
    """Another basis of the same lattice; after a few shears vectors are some ten times as long."""
    change = np.eye(3, dtype=int)
    for _ in range(5):
        row, column = rng.permutation(3)[:2]
        change[row] += rng.integers(-2, 3) * change[column]
    assert round(np.linalg.det(change)) == 1
    return change


def draw(shape, n_species, seed):
    """Generator, cell, positions and species of a drawn cell."""
    rng = np.random.default_rng(seed)
    cell, positions = shape(rng)
    return rng, cell, positions, rng.integers(n_species, size=len(positions)).astype(np.int32)


@st.composite
def cases(draw_one, shapes=tuple(SHAPES), most_species=6):
    """Number of species, and what `draw` makes of it."""
    n_species = draw_one(st.integers(1, most_species))
    return n_species, *draw(draw_one(st.sampled_from(shapes)), n_species, draw_one(seeds))


# Comparison


def evaluated(potential, cell, positions, species):
    """Site energies, forces, stress times volume, and each structure's gradient."""
    batch = join([(cell, positions, species)])
    found = potential.evaluate(batch, "structures")
    return found.site_energies, found.forces, found.stresses[0] * batch.volumes, found.gradients[0]


def magnitude(potential, cell, positions, species):
    """What the terms of the energy are worth together, in eV: Σ |θ ∂E/∂θ|, an atom at least 1."""
    gradient = evaluated(potential, cell, positions, species)[3]
    return max(len(species), float(np.abs(gradient * potential.parameters).sum()))


def assert_same(found, expected, scale):
    """Compare results; ``scale`` is the terms' magnitude in eV."""
    np.testing.assert_allclose(found[0], expected[0], rtol=0, atol=ENERGY_ROUNDING * scale)
    for ours, theirs in zip(found[1:3], expected[1:3], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=FORCE_ROUNDING * scale)
    largest = np.abs(expected[3]).max()
    np.testing.assert_allclose(found[3], expected[3], rtol=0, atol=GRADIENT_ROUNDING * largest)


# Space


@few
@given(case=cases(), mirror=st.booleans())
def test_rotations_and_reflections(case, mirror, potentials):
    n_species, rng, cell, positions, species = case
    potential = potentials[n_species]
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    turn *= np.linalg.det(turn) * (-1 if mirror else 1)
    sites, forces, strain, gradient = evaluated(potential, cell, positions, species)
    turned = evaluated(potential, cell @ turn.T, positions @ turn.T, species)
    expected = sites, forces @ turn.T, turn @ strain @ turn.T, gradient
    assert_same(turned, expected, magnitude(potential, cell, positions, species))


@few
@given(case=cases(), shift=st.tuples(*[st.floats(-20, 20)] * 3))
def test_translations(case, shift, potentials):
    n_species, _, cell, positions, species = case
    potential = potentials[n_species]
    found = evaluated(potential, cell, positions + shift, species)
    expected = evaluated(potential, cell, positions, species)
    assert_same(found, expected, magnitude(potential, cell, positions, species))


@few
@given(case=cases(), far=st.sampled_from([1, 3, 30]))
def test_atoms_outside_the_cell(case, far, potentials):
    n_species, rng, cell, positions, species = case
    potential = potentials[n_species]
    images = rng.integers(-far, far + 1, size=positions.shape)
    found = evaluated(potential, cell, positions + images @ cell, species)
    expected = evaluated(potential, cell, positions, species)
    assert_same(found, expected, magnitude(potential, cell, positions, species))


@few
@given(case=cases())
def test_other_bases_of_the_lattice(case, potentials):
    n_species, rng, cell, positions, species = case
    potential = potentials[n_species]
    found = evaluated(potential, unimodular(rng) @ cell, positions, species)
    expected = evaluated(potential, cell, positions, species)
    assert_same(found, expected, magnitude(potential, cell, positions, species))


@few
@given(case=cases())
def test_left_handed_cells(case, potentials):
    n_species, _, cell, positions, species = case
    potential = potentials[n_species]
    found = evaluated(potential, cell[[1, 0, 2]], positions, species)
    expected = evaluated(potential, cell, positions, species)
    assert_same(found, expected, magnitude(potential, cell, positions, species))


def repeated(cell, positions, species, repeats):
    """A supercell, atoms of one copy after those of another."""
    shifts = np.indices(repeats).reshape(3, -1).T @ cell
    large = (positions[None] + shifts[:, None]).reshape(-1, 3)
    return np.diag(repeats) @ cell, large, np.tile(species, len(shifts))


@few
@given(case=cases(), repeats=st.tuples(*[st.integers(1, 3)] * 3))
def test_supercells(case, repeats, potentials):
    n_species, _, cell, positions, species = case
    potential = potentials[n_species]
    sites, forces, strain, gradient = evaluated(potential, cell, positions, species)
    n = int(np.prod(repeats))
    found = evaluated(potential, *repeated(cell, positions, species, repeats))
    expected = np.tile(sites, n), np.tile(forces, (n, 1)), n * strain, n * gradient
    assert_same(found, expected, n * magnitude(potential, cell, positions, species))


# Sizes at which neighbours are looked for in bins instead of pair by pair.
@pytest.mark.parametrize(
    ("n_atoms", "repeats"),
    [(4, (5, 5, 5)), (4, (8, 8, 8)), (1, (13, 9, 8)), (2, (1, 1, 300)), (2, (2, 17, 17))],
)
def test_large_cells_are_their_small_ones_repeated(n_atoms, repeats, potentials):
    potential = potentials[2]
    rng = np.random.default_rng(n_atoms)
    cell, positions = random_cell(rng, n_atoms)
    species = rng.integers(2, size=n_atoms).astype(np.int32)
    sites, forces, strain, gradient = evaluated(potential, cell, positions, species)
    n = int(np.prod(repeats))
    large, spread, kinds = repeated(cell, positions, species, repeats)
    # In any order, and some atoms outside the cell.
    order = rng.permutation(len(kinds))
    spread = spread + rng.integers(-1, 2, size=spread.shape) @ large
    found = evaluated(potential, large, spread[order], kinds[order])
    expected = (
        np.tile(sites, n)[order],
        np.tile(forces, (n, 1))[order],
        n * strain,
        n * gradient,
    )
    assert_same(found, expected, n * magnitude(potential, cell, positions, species))


@pytest.mark.parametrize("seed", range(3))
def test_large_cells_do_not_depend_on_their_basis(seed, potentials):
    potential = potentials[2]
    rng, cell, positions, species = draw(lambda rng: random_cell(rng, 3), 2, seed)
    large, spread, kinds = repeated(cell, positions, species, (6, 6, 6))
    spread = spread + 0.05 * rng.normal(size=spread.shape)
    found = evaluated(potential, unimodular(rng) @ large, spread, kinds)
    expected = evaluated(potential, large, spread, kinds)
    assert_same(found, expected, magnitude(potential, large, spread, kinds))


# Labels


@few
@given(case=cases())
def test_order_of_atoms(case, potentials):
    n_species, rng, cell, positions, species = case
    potential = potentials[n_species]
    order = rng.permutation(len(species))
    sites, forces, strain, gradient = evaluated(potential, cell, positions, species)
    found = evaluated(potential, cell, positions[order], species[order])
    expected = sites[order], forces[order], strain, gradient
    assert_same(found, expected, magnitude(potential, cell, positions, species))


@few
@given(case=cases())
def test_numbers_of_species(case, potentials):
    # Renumbering the species and moving their parameters along changes nothing but the order.
    n_species, rng, cell, positions, species = case
    potential = potentials[n_species]
    old = rng.permutation(n_species)
    renamed = replace(
        potential,
        elements=tuple(potential.elements[z] for z in old),
        radial=potential.radial[np.ix_(old, old)],
        shifts=potential.shifts[old],
    )
    new = np.argsort(old).astype(np.int32)
    found = evaluated(renamed, cell, positions, new[species])
    expected = evaluated(potential, cell, positions, species)
    moved = potential.with_parameters(expected[3])
    gradient = replace(
        moved, radial=moved.radial[np.ix_(old, old)], shifts=moved.shifts[old]
    ).parameters
    scale = magnitude(potential, cell, positions, species)
    assert_same(found, (*expected[:3], gradient), scale)


@few
@given(case=cases(most_species=5))
def test_species_that_do_not_occur(case, potentials):
    # The first species of a potential are a potential of their own.
    n_species, _, cell, positions, species = case
    larger = potentials[6]
    alone = replace(
        larger,
        elements=larger.elements[:n_species],
        radial=larger.radial[:n_species, :n_species],
        shifts=larger.shifts[:n_species],
    )
    found = evaluated(alone, cell, positions, species)
    expected = evaluated(larger, cell, positions, species)
    assert_same((*found[:3], expected[3]), expected, magnitude(larger, cell, positions, species))


# Batches


@few
@given(seed=seeds, n_species=st.integers(1, 6))
def test_batches_of_everything(seed, n_species, potentials):
    potential = potentials[n_species]
    rng = np.random.default_rng(seed)
    large = lambda rng: repeated(*random_cell(rng, 2), np.zeros(2), (5, 5, 4))[:2]  # noqa: E731
    parts = [
        draw(SHAPES[i % len(SHAPES)], n_species, rng.integers(2**32))[1:] for i in range(14)
    ] + [draw(large, n_species, seed)[1:]]
    order = rng.permutation(len(parts))
    batch = join(parts[i] for i in order)
    found = potential.evaluate(batch, "structures")
    halves = [
        potential.evaluate(batch.take(half), "structures")
        for half in ([*range(7)], [*range(7, 15)])
    ]
    for place, i in enumerate(order):
        sites, forces, strain, gradient = evaluated(potential, *parts[i])
        atoms = slice(batch.offsets[place], batch.offsets[place + 1])
        together = (
            found.site_energies[atoms],
            found.forces[atoms],
            found.stresses[place] * batch.volumes[place],
            found.gradients[place],
        )
        assert_same(together, (sites, forces, strain, gradient), magnitude(potential, *parts[i]))
        half = halves[place // 7 if place < 14 else 1]
        assert half.energies[place - 7 * (place >= 7)] == pytest.approx(
            found.energies[place], abs=ENERGY_ROUNDING * magnitude(potential, *parts[i])
        )


def test_repeating_a_batch_repeats_its_results(potentials):
    # Lanes of a vector, blocks of atoms: whatever is worked on together, each copy is the same.
    potential = potentials[3]
    parts = [draw(shape, 3, 5)[1:] for shape in SHAPES]
    once = join(parts)
    found = potential.evaluate(concatenate([once] * 9))
    energies = found.energies.reshape(9, len(parts))
    for i, part in enumerate(parts):
        allowed = ENERGY_ROUNDING * magnitude(potential, *part)
        np.testing.assert_allclose(energies[:, i], energies[0, i], rtol=0, atol=allowed)


# Nothing within the cutoff


@few
@given(seed=seeds, n_species=st.integers(1, 6))
def test_atoms_without_neighbours_have_the_energies_of_their_species(seed, n_species, potentials):
    potential = potentials[n_species]
    _, cell, positions, species = draw(without_neighbours, n_species, seed)
    batch = join([(cell, positions, species)])
    result = potential.evaluate(batch, "sites")
    np.testing.assert_allclose(result.site_energies, potential.shifts[species], rtol=1e-15)
    np.testing.assert_array_equal(result.forces, 0.0)
    np.testing.assert_array_equal(result.stresses, 0.0)
    assert result.shortest_distances[0] == np.inf
    # Of all derivatives, only those by each atom's own shift are there.
    expected = potential.with_parameters(np.zeros(potential.parameters.size))
    rows = [replace(expected, shifts=np.eye(n_species)[kind]).parameters for kind in species]
    np.testing.assert_array_equal(result.gradients, rows)


@pytest.mark.parametrize("order", [1, 0])
def test_energy_and_forces_fade_at_the_cutoff(order, potentials):
    # The smoothing factor falls as the square of the gap, forces as the gap itself.
    potential = potentials[1]
    found = []
    for gap in (1e-3, 1e-4):
        distance = CUTOFF - gap
        pair = np.array([[0.0, 0.0, 0.0], [distance, 0.0, 0.0]])
        batch = join([(12.0 * np.eye(3), pair, np.zeros(2, np.int32))])
        result = potential.evaluate(batch)
        change = result.site_energies[0] - potential.shifts[0]
        found.append(result.forces[0, 0] if order else change)
    # Ten times closer: ten times less force, a hundred times less energy; other terms are of the
    # next order, a thousandth of Å in relation to the potential's 2.4 Å.
    assert found[0] / found[1] == pytest.approx(10.0 if order else 100.0, rel=0.02)
