"""Compiled evaluation beside a slow twin written from the definition, and beside differences."""

import itertools
import string

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hullscreen.potentials import basis as basis_module
from hullscreen.potentials.basis import contractions
from hullscreen.potentials.errors import InputError
from hullscreen.potentials.fit_kernels import STRAIN_COLUMN, STRAIN_ROW, jacobian_of_cell
from hullscreen.potentials.structures import Structures, join

# Energies here are near 1 eV an atom and sums have some thousand terms: rounding is near 1e-13.
ENERGY_ROUNDING = 1e-11
# The same for forces and stresses, whose terms are up to a hundred times as large.
FORCE_ROUNDING = 1e-9
# Central differences with steps of 1e-4 Å: the third derivative (below 1e2 eV/Å³, times h²/6) is
# below 1e-6, rounding (1e-13 / h) far below.
STEP = 1e-4
DIFFERENCE = {"rtol": 1e-5, "atol": 2e-6}


@pytest.fixture(scope="module")
def potential(make_potential):
    return make_potential(8)


@pytest.fixture(scope="module")
def structures(make_structures):
    return make_structures(6, seed=3)


def twin_energy(potential, level, cell, positions, species):
    """Energy from the definition: explicit tensors, every index contracted by einsum."""
    scalars = sorted(set(contractions(level)), key=basis_module._order)
    # With 5 images either way no neighbour within 4.5 Å is missed in cells of these tests.
    shifts = (np.indices((11, 11, 11)).reshape(3, -1).T - 5) @ cell
    energy = 0.0
    for i, kind in enumerate(species):
        vectors, kinds = [], []
        for j, other in enumerate(species):
            found = positions[j] - positions[i] + shifts
            r = np.linalg.norm(found, axis=1)
            inside = (r < potential.cutoff) & (r > 1e-9)
            vectors.append(found[inside])
            kinds += [other] * int(inside.sum())
        vectors = np.concatenate(vectors)
        r = np.linalg.norm(vectors, axis=1)
        units = vectors / r[:, None]
        low, high = potential.min_distance, potential.cutoff
        chebyshev = np.polynomial.chebyshev.chebvander(
            (2.0 * r - low - high) / (high - low), potential.radial.shape[3] - 1
        )
        smooth = potential.scaling * (high - r) ** 2
        f = np.einsum("jmb,jb,j->mj", potential.radial[kind, kinds], chebyshev, smooth)
        energy += potential.shifts[kind]
        for coefficient, scalar in zip(potential.linear, scalars, strict=True):
            energy += coefficient * twin_scalar(scalar, f, units)
    return energy


def twin_scalar(scalar, f, units):
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
def test_energy_is_that_of_the_definition(level, make_potential, make_structures):
    potential, structures = make_potential(level), make_structures(3, seed=level)
    energies = potential.evaluate(structures).energies
    for i, energy in enumerate(energies):
        twin = twin_energy(potential, level, *structures.one(i))
        assert energy == pytest.approx(twin, abs=ENERGY_ROUNDING, rel=1e-12)


def test_site_energies_add_up(potential, structures):
    result = potential.evaluate(structures)
    sums = np.add.reduceat(result.site_energies, structures.offsets[:-1])
    np.testing.assert_allclose(sums, result.energies, atol=ENERGY_ROUNDING)


def test_forces_are_differences_of_energies(potential, structures):
    forces = potential.evaluate(structures).forces
    for i_atom, axis in itertools.product(range(len(forces)), range(3)):
        ends = []
        for sign in (1, -1):
            positions = structures.positions.copy()
            positions[i_atom, axis] += sign * STEP
            moved = Structures(structures.cells, positions, structures.species, structures.offsets)
            ends.append(potential.evaluate(moved).energies.sum())
        difference = -(ends[0] - ends[1]) / (2 * STEP)
        np.testing.assert_allclose(forces[i_atom, axis], difference, **DIFFERENCE)


def test_stresses_are_differences_of_energies(potential, structures):
    stresses = potential.evaluate(structures).stresses
    for row, column in itertools.product(range(3), repeat=2):
        ends = []
        for sign in (1, -1):
            deformation = np.eye(3)
            deformation[row, column] += sign * STEP
            strained = Structures(
                structures.cells @ deformation.T,
                structures.positions @ deformation.T,
                structures.species,
                structures.offsets,
            )
            ends.append(potential.evaluate(strained).energies)
        difference = (ends[0] - ends[1]) / (2 * STEP * structures.volumes)
        np.testing.assert_allclose(stresses[:, row, column], difference, **DIFFERENCE)


def test_forces_and_torques_sum_to_zero(potential, structures):
    result = potential.evaluate(structures)
    sums = np.add.reduceat(result.forces, structures.offsets[:-1])
    np.testing.assert_allclose(sums, 0.0, atol=FORCE_ROUNDING)
    np.testing.assert_allclose(
        result.stresses, np.swapaxes(result.stresses, 1, 2), atol=FORCE_ROUNDING
    )


def test_parameter_gradients_are_differences_of_energies(potential, structures):
    gradients = potential.evaluate(structures, "structures").gradients
    parameters = potential.parameters
    assert gradients.shape == (len(structures), parameters.size)
    for k in range(parameters.size):
        # Energies are polynomials of low degree in each parameter.
        step = 1e-5
        ends = []
        for sign in (1, -1):
            changed = parameters.copy()
            changed[k] += sign * step
            ends.append(potential.with_parameters(changed).evaluate(structures).energies)
        # Rounding of 1e-13 over 2e-5 is 1e-8; gradients are up to some hundred.
        np.testing.assert_allclose(
            gradients[:, k], (ends[0] - ends[1]) / (2 * step), rtol=1e-6, atol=1e-6
        )


def test_gradients_of_sites_add_up_to_those_of_structures(potential, structures):
    sites = potential.evaluate(structures, "sites").gradients
    sums = np.add.reduceat(sites, structures.offsets[:-1], axis=0)
    whole = potential.evaluate(structures, "structures").gradients
    np.testing.assert_allclose(sums, whole, rtol=1e-11, atol=1e-10)


def test_single_atom_cells_have_gradients_of_sites_too(potential):
    # One row can mean a structure or a site: for one atom they are the same.
    cell = join([(2.6 * np.eye(3), np.zeros((1, 3)), np.zeros(1, np.int32))])
    by_site = potential.evaluate(cell, "sites").gradients
    np.testing.assert_array_equal(by_site, potential.evaluate(cell, "structures").gradients)


@pytest.mark.parametrize("linear_only", [False, True])
def test_jacobian_of_the_fit_is_made_of_differences(linear_only, potential, structures):
    linear = potential.radial.size
    for i in (0, 3):
        cell, positions, species = structures.one(i)
        batch, volume = structures.take([i]), structures.volumes[i]
        energy, jacobian = jacobian_of_cell(potential.tables, cell, positions, species, linear_only)
        result = potential.evaluate(batch)
        assert energy == pytest.approx(result.energies[0], abs=ENERGY_ROUNDING)
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


def test_linear_rows_are_the_same_when_computed_alone(potential, structures):
    for i in range(len(structures)):
        _, full = jacobian_of_cell(potential.tables, *structures.one(i), linear_only=False)
        _, alone = jacobian_of_cell(potential.tables, *structures.one(i), linear_only=True)
        # The same sums in another order; entries are up to some thousand.
        np.testing.assert_allclose(alone, full[-len(alone) :], rtol=1e-10, atol=1e-9)


# Invariances. Seeds stand for random cells of 1-5 atoms, so one-atom cells are among them.
seeds = st.integers(0, 10_000)
few = settings(max_examples=15, deadline=None)


def evaluated(potential, cell, positions, species):
    batch = join([(cell, positions, np.asarray(species, dtype=np.int32))])
    result = potential.evaluate(batch)
    return result.energies[0], result.forces, result.stresses[0]


def assert_same(found, expected):
    np.testing.assert_allclose(found[0], expected[0], atol=ENERGY_ROUNDING, rtol=1e-12)
    for ours, theirs in zip(found[1:], expected[1:], strict=True):
        np.testing.assert_allclose(ours, theirs, atol=FORCE_ROUNDING, rtol=1e-10)


@few
@given(seed=seeds, mirror=st.booleans())
def test_rotations_and_reflections(seed, mirror, potential, make_structures):
    cell, positions, species = make_structures(1, seed=seed).one(0)
    turn, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    turn *= np.linalg.det(turn) * (-1 if mirror else 1)
    energy, forces, stress = evaluated(potential, cell, positions, species)
    turned = evaluated(potential, cell @ turn.T, positions @ turn.T, species)
    assert_same(turned, (energy, forces @ turn.T, turn @ stress @ turn.T))


@few
@given(seed=seeds)
def test_order_of_atoms(seed, potential, make_structures):
    cell, positions, species = make_structures(1, seed=seed).one(0)
    order = np.random.default_rng(seed).permutation(len(species))
    energy, forces, stress = evaluated(potential, cell, positions, species)
    permuted = evaluated(potential, cell, positions[order], species[order])
    assert_same(permuted, (energy, forces[order], stress))


@few
@given(seed=seeds, shift=arrays(float, 3, elements=st.floats(-9, 9)))
def test_translations_and_atoms_outside_the_cell(seed, shift, potential, make_structures):
    cell, positions, species = make_structures(1, seed=seed).one(0)
    images = np.random.default_rng(seed).integers(-3, 4, size=positions.shape)
    expected = evaluated(potential, cell, positions, species)
    assert_same(evaluated(potential, cell, positions + shift + images @ cell, species), expected)


@few
@given(seed=seeds)
def test_other_bases_of_the_lattice(seed, potential, make_structures):
    cell, positions, species = make_structures(1, seed=seed).one(0)
    rng = np.random.default_rng(seed)
    change = np.eye(3, dtype=int)
    for _ in range(6):
        row, column = rng.permutation(3)[:2]
        change[row] += rng.integers(-2, 3) * change[column]
    assert round(np.linalg.det(change)) == 1
    expected = evaluated(potential, cell, positions, species)
    # The cell may be very skewed now: thin, with vectors ten times as long.
    assert_same(evaluated(potential, change @ cell, positions, species), expected)


@few
@given(seed=seeds, repeats=st.tuples(*[st.integers(1, 2)] * 3))
def test_supercells(seed, repeats, potential, make_structures):
    cell, positions, species = make_structures(1, seed=seed, max_atoms=3).one(0)
    energy, forces, stress = evaluated(potential, cell, positions, species)
    shifts = np.indices(repeats).reshape(3, -1).T @ cell
    large = evaluated(
        potential,
        np.diag(repeats) @ cell,
        (positions[None] + shifts[:, None]).reshape(-1, 3),
        np.tile(species, len(shifts)),
    )
    assert_same(large, (energy * len(shifts), np.tile(forces, (len(shifts), 1)), stress))


def test_batches_do_not_matter(potential, structures):
    whole = potential.evaluate(structures)
    for i in range(len(structures)):
        alone = potential.evaluate(structures.take([i]))
        atoms = slice(structures.offsets[i], structures.offsets[i + 1])
        assert alone.energies[0] == whole.energies[i]
        np.testing.assert_array_equal(alone.forces, whole.forces[atoms])


def test_an_atom_without_neighbours_has_the_energy_of_its_species(potential):
    lonely = join([(50.0 * np.eye(3), np.zeros((1, 3)), np.ones(1, np.int32))])
    result = potential.evaluate(lonely, "sites")
    assert result.energies[0] == pytest.approx(potential.shifts[1], rel=1e-15)
    assert result.shortest_distances[0] == np.inf
    assert np.count_nonzero(result.gradients) == 1
    np.testing.assert_array_equal(result.forces, 0.0)


def test_more_neighbours_than_the_first_scratch_holds(potential, make_potential):
    # 128 neighbours fit at first; this dense cell has about 1,500.
    wide = make_potential(2, cutoff=9.0)
    dense = join([(1.25 * np.eye(3), np.zeros((1, 3)), np.zeros(1, np.int32))])
    twin = twin_energy(make_potential(2), 2, *dense.one(0))
    assert make_potential(2).evaluate(dense).energies[0] == pytest.approx(twin, rel=1e-12)
    assert np.isfinite(wide.evaluate(dense).energies[0])


def test_shortest_distances(potential, structures):
    found = potential.evaluate(structures).shortest_distances
    shifts = np.indices((7, 7, 7)).reshape(3, -1).T - 3
    for i, shortest in enumerate(found):
        cell, positions, _ = structures.one(i)
        r = np.linalg.norm(positions[:, None, None] - positions[:, None] + shifts @ cell, axis=-1)
        assert shortest == pytest.approx(r[r > 1e-9].min(), rel=1e-13)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"species": np.array([2], np.int32)}, "species 2 occurs, but the potential knows 2"),
        ({"species": np.array([-1], np.int32)}, "species -1 occurs"),
        ({"cells": np.zeros((1, 3, 3))}, "structure 0 has a cell without volume"),
        ({"cells": np.full((1, 3, 3), np.nan)}, "must be finite"),
        ({"positions": np.full((1, 3), np.inf)}, "must be finite"),
        (
            {
                "positions": np.zeros((0, 3)),
                "species": np.zeros(0, np.int32),
                "offsets": np.zeros(2, np.int64),
            },
            "structure 0 has no atoms",
        ),
    ],
)
def test_structures_that_kernels_cannot_take(change, sentence, potential):
    fields = {
        "cells": 3.0 * np.eye(3)[None],
        "positions": np.zeros((1, 3)),
        "species": np.zeros(1, np.int32),
        "offsets": np.array([0, 1]),
    }
    with pytest.raises(InputError, match=sentence):
        potential.evaluate(Structures(**{**fields, **change}))
