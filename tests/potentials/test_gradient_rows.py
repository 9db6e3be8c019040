"""Rows come in blocks, the same at every turn, and name the structure and atom they belong to."""

import numpy as np
import pytest

from hullscreen.potentials.active_set import NOT_SET, select_active_set
from hullscreen.potentials.errors import PotentialError
from hullscreen.potentials.gradient_rows import GradientRows, energy_rows

# A structure is evaluated alone or beside others, eight at a time: the same sums in another order,
# of some hundred terms of order one.
ROUNDING = {"rtol": 1e-12, "atol": 1e-14}


@pytest.fixture(scope="module")
def potential(make_potential):
    return make_potential(6)


@pytest.fixture(scope="module")
def structures(make_structures):
    return make_structures(23)


@pytest.mark.parametrize("kind", ["structures", "sites"])
@pytest.mark.parametrize("rows_per_block", [0.5, 7, 1000])
@pytest.mark.parametrize("kept_bytes", [0, 3000, 10**6])
def test_blocks_are_the_gradients(potential, structures, kind, rows_per_block, kept_bytes):
    expected = potential.evaluate(structures, kind).gradients
    if kind == "structures":
        expected = expected / structures.n_atoms[:, None]
    row_bytes = expected[0].nbytes
    rows = GradientRows(potential, structures, kind, int(rows_per_block * row_bytes), kept_bytes)
    assert len(rows) == len(expected)
    for _ in range(2):
        blocks = list(rows)
        np.testing.assert_allclose(np.concatenate(blocks), expected, **ROUNDING)
        # A block holds at least one structure, however small it should be.
        largest = max(rows_per_block, structures.n_atoms.max() if kind == "sites" else 1)
        assert max(len(block) for block in blocks) <= largest
    assert sum(block.nbytes for block in rows._kept) <= kept_bytes


def test_rows_of_energies_are_those_of_the_blocks(potential, structures):
    (block,) = GradientRows(potential, structures)
    np.testing.assert_array_equal(energy_rows(potential, structures), block)
    nothing = energy_rows(potential, structures.take([]))
    assert nothing.shape == (0, potential.parameters.size)


def test_what_fits_is_evaluated_once(potential, structures):
    rows = GradientRows(potential, structures)
    assert next(iter(rows)) is next(iter(rows))


def test_sites_are_named(potential, structures):
    rows = GradientRows(potential, structures, "sites", 5000)
    active = select_active_set(rows)
    owners, atoms = rows.locate(active.sources)
    for row, source, owner, atom in zip(active.rows, active.sources, owners, atoms, strict=True):
        if source == NOT_SET:
            assert owner == atom == NOT_SET
            continue
        alone = potential.evaluate(structures.take([owner]), "sites").gradients[atom]
        np.testing.assert_allclose(row, alone, **ROUNDING)
    assert (owners != NOT_SET).any()


def test_structures_are_named(potential, structures):
    rows = GradientRows(potential, structures)
    owners, atoms = rows.locate(np.array([NOT_SET, 4]))
    assert owners.tolist() == [NOT_SET, 4]
    assert atoms.tolist() == [NOT_SET, NOT_SET]


@pytest.mark.parametrize(("kind", "owner"), [("structures", "structure"), ("sites", "atom 0 of")])
def test_gradients_that_are_no_numbers(potential, structures, kind, owner):
    broken = potential.with_parameters(np.full(potential.parameters.size, np.nan))
    with pytest.raises(PotentialError, match=f"the energy of {owner} .*not finite"):
        list(GradientRows(broken, structures, kind))


def test_no_structures(potential, structures):
    rows = GradientRows(potential, structures.take([]))
    assert len(rows) == 0
    assert list(rows) == []
