"""Active sets in files: nothing is lost, and nothing that does not fit is taken."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hullscreen.potentials.active_set import NOT_SET, select_active_set
from hullscreen.potentials.almtp_files import (
    Selection,
    almtp_bytes,
    read_almtp,
    selection_by_configuration,
    write_almtp,
)
from hullscreen.potentials.cfg_files import from_structures, parse_cfg
from hullscreen.potentials.errors import FileFormatError, InputError
from hullscreen.potentials.gradient_rows import energy_rows
from hullscreen.potentials.mtp_files import MLIP_NAME, OUR_NAME, mtp_text, places_in_file, read_mtp


@pytest.fixture(scope="module")
def potential(make_potential):
    return make_potential(4)


@pytest.fixture(scope="module")
def structures(make_structures):
    return make_structures(12, seed=1)


@pytest.fixture(scope="module")
def selection(potential, structures):
    active = select_active_set(energy_rows(potential, structures))
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


def test_a_set_of_another_potential(potential, selection, structures, make_potential):
    with pytest.raises(InputError, match="the active set belongs to a potential of"):
        almtp_bytes(make_potential(6), selection)
    with pytest.raises(InputError, match="the active set belongs to a potential of"):
        selection.grades(make_potential(6), structures)
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


@pytest.fixture(scope="module")
def many(make_potential, make_structures):
    """A potential whose functions stand elsewhere in the file, and its active set."""
    potential = make_potential(10, 1)
    structures = make_structures(60, 1, seed=3)
    active = select_active_set(energy_rows(potential, structures))
    return potential, selection_by_configuration(active, from_structures(structures)), structures


def test_columns_stand_where_their_parameters_stand(many, tmp_path):
    potential, selection, structures = many
    path = tmp_path / "a.almtp"
    write_almtp(path, potential, selection)
    places = places_in_file(potential)
    assert not np.array_equal(places, np.arange(places.size))
    n = places.size
    content = path.read_bytes()
    begin = content.index(b"\n#", content.index(b"#MVS")) + 2
    matrix, transposed = np.frombuffer(content, "<f8", 2 * n * n, offset=begin).reshape(2, n, n)
    np.testing.assert_array_equal(matrix, selection.active_set.rows[:, places])
    np.testing.assert_array_equal(transposed.T, selection.active_set.inverse[places])
    # Ours come back as they were; with another name of the file, parameters stay where they are.
    again, found = read_almtp(path)
    np.testing.assert_array_equal(again.parameters, potential.parameters)
    np.testing.assert_array_equal(found.active_set.rows, selection.active_set.rows)
    np.testing.assert_array_equal(found.active_set.inverse, selection.active_set.inverse)
    path.write_bytes(content.replace(OUR_NAME.encode(), MLIP_NAME.encode(), 1))
    foreign, theirs = read_almtp(path)
    np.testing.assert_array_equal(foreign.parameters, potential.parameters[places])
    np.testing.assert_array_equal(theirs.active_set.rows, matrix)
    assert almtp_bytes(foreign, theirs) == path.read_bytes()
    # The same grades either way. Rows that no structure has set make the matrix nearly singular,
    # so that rounding grows with its condition of some 1e9.
    np.testing.assert_allclose(
        theirs.grades(foreign, structures), selection.grades(potential, structures), rtol=1e-6
    )


@pytest.mark.reference
@pytest.mark.parametrize("name", ["L06_1sp", "L08_2sp", "L10_3sp", "L16_1sp", "L16_2sp"])
def test_published_files_are_written_back_number_by_number(name, reference):
    path = reference / f"{name}_state.almtp"
    theirs, ours = path.read_bytes(), almtp_bytes(*read_almtp(path))

    def state(content):
        return content[content.index(b"#MVS") : content.index(b"BEGIN_CFG")]

    # Weights, both matrices, structures and equations: byte by byte.
    assert state(ours) == state(theirs)
    again = read_almtp(path)[1].configurations
    back = [*parse_cfg(ours[ours.index(b"BEGIN_CFG") :].decode().splitlines())]
    for one, other in zip(again, back, strict=True):
        assert one.positions.tobytes() == other.positions.tobytes()
        assert one.cell.tobytes() == other.cell.tobytes()
        assert one.features == other.features


@settings(max_examples=150, deadline=None)
@given(st.floats(0.0, 1.0, exclude_max=True))
def test_a_file_cut_anywhere_is_refused(tmp_path_factory, small, fraction):
    content, _ = small
    path = tmp_path_factory.getbasetemp() / "cut.almtp"
    path.write_bytes(content[: int(fraction * len(content))])
    with pytest.raises(FileFormatError, match=r"cut\.almtp") as caught:
        read_almtp(path)
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def small(potential, selection):
    content = almtp_bytes(potential, selection).rstrip()
    return content, len(mtp_text(potential))


def test_every_cut_near_a_seam_is_refused(small, tmp_path):
    content, end_of_potential = small
    begin = content.index(b"\n#", end_of_potential)
    rows = content.index(b"\n#\n", begin + 100)
    seams = (end_of_potential, begin, rows, content.index(b"BEGIN_CFG"), len(content))
    path = tmp_path / "cut.almtp"
    for seam in seams:
        for end in range(seam - 12, min(seam + 12, len(content))):
            path.write_bytes(content[:end])
            with pytest.raises(FileFormatError, match=r"cut\.almtp"):
                read_almtp(path)
    # Only blanks are missing.
    path.write_bytes(content)
    read_almtp(path)
