"""MLIP's configuration files: every form is read, what is written reads back to the last bit."""

import os
import stat
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hullscreen.potentials.cfg_files import (
    Configuration,
    format_cfg,
    from_structures,
    iterate_cfg,
    parse_cfg,
    read_cfg,
    to_structures,
    write_cfg,
)
from hullscreen.potentials.errors import FileFormatError, InputError

REFERENCE = os.environ.get("HULLSCREEN_REFERENCE_DATA")

FULL = """\
BEGIN_CFG
 Size
    2
 Supercell
         4.000000      0.000000      0.000000
         0.000000      5.000000      0.000000
         0.500000      0.000000      6.000000
 AtomData:  id type       cartes_x      cartes_y      cartes_z      fx  fy  fz  site_en  nbh_grades
             1    0       0.000000      0.000000      0.000000      0.1 0.2 0.3 -1.5 0.7
             2    1       1.000000      2.000000      3.000000      -.1 -.2 -.3 -2.5 1.25
 Energy
         -4.0
 PlusStress:  xx          yy          zz          yz          xz          xy
         1.0     2.0    3.0    4.0     5.0    6.0
 Feature   EFS_by	some program
 Feature   note	first line
 Feature   note	second line
 Feature   empty
END_CFG

"""


def one(text):
    (configuration,) = parse_cfg(text.splitlines(keepends=True))
    return configuration


def test_every_field_is_read():
    cfg = one(FULL)
    assert cfg.cell.tolist() == [[4, 0, 0], [0, 5, 0], [0.5, 0, 6]]
    assert cfg.positions.tolist() == [[0, 0, 0], [1, 2, 3]]
    assert cfg.types.tolist() == [0, 1]
    assert cfg.types.dtype == np.int32
    assert cfg.energy == -4.0
    assert cfg.forces.tolist() == [[0.1, 0.2, 0.3], [-0.1, -0.2, -0.3]]
    assert cfg.plus_stress.tolist() == [[1, 6, 5], [6, 2, 4], [5, 4, 3]]
    assert cfg.site_energies.tolist() == [-1.5, -2.5]
    assert cfg.atom_columns["nbh_grades"].tolist() == [0.7, 1.25]
    assert cfg.features == {
        "EFS_by": ["some program"],
        "note": ["first line", "second line"],
        "empty": [""],
    }


def test_stress_has_ase_sign():
    # −V·σ = PlusStress with V = 4·5·6 = 120 Å³.
    assert one(FULL).stress[0, 0] == pytest.approx(-1.0 / 120.0, rel=1e-14)


def test_direct_coordinates_and_any_order_of_columns():
    cfg = one(
        "BEGIN_CFG\n Size\n 1\n SuperCell\n 2 0 0\n 0 4 0\n 1 0 8\n"
        " AtomData: direct_z direct_x type direct_y\n 0.5 0.25 3 0.75\nEND_CFG\n"
    )
    assert cfg.positions.tolist() == [[1.0, 3.0, 4.0]]
    assert cfg.types.tolist() == [3]
    assert cfg.energy is None
    assert cfg.forces is None
    assert cfg.stress is None


def test_stress_components_in_another_order():
    text = FULL.replace("xx          yy          zz          yz          xz", "xx zz yy xz yz")
    assert one(text).plus_stress.tolist() == [[1, 6, 4], [6, 3, 5], [4, 5, 2]]


def test_without_types_every_atom_is_the_first_species():
    text = (
        "BEGIN_CFG\nSize\n1\nSupercell\n2 0 0\n0 4 0\n1 0 8\n"
        "AtomData: cartes_x cartes_y cartes_z\n1 2 3\nEND_CFG\n"
    )
    assert one(text).types.tolist() == [0]


finite = st.floats(allow_nan=False, allow_infinity=False, width=64)


@st.composite
def configurations(draw):
    n_atoms = draw(st.integers(1, 4))

    def maybe(shape):
        return draw(st.none() | arrays(np.float64, shape, elements=finite))

    stress = maybe((3, 3))
    return Configuration(
        cell=draw(arrays(np.float64, (3, 3), elements=finite)),
        positions=draw(arrays(np.float64, (n_atoms, 3), elements=finite)),
        types=draw(arrays(np.int32, n_atoms, elements=st.integers(0, 9))),
        energy=draw(st.none() | finite),
        forces=maybe((n_atoms, 3)),
        plus_stress=None if stress is None else np.triu(stress) + np.triu(stress, 1).T,
        site_energies=maybe((n_atoms,)),
        features=draw(
            st.dictionaries(
                st.text("abcXYZ_{}", min_size=1, max_size=5),
                st.lists(st.sampled_from(["1.5", "", "two words", "{(0,0):2.5}"]), min_size=1),
                max_size=2,
            )
        ),
        atom_columns=draw(
            st.fixed_dictionaries(
                {}, optional={"charge": arrays(np.float64, n_atoms, elements=finite)}
            )
        ),
    )


def assert_same(a, b):
    """Equal to the last bit, signs of zeros included."""
    for name in ("cell", "positions", "types", "forces", "plus_stress", "site_energies"):
        left, right = getattr(a, name), getattr(b, name)
        assert (left is None) == (right is None), name
        if left is not None:
            assert left.dtype == right.dtype
            assert left.tobytes() == right.tobytes(), name
    assert a.energy == b.energy
    assert a.features == b.features
    assert list(a.atom_columns) == list(b.atom_columns)
    for name, column in a.atom_columns.items():
        assert column.tobytes() == b.atom_columns[name].tobytes()


@settings(max_examples=100, deadline=None)
@given(configurations())
def test_what_is_written_reads_back_to_the_last_bit(configuration):
    assert_same(one(format_cfg(configuration)), configuration)


def test_a_file_holds_many_and_can_be_streamed(tmp_path):
    path = tmp_path / "many.cfg"
    write_cfg(path, [one(FULL)] * 3)
    assert len(read_cfg(path)) == 3
    stream = iterate_cfg(path)
    assert_same(next(stream), one(FULL))
    stream.close()
    assert [p.name for p in tmp_path.iterdir()] == ["many.cfg"]
    write_cfg(path, [])
    assert read_cfg(path) == []


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "kept.cfg"
    write_cfg(path, [one(FULL)])
    bad = Configuration(*from_structures(to_structures([one(FULL)]))[0].__getstate__()[:3])
    bad.features["two words"] = ["x"]
    with pytest.raises(InputError, match="no blanks"):
        write_cfg(path, [one(FULL), bad])
    assert len(read_cfg(path)) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["kept.cfg"]


def test_written_files_can_be_read_by_others(tmp_path):
    path = tmp_path / "shared.cfg"
    plain = tmp_path / "plain"
    plain.touch()
    write_cfg(path, [one(FULL)])
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


def test_conversion_to_and_from_a_batch():
    batch = to_structures([one(FULL)] * 2)
    assert len(batch) == 2
    assert batch.species.tolist() == [0, 1, 0, 1]
    again = from_structures(batch)[1]
    assert again.positions.tolist() == one(FULL).positions.tolist()
    assert again.energy is None


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("    2\n", "    two\n", r"text:3: expected the number of atoms, came 'two'"),
        ("    2\n", "    0\n", r"text:3: expected the number of atoms, came '0'"),
        ("    2\n", "    3\n", r"text:11: expected an atom with 10 numbers .* Size is 3"),
        ("    2\n", "    1\n", r"text:10: expected Size, Supercell"),
        ("0.500000      0.000000      6.000000", "0.5 0.0", r"text:7: expected a lattice vector"),
        ("-2.5 1.25", "-2.5", r"text:10: expected an atom"),
        ("-2.5 1.25", "-2.5 x", r"text:10: .* came '2    1"),
        (" -4.0", " -4.0 eV", r"text:12: expected an energy, came '-4.0 eV'"),
        (" -4.0", " nan", r"text:12: expected an energy, came 'nan'"),
        ("PlusStress", "Stress", r"text:13: expected Size, .* came 'Stress:'"),
        ("xx          yy", "xx xx", r"text:13: expected stress components"),
        (" Size\n    2\n", "", r"text:6: expected Size before AtomData:"),
        ("cartes_y", "direct_y", r"expected all three columns cartes_x"),
        ("cartes_y", "cartes_x", r"different names of AtomData columns"),
        ("      fx  fy  fz", "      fx  fy  gz", r"all three columns fx fy fz, came '2 of them'"),
        ("  2    1  ", "  2    -1  ", r"expected atom types 0, 1, 2"),
        ("  2    1  ", "  3    1  ", r"atoms with id 1 to 2 in that order"),
        ("END_CFG", "", r"text:20: .* but the text ends"),
        ("BEGIN_CFG", "BEGIN", r"text:1: expected BEGIN_CFG, came 'BEGIN'"),
    ],
)
def test_errors_name_the_line(old, new, message):
    assert old in FULL
    with pytest.raises(FileFormatError, match=message):
        one(FULL.replace(old, new, 1))


def test_a_file_cut_anywhere_is_refused():
    whole = (FULL + FULL).rstrip()
    first = FULL.rstrip()
    assert len(list(parse_cfg(whole.splitlines()))) == 2
    for end in range(1, len(whole)):
        text = whole[:end]
        if text.rstrip() == first:
            # A file of one structure is whole, too.
            assert_same(one(text), one(FULL))
            continue
        with pytest.raises(FileFormatError, match=r"^text:\d+: expected") as caught:
            list(parse_cfg(text.splitlines(keepends=True)))
        assert "\n" not in str(caught.value)


def test_columns_in_any_order_are_kept():
    text = FULL.replace("id type       cartes_x      cartes_y      cartes_z", "id X Y Z type", 1)
    names = {"X": "cartes_z", "Y": "charge", "Z": "cartes_x", "type": "cartes_y"}
    for short, name in names.items():
        text = text.replace(f" {short} ", f" {name} ", 1)
    found = one(text)
    assert found.atom_columns["charge"].tolist() == [0.0, 1.0]
    assert found.positions[1].tolist() == [2.0, 3.0, 1.0]
    assert_same(one(format_cfg(found)), found)


def test_missing_parts_are_named():
    with pytest.raises(FileFormatError, match="expected Supercell in the configuration that begin"):
        one("BEGIN_CFG\nSize\n1\nAtomData: cartes_x cartes_y cartes_z\n0 0 0\nEND_CFG")
    with pytest.raises(FileFormatError, match="expected AtomData: in the configuration that beg"):
        one("BEGIN_CFG\nSize\n1\nSupercell\n1 0 0\n0 1 0\n0 0 1\nEND_CFG")


def test_unreadable_files(tmp_path):
    with pytest.raises(FileFormatError, match=r"cannot read .*none.cfg: No such file"):
        read_cfg(tmp_path / "none.cfg")
    (tmp_path / "binary.cfg").write_bytes(b"\xff\xfe\x00BEGIN")
    with pytest.raises(FileFormatError, match="no UTF-8 text"):
        read_cfg(tmp_path / "binary.cfg")
    with pytest.raises(FileFormatError, match="cannot write"):
        write_cfg(tmp_path / "none" / "x.cfg", [])


def test_a_line_number_can_be_counted_from_elsewhere():
    with pytest.raises(FileFormatError, match=r"pot\.almtp:101: expected BEGIN_CFG"):
        next(parse_cfg(["\n", "junk\n"], "pot.almtp", first_line=100))


def reference_files():
    if REFERENCE is None:
        return []
    return sorted((Path(REFERENCE) / "mtp_reference").rglob("*.cfg"))


@pytest.mark.reference
@pytest.mark.skipif(REFERENCE is None, reason="HULLSCREEN_REFERENCE_DATA is not set")
def test_stored_files_of_mlip_are_read_and_written_back(tmp_path):
    files = reference_files()
    assert len(files) > 20
    for path in files:
        read = read_cfg(path)
        assert len(read) == path.read_text().count("BEGIN_CFG")
        write_cfg(tmp_path / "again.cfg", read)
        for before, after in zip(read, read_cfg(tmp_path / "again.cfg"), strict=True):
            assert_same(before, after)


@pytest.mark.reference
@pytest.mark.skipif(REFERENCE is None, reason="HULLSCREEN_REFERENCE_DATA is not set")
def test_stored_stress_has_the_sign_of_ase():
    from ase import Atoms
    from ase.calculators.emt import EMT

    path = Path(REFERENCE) / "mtp_reference" / "relax" / "train_CuAu_EMT_200.cfg"
    for cfg in read_cfg(path)[:5]:
        symbols = [("Cu", "Au")[kind] for kind in cfg.types]
        atoms = Atoms(symbols, cfg.positions, cell=cfg.cell, pbc=True, calculator=EMT())
        # Labels were made with ASE's EMT; rounding of 16 written digits is far below 1e-9.
        assert cfg.energy == pytest.approx(atoms.get_potential_energy(), abs=1e-9)
        assert cfg.forces == pytest.approx(atoms.get_forces(), abs=1e-9)
        assert cfg.stress == pytest.approx(atoms.get_stress(voigt=False), abs=1e-9)
