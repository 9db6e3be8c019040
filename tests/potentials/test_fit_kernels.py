"""The Jacobian of a fit is made of differences, for any species, level, radial basis and size."""

import numpy as np
import pytest

from hullscreen.potentials.evaluation_kernels import BINNED_FROM
from hullscreen.potentials.fit_kernels import (
    STRAIN_COLUMN,
    STRAIN_ROW,
    fill_jacobian,
)
from hullscreen.potentials.structures import concatenate, join

STEP = 1e-5


def rows_of(potential, structures):
    """Energies, minus forces and strain derivatives of one cell, in the Jacobian's order."""
    result = potential.evaluate(structures)
    strains = result.stresses[0] * structures.volumes[0]
    return np.concatenate(
        [result.energies, -result.forces.ravel(), strains[STRAIN_ROW, STRAIN_COLUMN]]
    )


@pytest.mark.parametrize(
    ("level", "n_species", "size"), [(2, 1, 1), (6, 3, 3), (10, 2, 8), (16, 1, 5), (16, 6, 2)]
)
def test_rows_are_differences(
    level, n_species, size, make_potential, make_structures, jacobian_of_cell
):
    names = min(n_species, 3)
    potential = make_potential(level, names, size=size)
    structures = make_structures(4, names, seed=level)
    for i in range(len(structures)):
        cell, batch = structures.one(i), structures.take([i])
        energy, jacobian = jacobian_of_cell(potential.tables, *cell, linear_only=False)
        value = rows_of(potential, batch)
        # Sums of some hundred terms of order one for each atom, in another order.
        assert energy == pytest.approx(value[0], abs=1e-10 * len(cell[2]))
        parameters = potential.parameters
        chosen = np.random.default_rng(i).permutation(parameters.size)[:25]
        for k in chosen:
            ends = []
            for sign in (1, -1):
                changed = parameters.copy()
                changed[k] += sign * STEP
                ends.append(rows_of(potential.with_parameters(changed), batch))
            difference = (ends[0] - ends[1]) / (2 * STEP)
            # Rounding is 1e-16 of the values over the step; the third derivative is of their order.
            scale = max(1.0, np.abs(value).max(), np.abs(difference).max())
            np.testing.assert_allclose(jacobian[k], difference, rtol=1e-6, atol=1e-8 * scale)


@pytest.mark.parametrize("linear_only", [False, True])
def test_supercells_repeat_the_rows_of_their_cell(
    linear_only, make_potential, make_structures, jacobian_of_cell
):
    # Past the size from which neighbours are found over bins, and more atoms than a site feels.
    potential = make_potential(8, 2)
    cell, positions, species = make_structures(1, 2, seed=5, max_atoms=5).one(0)
    repeats = [5, 5, 4]
    n = int(np.prod(repeats))
    shifts = np.indices(repeats).reshape(3, -1).T @ cell
    large = (
        np.array(repeats)[:, None] * cell,
        (shifts[:, None] + positions).reshape(-1, 3),
        np.tile(species, n),
    )
    assert len(large[2]) >= BINNED_FROM
    energy, small_rows = jacobian_of_cell(potential.tables, cell, positions, species, linear_only)
    total, large_rows = jacobian_of_cell(potential.tables, *large, linear_only)
    n_forces = 3 * len(species)
    expected = np.concatenate(
        [
            n * small_rows[:, :1],
            np.tile(small_rows[:, 1 : 1 + n_forces], n),
            n * small_rows[:, 1 + n_forces :],
        ],
        axis=1,
    )
    # The same sums in another order; translated atoms are rounded to 1e-15 of some 10 Å.
    assert total == pytest.approx(n * energy, rel=1e-11)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(large_rows, expected, rtol=1e-9, atol=1e-12 * scale)


def test_a_batch_is_its_cells_side_by_side(make_potential, make_structures, jacobian_of_cell):
    potential = make_potential(8, 2)
    lonely = join([(30.0 * np.eye(3), np.zeros((1, 3)), np.zeros(1, np.int32))])
    # A cell whose sites have several hundred neighbours makes all scratch grow.
    dense = join([(1.2 * np.eye(3), np.zeros((1, 3)), np.ones(1, np.int32))])
    batch = concatenate([make_structures(3, 2, seed=2), lonely, dense, make_structures(2, 2)])
    n_columns = 7 * len(batch) + 3 * len(batch.species)
    factors = np.random.default_rng(0).random(n_columns)
    jacobian = np.full((potential.parameters.size, n_columns), np.nan)
    shortest = np.empty(len(batch))
    fill_jacobian(
        potential.tables,
        batch.cells,
        batch.positions,
        batch.species,
        batch.offsets,
        False,  # noqa: FBT003  # compiled functions take it by position
        factors,
        shortest,
        jacobian,
    )
    first = 0
    for i in range(len(batch)):
        _, one = jacobian_of_cell(potential.tables, *batch.one(i), linear_only=False)
        columns = slice(first, first + one.shape[1])
        np.testing.assert_array_equal(jacobian[:, columns], one * factors[columns])
        first += one.shape[1]
    assert first == n_columns
    expected = potential.evaluate(batch).shortest_distances
    np.testing.assert_array_equal(shortest, expected)
    assert shortest[4] == pytest.approx(1.2)
