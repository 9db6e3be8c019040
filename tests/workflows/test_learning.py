"""The weights of labels, the rows of the active set, and training."""

import numpy as np
import pytest

from hullscreen.potentials.gradient_rows import energy_rows
from hullscreen.potentials.labels import TrainingSet
from hullscreen.potentials.moment_tensor_potential import untrained
from hullscreen.potentials.structures import join
from hullscreen.workflows.learning import (
    EMPHASIS_WIDTHS,
    SMALLEST_EMPHASIS,
    emphasis,
    fingerprints,
    shortest_bond,
    train,
)


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


def small_potential(seed=0):
    return untrained(4, ("Cu", "Pd"), cutoff=4.5, min_distance=1.8, radial_basis_size=4, seed=seed)


def test_rows_are_the_gradients_of_the_energy_per_atom():
    potential = small_potential()
    structures = cells([[0, 1], [1, 1, 0], [0]])
    rows = energy_rows(potential, structures)
    assert rows.shape == (3, potential.parameters.size)
    step = 1e-5
    for parameter in range(0, potential.parameters.size, 3):
        change = np.zeros(potential.parameters.size)
        change[parameter] = step
        energies = [
            potential.with_parameters(potential.parameters + sign * change)
            .evaluate(structures)
            .energies
            / structures.n_atoms
            for sign in (1, -1)
        ]
        # Central differences of a cubic function of the parameters: error of order step².
        difference = (energies[0] - energies[1]) / (2 * step)
        assert rows[:, parameter] == pytest.approx(difference, rel=1e-6, abs=1e-8)


def test_no_structures_have_no_rows():
    potential = small_potential()
    assert energy_rows(potential, join([])).shape == (0, potential.parameters.size)


def test_fingerprints_do_not_depend_on_the_cell_that_is_chosen():
    potential = small_potential()
    cell, positions, species = cells([[0, 1]]).one(0)
    doubled = (
        cell * np.array([[1.0], [2.0], [1.0]]),
        np.concatenate([positions, positions + cell[1]]),
        np.concatenate([species, species]),
    )
    one, two = fingerprints(potential, join([(cell, positions, species), doubled]))
    # Sums over the same neighbours in another order.
    assert one == pytest.approx(two, rel=1e-11, abs=1e-11)
    assert one.shape == potential.linear.shape


def training_set(heights=(0.0, 0.0, 0.02, 0.1, 0.5, 3.0)):
    """Pure elements at zero and CuPd at these heights above them, all with noise for forces."""
    structures = cells([[0], [1], *[[0, 1]] * (len(heights) - 2)])
    rng = np.random.default_rng(0)
    return TrainingSet(
        structures,
        np.array(heights) * structures.n_atoms,
        rng.normal(scale=0.1, size=structures.positions.shape),
        rng.normal(scale=1e-3, size=(len(heights), 3, 3)),
    )


@pytest.mark.parametrize("stage", [1, 2])
def test_labels_count_less_the_higher_they_lie(stage):
    heights = np.array([0.0, 0.0, 0.02, 0.1, 0.5, 300.0])
    weights = emphasis(training_set(heights), 2, stage)
    width = EMPHASIS_WIDTHS[stage]
    assert weights[:2].tolist() == [1.0, 1.0]
    assert weights[2:5] == pytest.approx((width / (width + heights[2:5])) ** 2)
    assert weights[5] == SMALLEST_EMPHASIS
    assert (np.diff(weights[1:]) < 0).all()


def test_heights_are_above_the_hull_not_above_zero():
    # One compound 0.4 eV/atom below the elements: the others are that much higher.
    weights = emphasis(training_set((0.0, 0.0, -0.4, 0.0)), 2, 2)
    assert weights[2] == 1.0
    assert weights[3] == pytest.approx((0.05 / 0.45) ** 2)


def settings(**changes):
    return {
        "elements": ("Cu", "Pd"), "stage": 1, "level": 4, "cutoff": 4.5, "min_distance": 1.8,
        "radial_basis_size": 4, "seed": 0, "start": None, **changes,
    }  # fmt: skip


def test_training_learns_and_its_labels_are_within_the_active_set():
    training = training_set((0.0, 0.1, 0.02, 0.05, 0.03, 0.04))
    result, active = train(training, **settings())
    assert result.losses[-1] < result.losses[0]
    found = active.grades(energy_rows(result.potential, training.structures))
    # MaxVol ends when no row's grade exceeds its threshold, a percent above one.
    assert found.max() < 1.1


def test_training_is_the_same_for_the_same_seed():
    training = training_set((0.0, 0.1, 0.02, 0.05, 0.03, 0.04))
    first, again, other = (train(training, **settings(seed=seed))[0] for seed in (3, 3, 4))
    assert first.potential.parameters.tobytes() == again.potential.parameters.tobytes()
    assert first.potential.parameters.tobytes() != other.potential.parameters.tobytes()


def test_training_goes_on_from_the_last_potential():
    training = training_set((0.0, 0.1, 0.02, 0.05, 0.03, 0.04))
    first, _ = train(training, **settings())
    later, _ = train(training, **settings(start=first.potential))
    # Nothing new to learn: what was reached is kept, to a hundredth.
    assert later.losses[-1] <= first.losses[-1] * 1.01


def test_the_shortest_bond_is_that_of_fcc_copper():
    # 3.615 Å / √2, from the volume of a quarter of the cell.
    assert shortest_bond(np.array([15.0, 3.615**3 / 4])) == pytest.approx(3.615 / np.sqrt(2))
