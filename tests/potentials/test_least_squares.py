"""The separable problem: blocks do not matter, the model is the loss's, bad systems are named."""

import numpy as np
import pytest

from hullscreen.potentials import fit as fit_module
from hullscreen.potentials import least_squares
from hullscreen.potentials.errors import InputError, PotentialError
from hullscreen.potentials.fit import Weights
from hullscreen.potentials.least_squares import (
    damped_step,
    model_around,
    normal_equations,
    solve,
    with_best_linear,
)
from hullscreen.potentials.moment_tensor_potential import untrained
from hullscreen.potentials.structures import concatenate


@pytest.fixture(scope="module")
def potential():
    return untrained(6, ("Cu", "Pd"), cutoff=4.5, min_distance=2.0, radial_basis_size=5)


@pytest.fixture(scope="module")
def problem(potential, labelled):
    return fit_module._pose(potential, labelled, Weights(1.0, 0.1, 0.1), None, 1e-10)


def test_blocks_add_up_to_the_same(potential, problem, monkeypatch):
    whole = normal_equations(problem, potential, linear_only=False)
    # A few cells, then one cell at a time.
    for entries in (5000, 1):
        monkeypatch.setattr(least_squares, "BLOCK_ENTRIES", entries)
        parts = normal_equations(problem, potential, linear_only=False)
        # The same sums of some thousand terms in another order.
        scale = np.abs(whole.hessian).max()
        np.testing.assert_allclose(parts.hessian, whole.hessian, rtol=1e-10, atol=1e-13 * scale)
        np.testing.assert_allclose(
            parts.gradient, whole.gradient, rtol=1e-10, atol=1e-13 * np.abs(whole.gradient).max()
        )
        assert parts.loss == pytest.approx(whole.loss, rel=1e-12)


def test_the_best_linear_coefficients_leave_no_gradient(potential, problem):
    best, loss = with_best_linear(problem, potential)
    np.testing.assert_array_equal(best.radial, potential.radial)
    system = normal_equations(problem, best, linear_only=True)
    linear = best.parameters[best.radial.size :]
    scales = np.diag(system.hessian)
    gradient = system.gradient + problem.ridge * scales * linear
    # Relative to what each coefficient's share of the loss could be. Solving loses as many digits
    # as the system's condition has; so does the loss that the solution foresees.
    assert np.abs(gradient / np.sqrt(scales)).max() < 1e-8 * np.sqrt(system.loss)
    assert loss == pytest.approx(system.loss + problem.ridge * scales @ linear**2, rel=1e-8)


def test_the_model_foresees_the_loss(potential, problem):
    current, loss = with_best_linear(problem, potential)
    model = model_around(problem, current)
    rng = np.random.default_rng(0)
    direction = rng.normal(size=potential.radial.size)
    losses = []
    for sign in (1.0, -1.0):
        moved = current.parameters
        moved[: direction.size] += sign * 1e-4 * direction
        losses.append(with_best_linear(problem, current.with_parameters(moved))[1])
    slope = (losses[0] - losses[1]) / 2e-4
    # Central differences of a smooth function; the loss itself is good to 1e-8.
    assert slope == pytest.approx(2.0 * model.gradient @ direction, rel=1e-4)
    damping = 1e5
    step, promise = damped_step(model, damping)
    moved = current.parameters
    moved[: step.size] += step
    moved[step.size :] += model.shift + model.response @ step
    trial = current.with_parameters(moved)
    kept = normal_equations(problem, trial, linear_only=True).loss
    lowered = with_best_linear(problem, trial)[1]
    # A small step: what is promised comes, and the linear coefficients were foreseen.
    assert loss - lowered == pytest.approx(promise, rel=0.1)
    assert kept == pytest.approx(lowered, rel=1e-2)


def test_two_atoms_on_one_site_are_named_in_any_block(potential, labelled, monkeypatch):
    monkeypatch.setattr(least_squares, "BLOCK_ENTRIES", 1)
    data = labelled.take(range(4))
    data.structures.positions[9] = data.structures.positions[8]
    problem = fit_module._pose(potential, data, None, None, 1e-10)
    with pytest.raises(InputError, match="structure 2 has two atoms on one site"):
        normal_equations(problem, potential, linear_only=True)


def test_structures_of_one_species_leave_the_others_alone(potential, labelled):
    pure = [i for i in range(len(labelled)) if not labelled.structures.one(i)[2].any()]
    data = labelled.take(pure)
    problem = fit_module._pose(potential, data, None, None, 1e-10)
    current, _ = with_best_linear(problem, potential)
    step, _ = damped_step(model_around(problem, current), 1e-3)
    radial = step.reshape(potential.radial.shape)
    assert np.abs(radial[0, 0]).max() > 0
    np.testing.assert_array_equal(radial[1], 0.0)
    np.testing.assert_array_equal(radial[0, 1], 0.0)
    assert len(concatenate([data.structures])) == len(pure) > 0


def test_systems_are_solved_whatever_their_scales():
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(50, 6)) * 10.0 ** np.array([-3.0, -2, 0, 1, 2, 3])
    truth = rng.normal(size=6)
    # Scaled columns are well conditioned; the smallest one is 1e-6 of the sums it is part of, so
    # that rounding of 1e-16 leaves 1e-10 of it.
    np.testing.assert_allclose(solve(rows.T @ rows, rows.T @ (rows @ truth)), truth, rtol=1e-8)
    both = solve(rows.T @ rows, rows.T @ np.column_stack([rows @ truth, rows[:, 0]]))
    np.testing.assert_allclose(both[:, 0], truth, rtol=1e-8)


def test_systems_that_leave_something_open_are_solved_and_others_refused():
    # Two equal columns share the answer; a column of zeros gets none.
    rows = np.array([[1.0, 1.0, 0.0], [2.0, 2.0, 0.0]])
    solution = solve(rows.T @ rows, rows.T @ np.array([1.0, 2.0]))
    # The system is singular but for the jitter on its diagonal, 1e-10 at most.
    np.testing.assert_allclose(rows @ solution, [1.0, 2.0], rtol=1e-6)
    assert solution[2] == 0.0
    with pytest.raises(PotentialError, match=r"the fit is singular.* raise the ridge"):
        solve(np.array([[1.0, 2.0], [2.0, 1.0]]), np.zeros(2))
