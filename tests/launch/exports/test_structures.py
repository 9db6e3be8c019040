"""What other programs read back is what DFT has relaxed."""

import csv
import json
import re
import zipfile

import ase.db
import ase.io
import numpy as np
import pytest
from ase.calculators.emt import EMT
from monty.serialization import loadfn
from pymatgen.analysis.phase_diagram import PhaseDiagram
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Structure
from pymatgen.io.ase import AseAtomsAdaptor

from hullscreen.workflows.exports import structure_of

# All digits are written: what is left is the rounding of sums in another order, eV and eV/Å.
ROUNDING = 1e-9


def test_pymatgen_finds_the_same_hull(copied_directory, unstable, call, tmp_path):
    path = tmp_path / "entries.json"
    assert call("export", copied_directory, "--format", "entries", "-o", path)[0] == 0
    entries = loadfn(path)
    diagram = PhaseDiagram(entries)
    assert len(entries) == len(unstable.entries) > 2 * len(unstable.stable)
    for entry, ours in zip(entries, unstable.entries, strict=True):
        assert entry.entry_id == f"cu-pd-{ours.structure_index}"
        assert entry.correction == 0.0
        assert entry.data["prototype"] == ours.prototype
        assert diagram.get_form_energy_per_atom(entry) == pytest.approx(
            ours.formation_energy_per_atom, abs=ROUNDING
        )
        assert diagram.get_e_above_hull(entry) == pytest.approx(
            ours.energy_above_hull, abs=ROUNDING
        )
    stable = {entry.composition.reduced_formula for entry in diagram.stable_entries}
    assert stable == {entry.formula_pretty for entry in unstable.stable}
    assert entries[0].parameters["provenance"]["campaign"] == "cu-pd"


def check_labels(atoms, entry):
    """Energy, forces and stress are those stored, and EMT's own of this very structure."""
    assert atoms.get_potential_energy() == pytest.approx(entry.result.energy, abs=ROUNDING)
    np.testing.assert_allclose(atoms.get_forces(), entry.result.forces, atol=ROUNDING)
    stress = atoms.get_stress(voigt=False)
    np.testing.assert_allclose(stress, entry.result.stress, atol=ROUNDING)
    again = atoms.copy()
    again.calc = EMT()
    assert again.get_potential_energy() == pytest.approx(entry.result.energy, abs=ROUNDING)
    np.testing.assert_allclose(again.get_forces(), entry.result.forces, atol=ROUNDING)
    np.testing.assert_allclose(again.get_stress(voigt=False), stress, atol=ROUNDING)


def test_ase_reads_extended_xyz(export, hull):
    frames = ase.io.read(export("extxyz", "all.extxyz"), index=":")
    for atoms, entry in zip(frames, hull.entries, strict=True):
        check_labels(atoms, entry)
        assert atoms.info["structure_index"] == entry.structure_index
        assert atoms.info["prototype"] == entry.prototype
        assert atoms.info["energy_above_hull"] == entry.energy_above_hull
        assert atoms.info["formation_energy_per_atom"] == entry.formation_energy_per_atom
        assert bool(atoms.info["is_stable"]) is entry.is_stable
    provenance = frames[0].info["provenance"]
    provenance = json.loads(provenance) if isinstance(provenance, str) else provenance
    assert provenance["campaign"] == "cu-pd"


def test_motep_reads_cfg(export, hull):
    from motep.io.mlip.cfg import read_cfg

    frames = read_cfg(export("cfg", "all.cfg"), index=":", species=list(hull.elements))
    for atoms, entry in zip(frames, hull.entries, strict=True):
        check_labels(atoms, entry)
        assert atoms.info["structure_index"] == entry.structure_index
        assert atoms.info["energy_above_hull"] == entry.energy_above_hull


def test_ase_selects_rows_of_the_database(export, hull):
    with ase.db.connect(export("ase-db", "all.db")) as database:
        assert database.metadata["provenance"]["chemsys"] == "Cu-Pd"
        rows = list(database.select())
        assert len(list(database.select("energy_above_hull<1e-9"))) == sum(
            entry.energy_above_hull < 1e-9 for entry in hull.entries
        )
    for row, entry in zip(rows, hull.entries, strict=True):
        check_labels(row.toatoms(), entry)
        assert row.structure_index == entry.structure_index
        assert row.data["prototype"] == entry.prototype


@pytest.mark.parametrize("form", ["cif", "poscar"])
@pytest.mark.parametrize("kind", ["folder", "archive"])
def test_files_of_single_structures(export, hull, tmp_path, form, kind):
    output = export(form, "files" if kind == "folder" else "files.zip")
    if kind == "archive":
        with zipfile.ZipFile(output) as archive:
            archive.extractall(tmp_path / "unpacked")
        output = tmp_path / "unpacked"
    assert json.loads((output / "provenance.json").read_text())["finished"] is True
    files = {
        int(path.stem.rpartition("_")[2]): path
        for path in output.iterdir()
        if path.suffix != ".json"
    }
    assert files.keys() == {entry.structure_index for entry in hull.entries}
    # Ten digits are written; the lattices may be turned against each other.
    matcher = StructureMatcher(ltol=1e-6, stol=1e-6, angle_tol=1e-4, scale=False)
    for entry in hull.entries:
        path = files[entry.structure_index]
        assert re.fullmatch(r"[A-Za-z0-9.+_-]+\.(cif|vasp)", path.name)
        expected = structure_of(entry)
        atoms = ase.io.read(path, format="cif" if form == "cif" else "vasp")
        assert matcher.fit(AseAtomsAdaptor.get_structure(atoms), expected)
        if form == "poscar":
            assert matcher.fit(Structure.from_str(path.read_text(), fmt="poscar"), expected)
        assert "hullscreen" in path.read_text().splitlines()[0]


def test_one_structure_is_one_file(export, hull):
    entry = hull.entries[-1]
    path = export("poscar", "POSCAR.vasp", "--number", entry.structure_index)
    atoms = ase.io.read(path, format="vasp")
    assert len(atoms) == entry.nsites
    beside = path.with_name("POSCAR.vasp.provenance.json")
    assert json.loads(beside.read_text())["seed"] == 0


def test_the_table(export, hull):
    lines = export("csv", "all.csv").read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("# hullscreen")
    assert json.loads(lines[1].removeprefix("# "))["campaign"] == "cu-pd"
    rows = list(csv.DictReader(lines[2:], quoting=csv.QUOTE_NONNUMERIC))
    for row, entry in zip(rows, hull.entries, strict=True):
        assert row["structure_index"] == entry.structure_index
        assert row["energy_above_hull"] == entry.energy_above_hull
        assert row["space_group_symbol"] == entry.symmetry["symbol"]


def test_json_is_that_of_hull(copied_directory, unstable, call):
    words = ("export", copied_directory, "--format", "json")
    document = json.loads(call(*words)[1])
    assert document.pop("provenance")["dft_engine"]["name"] == "EMT"
    assert document == json.loads(call("hull", copied_directory, "--all", "--json")[1])
    stable = json.loads(call(*words, "--stable")[1])
    assert len(stable["stable"]) == len(unstable.stable)
    assert stable["ties"] == stable["unstable"] == []


def test_what_is_selected(copied_directory, unstable, call):
    def found(*words):
        code, out, err = call("export", copied_directory, "--format", "csv", *words)
        assert (code, err) == (0, "")
        return [int(line.partition(",")[0]) for line in out.splitlines()[3:]]

    entries = unstable.entries
    everything = [entry.structure_index for entry in entries]
    assert found() == found("--all") == everything
    stable = {entry.structure_index for entry in unstable.stable}
    assert set(found("--stable")) == stable
    near = found("--max-energy-above-hull", "0.01")
    assert near == [e.structure_index for e in entries if e.energy_above_hull <= 0.01]
    assert len(stable) < len(near) < len(everything)
    copper = [e.structure_index for e in entries if e.formula_pretty == "Cu"]
    assert found("--formula", "Cu4") == copper
    assert found("--number", everything[-1]) == everything[-1:]
    compound = next(e for e in unstable.stable if e.formula_pretty not in {"Cu", "Pd"})
    assert found("--stable", "--formula", compound.formula_pretty) == [compound.structure_index]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--number", "999999"], "is what was asked for"),
        (["--formula", "NiPd"], "expected one of Cu, Pd"),
        (["--formula", "%"], "is no chemical formula"),
        (["--max-energy-above-hull", "nan"], "is what was asked for"),
    ],
)
def test_nothing_to_select(directory, call, tmp_path, words, sentence):
    path = tmp_path / "a.csv"
    code, out, err = call("export", directory, "--output", path, *words)
    assert (code, out) == (2, "")
    assert sentence in err
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "words", "sentence"),
    [
        ("a.csv", ["--potential", "3"], "--potential chooses a potential, and csv shows none"),
        ("a.cif", ["--stage", "1"], "--stage chooses a potential, and cif shows none"),
        ("a.mtp", ["--stable"], "--stable chooses relaxed structures, and potential shows none"),
        ("a.mtp", ["--number", "0"], "--number chooses relaxed structures"),
    ],
)
def test_choices_that_a_format_could_only_ignore(directory, call, tmp_path, name, words, sentence):
    code, out, err = call("export", directory, "--output", tmp_path / name, *words)
    assert (code, out) == (2, "")
    assert sentence in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "words", [["--number", str(2**70)], ["--potential", str(2**63)], ["--stage", "3"]]
)
def test_numbers_that_no_campaign_has(directory, call, words):
    code, out, err = call("export", directory, "--format", "csv", *words)
    assert (code, out) == (2, "")
    assert "is not in the range" in err


def test_a_provisional_hull_is_called_so(copied_directory, copied_campaign, call, tmp_path):
    copied_campaign.set_campaign(finished=False)
    path = tmp_path / "all.csv"
    code, _, err = call("export", copied_directory, "--output", path)
    assert code == 0
    assert "provisional: the campaign goes on" in err
    head, origin = path.read_text().splitlines()[:2]
    assert "provisional" in head
    assert json.loads(origin.removeprefix("# "))["finished"] is False


def test_no_hull_yet(copied_directory, mongo, call, tmp_path):
    mongo.database.structures.update_many({"formula_pretty": "Cu"}, {"$unset": {"final": ""}})
    for name in ("a.csv", "a.jsonl", "a.pdf"):
        code, out, err = call("export", copied_directory, "--output", tmp_path / name)
        assert (code, out) == (6, "")
        assert "no structure of pure Cu is relaxed with DFT" in err
        assert not (tmp_path / name).exists()
