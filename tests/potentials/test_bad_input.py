"""Input that cannot be right: one sentence each, with the structure it is about, and no crash."""

from dataclasses import replace

import numpy as np
import pytest

from hullscreen.potentials.active_set import empty_active_set
from hullscreen.potentials.almtp_files import selection_by_configuration
from hullscreen.potentials.calculator import MTPCalculator
from hullscreen.potentials.errors import InputError
from hullscreen.potentials.fit import TrainingSet, Weights, errors, fit
from hullscreen.potentials.input_checks import SMALLEST_VOLUME_PER_ATOM
from hullscreen.potentials.moment_tensor_potential import untrained
from hullscreen.potentials.relaxation import relax
from hullscreen.potentials.structures import concatenate, join, to_atoms

ELEMENTS = ("Cu", "Pd")


@pytest.fixture(scope="module")
def potential():
    start = untrained(4, ELEMENTS, cutoff=4.5, min_distance=2.0, radial_basis_size=4)
    return replace(start, linear=np.ones(start.linear.size))


@pytest.fixture(scope="module")
def good():
    """Two sound cells, of two atoms and of one."""
    pair = np.array([[0.0, 0.0, 0.0], [1.9, 1.9, 1.9]])
    return join(
        [
            (3.8 * np.eye(3), pair, np.array([0, 1], np.int32)),
            (2.6 * np.eye(3), pair[:1], np.zeros(1, np.int32)),
        ]
    )


def labelled(structures):
    n, n_atoms = len(structures), len(structures.species)
    return TrainingSet(structures, np.zeros(n), np.zeros((n_atoms, 3)), np.zeros((n, 3, 3)))


def with_cell(cell):
    return join([(np.asarray(cell, float), np.zeros((1, 3)), np.zeros(1, np.int32))])


def with_position(position):
    return join([(3.0 * np.eye(3), np.array([position]), np.zeros(1, np.int32))])


def with_species(kind):
    return join([(3.0 * np.eye(3), np.zeros((1, 3)), np.array([kind], np.int32))])


NO_ATOMS = join([(3.0 * np.eye(3), np.zeros((0, 3)), np.zeros(0, np.int32))])
BAD_STRUCTURES = {
    "species": (with_species(2), "structure 2 holds species 2, but the potential knows 2.*Cu, Pd"),
    "negative": (with_species(-1), "structure 2 holds species -1, but the potential knows 2"),
    "empty": (NO_ATOMS, "structure 2 has no atoms; leave it out"),
    "nan cell": (
        with_cell(np.diag([3.0, np.nan, 3.0])),
        "the cell of structure 2 must be finite numbers, got 3.0 0.0 0.0 0.0 nan",
    ),
    "infinite cell": (with_cell(np.diag([np.inf, 3.0, 3.0])), "the cell of structure 2 must be"),
    "nan position": (
        with_position([0.0, np.nan, 0.0]),
        "the positions of structure 2 must be finite numbers, got 0.0 nan 0.0",
    ),
    "infinite position": (with_position([np.inf, 0.0, 0.0]), "the positions of structure 2 must"),
    "no cell": (with_cell(np.zeros((3, 3))), "structure 2 has 0 Å³ of volume an atom"),
    "flat cell": (
        with_cell([[3.0, 0.0, 0.0], [0.0, 3.0, 0.0], [3.0, 3.0, 1e-4]]),
        "structure 2 has 0.0009 Å³ of volume an atom, expected at least 0.1; is its cell flat",
    ),
    "metres": (with_cell(3e-10 * np.eye(3)), "or not in Å"),
}


@pytest.mark.parametrize("name", BAD_STRUCTURES)
def test_structures_are_refused_by_their_place_in_the_batch(name, potential, good):
    bad, sentence = BAD_STRUCTURES[name]
    # Sound structures before and after it.
    batch = concatenate([good, bad, good])
    for use in (
        potential.evaluate,
        lambda structures: relax(potential, structures),
        lambda structures: fit(potential, labelled(structures)),
        lambda structures: errors(potential, labelled(structures)),
    ):
        with pytest.raises(InputError, match=sentence):
            use(batch)


@pytest.mark.parametrize("name", ["nan position", "nan cell", "flat cell"])
def test_the_calculator_refuses_the_same(name, potential):
    bad, sentence = BAD_STRUCTURES[name]
    atoms = to_atoms(bad, ELEMENTS)[0]
    atoms.calc = MTPCalculator(potential)
    with pytest.raises(InputError, match=sentence.replace("structure 2", "structure 0")):
        atoms.get_potential_energy()


def test_the_densest_cell_that_is_taken_is_evaluated(potential):
    edge = np.cbrt(1.001 * SMALLEST_VOLUME_PER_ATOM)
    # Some 3,800 neighbours: a collapse seen by its distance, not by a crash.
    result = potential.evaluate(with_cell(edge * np.eye(3)))
    assert np.isfinite(result.energies[0])
    assert result.shortest_distances[0] == pytest.approx(edge)


SHARED_SITES = [
    ([0.1, 0.2, 0.3], [0.1, 0.2, 0.3]),
    # The same site in the next cell, as far as rounding tells.
    ([0.1, 0.2, 0.3], [3.1, -2.8, 0.3]),
]


@pytest.mark.parametrize("positions", SHARED_SITES)
def test_two_atoms_on_one_site(positions, potential, good):
    kinds = np.array([0, 1], np.int32)
    doubled = join([(3.0 * np.eye(3), np.array(positions), kinds)])
    sentence = "structure 2 has two atoms on one site, or a lattice vector below"
    batch = concatenate([good, doubled])
    for gradients in ("none", "structures", "sites"):
        with pytest.raises(InputError, match=sentence):
            potential.evaluate(batch, gradients)
    with pytest.raises(InputError, match=sentence):
        errors(potential, labelled(batch))
    # A relaxation judges distances at every step: this one ends, the others go on.
    outcomes = relax(potential, batch).outcome_counts()
    assert outcomes["too_close"] == 1
    assert sum(outcomes.values()) == 3
    atoms = to_atoms(doubled, ELEMENTS)[0]
    atoms.calc = MTPCalculator(potential)
    with pytest.raises(InputError, match="structure 0 has two atoms on one site"):
        atoms.get_forces()


@pytest.mark.parametrize("positions", SHARED_SITES)
def test_two_atoms_on_one_site_of_a_training_set(positions, potential, good):
    doubled = join([(3.0 * np.eye(3), np.array(positions), np.array([0, 1], np.int32))])
    with pytest.raises(InputError, match="structure 2 has two atoms on one site"):
        fit(potential, labelled(concatenate([good, doubled])))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {"species": np.zeros(3)},
            "species must be whole numbers, got float64",
        ),
        (
            {"cells": np.eye(3)},
            r"expected cells \(3, 3, 3\).* got \(3, 3\), \(3, 3\), \(3,\)",
        ),
        (
            {"positions": np.zeros((2, 3))},
            r"positions \(3, 3\) and offsets \(3,\) of 2 structures with 3 species, got .*\(2, 3\)",
        ),
        ({"offsets": np.array([0, 2, 4])}, "offsets must rise from 0 to the number of atoms, 3"),
        ({"offsets": np.array([1, 2, 3])}, "offsets must rise from 0"),
        ({"offsets": np.array([0, 5, 3])}, "offsets must rise from 0"),
    ],
)
def test_arrays_that_do_not_fit_together(change, sentence, potential, good):
    with pytest.raises(InputError, match=sentence):
        potential.evaluate(replace(good, **change))


def test_gradients_of_something_unknown(potential, good):
    with pytest.raises(InputError, match="may be none, structures, sites, got 'atoms'"):
        potential.evaluate(good, "atoms")


def test_single_precision_is_widened_for_relaxations_too(potential, good):
    single = replace(
        good, cells=good.cells.astype(np.float32), positions=good.positions.astype(np.float32)
    )
    relaxed = relax(potential, single)
    assert relaxed.structures.cells.dtype == np.float64
    widened = replace(
        good, cells=single.cells.astype(float), positions=single.positions.astype(float)
    )
    np.testing.assert_array_equal(relaxed.energies, relax(potential, widened).energies)


# Labels


def test_an_empty_training_set(potential, good):
    with pytest.raises(InputError, match="at least one labelled structure, got none"):
        fit(potential, labelled(good.take([])))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {"energies": np.array([0.0, np.nan])},
            r"the energy of structure 1 is nan \(of 1 such\); calculate it, or remove",
        ),
        ({"energies": np.array([np.inf, np.nan])}, r"the energy of structure 0 is inf \(of 2 such"),
        (
            {"forces": np.array([[0.0] * 3, [0.0, 0.0, -np.inf], [0.0] * 3])},
            "the forces of structure 0 must be finite numbers, or NaN if unknown, got 0.0 0.0 -inf",
        ),
        (
            {"stresses": np.stack([np.zeros((3, 3)), np.diag([np.inf, 0.0, 0.0])])},
            "the stress of structure 1 must be finite numbers, or NaN if unknown, got inf",
        ),
        ({"forces": np.zeros((2, 3))}, r"expected .*forces \(3, 3\).* got \(2,\), \(2, 3\)"),
        ({"energies": np.zeros(3)}, r"expected energies \(2,\).* got \(3,\)"),
    ],
)
def test_labels_that_cannot_be_fitted(change, sentence, potential, good):
    with pytest.raises(InputError, match=sentence):
        fit(potential, replace(labelled(good), **change))


def test_unknown_labels_leave_the_known_ones(potential, good):
    # Of nine forces one is known; a whole stress is not.
    data = labelled(good)
    data.forces[:] = np.nan
    data.forces[0, 1] = 0.1
    data.stresses[0] = np.nan
    result = fit(potential, data, max_iterations=2)
    assert np.isfinite(result.losses).all()
    assert np.isfinite(result.potential.parameters).all()


@pytest.mark.parametrize(
    ("emphasis", "sentence"),
    [
        (np.ones(3), r"expected the emphasis of 2 structures, shape \(2,\), got \(3,\)"),
        (np.ones((2, 1)), r"expected the emphasis of 2 structures, .* got \(2, 1\)"),
        (1.0, r"expected the emphasis of 2 structures, .* got \(\)"),
        (np.array([1.0, np.nan]), "the emphasis of structure 1 is nan; expected a finite number"),
        ([np.inf, 1.0], "the emphasis of structure 0 is inf"),
        ([1.0, -0.5], "the emphasis of structure 1 is -0.5; expected .* not negative"),
        (np.zeros(2), "the emphasis of every structure is zero; give one of them more"),
        (["much", "little"], "emphasis must be numbers, one for each structure"),
        ([[1.0], [1.0, 2.0]], "emphasis must be numbers, one for each structure"),
    ],
)
def test_an_emphasis_that_weighs_nothing(emphasis, sentence, potential, good):
    with pytest.raises(InputError, match=sentence):
        fit(potential, labelled(good), emphasis=emphasis)


def test_an_emphasis_may_be_a_list_and_leave_structures_out(potential, good):
    listed = fit(potential, labelled(good), emphasis=[2, 0], max_iterations=2)
    array = fit(potential, labelled(good), emphasis=np.array([1.0, 0.0]), max_iterations=2)
    np.testing.assert_array_equal(listed.potential.parameters, array.potential.parameters)


@pytest.mark.parametrize(
    ("weights", "sentence"),
    [
        ({"energy": np.nan}, "the weight of the energy is nan; expected a finite number"),
        ({"force": -0.01}, "the weight of the force is -0.01; expected .* not negative"),
        ({"stress": np.inf}, "the weight of the stress is inf"),
        ({"energy": 0.0, "force": 0.0, "stress": 0.0}, "are all zero; give one of them more"),
    ],
)
def test_weights_that_weigh_nothing(weights, sentence):
    with pytest.raises(InputError, match=sentence):
        Weights(**weights)


# Active sets


def test_what_is_no_active_set_of_the_potential(potential, good):
    n = potential.parameters.size
    selection = selection_by_configuration(empty_active_set(n), [])
    other = f"belongs to a potential of 3 parameters, this one has {n}; select it anew"
    whole = "expected an ActiveSet, got a Selection; of what .* give `selection.active_set`"
    for given, sentence in ((empty_active_set(3), other), (selection, whole)):
        with pytest.raises(InputError, match=sentence):
            relax(potential, good, active_set=given)
        with pytest.raises(InputError, match=sentence):
            MTPCalculator(potential, given)


# Singular fits: far more parameters than data leave most of them open, which the ridge settles.


def singular_sets(good, potential):
    truth = potential.evaluate(good)
    data = TrainingSet(good, truth.energies + 1.0, truth.forces, truth.stresses)
    return {
        "one structure": data.take([0]),
        "identical structures": data.take([0] * 12),
        "one species missing": data.take([1, 1]),
        "one lonely atom": labelled(with_cell(20.0 * np.eye(3))),
    }


@pytest.mark.parametrize(
    "name", ["one structure", "identical structures", "one species missing", "one lonely atom"]
)
def test_singular_fits_end_with_their_condition(name, potential, good):
    data = singular_sets(good, potential)[name]
    result = fit(potential, data, max_iterations=5)
    # Without the ridge it would be infinite; with it, no more than the reciprocal of its weight
    # beside the largest of the normal equations' diagonal.
    assert 1e3 < result.condition < np.inf
    assert np.isfinite(result.potential.parameters).all()
    # What little there is, is met: an energy of 1 eV beside the ridge's weight of 1e-10.
    assert errors(result.potential, data).energy_max_mev_per_atom < 1.0


def test_identical_structures_with_different_energies_average(potential, good):
    data = labelled(good.take([0] * 4))
    data.energies[:] = [1.0, 2.0, 3.0, 4.0]
    result = fit(potential, data, max_iterations=5)
    found = result.potential.evaluate(good.take([0])).energies[0]
    # Forces and stresses of zero can be met beside the energy; the ridge's pull is 1e-10.
    assert found == pytest.approx(2.5, abs=1e-3)
