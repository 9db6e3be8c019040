"""Seven stored potentials: every number that MLIP-3 computed with them comes out again."""

import json

import numpy as np
import pytest

from hullscreen.potentials.active_set import NOT_SET
from hullscreen.potentials.almtp_files import almtp_bytes, read_almtp, write_almtp
from hullscreen.potentials.cfg_files import read_cfg, to_structures
from hullscreen.potentials.mtp_files import mtp_text, read_mtp, write_mtp
from hullscreen.potentials.structures import join

NAMES = ["L06_1sp", "L08_2sp", "L10_3sp", "L16_1sp", "L16_2sp", "L20_2sp", "L22_3sp"]
WITH_ACTIVE_SET = NAMES[:5]

# Two double-precision programs that sum in different orders agree to 3e-15 eV/atom, 1e-13 eV/Å and,
# for derivatives by parameters, 1e-12 of the largest; this leaves a factor of a hundred or more.
ENERGY_EV_PER_ATOM = 1e-12
FORCE_EV_PER_ANGSTROM = 1e-11
PLUS_STRESS_EV = 1e-10
RELATIVE = 1e-9

pytestmark = pytest.mark.reference


@pytest.fixture(scope="module", params=NAMES)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def potential(name, reference):
    return read_mtp(reference / f"{name}.mtp")


@pytest.fixture(scope="module")
def stored(name, reference):
    return json.loads((reference / f"{name}.json").read_text())


@pytest.fixture(scope="module")
def frames(stored):
    return stored["frames"]


@pytest.fixture(scope="module")
def structures(frames):
    return join(
        (np.array(one["cell"]), np.array(one["positions"]), np.array(one["types"], np.int32))
        for one in frames
    )


@pytest.fixture(scope="module")
def result(potential, structures):
    return potential.evaluate(structures, "structures")


def test_stored_structures_are_those_of_the_cfg_file(name, reference, structures):
    found = to_structures(read_cfg(reference / f"{name}_in.cfg"))
    # The .cfg files carry 16 digits.
    np.testing.assert_allclose(found.positions, structures.positions, atol=1e-13)
    np.testing.assert_array_equal(found.species, structures.species)


def test_energies(result, frames, structures):
    expected = np.array([one["energy"] for one in frames])
    difference = np.abs(result.energies - expected) / structures.n_atoms
    assert difference.max() < ENERGY_EV_PER_ATOM


def test_site_energies(result, frames):
    expected = np.concatenate([one["site_energies"] for one in frames])
    assert np.abs(result.site_energies - expected).max() < ENERGY_EV_PER_ATOM * 10


def test_forces(result, frames):
    expected = np.concatenate([one["forces"] for one in frames])
    assert np.abs(result.forces - expected).max() < FORCE_EV_PER_ANGSTROM


def test_stresses(result, frames, structures):
    expected = np.array([one["plus_stress"] for one in frames])
    ours = -result.stresses * structures.volumes[:, None, None]
    assert np.abs(ours - expected).max() < PLUS_STRESS_EV


def test_parameter_gradients(result, frames):
    for ours, one in zip(result.gradients, frames, strict=True):
        theirs = np.array(one["energy_grad"])
        # Relative to the largest of a structure: small ones are differences of large terms.
        assert np.abs(ours - theirs).max() < RELATIVE * np.abs(theirs).max()


def test_sums_of_basis_functions(result, potential, frames):
    first = potential.radial.size
    for ours, one in zip(result.gradients[:, first:], frames, strict=True):
        theirs = np.array(one["e_components"])
        np.testing.assert_allclose(ours, theirs, rtol=RELATIVE, atol=1e-12 * np.abs(theirs).max())


def test_written_files_keep_every_bit(potential, result, structures, tmp_path):
    write_mtp(tmp_path / "a.mtp", potential)
    back = read_mtp(tmp_path / "a.mtp")
    assert mtp_text(back) == mtp_text(potential)
    np.testing.assert_array_equal(back.evaluate(structures).energies, result.energies)


@pytest.mark.parametrize("with_set", WITH_ACTIVE_SET)
def test_grades(with_set, reference):
    potential, selection = read_almtp(reference / f"{with_set}_state.almtp")
    stored = json.loads((reference / f"{with_set}.json").read_text())
    structures = to_structures(read_cfg(reference / f"{with_set}_in.cfg"))
    assert selection.by_neighbourhood == (stored["selection_mode"] != "cfg")
    grades = selection.grades(potential, structures)
    # The set's A may be nearly singular, so grades are relative: 1e-10 was the largest seen.
    np.testing.assert_allclose(grades, stored["grades"], rtol=RELATIVE)
    if selection.by_neighbourhood:
        rows = potential.evaluate(structures, "sites").gradients
        ours = selection.active_set.grades(rows)
        theirs = np.concatenate(stored["nbh_grades"])
        np.testing.assert_allclose(ours, theirs, rtol=RELATIVE)


@pytest.mark.parametrize("with_set", WITH_ACTIVE_SET)
def test_rows_are_the_equations_that_the_file_names(with_set, reference):
    potential, selection = read_almtp(reference / f"{with_set}_state.almtp")
    structures = to_structures(selection.configurations)
    kind = "sites" if selection.by_neighbourhood else "structures"
    gradients = potential.evaluate(structures, kind).gradients
    active = selection.active_set
    for row, source, equation in zip(active.rows, active.sources, selection.equations, strict=True):
        if source == NOT_SET:
            assert np.abs(row).max() == 1e-6
            continue
        n = structures.n_atoms[source]
        if selection.by_neighbourhood:
            # Equation 0 is the energy, then 3 N forces and 9 components of the stress.
            site = structures.offsets[source] + equation - (1 + 3 * n + 9)
            expected = gradients[site]
        else:
            expected = gradients[source] / n
        assert np.abs(row - expected).max() < RELATIVE * np.abs(expected).max()


@pytest.mark.parametrize("with_set", WITH_ACTIVE_SET)
def test_active_sets_are_written_and_read_without_loss(with_set, reference, tmp_path):
    potential, selection = read_almtp(reference / f"{with_set}_state.almtp")
    write_almtp(tmp_path / "a.almtp", potential, selection)
    again, found = read_almtp(tmp_path / "a.almtp")
    np.testing.assert_array_equal(found.active_set.rows, selection.active_set.rows)
    np.testing.assert_array_equal(found.active_set.inverse, selection.active_set.inverse)
    np.testing.assert_array_equal(found.equations, selection.equations)
    assert almtp_bytes(again, found) == almtp_bytes(potential, selection)
