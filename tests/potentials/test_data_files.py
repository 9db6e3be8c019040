"""Structures, labels and potentials by the suffix of their file."""

import errno
import gzip
import os
import stat
from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hullscreen.potentials.active_set import empty_active_set
from hullscreen.potentials.almtp_files import selection_by_configuration, write_almtp
from hullscreen.potentials.cfg_files import Configuration
from hullscreen.potentials.data_files import (
    check_writable,
    complete_or_absent,
    read_frames,
    read_frames_for,
    read_potential,
    write_frames,
)
from hullscreen.potentials.errors import FileFormatError, InputError
from hullscreen.potentials.mtp_files import write_mtp

# Stresses go through −V·σ and back where a format stores that: two roundings.
ROUNDING = 1e-12
STRESS = np.array([[0.01, 0.06, 0.05], [0.06, 0.02, 0.04], [0.05, 0.04, 0.03]])


@pytest.fixture
def configurations():
    rng = np.random.default_rng(0)
    full = Configuration(
        cell=np.array([[4.0, 0.0, 0.0], [0.5, 4.1, 0.0], [0.1, 0.2, 4.2]]),
        positions=rng.normal(size=(3, 3)),
        types=np.array([1, 0, 1], dtype=np.int32),
        energy=-7.25,
        forces=rng.normal(size=(3, 3)),
        plus_stress=-STRESS * np.linalg.det([[4.0, 0.0, 0.0], [0.5, 4.1, 0.0], [0.1, 0.2, 4.2]]),
        features={"MV_grade": ["1.5"]},
    )
    bare = Configuration(3.0 * np.eye(3), np.zeros((1, 3)), np.array([1], dtype=np.int32))
    return [full, bare]


@pytest.mark.parametrize("name", ["a.cfg", "a.xyz", "a.extxyz", "a.xyz.gz"])
def test_what_is_written_is_read(name, configurations, tmp_path):
    path = tmp_path / name
    write_frames(path, configurations, ("Cu", "Au"))
    frames = read_frames(path, ("Cu", "Au"))
    assert len(frames.structures) == 2
    assert frames.elements == ("Cu", "Au")
    full, bare = frames.configurations
    np.testing.assert_array_equal(full.cell, configurations[0].cell)
    np.testing.assert_array_equal(full.positions, configurations[0].positions)
    np.testing.assert_array_equal(full.types, [1, 0, 1])
    assert full.energy == -7.25
    np.testing.assert_array_equal(full.forces, configurations[0].forces)
    np.testing.assert_array_equal(full.plus_stress, configurations[0].plus_stress)
    assert full.features == {"MV_grade": ["1.5"]}
    np.testing.assert_allclose(full.stress, STRESS, atol=ROUNDING)
    assert (bare.energy, bare.forces, bare.stress) == (None, None, None)
    np.testing.assert_array_equal(frames.structures.species, [1, 0, 1, 1])
    if name.endswith(".gz"):
        assert gzip.decompress(path.read_bytes()).startswith(b"3\n")
    # Nothing but the file, with the permissions of any file.
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~_umask()


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


finite = st.floats(allow_nan=False, allow_infinity=False, width=64)


@st.composite
def any_configuration(draw):
    n_atoms = draw(st.integers(1, 3))

    def maybe(*shape):
        return draw(st.none() | arrays(np.float64, shape, elements=finite))

    # A cell that a crystal may have: its volume and stress are finite numbers.
    cell = np.diag(draw(arrays(np.float64, 3, elements=st.floats(1.0, 50.0))))
    cell[1, 0], cell[2, 0], cell[2, 1] = draw(arrays(np.float64, 3, elements=st.floats(-5.0, 5.0)))
    # Near 1e200 eV, a virial is none.
    numbers = st.floats(-1e200, 1e200)
    stress = draw(st.none() | arrays(np.float64, (3, 3), elements=numbers))
    return Configuration(
        cell=cell,
        positions=draw(arrays(np.float64, (n_atoms, 3), elements=finite)),
        types=draw(arrays(np.int32, n_atoms, elements=st.integers(0, 1))),
        energy=draw(st.none() | finite),
        forces=maybe(n_atoms, 3),
        plus_stress=None if stress is None else np.triu(stress) + np.triu(stress, 1).T,
        site_energies=maybe(n_atoms),
        features=draw(
            st.dictionaries(
                st.sampled_from(["MV_grade", "EFS_by", "note"]),
                st.sampled_from(["1.5", "some program", "a=b", 'say "so"', "back\\slash"]).map(
                    lambda text: [text]
                ),
            )
        ),
        atom_columns=draw(
            st.fixed_dictionaries(
                {}, optional={"nbh_grades": arrays(np.float64, n_atoms, elements=finite)}
            )
        ),
    )


@pytest.mark.parametrize("name", ["h.xyz", "h.cfg"])
@settings(max_examples=100, deadline=None)
@given(st.lists(any_configuration(), min_size=1, max_size=3))
def test_what_is_written_reads_back_to_the_last_bit(name, tmp_path_factory, given_ones):
    path = tmp_path_factory.getbasetemp() / name
    write_frames(path, given_ones, ("Cu", "Au"))
    found = read_frames(path, ("Cu", "Au")).configurations
    for a, b in zip(given_ones, found, strict=True):
        for field in ("cell", "positions", "types", "forces", "plus_stress", "site_energies"):
            left, right = getattr(a, field), getattr(b, field)
            assert (left is None) == (right is None), field
            assert left is None or left.tobytes() == right.tobytes(), field
        assert a.energy == b.energy
        assert a.features == b.features
        assert list(a.atom_columns) == list(b.atom_columns)
        for column, values in a.atom_columns.items():
            assert values.tobytes() == b.atom_columns[column].tobytes()


def test_ase_reads_what_is_written(configurations, tmp_path):
    path = tmp_path / "a.xyz"
    write_frames(path, configurations, ("Cu", "Au"))
    full, bare = read(path, index=":")
    assert full.get_chemical_symbols() == ["Au", "Cu", "Au"]
    np.testing.assert_array_equal(full.cell[:], configurations[0].cell)
    np.testing.assert_array_equal(full.get_forces(), configurations[0].forces)
    assert full.get_potential_energy() == -7.25
    # One division by the volume.
    np.testing.assert_allclose(full.get_stress(voigt=False), STRESS, rtol=1e-14)
    assert all(bare.pbc)
    assert bare.calc is None


def test_a_virial_of_the_other_sign_gives_way_to_the_stress(tmp_path):
    atoms = Atoms("Cu", cell=3.0 * np.eye(3), pbc=True)
    atoms.calc = SinglePointCalculator(atoms, energy=1.0, stress=np.arange(6.0))
    atoms.info["virial"] = atoms.get_volume() * atoms.get_stress(voigt=False)
    write(tmp_path / "a.xyz", atoms)
    found = read_frames(tmp_path / "a.xyz").configurations[0]
    np.testing.assert_allclose(found.stress, atoms.get_stress(voigt=False), rtol=ROUNDING)


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("energy=-7.25", "energy=nan", "structure 0 has nan for its energy; expected finite"),
        ("Cu 0.1 0.2", "Cu nan 0.2", "structure 0 has nan for its positions"),
        ("0.1 0.2 -inf", "0.1 0.2 -inf", "structure 0 has -inf for its forces"),
        ('stress="1', 'stress="inf', "structure 0 has inf for its stress"),
        ('Lattice="3', 'Lattice="nan', "structure 0 has nan for its cell"),
    ],
)
def test_numbers_that_are_none_are_refused(old, new, sentence, tmp_path):
    text = (
        '1\nLattice="3 0 0 0 3 0 0 0 3" Properties=species:S:1:pos:R:3:forces:R:3 energy=-7.25 '
        'stress="1 0 0 0 1 0 0 0 1" pbc="T T T"\nCu 0.1 0.2 0.3 0.1 0.2 -inf\n'
    )
    if "forces" not in sentence:
        text = text.replace("-inf", "0.3")
    (tmp_path / "a.xyz").write_text(text.replace(old, new))
    with pytest.raises(InputError, match=sentence) as caught:
        read_frames(tmp_path / "a.xyz")
    assert "a.xyz" in str(caught.value)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {"features": {"two words": ["1"]}},
            "feature in extended XYZ cannot be called 'two words'",
        ),
        ({"features": {"energy": ["1"]}}, "cannot be called 'energy'"),
        ({"atom_columns": {"a:b": np.zeros(3)}}, "column of extended XYZ cannot be called 'a:b'"),
        ({"atom_columns": {"forces": np.zeros(3)}}, "cannot be called 'forces'"),
    ],
)
def test_names_that_extended_xyz_cannot_hold(change, sentence, configurations, tmp_path):
    one = replace(configurations[0], **change)
    with pytest.raises(InputError, match=sentence):
        write_frames(tmp_path / "a.xyz", [one], ("Cu", "Au"))
    assert list(tmp_path.iterdir()) == []


def test_features_become_what_ase_reads_as_numbers(configurations, tmp_path):
    write_frames(tmp_path / "a.xyz", configurations[:1], ("Cu", "Au"))
    assert read(tmp_path / "a.xyz").info["MV_grade"] == 1.5


def test_no_structures_make_an_empty_file(tmp_path):
    for name in ("a.cfg", "a.xyz"):
        write_frames(tmp_path / name, [], ("Cu",))
        assert (tmp_path / name).read_bytes() == b""
        with pytest.raises(FileFormatError, match=name):
            read_frames(tmp_path / name)


def test_elements_of_extended_xyz_are_in_alphabetical_order(tmp_path):
    write(tmp_path / "a.xyz", Atoms("PdAuPd", np.eye(3), cell=4 * np.eye(3), pbc=True))
    frames = read_frames(tmp_path / "a.xyz")
    assert frames.elements == ("Au", "Pd")
    assert frames.structures.species.tolist() == [1, 0, 1]


def test_species_of_cfg_files_have_no_names(configurations, tmp_path):
    write_frames(tmp_path / "a.cfg", configurations, ())
    assert read_frames(tmp_path / "a.cfg").elements == ("X0", "X1")
    with pytest.raises(InputError, match="holds species 0 to 1; expected only 1: Cu"):
        read_frames(tmp_path / "a.cfg", ("Cu",))


def test_virials_are_minus_volume_times_stress(tmp_path):
    atoms = Atoms("Cu", cell=3.0 * np.eye(3), pbc=True)
    atoms.info["virial"] = -atoms.get_volume() * STRESS
    write(tmp_path / "a.xyz", atoms)
    found = read_frames(tmp_path / "a.xyz").configurations[0]
    np.testing.assert_allclose(found.stress, STRESS, atol=ROUNDING)


def test_stress_has_the_sign_of_ase(tmp_path):
    from ase.calculators.emt import EMT

    atoms = Atoms("Cu", cell=2.3 * (np.ones((3, 3)) - np.eye(3)) / np.sqrt(2), pbc=True)
    atoms.calc = EMT()
    stress = atoms.get_stress(voigt=False)
    assert np.trace(stress) < 0  # compressed
    write(tmp_path / "a.xyz", atoms)
    found = read_frames(tmp_path / "a.xyz").training_set("a.xyz")
    np.testing.assert_allclose(found.stresses[0], stress, atol=ROUNDING)


def test_training_sets_have_nan_for_what_is_unknown(tmp_path):
    known = Atoms("Cu", cell=3.0 * np.eye(3), pbc=True)
    known.calc = SinglePointCalculator(known, energy=-3.0, forces=[[0.1, 0.2, 0.3]])
    bare = Atoms("Au", cell=3.0 * np.eye(3), pbc=True)
    bare.calc = SinglePointCalculator(bare, energy=-2.0, stress=np.arange(6.0))
    write(tmp_path / "a.xyz", [known, bare])
    training = read_frames(tmp_path / "a.xyz").training_set("a.xyz")
    assert training.energies.tolist() == [-3.0, -2.0]
    np.testing.assert_array_equal(training.forces[0], [0.1, 0.2, 0.3])
    assert np.isnan(training.forces[1]).all()
    assert np.isnan(training.stresses[0]).all()
    assert training.stresses[1].tolist() == [[0, 5, 4], [5, 1, 3], [4, 3, 2]]


def test_training_needs_energies(configurations, tmp_path):
    write_frames(tmp_path / "a.cfg", configurations, ())
    with pytest.raises(InputError, match="my data: structure 1 has no energy"):
        read_frames(tmp_path / "a.cfg").training_set("my data")


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.xyz", "not a number\n", "expected a .cfg file by its name or else extended XYZ"),
        ("a.xyz", '2\nLattice="3 0 0 0 3 0 0 0 3"\nCu 0 0 0\n', "extended XYZ"),
        ("a.xyz", '1\nLattice="3 0 0 0 3 0 0 0 3"\nCu 0 zero 0\n', "extended XYZ"),
        ("a.xyz", "1\n\nCu 0 0 0\n", "structure 0 needs three periodic lattice vectors"),
        ("a.xyz.gz", "1\n\nCu 0 0 0\n", "cannot read"),
        ("a.cfg", "BEGIN_CFG\n", "may have been cut off"),
    ],
)  # fmt: skip
def test_broken_files_bring_one_sentence(name, content, sentence, tmp_path):
    (tmp_path / name).write_text(content)
    with pytest.raises((FileFormatError, InputError), match=sentence) as caught:
        read_frames(tmp_path / name)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["absent.xyz", "absent.cfg"])
def test_files_that_are_not_there(name, tmp_path):
    with pytest.raises(FileFormatError, match=f"cannot read .*{name}: No such file"):
        read_frames(tmp_path / name)


def test_virials_of_a_wrong_size(tmp_path):
    atoms = Atoms("Cu", cell=3.0 * np.eye(3), pbc=True)
    atoms.info["virial"] = np.arange(4.0)
    write(tmp_path / "a.xyz", atoms)
    with pytest.raises(InputError, match="virial, expecting special 3x3 matrix"):
        read_frames(tmp_path / "a.xyz")


def test_potentials_by_suffix(make_potential, tmp_path):
    potential = make_potential(2)
    write_mtp(tmp_path / "a.mtp", potential)
    nothing = selection_by_configuration(empty_active_set(potential.parameters.size), [])
    write_almtp(tmp_path / "a.almtp", potential, nothing)
    plain, absent = read_potential(tmp_path / "a.mtp")
    renamed, selection = read_potential(tmp_path / "a.almtp", ("Ag", "Al"))
    assert plain.elements == ("Cu", "Pd")
    assert absent is None
    assert renamed.elements == ("Ag", "Al")
    np.testing.assert_array_equal(renamed.parameters, potential.parameters)
    assert selection is not None
    with pytest.raises(InputError, match="has 2 species, but 1 symbols came: Ag"):
        read_potential(tmp_path / "a.mtp", ["Ag"])


def test_potentials_without_symbols_read_no_symbols(make_potential, configurations, tmp_path):
    potential, _ = read_potential(_written(tmp_path / "a.mtp", make_potential(2)), ("X0", "X1"))
    write_frames(tmp_path / "a.cfg", configurations, ())
    write_frames(tmp_path / "a.xyz", configurations, ("Cu", "Au"))
    assert len(read_frames_for(potential, tmp_path / "a.cfg").structures) == 2
    with pytest.raises(InputError, match="name them with --species"):
        read_frames_for(potential, tmp_path / "a.xyz")
    with pytest.raises(InputError, match=r"writing .* needs element symbols"):
        write_frames(tmp_path / "b.xyz", configurations, potential.elements)
    gold = read_potential(tmp_path / "a.mtp", ("Cu", "Pd"))[0]
    with pytest.raises(InputError, match="structure 0 holds Au; expected Cu, Pd"):
        read_frames_for(gold, tmp_path / "a.xyz")


def _written(path, potential):
    write_mtp(path, potential)
    return path


def interrupted_write(path):
    with complete_or_absent(path) as temporary:
        temporary.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device", str(temporary))


def test_failing_writers_leave_what_was_there(tmp_path):
    path = tmp_path / "a.mtp"
    path.write_text("old")
    with pytest.raises(OSError, match="No space left") as caught:
        interrupted_write(path)
    assert caught.value.filename == str(path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["a.cfg", "a.xyz"])
def test_directories_that_are_not_there(name, configurations, tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        write_frames(tmp_path / "absent" / name, configurations, ("Cu", "Au"))
    assert caught.value.filename == str(tmp_path / "absent" / name)


def test_whether_a_file_can_be_written_is_known_before(tmp_path):
    check_writable(tmp_path / "a.mtp")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(FileNotFoundError):
        check_writable(tmp_path / "absent" / "a.mtp")
