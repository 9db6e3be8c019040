"""`hullscreen forecast`: its table, its JSON, and what it computes."""

import json
import shutil
from datetime import UTC, datetime

import pytest

from hullscreen.dft_adapters.ase_engine import ASEEngine
from hullscreen.dft_adapters.engine import CalculationError
from hullscreen.launch.command_line import main

SETTINGS = """
[campaign]
name = "foretold"
elements = ["{first}", "{second}"]
[prototypes]
max_atoms = 2
aflow = false
[database]
uri = "{uri}"
name = "{name}"
"""
PW_X = """
[dft]
engine = "quantum_espresso"
[dft.quantum_espresso]
cutoff_ry = 12
density_cutoff_ry = 60
kpoint_spacing = 0.2
spin = false
scf_threshold_ry_per_atom = 1e-5
"""


@pytest.fixture
def make_directory(mongo, tmp_path):
    """Function that writes a campaign directory whose database is the test's own."""

    def make(first="Cu", second="Pd", more=""):
        directory = tmp_path / "foretold"
        directory.mkdir()
        text = SETTINGS.format(first=first, second=second, uri=mongo.uri, name=mongo.name)
        (directory / "hullscreen.toml").write_text(text + more)
        return directory

    return make


@pytest.fixture
def foretell(capsys):
    """Function that runs the command with --json and gives its document."""

    def run(directory, *words):
        assert main(["forecast", str(directory), "--json", *words]) == 0
        out = capsys.readouterr().out
        assert out.count("\n") == 1
        return json.loads(out)

    return run


def test_nothing_is_computed_unless_it_is_needed_and_wanted(make_directory, foretell, mongo):
    directory, results = make_directory(), mongo.database.dft_results
    unknown = foretell(directory, "--no-measure")
    assert unknown["cost"] is None
    assert unknown["measured"] == {"calculations": 0, "failures": []}
    assert results.count_documents({}) == 0
    measured = foretell(directory)
    # Two elements, the smallest compound, and the largest one of the seed.
    assert measured["measured"]["calculations"] == results.count_documents({}) == 4
    results.update_many({}, {"$set": {"cpu_seconds": 30.0}})
    again = foretell(directory)
    assert again["measured"]["calculations"] == 0
    assert again["cost"]["n_single_points"] == results.count_documents({}) == 4
    assert again["pool"]["total"] == sum(again["pool"]["by_lattice"].values())
    assert again["calculations"]["seed"]["expected"] >= 6
    # Nothing is decided yet: the settings may still be changed.
    assert mongo.database.campaigns.count_documents({}) == 0


def test_nothing_is_measured_beside_workers(make_directory, foretell, mongo):
    """They compute the same structures in the same folders."""
    directory = make_directory()
    mongo.database.campaigns.insert_one({"name": "foretold", "created_at": datetime.now(UTC)})
    made = foretell(directory)
    assert (made["cost"], made["measured"]["calculations"]) == (None, 0)
    assert mongo.database.dft_results.count_documents({}) == 0


def test_workers_elsewhere(make_directory, foretell, mongo):
    directory = make_directory()
    foretell(directory)
    mongo.database.dft_results.update_many({}, {"$set": {"cpu_seconds": 30.0}})
    few, many = (foretell(directory, "--workers", n) for n in ("1", "50"))
    assert (few["workers"], many["workers"]) == (1, 50)
    wall = [made["wall_seconds"]["labels"]["expected"] for made in (few, many)]
    # Rounds follow one another, however many workers there are.
    assert 2 < wall[0] / wall[1] < 50
    assert few["cpu_seconds"] == many["cpu_seconds"]


def test_a_table_for_people(make_directory, capsys, mongo):
    directory = make_directory()
    assert main(["forecast", str(directory), "--no-measure"]) == 0
    out = capsys.readouterr().out
    assert "foretold (Cu–Pd, EMT)" in out
    assert "not known" in out
    assert "What one costs is not known" in out
    assert main(["forecast", str(directory)]) == 0
    mongo.database.dft_results.update_many({}, {"$set": {"cpu_seconds": 30.0}})
    capsys.readouterr()
    assert main(["forecast", str(directory)]) == 0
    out = capsys.readouterr().out
    assert "from 4 measured single points, within a factor of 2" in out
    assert "Spent so far: 4 single points" in out
    assert out.splitlines()[-1] == f"Next: hullscreen run {directory}"


def test_measurements_that_all_fail_are_no_forecast(make_directory, capsys, monkeypatch):
    def fail(self, atoms, folder):
        del self, atoms
        raise CalculationError("diverged", "it diverged", folder)

    directory = make_directory()
    monkeypatch.setattr(ASEEngine, "single_point", fail)
    assert main(["forecast", str(directory)]) == 4
    out = capsys.readouterr().out
    assert "A measurement failed: it diverged" in out
    assert out.splitlines()[-1] == f"mend this first, then hullscreen run {directory}"


def test_an_engine_that_cannot_compute_the_elements(make_directory, capsys):
    directory = make_directory("Cu", "Ti")
    assert main(["forecast", str(directory)]) == 4
    err = capsys.readouterr().err
    assert "cannot compute Ti" in err
    # Without measurements it can at least be counted.
    assert main(["forecast", str(directory), "--no-measure"]) == 0


@pytest.mark.qe
def test_real_calculations_are_measured(make_directory, foretell, mongo):
    if shutil.which("pw.x") is None:
        pytest.skip("pw.x is not installed")
    directory = make_directory("Al", "Ni", PW_X)
    made = foretell(directory)
    assert made["engine"] == "Quantum ESPRESSO"
    assert made["measured"] == {"calculations": 4, "failures": []}
    stored = list(mongo.database.dft_results.find({}))
    assert {document["state"] for document in stored} == {"done"}
    seconds = [document["cpu_seconds"] for document in stored]
    each = made["cost"]["cpu_seconds_of_a_single_point"]
    # Cells of the pool have symmetry, which the strained ones that were measured lack.
    assert 0.05 * min(seconds) < each < 2 * max(seconds)
    assert made["disk_bytes"] > 1e4
    assert foretell(directory, "--no-measure")["cost"] == made["cost"]


VASP = """
[dft]
engine = "vasp"
[dft.vasp]
command = "no_such_vasp"
potcar_spec = true
"""


def test_inputs_can_be_seen_without_vasp(make_directory, foretell, tmp_path, capsys):
    directory, folder = make_directory(more=VASP), tmp_path / "seen"
    made = foretell(directory, "--inputs", str(folder))
    single, relaxation = folder / "single_point" / "inputs", folder / "relaxation" / "inputs"
    names = {path.name for path in single.iterdir()}
    assert names >= {"INCAR.static", "KPOINTS", "POSCAR", "POTCAR.spec"}
    assert "IBRION  =  2" in (relaxation / "INCAR.relax").read_text()
    # custodian's job is none of VASP's inputs.
    files = {str(p) for p in folder.rglob("*") if p.is_file() and p.name != "job.json"}
    assert set(made["inputs"]) == files
    assert main(["forecast", str(directory), "--inputs", str(folder)]) == 0
    assert f"are in {folder}" in capsys.readouterr().out


def test_inputs_of_pw_x(make_directory, foretell, tmp_path):
    from pathlib import Path

    if not Path("/usr/share/espresso/pseudo/Ni.pz-nd-rrkjus.UPF").is_file():
        pytest.skip("the pseudopotentials of Debian's quantum-espresso-data are not installed")
    more = PW_X + 'command = "no_such_pw.x"\n'
    foretell(make_directory("Al", "Ni", more), "--inputs", str(tmp_path / "seen"))
    assert "'scf'" in (tmp_path / "seen" / "single_point" / "pw.in").read_text()
    assert "'vc-relax'" in (tmp_path / "seen" / "relaxation" / "pw.in").read_text()


def test_an_engine_without_input_files(make_directory, tmp_path, capsys):
    assert main(["forecast", str(make_directory()), "--inputs", str(tmp_path / "seen")]) == 2
    assert "has no input files" in capsys.readouterr().err
