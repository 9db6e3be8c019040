"""Potentials' files: what is written reads back to the last bit, and other programs read it too."""

import os
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hullscreen.potentials.basis import generate_basis
from hullscreen.potentials.errors import FileFormatError, InputError
from hullscreen.potentials.moment_tensor_potential import MomentTensorPotential, untrained
from hullscreen.potentials.mtp_fields import Fields
from hullscreen.potentials.mtp_files import (
    MLIP_NAME,
    OUR_NAME,
    mtp_text,
    parse_mtp,
    places_in_file,
    read_mtp,
    write_mtp,
)
from hullscreen.potentials.published_order import published_basis, same_basis
from hullscreen.potentials.structures import to_atoms

REFERENCES = ["L06_1sp", "L08_2sp", "L10_3sp", "L16_1sp", "L16_2sp", "L20_2sp", "L22_3sp"]
ELEMENTS = ("Cu", "Pd", "Au", "Pt")
# What MLIP's and LAMMPS' readers ask for, line by line; None stands for the radial coefficients.
FIELDS = [
    "version",
    "potential_name",
    "scaling",
    "species_count",
    "potential_tag",
    "radial_basis_type",
    "\tmin_dist",
    "\tmax_dist",
    "\tradial_basis_size",
    "\tradial_funcs_count",
    None,
    "alpha_moments_count",
    "alpha_index_basic_count",
    "alpha_index_basic",
    "alpha_index_times_count",
    "alpha_index_times",
    "alpha_scalar_moments",
    "alpha_moment_mapping",
    "species_coeffs",
    "moment_coeffs",
]


def random_potential(level, n_species, seed=0):
    """All parameters random; energies of cells near 1 eV an atom."""
    start = untrained(
        level, ELEMENTS[:n_species], cutoff=4.5, min_distance=1.5, radial_basis_size=5, seed=seed
    )
    rng = np.random.default_rng(seed)
    return replace(
        start, shifts=rng.normal(size=n_species), linear=rng.normal(size=start.linear.size)
    )


def assert_same(back, potential):
    """Equal to the last bit, signs of zeros included."""
    assert same_basis(back.basis, potential.basis)
    assert back.parameters.tobytes() == potential.parameters.tobytes()
    assert (back.cutoff, back.min_distance, back.scaling, back.elements) == (
        potential.cutoff,
        potential.min_distance,
        potential.scaling,
        potential.elements,
    )


# Reading back


@pytest.mark.parametrize("n_species", [1, 2, 3, 4])
@pytest.mark.parametrize("level", [2, 4, 6, 8, 10, 12, 14, 16])
def test_written_potentials_read_back_to_the_last_bit(level, n_species, tmp_path):
    potential = random_potential(level, n_species)
    write_mtp(tmp_path / "a.mtp", potential)
    back = read_mtp(tmp_path / "a.mtp")
    assert_same(back, potential)
    assert mtp_text(back) == mtp_text(potential)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_any_numbers_survive(data):
    finite = st.floats(allow_nan=False, allow_infinity=False, width=64)
    start = random_potential(data.draw(st.sampled_from([2, 4, 6, 8])), data.draw(st.integers(1, 3)))
    n = start.parameters.size
    parameters = data.draw(st.lists(finite, min_size=n, max_size=n))
    potential = replace(
        start.with_parameters(np.array(parameters)),
        scaling=data.draw(finite),
        min_distance=data.draw(st.floats(0.0, 3.0)),
        cutoff=data.draw(st.floats(4.0, 50.0)),
    )
    assert_same(parse_mtp(mtp_text(potential), "text"), potential)


def test_files_have_the_published_order_and_tables():
    potential = random_potential(12, 2)
    fields = Fields(mtp_text(potential))
    basis = published_basis(12)
    assert fields.integers("alpha_index_basic") == basis.basic.ravel().tolist()
    assert fields.integers("alpha_index_times") == basis.products.ravel().tolist()
    assert fields.integers("alpha_moment_mapping") == basis.scalars.tolist()
    written = fields.numbers("moment_coeffs", basis.scalars.size, "functions")
    # The same numbers, elsewhere.
    assert sorted(written) == sorted(potential.linear)
    assert list(written) != list(potential.linear)
    places = places_in_file(potential)
    first = potential.radial.size + potential.shifts.size
    np.testing.assert_array_equal(places[:first], np.arange(first))
    np.testing.assert_array_equal(potential.parameters[places][first:], written)


def test_every_field_stands_where_other_readers_want_it():
    lines = mtp_text(random_potential(8, 2)).splitlines()
    assert lines[:2] == ["MTP", "version = 1.1.0"]
    begin = lines.index("\tradial_coeffs")
    end = lines.index("alpha_moments_count = 18")
    names = [line.partition(" = ")[0] for line in lines[1:begin] + lines[end:]]
    assert names == [name for name in FIELDS if name]
    pairs = [line for line in lines[begin:end] if "-" in line and "{" not in line]
    assert pairs == ["\t\t0-0", "\t\t0-1", "\t\t1-0", "\t\t1-1"]
    assert end - begin == 1 + 4 * (1 + 2)
    # "#" would begin a comment for LAMMPS and the active set for MLIP.
    assert not any("#" in line for line in lines)


def test_a_published_file_keeps_its_order_and_gets_our_products(make_structures):
    ours = random_potential(14, 2)
    text = mtp_text(ours)
    assert f"potential_name = {OUR_NAME}\n" in text
    foreign = text.replace(OUR_NAME, MLIP_NAME)
    potential = parse_mtp(foreign, "text")
    assert len(potential.basis.products) == len(generate_basis(14).products)
    assert len(potential.basis.products) < len(published_basis(14).products)
    linear = Fields(text).numbers("moment_coeffs", potential.linear.size, "functions")
    np.testing.assert_array_equal(potential.linear, linear)
    np.testing.assert_array_equal(places_in_file(potential), np.arange(potential.parameters.size))
    assert mtp_text(potential) == foreign
    structures = make_structures(4)
    # The same function, summed in another order: some thousand terms of order one.
    np.testing.assert_allclose(
        potential.evaluate(structures).energies, ours.evaluate(structures).energies, atol=1e-11
    )


def test_levels_whose_products_take_long_to_generate_keep_those_of_the_file(monkeypatch):
    monkeypatch.setattr("hullscreen.potentials.mtp_files.FEWER_PRODUCTS_UP_TO_LEVEL", 8)
    potential = random_potential(10, 1)
    foreign = mtp_text(potential).replace(OUR_NAME, MLIP_NAME)
    back = parse_mtp(foreign, "text")
    assert same_basis(back.basis, published_basis(10))
    assert mtp_text(back) == foreign
    # Made here, it comes back as it was.
    assert_same(parse_mtp(mtp_text(potential), "text"), potential)


def test_other_templates_are_kept_as_they_are():
    # One basis function fewer than published, as after pruning, in an order of its own.
    full = random_potential(8, 2)
    basis = replace(full.basis, scalars=full.basis.scalars[-2::-1].copy())
    pruned = replace(full, basis=basis, linear=full.linear[:-1].copy())
    text = mtp_text(pruned)
    assert_same(parse_mtp(text, "text"), pruned)
    assert mtp_text(parse_mtp(text, "text")) == text
    assert OUR_NAME not in text


@pytest.mark.reference
@pytest.mark.parametrize("name", REFERENCES)
def test_published_files_are_written_back_number_by_number(name, reference):
    text = (reference / f"{name}.mtp").read_text()
    potential = read_mtp(reference / f"{name}.mtp")
    written = mtp_text(potential)
    one, other = Fields(text), Fields(written)
    for field in ("alpha_index_basic", "alpha_index_times", "alpha_moment_mapping"):
        assert one.integers(field) == other.integers(field)
    for field, n in (("species_coeffs", potential.shifts.size), ("moment_coeffs", None)):
        size = potential.linear.size if n is None else n
        assert one.numbers(field, size, "").tobytes() == other.numbers(field, size, "").tobytes()
    assert_same(parse_mtp(written, "text"), potential)


# Other programs


@pytest.mark.parametrize(
    ("level", "n_species", "engine"),
    [
        (2, 1, "cext"),
        (4, 3, "cext"),
        (6, 1, "cext"),
        (6, 4, "numpy"),
        (8, 2, "cext"),
        pytest.param(8, 3, "numba", marks=pytest.mark.slow),
        (10, 3, "numpy"),
        (10, 1, "cext"),
        (12, 4, "cext"),
        (12, 2, "numpy"),
        (14, 1, "cext"),
        (14, 3, "cext"),
        (16, 2, "cext"),
        pytest.param(16, 4, "numba", marks=pytest.mark.slow),
        (18, 1, "cext"),
        pytest.param(18, 3, "cext", marks=pytest.mark.slow),
        pytest.param(20, 2, "cext", marks=pytest.mark.slow),
        pytest.param(20, 4, "cext", marks=pytest.mark.slow),
    ],
)
def test_motep_finds_the_same_energies(level, n_species, engine, make_structures, tmp_path):
    # An independent program, in each of its engines that need no further packages.
    from motep.calculator import MTP
    from motep.io.mlip.mtp import read_mtp as read_with_motep

    potential = random_potential(level, n_species, seed=level)
    structures = make_structures(3, n_species, seed=level)
    write_mtp(tmp_path / "a.mtp", potential)
    result = potential.evaluate(structures)
    theirs = read_with_motep(tmp_path / "a.mtp")
    # motep numbers species by atomic number.
    theirs.species = [29, 46, 79, 78][:n_species]
    forces = np.split(result.forces, structures.offsets[1:-1])
    for i, atoms in enumerate(to_atoms(structures, potential.elements)):
        atoms.calc = MTP(theirs, engine=engine)
        # Rounding: energies, forces and stresses are sums of up to some ten thousand terms, each
        # of order one, whatever they add up to.
        scale = max(1.0, np.abs(potential.linear).sum(), np.abs(forces[i]).max())
        assert atoms.get_potential_energy() == pytest.approx(result.energies[i], abs=1e-12 * scale)
        np.testing.assert_allclose(atoms.get_forces(), forces[i], atol=1e-11 * scale)
        np.testing.assert_allclose(
            atoms.get_stress(voigt=False), result.stresses[i], atol=1e-11 * scale
        )


@pytest.mark.parametrize("legacy", [True, False])
def test_files_that_motep_writes_are_read(legacy, tmp_path):
    from motep.io.mlip.mtp import read_mtp as read_with_motep
    from motep.io.mlip.mtp import write_mtp as write_with_motep

    potential = random_potential(6, 2)
    write_mtp(tmp_path / "ours.mtp", potential)
    theirs = read_with_motep(tmp_path / "ours.mtp")
    write_with_motep(tmp_path / "theirs.mtp", theirs, legacy=legacy)
    back = read_mtp(tmp_path / "theirs.mtp")
    # motep writes 16 digits.
    np.testing.assert_allclose(back.parameters, potential.parameters, rtol=1e-15)
    assert (back.cutoff, back.min_distance) == (potential.cutoff, potential.min_distance)


def test_older_forms_of_fields_are_read():
    # MLIP-2 has a scaling of its radial basis, which multiplies the other; both may be absent.
    potential = random_potential(4, 2)
    text = mtp_text(potential)
    line = f"scaling = {potential.scaling:.16e}\n"
    assert line in text
    assert parse_mtp(text.replace(line, ""), "text").scaling == 1.0
    twice = text.replace("\tmin_dist", "\tscaling = 0.5\n\tmin_dist")
    assert parse_mtp(twice, "text").scaling == 0.5 * potential.scaling
    # More radial functions than the basis uses, and lines as Windows ends them.
    one, two = (random_potential(level, 1) for level in (4, 6))
    wide = mtp_text(two)
    block = wide[wide.index("\tradial_funcs") : wide.index("alpha_moments_count")]
    narrow = mtp_text(one)
    start, end = narrow.index("\tradial_funcs"), narrow.index("alpha_moments_count")
    mixed = parse_mtp((narrow[:start] + block + narrow[end:]).replace("\n", "\r\n"), "text")
    np.testing.assert_array_equal(mixed.radial, two.radial[:, :, :1])


# Names


def test_elements_come_from_the_tag_or_the_caller(tmp_path):
    path = tmp_path / "a.mtp"
    write_mtp(path, random_potential(2, 2))
    assert read_mtp(path).elements == ("Cu", "Pd")
    assert read_mtp(path, ("Ag", "Au")).elements == ("Ag", "Au")
    path.write_text(path.read_text().replace("potential_tag = Cu Pd", "potential_tag = my own"))
    assert read_mtp(path).elements == ("my", "own")
    path.write_text(path.read_text().replace("potential_tag = my own", "potential_tag ="))
    nameless = read_mtp(path)
    assert nameless.elements == ("X0", "X1")
    # Names that nobody gave are not written.
    assert "potential_tag = \n" in mtp_text(nameless)


@pytest.mark.parametrize("name", ["two words", "", "a#b", "a=b", "a\nb"])
def test_names_that_a_file_cannot_hold(name):
    potential = replace(random_potential(2, 1), elements=(name,))
    with pytest.raises(InputError, match="the name of a species in a file has no blanks"):
        mtp_text(potential)


# Bad input


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"shifts": np.array([np.nan])}, "nan among the coefficients of its species"),
        ({"linear": np.array([np.inf])}, "inf among the coefficients of its basis functions"),
        ({"radial": np.full((1, 1, 1, 5), -np.inf)}, "-inf among .* of its radial functions"),
        ({"scaling": np.nan}, "nan among .* of its scaling and distances"),
    ],
)
def test_potentials_that_are_no_numbers_are_not_written(change, sentence):
    with pytest.raises(InputError, match=sentence):
        mtp_text(replace(random_potential(2, 1), **change))


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("MTP\n", "MTQ\n", "is no .mtp file: expected 'MTP' in its first line"),
        ("RBChebyshev", "RBShapeev", "radial basis RBShapeev is unknown"),
        ("\tradial_funcs", "magnetic_basis_type = BChebyshev\n\tradial_funcs", "a magnetic one"),
        ("species_count = 2", "species_number = 2", "the field species_count is missing; .* cut"),
        ("species_count = 2", "species_count = two", "species_count must be a whole number.*'two'"),
        ("species_count = 2", "species_count = 3", "are 0 radial coefficients of 0-2, expected 1"),
        ("\t\t1-0\n", "\t\t0-0\n", "there are 10 radial coefficients of 0-0, expected 1"),
        ("\t\t1-0\n", "\t\t1-7\n", "there are 0 radial coefficients of 1-0, expected 1"),
        ("max_dist = 4.5", "max_dist = 1.0", "min_distance < cutoff"),
        ("max_dist = 4.5", "max_dist = nan", "max_dist must hold finite numbers, came 'nan"),
        ("scaling = ", "scaling = inf", "scaling must hold finite numbers, came 'inf"),
        ("species_coeffs = {", "species_coeffs = {nan, ", "species_coeffs must .* came 'nan'"),
        ("species_coeffs = {", "species_coeffs = {1.0, ", "holds 3 numbers, expected 2 species"),
        ("moment_coeffs = {", "moment_coeffs = {-inf, ", "moment_coeffs must .* came '-inf'"),
        ("moment_coeffs = {", "moment_coeffs = {1.0, ", "3 numbers, expected 2 basis functions"),
        ("\t\t\t{", "\t\t\t{NaN, ", "radial coefficients of 0-0 must hold finite .* came 'NaN'"),
        ("\t\t\t{", "\t\t\t{1, ", "there are 6 radial coefficients of 0-0"),
        ("\t\t\t{", "\t\t\t", "there are 0 radial coefficients of 0-0"),
        ("alpha_moment_mapping = {0, ", "alpha_moment_mapping = {", "says 2, but there are 1"),
        ("alpha_moment_mapping = {0, ", "alpha_moment_mapping = {99, ", "moment 99"),
        ("alpha_index_times = {{0, 0", "alpha_index_times = {{7, 0", "moment 7 is named"),
        ("alpha_index_times = {{0, 0", "alpha_index_times = {{1, 0", "product 0 needs a moment"),
        ("alpha_index_times = {{0, 0", "alpha_index_times = {{0.5, 0", "whole numbers.*'0.5'"),
        ("alpha_index_times = {{0, 0", "alpha_index_times = {{0", "groups of four numbers, came 3"),
        ("times_count = 1", "times_count = 2", "alpha_index_times_count says 2, but there are 1"),
        ("alpha_index_basic = {{0, 0", "alpha_index_basic = {{0, -1", "negative number"),
        ("alpha_index_times = {{0", "alpha_index_times = {{3000000000", "came '3000000000'"),
        ("species_count = 2", f"species_count = {'9' * 5000}", "whole number, came '...999"),
        ("species_count = 2", "species_count = 2147483647", "radial coefficients of 0-2, expec"),
        ("moments_count = ", "moments_count = 9", "basic moments and 1 products make no more"),
    ],
)
def test_broken_files_bring_one_sentence(old, new, sentence, tmp_path):
    path = tmp_path / "broken.mtp"
    text = mtp_text(random_potential(4, 2))
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(FileFormatError, match=sentence) as caught:
        read_mtp(path)
    assert str(caught.value).count("broken.mtp") == 1
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("level", [2, 6])
def test_a_file_cut_anywhere_is_refused(level):
    potential = random_potential(level, 2)
    text = mtp_text(potential)
    assert_same(parse_mtp(text.rstrip(), "text"), potential)
    for end in range(len(text.rstrip())):
        with pytest.raises(FileFormatError) as caught:
            parse_mtp(text[:end], "pot.mtp")
        assert str(caught.value).startswith("pot.mtp")
        assert "\n" not in str(caught.value)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 20_000), st.sampled_from([True, False]))
def test_large_files_cut_anywhere_are_refused(end, ours):
    text = mtp_text(random_potential(14, 2)).rstrip()
    if not ours:
        text = text.replace(OUR_NAME, MLIP_NAME)
    with pytest.raises(FileFormatError):
        parse_mtp(text[: end % len(text)], "pot.mtp")


def test_an_error_of_ours_is_no_bad_file(monkeypatch):
    def break_off(*_):
        raise ValueError("operands could not be broadcast together")

    monkeypatch.setattr("hullscreen.potentials.mtp_files.generated_places", break_off)
    with pytest.raises(ValueError, match=r"^operands could not be broadcast together$") as caught:
        parse_mtp(mtp_text(random_potential(4, 1)), "text")
    assert not isinstance(caught.value, FileFormatError)


def test_missing_and_binary_files(tmp_path):
    with pytest.raises(FileFormatError, match="cannot read the potential"):
        read_mtp(tmp_path / "absent.mtp")
    (tmp_path / "binary.mtp").write_bytes(b"MTP\n\xff\xfe")
    with pytest.raises(FileFormatError, match="cannot read the potential"):
        read_mtp(tmp_path / os.fsdecode("binary.mtp"))


def test_a_basis_of_no_level_is_written_as_it_is():
    # Only the basic moment of level 2 and that of level 3's product with itself: 3 + 3 is even,
    # the one alone is not a scalar of any template.
    start = random_potential(2, 1)
    basis = replace(
        start.basis,
        basic=np.array([[0, 0, 0, 0], [0, 1, 0, 0]], np.int32),
        scalars=np.array([1], np.int32),
        n_moments=2,
    )
    odd = MomentTensorPotential(
        basis, ("Cu",), 1.5, 4.5, start.radial, start.shifts, start.linear, start.scaling
    )
    assert_same(parse_mtp(mtp_text(odd), "text"), odd)
