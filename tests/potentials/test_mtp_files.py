"""Potentials' files: what is written reads back to the last bit, and other programs read it too."""

import os

import numpy as np
import pytest

from hullscreen.potentials.errors import FileFormatError
from hullscreen.potentials.mtp_files import mtp_text, read_mtp, write_mtp
from hullscreen.potentials.structures import to_atoms


@pytest.mark.parametrize(("level", "n_species"), [(2, 1), (4, 3), (8, 2)])
def test_written_potentials_read_back_to_the_last_bit(level, n_species, make_potential, tmp_path):
    potential = make_potential(level, n_species)
    write_mtp(tmp_path / "a.mtp", potential)
    back = read_mtp(tmp_path / "a.mtp")
    assert mtp_text(back) == mtp_text(potential)
    np.testing.assert_array_equal(back.parameters, potential.parameters)
    np.testing.assert_array_equal(back.basis.products, potential.basis.products)
    assert (back.cutoff, back.min_distance, back.scaling, back.elements) == (
        potential.cutoff,
        potential.min_distance,
        potential.scaling,
        potential.elements,
    )


@pytest.mark.parametrize(("level", "n_species"), [(2, 1), (8, 2), (12, 2)])
def test_motep_finds_the_same_energies(level, n_species, make_potential, make_structures, tmp_path):
    # An independent program, reading the basis that we generated.
    from motep.calculator import MTP
    from motep.io.mlip.mtp import read_mtp as read_with_motep

    potential = make_potential(level, n_species)
    structures = make_structures(4, n_species, seed=level)
    write_mtp(tmp_path / "a.mtp", potential)
    result = potential.evaluate(structures)
    theirs = read_with_motep(tmp_path / "a.mtp")
    # motep numbers species by atomic number.
    theirs.species = [29, 46, 79][:n_species]
    forces = np.split(result.forces, structures.offsets[1:-1])
    for i, atoms in enumerate(to_atoms(structures, potential.elements)):
        atoms.calc = MTP(theirs, engine="cext")
        # Rounding: energies are near 10 eV and forces near 10 eV/Å, each summed from some
        # thousand terms.
        assert atoms.get_potential_energy() == pytest.approx(result.energies[i], abs=1e-11)
        np.testing.assert_allclose(atoms.get_forces(), forces[i], atol=1e-10)
        np.testing.assert_allclose(atoms.get_stress(voigt=False), result.stresses[i], atol=1e-10)


@pytest.mark.parametrize("legacy", [True, False])
def test_files_that_motep_writes_are_read(legacy, make_potential, tmp_path):
    from motep.io.mlip.mtp import read_mtp as read_with_motep
    from motep.io.mlip.mtp import write_mtp as write_with_motep

    potential = make_potential(6)
    write_mtp(tmp_path / "ours.mtp", potential)
    theirs = read_with_motep(tmp_path / "ours.mtp")
    write_with_motep(tmp_path / "theirs.mtp", theirs, legacy=legacy)
    back = read_mtp(tmp_path / "theirs.mtp")
    # motep writes 16 digits.
    np.testing.assert_allclose(back.parameters, potential.parameters, rtol=1e-15)
    assert (back.cutoff, back.min_distance) == (potential.cutoff, potential.min_distance)


def test_elements_come_from_the_tag_or_the_caller(make_potential, tmp_path):
    path = tmp_path / "a.mtp"
    write_mtp(path, make_potential(2))
    assert read_mtp(path).elements == ("Cu", "Pd")
    assert read_mtp(path, ("Ag", "Au")).elements == ("Ag", "Au")
    path.write_text(path.read_text().replace("potential_tag = Cu Pd", "potential_tag = my own"))
    assert read_mtp(path).elements == ("my", "own")
    path.write_text(path.read_text().replace("potential_tag = my own", "potential_tag ="))
    assert read_mtp(path).elements == ("X0", "X1")


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("MTP\n", "MTQ\n", "is no .mtp file: expected 'MTP' in its first line"),
        ("RBChebyshev", "RBShapeev", "radial basis RBShapeev is unknown"),
        ("species_count = 2", "species_number = 2", "the field species_count is missing"),
        ("species_count = 2", "species_count = two", "invalid literal for int"),
        ("species_count = 2", "species_count = 3", "radial coefficients of some"),
        ("\t\t1-0\n", "\t\t0-0\n", "radial coefficients of some"),
        ("max_dist = 4.5", "max_dist = 1.0", "min_distance < cutoff"),
        ("alpha_moment_mapping = {0, ", "alpha_moment_mapping = {", "expected 2 species and 1"),
        ("alpha_moment_mapping = {0, ", "alpha_moment_mapping = {99, ", "moment 99"),
        ("alpha_index_times = {{0, 0", "alpha_index_times = {{7, 0", "moment 7 is named"),
        ("alpha_index_times = {{0, 0", "alpha_index_times = {{1, 0", "product 0 needs a moment"),
        ("alpha_index_basic = {{0, 0", "alpha_index_basic = {{0, -1", "negative number"),
    ],
)
def test_broken_files_bring_one_sentence(old, new, sentence, make_potential, tmp_path):
    path = tmp_path / "broken.mtp"
    text = mtp_text(make_potential(4))
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(FileFormatError, match=sentence) as caught:
        read_mtp(path)
    assert str(caught.value).count("broken.mtp") == 1
    assert "\n" not in str(caught.value)


def test_missing_and_binary_files(tmp_path):
    with pytest.raises(FileFormatError, match="cannot read the potential"):
        read_mtp(tmp_path / "absent.mtp")
    (tmp_path / "binary.mtp").write_bytes(b"MTP\n\xff\xfe")
    with pytest.raises(FileFormatError, match="cannot read the potential"):
        read_mtp(tmp_path / os.fsdecode("binary.mtp"))
