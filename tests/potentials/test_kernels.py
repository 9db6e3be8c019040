"""Compiled evaluation beside a slow twin written from the definition, and beside differences."""

import itertools
import string
from dataclasses import replace

import numpy as np
import pytest

from hullscreen.potentials import basis as basis_module
from hullscreen.potentials.basis import contractions
from hullscreen.potentials.fit_kernels import STRAIN_COLUMN, STRAIN_ROW
from hullscreen.potentials.moment_tensor_potential import untrained
from hullscreen.potentials.structures import Structures, concatenate, join

# Two programs that add the same terms in different orders differ by machine epsilon (2.2e-16) times
# the terms' magnitude times about the root of their number, some ten thousand at most.
ROUNDING = 1e-13
# Central differences with steps of 1e-4 Å: the third derivative (below 1e2 eV/Å³, times h²/6) is
# below 1e-6, rounding (1e-13 / h) far below.
STEP = 1e-4
DIFFERENCE = {"rtol": 1e-5, "atol": 2e-6}
ELEMENTS = ("Al", "Ni", "Cu", "Pd", "Ag", "Pt")
LEVELS = [2, 8, 16, 20]


@pytest.fixture(scope="module")
def potential(make_potential):
    return make_potential(8)


@pytest.fixture(scope="module")
def structures(make_structures):
    return make_structures(6, seed=3)


# The twin: Novikov et al., Mach. Learn.: Sci. Technol. 2, 025002 (2021), eqs. 2-5, term by term.


def neighbour_vectors(cell, positions, i_atom, cutoff):
    """Vectors to the neighbours of an atom and their indices, by trying every image."""
    inverse = np.linalg.inv(cell)
    reach = cutoff * np.linalg.norm(inverse, axis=0)
    vectors, atoms = [], []
    for j_atom in range(len(positions)):
        apart = (positions[j_atom] - positions[i_atom]) @ inverse
        ranges = [
            np.arange(np.floor(-r - d), np.ceil(r - d) + 1)
            for r, d in zip(reach, apart, strict=True)
        ]
        images = np.stack(np.meshgrid(*ranges, indexing="ij"), axis=-1).reshape(-1, 3)
        found = positions[j_atom] - positions[i_atom] + images @ cell
        r = np.linalg.norm(found, axis=1)
        itself = (images == 0).all(axis=1) & (i_atom == j_atom)
        vectors.append(found[(r < cutoff) & ~itself])
        atoms += [j_atom] * len(vectors[-1])
    return np.concatenate(vectors), np.array(atoms, dtype=int)


def radial_functions(potential, r, kind, kinds):
    """f_μ(r_j, z_i, z_j), shape (n_radial, n_neighbours)."""
    low, high = potential.min_distance, potential.cutoff
    size = potential.radial.shape[3]
    chebyshev = np.polynomial.chebyshev.chebvander((2.0 * r - low - high) / (high - low), size - 1)
    smooth = potential.scaling * (high - r) ** 2
    return np.einsum("jmb,jb,j->mj", potential.radial[kind, kinds], chebyshev, smooth)


def twin_sites(potential, cell, positions, species):
    """Site energies, and the sum of all terms' absolute values, which bounds rounding."""
    found = []
    for i_atom, kind in enumerate(species):
        vectors, atoms = neighbour_vectors(cell, positions, i_atom, potential.cutoff)
        r = np.linalg.norm(vectors, axis=1)
        f = radial_functions(potential, r, kind, species[atoms])
        units = vectors / r[:, None]
        terms = np.array(
            [f[mu] * np.prod(units ** [a, b, c], axis=1) for mu, a, b, c in potential.basis.basic]
        )
        # One row of values, one of magnitudes.
        moments = np.zeros((2, potential.basis.n_moments))
        moments[:, : len(terms)] = np.einsum("bj->b", terms), np.einsum("bj->b", np.abs(terms))
        for left, right, factor, target in potential.basis.products:
            moments[:, target] += factor * moments[:, left] * moments[:, right]
        value, size = moments[:, potential.basis.scalars]
        shift = potential.shifts[kind]
        found.append((shift + potential.linear @ value, abs(shift) + abs(potential.linear) @ size))
    return np.array(found).T


def random_potential(level, n_species, seed=0, **form):
    """A potential whose parameters are all random, with a site energy of some eV."""
    form = {"cutoff": 4.2, "min_distance": 1.8, "radial_basis_size": 5, **form}
    start = untrained(level, ELEMENTS[:n_species], seed=seed, **form)
    rng = np.random.default_rng(seed + 1)
    return replace(
        start, shifts=rng.normal(size=n_species), linear=rng.normal(size=start.linear.size)
    )


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("n_species", [1, 2, 3, 6])
def test_site_energies_are_those_of_the_twin(level, n_species, make_structures):
    potential = random_potential(level, n_species, seed=level)
    structures = make_structures(4, n_species, seed=level + n_species)
    result = potential.evaluate(structures)
    twins = [twin_sites(potential, *structures.one(i)) for i in range(len(structures))]
    values, sizes = np.concatenate(twins, axis=1)
    np.testing.assert_array_less(np.abs(result.site_energies - values), ROUNDING * sizes)
    sums = np.add.reduceat(values, structures.offsets[:-1])
    bounds = np.add.reduceat(sizes, structures.offsets[:-1])
    np.testing.assert_array_less(np.abs(result.energies - sums), ROUNDING * bounds)


@pytest.mark.parametrize("size", [1, 2, 3, 8, 12])
def test_radial_bases_of_every_size(size, make_structures):
    potential = random_potential(4, 2, radial_basis_size=size, min_distance=0.0)
    cell = make_structures(1, seed=size).one(0)
    values, sizes = twin_sites(potential, *cell)
    found = potential.evaluate(join([cell])).site_energies
    np.testing.assert_array_less(np.abs(found - values), ROUNDING * sizes)


@pytest.mark.parametrize("spacing", [1.0, 1.25, 1.5])
def test_hundreds_of_neighbours_most_of_them_below_the_least_distance(spacing):
    # Simple cubic; 70 to 310 neighbours, below the Chebyshev interval and in it.
    dense = join([(spacing * np.eye(3), np.zeros((1, 3)), np.zeros(1, np.int32))])
    potential = random_potential(8, 1, cutoff=4.2, min_distance=2.5)
    values, sizes = twin_sites(potential, *dense.one(0))
    found = potential.evaluate(dense)
    np.testing.assert_array_less(np.abs(found.site_energies - values), ROUNDING * sizes)
    assert found.shortest_distances[0] == pytest.approx(spacing, rel=1e-14)


# The basis from the definition: explicit tensors, every index contracted by einsum.


def scalar_by_einsum(scalar, f, units):
    """One contraction: a letter for every contracted pair of indices."""
    vertices, edges = scalar
    legs = [""] * len(vertices)
    letters = iter(string.ascii_letters)
    pairs = itertools.combinations(range(len(vertices)), 2)
    for (u, v), count in zip(pairs, edges, strict=True):
        for _ in range(count):
            letter = next(letters)
            legs[u] += letter
            legs[v] += letter
    tensors = [moment(f[mu], units, len(leg)) for (mu, _), leg in zip(vertices, legs, strict=True)]
    return float(np.einsum(",".join(legs) + "->", *tensors))


def moment(f, units, rank):
    """M = Σ_j f_j u_j ⊗ … ⊗ u_j, shape (3,) * rank."""
    total = np.zeros((3,) * rank)
    for weight, u in zip(f, units, strict=True):
        power = np.array(weight)
        for _ in range(rank):
            power = np.multiply.outer(power, u)
        total = total + power
    return total


@pytest.mark.parametrize("level", [2, 4, 6, 8])
def test_energy_is_that_of_contracted_tensors(level, make_structures):
    potential = random_potential(level, 2)
    scalars = sorted(set(contractions(level)), key=basis_module._order)
    cell, positions, species = make_structures(1, seed=level).one(0)
    expected = potential.shifts[species].sum()
    for i_atom, kind in enumerate(species):
        vectors, atoms = neighbour_vectors(cell, positions, i_atom, potential.cutoff)
        r = np.linalg.norm(vectors, axis=1)
        f = radial_functions(potential, r, kind, species[atoms])
        for coefficient, scalar in zip(potential.linear, scalars, strict=True):
            expected += coefficient * scalar_by_einsum(scalar, f, vectors / r[:, None])
    _, sizes = twin_sites(potential, cell, positions, species)
    found = potential.evaluate(join([(cell, positions, species)])).energies[0]
    assert found == pytest.approx(expected, abs=ROUNDING * sizes.sum())


# Derivatives


def energy_differences(potential, batches):
    """E(first) − E(second) of two batches a step of STEP either way."""
    ends = [potential.evaluate(batch).energies for batch in batches]
    return (ends[0] - ends[1]) / (2 * STEP)


@pytest.mark.parametrize("level", LEVELS)
def test_forces_are_differences_of_energies(level, make_potential, make_structures):
    potential, structures = make_potential(level), make_structures(4, seed=3)
    forces = potential.evaluate(structures).forces
    for i_atom, axis in itertools.product(range(len(forces)), range(3)):
        moved = []
        for sign in (1, -1):
            positions = structures.positions.copy()
            positions[i_atom, axis] += sign * STEP
            moved.append(replace(structures, positions=positions))
        difference = -energy_differences(potential, moved).sum()
        np.testing.assert_allclose(forces[i_atom, axis], difference, **DIFFERENCE)


@pytest.mark.parametrize("level", LEVELS)
def test_stresses_are_differences_of_energies(level, make_potential, make_structures):
    potential, structures = make_potential(level), make_structures(4, seed=3)
    stresses = potential.evaluate(structures).stresses
    for row, column in itertools.product(range(3), repeat=2):
        strained = []
        for sign in (1, -1):
            deformation = np.eye(3)
            deformation[row, column] += sign * STEP
            cells = structures.cells @ deformation.T
            positions = structures.positions @ deformation.T
            strained.append(replace(structures, cells=cells, positions=positions))
        difference = energy_differences(potential, strained) / structures.volumes
        np.testing.assert_allclose(stresses[:, row, column], difference, **DIFFERENCE)


def test_forces_and_torques_sum_to_zero(potential, structures):
    result = potential.evaluate(structures)
    sums = np.add.reduceat(result.forces, structures.offsets[:-1])
    # Some hundred forces of pairs, each up to 1e2 eV/Å.
    np.testing.assert_allclose(sums, 0.0, atol=1e-10)
    np.testing.assert_allclose(result.stresses, np.swapaxes(result.stresses, 1, 2), atol=1e-11)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("n_species", [1, 2, 6])
def test_parameter_gradients_are_differences_of_energies(level, n_species, make_structures):
    potential = random_potential(level, n_species)
    structures = make_structures(4, n_species, seed=11)
    result = potential.evaluate(structures, "sites")
    whole = potential.evaluate(structures, "structures")
    parameters = potential.parameters
    assert result.gradients.shape == (len(structures.species), parameters.size)
    assert whole.gradients.shape == (len(structures), parameters.size)
    # Up to 1,016 parameters: a sample of them, with the last ones of each kind.
    n_radial = potential.radial.size
    chosen = np.random.default_rng(level).permutation(parameters.size)[:40]
    for k in {*chosen.tolist(), 0, n_radial - 1, n_radial, parameters.size - 1}:
        # Energies are polynomials of degree four at most in each parameter: errors go as step².
        step = 1e-4
        ends = []
        for sign in (1, -1):
            changed = parameters.copy()
            changed[k] += sign * step
            ends.append(potential.with_parameters(changed).evaluate(structures).site_energies)
        difference = (ends[0] - ends[1]) / (2 * step)
        # Rounding of 1e-13 eV over the step is 1e-9; truncation 1e-8 of terms up to 1e1.
        np.testing.assert_allclose(result.gradients[:, k], difference, rtol=1e-6, atol=1e-6)
    sums = np.add.reduceat(result.gradients, structures.offsets[:-1], axis=0)
    # The same sums in another order; entries are up to some hundred.
    np.testing.assert_allclose(whole.gradients, sums, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("gradients", ["structures", "sites"])
def test_energies_do_not_depend_on_what_else_is_asked_for(gradients, potential, structures):
    plain, full = potential.evaluate(structures), potential.evaluate(structures, gradients)
    assert plain.gradients.size == 0
    # Different code may sum in another order; see the magnitudes at the top.
    np.testing.assert_allclose(full.energies, plain.energies, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(full.forces, plain.forces, rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(full.stresses, plain.stresses, rtol=1e-11, atol=1e-11)


def test_single_atom_cells_have_gradients_of_sites_too(potential):
    # One row can mean a structure or a site: for one atom they are the same.
    cell = join([(2.6 * np.eye(3), np.zeros((1, 3)), np.zeros(1, np.int32))])
    by_site = potential.evaluate(cell, "sites").gradients
    np.testing.assert_array_equal(by_site, potential.evaluate(cell, "structures").gradients)


@pytest.mark.parametrize("linear_only", [False, True])
def test_jacobian_of_the_fit_is_made_of_differences(
    linear_only, potential, structures, jacobian_of_cell
):
    linear = potential.radial.size
    for i in (0, 3):
        cell, positions, species = structures.one(i)
        batch, volume = structures.take([i]), structures.volumes[i]
        energy, jacobian = jacobian_of_cell(potential.tables, cell, positions, species, linear_only)
        result = potential.evaluate(batch)
        # Energies near 1 eV an atom, sums of some thousand terms.
        assert energy == pytest.approx(result.energies[0], abs=1e-11)
        parameters = potential.parameters
        rows = range(linear if linear_only else 0, parameters.size)
        for row, k in enumerate(rows):
            ends = []
            for sign in (1, -1):
                changed = parameters.copy()
                changed[k] += sign * 1e-5
                ends.append(potential.with_parameters(changed).evaluate(batch))
            strains = volume * (ends[0].stresses - ends[1].stresses)[0]
            difference = np.concatenate(
                [
                    ends[0].energies - ends[1].energies,
                    (ends[1].forces - ends[0].forces).ravel(),
                    strains[STRAIN_ROW, STRAIN_COLUMN],
                ]
            )
            # As for energies above, with derivatives up to some thousand.
            np.testing.assert_allclose(jacobian[row], difference / 2e-5, rtol=1e-5, atol=1e-5)


def test_linear_rows_are_the_same_when_computed_alone(potential, structures, jacobian_of_cell):
    for i in range(len(structures)):
        _, full = jacobian_of_cell(potential.tables, *structures.one(i), linear_only=False)
        _, alone = jacobian_of_cell(potential.tables, *structures.one(i), linear_only=True)
        # The same sums in another order; entries are up to some thousand.
        np.testing.assert_allclose(alone, full[-len(alone) :], rtol=1e-10, atol=1e-9)


# What arrives


def test_arrays_of_other_kinds_are_taken(potential, structures):
    expected = potential.evaluate(structures)
    other = Structures(
        np.asfortranarray(structures.cells),
        np.repeat(structures.positions, 2, axis=0)[::2],
        structures.species.astype(np.int64),
        structures.offsets.astype(np.int32),
    )
    assert not other.positions.flags.c_contiguous
    found = potential.evaluate(other)
    np.testing.assert_array_equal(found.energies, expected.energies)
    np.testing.assert_array_equal(found.forces, expected.forces)


def test_single_precision_is_widened(potential, structures):
    single = replace(
        structures,
        cells=structures.cells.astype(np.float32),
        positions=structures.positions.astype(np.float32),
    )
    widened = replace(
        structures,
        cells=single.cells.astype(np.float64),
        positions=single.positions.astype(np.float64),
    )
    found = potential.evaluate(single)
    assert found.energies.dtype == np.float64
    np.testing.assert_array_equal(found.energies, potential.evaluate(widened).energies)


def test_arguments_are_left_alone(potential, structures):
    arrays = (structures.cells, structures.positions, structures.species, structures.offsets)
    before = [array.copy() for array in arrays]
    potential.evaluate(structures, "sites")
    for array, copy in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_a_batch_without_structures(potential, structures):
    nothing = potential.evaluate(structures.take([]), "structures")
    assert nothing.energies.shape == (0,)
    assert nothing.forces.shape == (0, 3)
    assert nothing.stresses.shape == (0, 3, 3)
    assert nothing.gradients.shape == (0, potential.parameters.size)
    # Among others it changes nothing either.
    both = potential.evaluate(concatenate([structures.take([]), structures]))
    np.testing.assert_array_equal(both.energies, potential.evaluate(structures).energies)
