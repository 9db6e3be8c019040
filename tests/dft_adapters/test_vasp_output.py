"""What is read from VASP's files: results, their signs, geometries to go on from, failures."""

import re
import tarfile
from pathlib import Path

import ase.test
import numpy as np
import pytest
from ase.build import bulk
from ase.io import read
from ase.units import GPa

from hullscreen.dft_adapters.engine import CalculationError
from hullscreen.dft_adapters.vasp_failures import CORRECTIONS, ENDED, FAILURES, GAVE_UP
from hullscreen.dft_adapters.vasp_inputs import poscar_of
from hullscreen.dft_adapters.vasp_output import n_steps_of, parse_vasprun, sound_contcar
from hullscreen.dft_adapters.vasp_runs import steps_in

RECORDED = Path(ase.test.__file__).parent / "testdata" / "vasp"


def reason_of(text):
    return next(row.reason for row in FAILURES if re.search(row.pattern, text))


# vasprun.xml


def test_a_recorded_file_is_read_as_ase_reads_it():
    """ASE's recorded run of VASP, one atom under 1 kbar: energy, forces, and the sign."""
    path = RECORDED / "vasprun_pstress.xml"
    output = parse_vasprun(path)
    atoms = read(path)
    # VASP adds PSTRESS times volume, which ASE takes away; hullscreen refuses PSTRESS.
    enthalpy = atoms.get_potential_energy(force_consistent=True) + 0.1 * GPa * atoms.get_volume()
    assert output.energy == pytest.approx(enthalpy, abs=1e-6)
    assert np.trace(output.stress) > 0.0, "this crystal is stretched: its pressure is negative"
    np.testing.assert_allclose(output.forces, atoms.get_forces(), atol=1e-9)
    # ASE converts with the same 0.1 GPa per kbar.
    np.testing.assert_allclose(output.stress, atoms.get_stress(voigt=False), atol=1e-9)
    np.testing.assert_allclose(output.cell, atoms.cell[:], atol=1e-9)
    assert list(output.symbols) == list(atoms.symbols)


@pytest.mark.parametrize("share", [0.0, 0.2, 0.6, 0.99])
def test_a_file_that_is_cut_off_is_no_result(tmp_path, share):
    text = (RECORDED / "vasprun_pstress.xml").read_text()
    path = tmp_path / "vasprun.xml"
    path.write_text(text[: int(share * len(text))])
    with pytest.raises(CalculationError) as caught:
        parse_vasprun(path)
    assert caught.value.reason == "unreadable_result"


def test_a_missing_file_is_no_result(tmp_path):
    with pytest.raises(CalculationError) as caught:
        parse_vasprun(tmp_path / "vasprun.xml")
    assert caught.value.reason == "no_result"


@pytest.mark.parametrize("name", ["a page", "a table"])
def test_another_programs_file_is_no_result(tmp_path, name):
    path = tmp_path / "vasprun.xml"
    path.write_text({"a page": "<html><body/></html>", "a table": "1 2 3\n"}[name])
    with pytest.raises(CalculationError) as caught:
        parse_vasprun(path)
    assert caught.value.reason == "unreadable_result"


def test_electrons_that_did_not_converge_are_no_label(tmp_path):
    """The recorded run with as few steps allowed as it took."""
    text = (RECORDED / "vasprun_pstress.xml").read_text()
    n_steps = text[: text.index("</calculation>")].count("<scstep>")
    fewer, n_replaced = re.subn(r'(<i type="int" name="NELM">)\s*\d+', rf"\g<1> {n_steps}", text)
    assert n_replaced > 0
    path = tmp_path / "vasprun.xml"
    path.write_text(fewer)
    with pytest.raises(CalculationError) as caught:
        parse_vasprun(path)
    assert caught.value.reason == "unconverged_scf"


def test_steps_are_counted():
    text = "   1 F= -.8E+01 E0= -.8E+01  d E =-.8E+01\nDAV:   1  x\n  12 F= 0 E0= 0  d E =0\n"
    assert n_steps_of(text) == 2


# CONTCAR


@pytest.fixture
def contcar(tmp_path):
    """POSCAR and CONTCAR of a relaxation that moved a little."""
    atoms = bulk("CuPd", "cesiumchloride", a=3.0)
    (tmp_path / "POSCAR").write_text(poscar_of(atoms).get_str(significant_figures=16))
    atoms.set_cell(1.02 * atoms.cell[:], scale_atoms=True)
    (tmp_path / "CONTCAR").write_text(poscar_of(atoms).get_str(significant_figures=16))
    return tmp_path / "CONTCAR"


def test_a_whole_contcar_is_gone_on_from(contcar):
    found = sound_contcar(contcar, contcar.with_name("POSCAR"))
    assert found is not None
    assert found.volume == pytest.approx(3.06**3)


def test_no_part_of_a_contcar_is_gone_on_from(contcar):
    """Cut off anywhere up to the last digit: none is taken for the whole."""
    text = contcar.read_text()
    end = text.rindex("Pd")
    for length in range(0, end - 1, 7):
        contcar.write_text(text[:length])
        assert sound_contcar(contcar, contcar.with_name("POSCAR")) is None, length
    contcar.write_text(text[: end - 2])
    assert sound_contcar(contcar, contcar.with_name("POSCAR")) is None
    contcar.unlink()
    assert sound_contcar(contcar, contcar.with_name("POSCAR")) is None


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Cu Pd", "Cu Pt"),
        ("1 1", "1 2"),
        ("3.0600000000000001", "9.0600000000000001"),
        ("3.0600000000000001", "0.6000000000000001"),
        ("0.5000000000000000", "0.0000000000000000"),
        ("0.5000000000000000", "nan0000000000000000"),
        ("3.0600000000000001", "******************"),
    ],
    ids=["elements", "atoms", "exploded", "collapsed", "on top", "not a number", "stars"],
)
def test_no_unsound_contcar_is_gone_on_from(contcar, old, new):
    text = contcar.read_text()
    assert old in text
    contcar.write_text(text.replace(old, new))
    assert sound_contcar(contcar, contcar.with_name("POSCAR")) is None


def test_steps_of_attempts_that_custodian_put_aside_count(tmp_path):
    packed = tmp_path / "error.1.tar.gz"
    (tmp_path / "OSZICAR").write_text("   1 F= -.1E+01\n   2 F= -.2E+01\n" + "DAV: 1 x\n" * 2000)
    with tarfile.open(packed, "w:gz") as archive:
        archive.add(tmp_path / "OSZICAR", "OSZICAR")
    assert steps_in(tmp_path) == 4
    # It was killed while it packed.
    whole = packed.read_bytes()
    for length in (0, 5, len(whole) // 2):
        packed.write_bytes(whole[:length])
        assert steps_in(tmp_path) == 2


# The failures table

MESSAGES = [
    ("forrtl: No space left on device\nforrtl: severe (38): error during write", "disk_full"),
    ("ModuleNotFoundError: No module named 'custodian'", "missing_custodian"),
    ("vasp_std: error while loading shared libraries: libmkl.so", "missing_executable"),
    ("/opt/vasp/vasp_std: No such file or directory", "missing_executable"),
    ("env: ‘vasp_std’: No such file or directory", "missing_executable"),
    ("srun: error: Unable to create step for job 7: More processors requested", "launcher"),
    ("There are not enough slots available in the system", "launcher"),
    ("forrtl: severe (29): file not found, unit 10, file /x/POTCAR", "wrong_potcar"),
    (" internal error in SET_CORE_WF", "wrong_potcar"),
    (" Error reading item 'IMIX' from file INCAR.", "wrong_input"),
    ("slurmstepd: error: Detected 1 oom-kill event(s)", "memory"),
    (f"{ENDED} 137", "killed"),
    ("LAPACK: Routine ZPOTRF failed!", "overlapping_atoms"),
    ("Error EDDDAV: Call to ZHEGV failed. Returncode =   7", "diagonalisation"),
    ("BRMIX: very serious problems", "charge_mixing"),
    ("inverse of rotation matrix was not found (increase SYMPREC)", "symmetry"),
    ("POSMAP internal error: symmetry equivalent atom not found,", "symmetry"),
    ("TOO FEW BANDS!!", "too_few_bands"),
    ("ERROR RSPHER", "real_space_projectors"),
    ("ZBRENT: fatal error in bracketing", "line_search"),
    (f"{GAVE_UP}: NonRecoverableError PotimErrorHandler: x", "exploded"),
    (f"{GAVE_UP}: PositiveEnergyErrorHandler : x", "positive_energy"),
    (f"{GAVE_UP}: FrozenJobErrorHandler : x", "frozen"),
    (f"{GAVE_UP}: MaxCorrectionsPerJobError UnconvergedElectrons: x", "unconverged_scf"),
    ("forrtl: severe (174): SIGSEGV, segmentation fault occurred", "crash"),
    (f"{GAVE_UP}: VasprunXMLValidator : x\n{ENDED} 0", "unreadable_result"),
    (f"{GAVE_UP}: VaspFilesValidator : x", "no_result"),
    (f"{GAVE_UP}: VaspFilesValidator : x\n{ENDED} 1\n", "error"),
    ("a line\nTraceback (most recent call last):", "custodian_failed"),
]


@pytest.mark.parametrize(("text", "reason"), MESSAGES)
def test_messages_have_their_reason(text, reason):
    assert reason_of(text) == reason


def test_every_row_is_reached_and_says_what_it_means():
    assert {reason for _, reason in MESSAGES} == {row.reason for row in FAILURES}
    for row in FAILURES:
        assert row.source
        assert not row.meaning.endswith(".")
        re.compile(row.pattern)
    # The others are found without the table.
    assert set(CORRECTIONS) <= {row.reason for row in FAILURES} | {"time_limit"}


def test_a_good_run_matches_no_row():
    text = (
        " running    1 mpi-ranks\n POSCAR found :  2 types and       2 ions\n entering main loop\n"
    )
    text += " DAV:   1    -0.8E+01\n reached required accuracy - stopping structural energy\n"
    assert not [row for row in FAILURES if re.search(row.pattern, text)]
