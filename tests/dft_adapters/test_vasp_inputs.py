"""What VASP is given: INCAR with a reason for every tag, grids, POTCARs; what a hash notices."""

import gzip
import importlib.util
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from pymatgen.io.vasp.inputs import Incar, Kpoints, Poscar

from hullscreen.dft_adapters.corrections import Reached
from hullscreen.dft_adapters.engine import EngineMissingError, fingerprint, load_engine
from hullscreen.dft_adapters.file_engine import Attempt, Task
from hullscreen.dft_adapters.preset_files import preset_names, read_preset
from hullscreen.dft_adapters.vasp_inputs import SAME_FOR_ALL, changed_settings
from hullscreen.dft_adapters.vasp_potcars import read_potcar
from hullscreen.dft_adapters.vasp_settings import VaspSettings, settings_from_table
from hullscreen.potentials.errors import SettingsError

RELAX = Task("relax", force_tolerance=0.01, stress_tolerance=0.1 / 160.2, max_steps=40)
SINGLE = Task("single_point")

# Every tag that a file may hold, and why it is there.
REASONS = {
    "ALGO": "Fast, the set's: custodian's ladder Fast, Normal, All begins there",
    "EDIFF": "tight: forces and stresses are labels",
    "EDIFFG": "negative: forces (and stress times volume per atom) end the relaxation",
    "ENCUT": "one for all structures of a campaign",
    "IBRION": "conjugate gradients, or nothing moves",
    "ISIF": "cell and positions, or the stress alone",
    "ISMEAR": "Methfessel-Paxton, for metals",
    "ISPIN": "polarised where an element is magnetic",
    "MAGMOM": "starting moments",
    "NELM": "when to give up",
    "NSW": "steps",
    "SIGMA": "width of the smearing",
} | {tag: why for tag, (_, why) in SAME_FOR_ALL.items()}


def engine(**table):
    return load_engine({"engine": "vasp", "potcar_spec": True, **table})


def written(directory, atoms, task, attempt=None, **table):
    engine(**table).write_inputs(atoms, directory, task, attempt or Attempt())
    folder = directory / "inputs"
    return {path.name: path.read_text() for path in folder.iterdir()}


def copper():
    return bulk("Cu", a=3.6)


# INCAR


def test_every_tag_has_its_reason_and_its_value(tmp_path):
    files = written(tmp_path, bulk("NiAl", "cesiumchloride", a=2.9), RELAX)
    relax, static = Incar.from_str(files["INCAR.relax"]), Incar.from_str(files["INCAR.static"])
    assert set(relax) | set(static) <= set(REASONS)
    same = {
        "ALGO": "Fast", "ENCUT": 520.0, "EDIFF": 1e-6, "ISMEAR": 1, "SIGMA": 0.2, "NELM": 100,
        "PREC": "Accurate", "LREAL": False, "LASPH": True, "LWAVE": False, "LCHARG": False,
        "ISPIN": 2, "MAGMOM": [0.0, 1.0],
    }  # fmt: skip
    # Stress tolerance times volume per atom: 0.1 GPa × 12.2 Å³ is less than 0.01 eV.
    assert relax == {**same, "NSW": 40, "IBRION": 2, "ISIF": 3, "EDIFFG": -0.00761}
    assert static == {**same, "NSW": 0, "IBRION": -1, "ISIF": 2}


def test_the_force_tolerance_rules_where_it_is_the_stricter(tmp_path):
    task = Task("relax", force_tolerance=0.002, stress_tolerance=1.0, max_steps=7)
    files = written(tmp_path, copper(), task)
    assert Incar.from_str(files["INCAR.relax"])["EDIFFG"] == -0.002


@pytest.mark.parametrize("elements", [("Cu", "Pd"), ("Al", "Ti"), ("Pt", "Au")])
def test_what_is_not_magnetic_is_not_polarised(tmp_path, elements):
    first, second = elements
    files = written(tmp_path, bulk(first + second, "cesiumchloride", a=3.0), SINGLE)
    incar = Incar.from_str(files["INCAR.static"])
    assert incar["ISPIN"] == 1
    assert "MAGMOM" not in incar


@pytest.mark.parametrize("element", ["Fe", "Co", "Ni", "Mn", "Cr"])
def test_magnetic_elements_are_polarised(tmp_path, element):
    atoms = bulk(element, "bcc", a=2.9).repeat((1, 1, 2))
    incar = Incar.from_str(written(tmp_path, atoms, SINGLE)["INCAR.static"])
    assert incar["ISPIN"] == 2
    assert len(incar["MAGMOM"]) == 2
    assert min(incar["MAGMOM"]) > 0.5


def test_moments_and_spin_can_be_set(tmp_path):
    atoms = bulk("FeAl", "cesiumchloride", a=2.9)
    one = written(tmp_path, atoms, SINGLE, initial_moments={"Fe": 2.2})
    # POSCAR has the elements in alphabetical order.
    assert Incar.from_str(one["INCAR.static"])["MAGMOM"] == [0.0, 2.2]
    for without in ({"spin": False}, {"initial_moments": {"Fe": 0.0}}):
        other = written(tmp_path, atoms, SINGLE, **without)
        assert Incar.from_str(other["INCAR.static"])["ISPIN"] == 1


def test_further_tags_come_on_top(tmp_path):
    files = written(tmp_path, copper(), SINGLE, extra_incar={"ncore": 4, "GGA": "PS"})
    incar = Incar.from_str(files["INCAR.static"])
    assert (incar["NCORE"], incar["GGA"]) == (4, "Ps")


# Grids and geometries


def test_the_grid_is_explicit_and_stays_that_of_the_start(tmp_path):
    atoms = copper()
    grid = Kpoints.from_str(written(tmp_path, atoms, RELAX)["KPOINTS"])
    assert str(grid.style) == "Gamma"
    # 1/(0.03 × d) with d the distance of lattice planes, 2.08 Å.
    assert grid.kpts == [(17, 17, 17)]
    smaller = Reached(0.5 * np.array(atoms.cell[:]), 0.5 * atoms.positions, 3)
    files = written(tmp_path, atoms, RELAX, Attempt(reached=smaller))
    assert Kpoints.from_str(files["KPOINTS"]).kpts == [(17, 17, 17)]
    begun = Poscar.from_str(files["POSCAR"]).structure
    assert begun.volume == pytest.approx(atoms.get_volume() / 8.0)
    assert "KSPACING" not in files["INCAR.relax"]


def test_poscar_has_all_digits_and_a_right_handed_cell(tmp_path):
    atoms = bulk("CuPd", "cesiumchloride", a=3.0 + 1.0 / 3.0)
    atoms.set_cell(atoms.cell[[0, 2, 1]])
    structure = Poscar.from_str(written(tmp_path, atoms, SINGLE)["POSCAR"]).structure
    assert np.linalg.det(structure.lattice.matrix) > 0.0
    np.testing.assert_allclose(structure.lattice.a, 10.0 / 3.0, rtol=1e-14)


# Settings


def test_presets_are_those_of_vasp_and_each_names_its_source():
    names = preset_names(vasp=True)
    assert "vasp-pbe-metals" in names
    assert not set(names) & set(preset_names(vasp=False))
    for name in names:
        settings = settings_from_table({"preset": name})
        assert settings.smearing_order >= 0
        assert settings.cutoff_ev >= 500.0
        path = Path(sys.modules[read_preset.__module__].__file__).parent / "presets"
        assert (path / f"{name}.toml").read_text().startswith("# Source: ")


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"smearing_order": -5}, "tetrahedron method"),
        ({"preset": "debian-lda"}, "no preset 'debian-lda'"),
        ({"cutoff": 400.0}, "did you mean 'cutoff_ev'?"),
        ({"cutoff_ev": -1}, "cutoff_ev must be a positive number"),
        ({"extra_incar": {"ISMEAR": 0}}, "what sets it is smearing_order"),
        ({"extra_incar": {"kspacing": 0.2}}, "what sets it is kpoint_spacing"),
        ({"extra_incar": {"ISIF": 2}}, "must not hold ISIF; hullscreen sets it itself"),
        ({"extra_incar": {"ENCUTT": 400}}, "no INCAR tag that pymatgen knows; did you mean ENCUT?"),
        ({"extra_incar": {"XQZW": 1}}, "XQZW, which is no INCAR tag"),
        ({"command": ""}, "command must name an executable"),
        ({"max_scf_steps": 0}, "max_scf_steps must be 1 or more"),
        ({"potcar_spec": 1}, "potcar_spec must be a bool"),
    ],
)
def test_wrong_settings_are_refused(table, words):
    with pytest.raises(SettingsError, match=words.replace("?", r"\?")):
        settings_from_table(table)


@pytest.mark.parametrize("name", ["NoSuchSet", "VaspInputSet", "np"])
def test_an_input_set_must_be_one_of_pymatgens(tmp_path, name):
    with pytest.raises(SettingsError, match="has no input set"):
        written(tmp_path, copper(), SINGLE, input_set=name)


def test_the_table_of_the_settings_reaches_the_adapter():
    from hullscreen.launch.settings import from_tables

    tables = {"campaign": {"elements": ["Cu", "Pd"]}, "dft": {"engine": "vasp"}}
    table = from_tables(tables).dft.engine_table()
    assert table.pop("engine") == "vasp"
    assert settings_from_table(table) == settings_from_table({})
    tables["dft"]["vasp"] = {"cutoff_ev": 400.0, "command": "srun -n 4 vasp_std", "spin": False}
    settings = settings_from_table(
        {k: v for k, v in from_tables(tables).dft.engine_table().items() if k != "engine"}
    )
    assert settings.command == ("srun", "-n", "4", "vasp_std")
    assert (settings.cutoff_ev, settings.spin) == (400.0, False)
    from hullscreen.workflows.settings_tree import Vasp

    assert {f.name for f in fields(Vasp)} == {f.name for f in fields(VaspSettings)} | {"preset"}


# The fingerprint


@pytest.mark.parametrize(
    "table",
    [
        {"command": "mpirun -np 8 vasp_std"},
        {"timeout_s": 3600.0},
        {"frozen_after_s": 10.0},
        {"monitor_every_s": 1.0},
        {"max_scf_steps": 200},
        {"extra_incar": {"NCORE": 4, "KPAR": 2, "ALGO": "Normal"}},
    ],
)
def test_what_does_not_change_energies_does_not_change_the_fingerprint(table):
    assert fingerprint(engine(**table), ["Cu", "Pd"]) == fingerprint(engine(), ["Cu", "Pd"])


@pytest.mark.parametrize(
    "table",
    [
        {"cutoff_ev": 400.0},
        {"smearing_ev": 0.1},
        {"smearing_order": 2},
        {"kpoint_spacing": 0.04},
        {"preset": "vasp-pbesol-metals"},
        {"spin": False},
        {"initial_moments": {"Ni": 0.1}},
        {"scf_threshold_ev": 1e-5},
        {"extra_incar": {"GGA": "PS"}},
        {"extra_incar": {"LREAL": "Auto"}},
        {"potcars": {"Cu": "Cu"}},
    ],
)
def test_what_changes_energies_changes_the_fingerprint(table):
    assert fingerprint(engine(**table), ["Cu", "Ni"]) != fingerprint(engine(), ["Cu", "Ni"])


# POTCARs: made up, in the layout of VASP's


def potcar(symbol, element=None, functional="PE", charge=11):
    element = element or symbol.partition("_")[0]
    return (
        f"  PAW_PBE {symbol} 01Jan2000\n   {charge:.4f}\n parameters from PSCTR are:\n"
        f"   VRHFIN ={element}: made up\n   LEXCH  = {functional}\n"
        f"   TITEL  = PAW_PBE {symbol} 01Jan2000\n   ENMAX  =  295.446; ENMIN  =  221.585 eV\n"
        "END of PSCTR-controll parameters\n local part\n"
        "  0.1000000E+01 -0.2500000E+01  0.3000000E+00\n End of Dataset\n"
    )


@pytest.fixture
def library(tmp_path):
    folder = tmp_path / "psp" / "POT_GGA_PAW_PBE_54"
    folder.mkdir(parents=True)
    for symbol in ("Cu", "Pd", "Al"):
        (folder / f"POTCAR.{symbol}").write_text(potcar(symbol))
    (folder / "Ni_pv").mkdir()
    with gzip.open(folder / "Ni_pv" / "POTCAR.gz", "wt") as stream:
        stream.write(potcar("Ni_pv"))
    return tmp_path / "psp"


def with_potcars(library, **table):
    return load_engine(
        {
            "engine": "vasp",
            "potcar_directory": str(library),
            "potcars": {"Cu": "Cu"},
            "command": [sys.executable],
            **table,
        }
    )


def test_potcars_are_put_together_in_the_order_of_poscar(library, tmp_path):
    vasp = with_potcars(library)
    vasp.check(["Cu", "Pd", "Al", "Ni"])
    atoms = bulk("PdCu", "cesiumchloride", a=3.0)
    names = vasp.write_inputs(atoms, tmp_path, SINGLE, Attempt())
    assert "inputs/POTCAR" in names
    text = (tmp_path / "inputs" / "POTCAR").read_text()
    assert [line.split()[1] for line in text.splitlines() if line.startswith("  PAW")] == [
        "Cu",
        "Pd",
    ]
    assert text.count("End of Dataset") == 2
    assert not (tmp_path / "inputs" / "POTCAR.spec").exists()


def test_a_missing_potcar_is_said(library, tmp_path):
    with pytest.raises(EngineMissingError, match="no POTCAR Pt for Pt") as caught:
        with_potcars(library).check(["Cu", "Pt"])
    assert caught.value.reason == "missing_potcar"
    with pytest.raises(EngineMissingError, match="no folder POT_PAW_PBE_64"):
        with_potcars(library, potcar_functional="PBE_64").check(["Cu"])
    with pytest.raises(SettingsError, match="must be one of"):
        with_potcars(library, potcar_functional="PBE54").check(["Cu"])


def test_no_folder_of_potcars_is_said(monkeypatch):
    from pymatgen.core import SETTINGS

    monkeypatch.delitem(SETTINGS, "PMG_VASP_PSP_DIR", raising=False)
    with pytest.raises(EngineMissingError, match="PMG_VASP_PSP_DIR") as caught:
        load_engine({"engine": "vasp", "command": [sys.executable]}).check(["Cu"])
    assert caught.value.reason == "missing_potcar"


@pytest.mark.parametrize(
    ("element", "functional"), [("Pd", "PE"), ("Cu", "CA")], ids=["element", "functional"]
)
def test_a_potcar_for_something_else_is_refused(library, element, functional):
    path = library / "POT_GGA_PAW_PBE_54" / "POTCAR.Cu"
    path.write_text(potcar("Cu", element, functional))
    read_potcar.cache_clear()
    with pytest.raises(EngineMissingError) as caught:
        with_potcars(library).check(["Cu"])
    assert caught.value.reason == "wrong_potcar"


@pytest.mark.parametrize("share", [0.3, 0.8])
def test_a_potcar_that_is_cut_off_is_refused(library, share):
    """Custodian's handlers read POTCAR too, and could mend nothing."""
    path = library / "POT_GGA_PAW_PBE_54" / "POTCAR.Cu"
    text = potcar("Cu")
    path.write_text(text[: int(share * len(text))])
    read_potcar.cache_clear()
    with pytest.raises(EngineMissingError) as caught:
        with_potcars(library).check(["Cu"])
    assert caught.value.reason == "wrong_potcar"


def test_a_potcar_that_changes_under_way_is_refused(library, tmp_path):
    """Results are stored under the hash of the file as it was first."""
    vasp = with_potcars(library)
    fingerprint(vasp, ["Cu"])
    path = library / "POT_GGA_PAW_PBE_54" / "POTCAR.Cu"
    path.write_text(potcar("Cu").replace("2000", "2001"))
    with pytest.raises(EngineMissingError, match="has changed while") as caught:
        vasp.write_inputs(bulk("Cu"), tmp_path, SINGLE, Attempt())
    assert caught.value.reason == "wrong_potcar"


def test_another_potcar_changes_the_fingerprint(library):
    before = fingerprint(with_potcars(library), ["Cu", "Pd"])
    assert fingerprint(with_potcars(library, command="other"), ["Cu", "Pd"]) == before
    path = library / "POT_GGA_PAW_PBE_54" / "POTCAR.Cu"
    path.write_text(potcar("Cu").replace("2000", "2001"))
    read_potcar.cache_clear()
    assert fingerprint(with_potcars(library), ["Cu", "Pd"]) != before
    assert fingerprint(engine(), ["Cu", "Pd"]) != before


# What must be there


def test_a_missing_executable_is_said():
    for command in ("no_vasp_std", f"{sys.executable} vasp_nowhere"):
        with pytest.raises(EngineMissingError) as caught:
            engine(command=command).check(["Cu"])
        assert caught.value.reason == "missing_executable"


def test_missing_custodian_is_said(monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "custodian" else found(name)
    )
    with pytest.raises(EngineMissingError, match="pip install custodian") as caught:
        engine(command=sys.executable).check(["Cu"])
    assert caught.value.reason == "missing_custodian"


# Settings that were changed


@pytest.mark.parametrize(
    ("after", "changes"),
    [
        ("ENCUT = 520\nISMEAR = 1\nEDIFF = 1e-6\nLREAL = Auto", []),
        ("ENCUT = 520\nISMEAR = 1\nEDIFF = 1e-7\nLREAL = .FALSE.\nALGO = All\nNBANDS = 20", []),
        ("ENCUT = 520\nISMEAR = 0\nEDIFF = 1e-6\nLREAL = Auto", ["ISMEAR was 1, became 0"]),
        ("ISMEAR = 1\nEDIFF = 1e-6\nLREAL = Auto", ["ENCUT was 520.0, became None"]),
        ("ENCUT = 520\nISMEAR = 1\nEDIFF = 1e-5\nLREAL = Auto", ["EDIFF was 1e-06, became 1e-05"]),
        ("ENCUT = 520\nISMEAR = 1\nEDIFF = 1e-6\nLREAL = On", ["LREAL was Auto, became On"]),
    ],
)
def test_changes_of_energy_are_told_from_others(after, changes):
    before = "ENCUT = 520\nISMEAR = 1\nEDIFF = 1e-6\nLREAL = Auto\n"
    assert changed_settings(before, after) == changes


@pytest.mark.parametrize("named", ["parent", "folder"])
@pytest.mark.parametrize("layout", ["potpaw_PBE.54", "potpaw_PBE_54", "my_potcars"])
def test_vasps_own_arrangement_of_potcars(tmp_path, layout, named):
    folder = tmp_path / layout
    (folder / "Al").mkdir(parents=True)
    (folder / "Al" / "POTCAR").write_text(potcar("Al"))
    vasp = with_potcars(folder if named == "folder" else tmp_path)
    if (layout, named) == ("my_potcars", "parent"):
        with pytest.raises(EngineMissingError, match=r"no folder .* or potpaw_PBE\.54 or"):
            vasp.check(["Al"])
        return
    vasp.check(["Al"])
    before = fingerprint(vasp, ["Al"])
    (folder / "Al" / "POTCAR").write_text(potcar("Al").replace("0.30", "0.31"))
    # Content decides, wherever it lies.
    read_potcar.cache_clear()
    assert fingerprint(vasp, ["Al"]) != before


def test_names_that_pymatgen_was_given(tmp_path, monkeypatch):
    from pymatgen.core import SETTINGS

    monkeypatch.setitem(SETTINGS, "PMG_VASP_PSP_SUB_DIRS", {"PBE_54": "ours"})
    (tmp_path / "ours" / "Al").mkdir(parents=True)
    (tmp_path / "ours" / "Al" / "POTCAR").write_text(potcar("Al"))
    with_potcars(tmp_path).check(["Al"])
