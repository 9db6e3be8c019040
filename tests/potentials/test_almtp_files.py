"""Active sets in files: nothing is lost, and nothing that does not fit is taken."""

import numpy as np
import pytest

from hullscreen.potentials.active_set import NOT_SET, select_active_set
from hullscreen.potentials.almtp_files import (
    Selection,
    almtp_bytes,
    read_almtp,
    selection_by_configuration,
    write_almtp,
)
from hullscreen.potentials.cfg_files import from_structures
from hullscreen.potentials.errors import FileFormatError, InputError
from hullscreen.potentials.mtp_files import read_mtp


@pytest.fixture(scope="module")
def potential(make_potential):
    return make_potential(4)


@pytest.fixture(scope="module")
def structures(make_structures):
    return make_structures(12, seed=1)


@pytest.fixture(scope="module")
def selection(potential, structures):
    rows = potential.evaluate(structures, "structures").gradients
    active = select_active_set(rows / structures.n_atoms[:, None])
    return selection_by_configuration(active, from_structures(structures))


def test_nothing_is_lost(potential, selection, tmp_path):
    path = tmp_path / "a.almtp"
    write_almtp(path, potential, selection)
    again, found = read_almtp(path)
    np.testing.assert_array_equal(again.parameters, potential.parameters)
    np.testing.assert_array_equal(found.active_set.rows, selection.active_set.rows)
    np.testing.assert_array_equal(found.active_set.inverse, selection.active_set.inverse)
    np.testing.assert_array_equal(found.active_set.sources, selection.active_set.sources)
    np.testing.assert_array_equal(found.equations, selection.equations)
    assert not found.by_neighbourhood
    assert almtp_bytes(again, found) == path.read_bytes()
    # The part before the active set is the .mtp file.
    np.testing.assert_array_equal(read_mtp(path).parameters, potential.parameters)


def test_only_structures_of_the_set_are_kept(potential, structures, selection):
    used = selection.active_set.sources
    assert set(used[used != NOT_SET]) == set(range(len(selection.configurations)))
    assert len(selection.configurations) <= len(structures)
    # More parameters than structures: some rows are still the initial ones.
    assert (used == NOT_SET).any()
    for source, row in zip(used, selection.active_set.rows, strict=True):
        if source != NOT_SET:
            one = selection.configurations[source]
            match = [np.array_equal(one.cell, cell) for cell in structures.cells]
            batch = structures.take([match.index(True)])
            gradient = potential.evaluate(batch, "structures").gradients[0]
            np.testing.assert_array_equal(row, gradient / len(one.types))


def test_grades_of_the_chosen_are_at_most_one(potential, structures, selection):
    # MaxVol stops when no swap gains more than a thousandth.
    assert selection.grades(potential, structures).max() <= 1.001


def test_grades_by_neighbourhood_are_the_largest_of_the_atoms(potential, structures):
    rows = potential.evaluate(structures, "sites").gradients
    active = select_active_set(rows)
    none = np.full(len(active.rows), NOT_SET)
    sites = Selection(active, none, [], by_neighbourhood=True)
    grades = active.grades(rows)
    expected = [
        grades[begin:end].max()
        for begin, end in zip(structures.offsets, structures.offsets[1:], strict=False)
    ]
    np.testing.assert_array_equal(sites.grades(potential, structures), expected)


def test_sets_of_neighbourhoods_are_marked(potential, structures, tmp_path):
    active = select_active_set(potential.evaluate(structures, "sites").gradients)
    nothing = np.full(len(active.rows), NOT_SET)
    unknown = type(active)(active.rows, active.inverse, nothing)
    write_almtp(tmp_path / "a.almtp", potential, Selection(unknown, nothing, [], True))  # noqa: FBT003
    assert read_almtp(tmp_path / "a.almtp")[1].by_neighbourhood


def test_writing_a_set_of_another_potential(potential, selection, make_potential):
    with pytest.raises(InputError, match="the active set belongs to a potential of"):
        almtp_bytes(make_potential(6), selection)
    lost = Selection(selection.active_set, selection.equations, [])
    with pytest.raises(InputError, match="but 0 came with it"):
        almtp_bytes(potential, lost)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda b: b.partition(b"#MVS")[0], "holds no active set"),
        (lambda b: b[: b.index(b"\n#", b.index(b"#MVS")) + 100], "is shorter than 2 matrices"),
        (lambda b: b.replace(b"energy_weight 1.0", b"energy_weight 2.0"), "with weight 1"),
        (lambda b: b.replace(b"force_weight 0.0", b"force_weight 1.0"), "other sets are not"),
        (lambda b: b.replace(b"weight_scaling 2", b"weight_scaling 0"), "energies per atom"),
        (lambda b: b.replace(b"site_en_weight", b"site_weight"), "expected energy_weight"),
        (lambda b: b.replace(b"\n-1 -1\n", b"\n", 1), "lines 'structure equation'"),
        (lambda b: b.replace(b"\n-1 -1\n", b"\n999 0\n", 1), "names a structure beyond"),
        (lambda b: b[: b.index(b"END_CFG")], "may have been cut off"),
    ],
)
def test_broken_files_bring_one_sentence(change, sentence, potential, selection, tmp_path):
    path = tmp_path / "broken.almtp"
    path.write_bytes(change(almtp_bytes(potential, selection)))
    with pytest.raises(FileFormatError, match=sentence) as caught:
        read_almtp(path)
    assert "broken.almtp" in str(caught.value)


def test_matrices_that_are_no_numbers(potential, selection, tmp_path):
    rows = selection.active_set.rows.copy()
    rows[0, 0] = np.nan
    broken = type(selection.active_set)(
        rows, selection.active_set.inverse, selection.active_set.sources
    )
    path = tmp_path / "a.almtp"
    write_almtp(path, potential, Selection(broken, selection.equations, selection.configurations))
    with pytest.raises(FileFormatError, match="not finite"):
        read_almtp(path)
