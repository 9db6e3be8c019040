"""``fit``, ``errors``, ``evaluate``, ``relax`` and ``select`` on files, as scripts call them."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write

from hullscreen.launch.command_line import main
from hullscreen.potentials.cfg_files import read_cfg
from hullscreen.potentials.data_files import read_frames, read_potential, write_frames

ERRORS = {
    "energy_rmse_mev_per_atom",
    "force_rmse_mev_per_angstrom",
    "stress_rmse_gpa",
    "energy_max_mev_per_atom",
    "force_max_mev_per_angstrom",
    "stress_max_gpa",
}
# Extended XYZ carries 8 decimals of positions: 1e-8 Å over stiffnesses of 10 eV/Å² and less than a
# hundred neighbours.
EXTXYZ_ENERGY = 1e-6


def alloys(seed, n_frames=30):
    """Strained and rattled Cu-Pd cells with EMT's labels."""
    rng = np.random.default_rng(seed)
    for i in range(n_frames):
        atoms = bulk("Cu", a=3.6 + 0.3 * rng.random(), cubic=True)
        atoms.symbols = rng.permutation(["Pd"] * (i % 5) + ["Cu"] * (4 - i % 5))
        atoms.set_cell(atoms.cell @ (np.eye(3) + 0.02 * rng.normal(size=(3, 3))), scale_atoms=True)
        atoms.positions += 0.05 * rng.normal(size=(4, 3))
        atoms.calc = EMT()
        labels = {
            "energy": atoms.get_potential_energy(),
            "forces": atoms.get_forces(),
            "stress": atoms.get_stress(),
        }
        atoms.calc = SinglePointCalculator(atoms, **labels)
        yield atoms


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """train.xyz, pool.xyz, their .cfg twins, and the potentials p.mtp and p.almtp."""
    folder = tmp_path_factory.mktemp("files")
    for seed, name in enumerate(("train", "pool")):
        write(folder / f"{name}.xyz", list(alloys(seed)))
        frames = read_frames(folder / f"{name}.xyz", ("Cu", "Pd"))
        write_frames(folder / f"{name}.cfg", frames.configurations, ())
    words = ["fit", str(folder / "train.xyz"), "--level", "4", "--cutoff", "4.5"]
    words += ["--species", "Cu", "Pd", "--max-iterations", "10", "--radial-basis-size", "5"]
    for name in ("p.mtp", "p.almtp"):
        assert main([*words, "--output", str(folder / name), "--json"]) == 0
    return folder


@pytest.fixture
def run(folder, capsys, monkeypatch):
    """Run a command in the folder and return what it wrote as JSON, or its text."""
    monkeypatch.chdir(folder)

    def call(*words):
        capsys.readouterr()
        assert main(list(words)) == 0, capsys.readouterr().err
        out = capsys.readouterr().out
        return json.loads(out) if "--json" in words else out

    return call


@pytest.fixture
def refused(folder, capsys, monkeypatch):
    """Run a command that must fail; its exit code and its one sentence."""
    monkeypatch.chdir(folder)

    def call(*words):
        capsys.readouterr()
        code = main(list(words))
        written = capsys.readouterr()
        assert written.out == ""
        assert written.err.startswith("hullscreen: ")
        assert written.err.count("\n") == 1
        return code, written.err

    return call


def test_fit_reports_errors_and_cost(run, tmp_path):
    out = tmp_path / "new.mtp"
    report = run(
        "fit", "train.xyz", "--level", "4", "--cutoff", "4.5", "--species", "Cu", "Pd",
        "--max-iterations", "10", "--radial-basis-size", "5", "--output", str(out), "--json",
    )  # fmt: skip
    assert set(report) >= ERRORS | {"cpu_seconds", "condition", "loss", "iterations"}
    assert report["structures"] == 30
    assert report["cpu_seconds"] > 0
    # The same seed, the same potential.
    assert out.read_text() == Path("p.mtp").read_text()
    again = run("errors", str(out), "train.xyz", "--json")
    assert set(again) == ERRORS
    # Positions are the same; the parameters were written with 17 digits.
    assert again == pytest.approx({name: report[name] for name in ERRORS}, rel=1e-9)


def test_fit_of_the_same_data_in_the_other_format(run, tmp_path):
    report = run(
        "fit", "train.cfg", "--level", "4", "--cutoff", "4.5", "--max-iterations", "10",
        "--radial-basis-size", "5", "--output", str(tmp_path / "a.mtp"), "--json",
    )  # fmt: skip
    same = run("errors", "p.mtp", "train.cfg", "--json")
    # The same numbers in another order of digits: rounding, enlarged by ten steps.
    assert report["energy_rmse_mev_per_atom"] == pytest.approx(
        same["energy_rmse_mev_per_atom"], rel=1e-3
    )
    assert read_potential(tmp_path / "a.mtp")[0].elements == ("X0", "X1")


def test_fit_finds_elements_and_distances_itself(run, tmp_path):
    run("fit", "train.xyz", "--level", "2", "--max-iterations", "1", "-o", str(tmp_path / "a.mtp"))
    found, _ = read_potential(tmp_path / "a.mtp")
    assert found.elements == ("Cu", "Pd")
    assert found.cutoff == 5.0
    shortest = min(
        np.sort(atoms.repeat(2).get_all_distances(mic=True), axis=1)[:, 1].min()
        for atoms in read("train.xyz", index=":")
    )
    assert found.min_distance == pytest.approx(shortest, abs=1e-6)


def test_fit_goes_on_from_a_potential(run, tmp_path):
    words = ("--max-iterations", "3", "--output", str(tmp_path / "a.mtp"), "--json")
    report = run("fit", "train.xyz", "--start", "p.mtp", *words)
    before = run("errors", "p.mtp", "train.xyz", "--json")
    assert report["energy_rmse_mev_per_atom"] <= 1.05 * before["energy_rmse_mev_per_atom"]
    assert report["parameters"] == read_potential("p.mtp")[0].parameters.size


def test_fit_holds_structures_out(run, tmp_path):
    words = ("--level", "2", "--max-iterations", "2", "--validation-fraction", "0.2")
    out = str(tmp_path / "a.mtp")
    report = run("fit", "train.xyz", *words, "--output", out, "--json")
    assert report["structures"] == 24
    assert report["validation"]["structures"] == 6
    assert set(report["validation"]) == ERRORS | {"structures", "by_group"}
    text = run("fit", "train.xyz", *words, "--output", out)
    assert "fitted: 24 structures" in text
    assert "held out: 6 structures" in text


def test_errors_without_labels_are_null_or_said(run, tmp_path):
    atoms = next(alloys(0))
    atoms.calc = SinglePointCalculator(atoms, energy=atoms.get_potential_energy())
    write(tmp_path / "a.xyz", atoms)
    found = run("errors", "p.mtp", str(tmp_path / "a.xyz"), "--json")
    assert found["force_rmse_mev_per_angstrom"] is None
    assert found["energy_rmse_mev_per_atom"] < 100
    table = run("errors", "p.mtp", str(tmp_path / "a.xyz"))
    assert "no labels" in table
    assert "meV/atom" in table


def test_evaluate_gives_energies_forces_and_stresses(run):
    found = run("evaluate", "p.mtp", "pool.xyz", "--json")
    assert len(found) == 30
    potential, _ = read_potential("p.mtp")
    structures = read_frames("pool.xyz", ("Cu", "Pd")).structures
    result = potential.evaluate(structures)
    assert [set(one) for one in found] == [{"energy", "forces", "stress"}] * 30
    assert [one["energy"] for one in found] == result.energies.tolist()
    assert np.concatenate([one["forces"] for one in found]).tolist() == result.forces.tolist()
    np.testing.assert_array_equal([one["stress"] for one in found], result.stresses)
    # Tension is positive: a stretched cell pulls.
    wide = max(range(30), key=lambda i: structures.volumes[i])
    assert np.trace(found[wide]["stress"]) > 0


def test_evaluate_is_the_same_for_both_formats(run):
    ours, theirs = (run("evaluate", "p.almtp", f"pool.{s}", "--json") for s in ("xyz", "cfg"))
    for one, other in zip(ours, theirs, strict=True):
        assert one["energy"] == pytest.approx(other["energy"], abs=EXTXYZ_ENERGY)
        assert one["grade"] == pytest.approx(other["grade"], rel=1e-3)


def test_grades_come_with_an_active_set(run):
    learnt = run("evaluate", "p.almtp", "train.xyz", "--json")
    # MaxVol leaves no training structure more than a thousandth outside.
    assert max(one["grade"] for one in learnt) < 1.001 + 1e-6
    assert "grade" in run("evaluate", "p.almtp", "train.xyz")


def test_the_table_of_evaluate(run):
    found = run("evaluate", "p.mtp", "pool.xyz", "--json")
    head, *lines = run("evaluate", "p.mtp", "pool.xyz").splitlines()
    for title in ("formula", "energy, eV/atom", "force, eV/Å", "pressure, GPa"):
        assert title in head
    assert max(map(len, [head, *lines])) <= 80
    for i, (line, one) in enumerate(zip(lines, found, strict=True)):
        number, formula, n_atoms, energy, _, pressure, grade = line.split()
        assert (int(number), int(n_atoms), grade) == (i, 4, "–")
        assert formula == ["Cu", "Cu3Pd", "CuPd", "CuPd3", "Pd"][i % 5]
        # As many digits as are printed.
        assert float(energy) == pytest.approx(one["energy"] / 4, abs=6e-6)
        assert float(pressure) == pytest.approx(
            -160.21766208 * np.trace(one["stress"]) / 3, abs=6e-5
        )


@pytest.mark.parametrize("name", ["out.cfg", "out.xyz", "out.xyz.gz"])
def test_evaluate_writes_structures_with_results(name, run, tmp_path):
    out = str(tmp_path / name)
    found = run("evaluate", "p.almtp", "pool.xyz", "--output", out, "--json")
    written = read_frames(out, ("Cu", "Pd"))
    training = written.training_set(out)
    np.testing.assert_allclose(training.energies, [one["energy"] for one in found], atol=1e-7)
    np.testing.assert_allclose(
        training.forces, np.concatenate([one["forces"] for one in found]), atol=1e-7
    )
    np.testing.assert_allclose(training.stresses, [one["stress"] for one in found], atol=1e-7)


@pytest.mark.parametrize("suffix", ["cfg", "xyz"])
def test_relax_reports_outcomes_and_writes_geometries(suffix, run, tmp_path):
    out = str(tmp_path / f"relaxed.{suffix}")
    report = run(
        "relax", "p.mtp", f"pool.{suffix}", "--output", out, "--force-tolerance", "1e-3",
        "--stress-tolerance", "1e-2", "--json",
    )  # fmt: skip
    before = run("evaluate", "p.mtp", f"pool.{suffix}", "--json")
    assert report["structures"] == 30
    assert report["outcomes"] == {"converged": 30}
    assert report["evaluations"] >= 60
    again = run("evaluate", "p.mtp", out, "--json")
    for one in again:
        # Positions with 8 decimals change forces by less than 1e-6 eV/Å.
        assert np.linalg.norm(one["forces"], axis=1).max() < 1e-3 + 1e-6
        assert np.abs(one["stress"]).max() * 160.21766208 < 1e-2 + 1e-4
    changes = [b["energy"] - a["energy"] for a, b in zip(before, again, strict=True)]
    assert report["mean_energy_change_mev_per_atom"] == pytest.approx(
        1e3 * np.mean(changes) / 4, abs=1e3 * EXTXYZ_ENERGY
    )
    volumes = [
        read_frames(name, ("Cu", "Pd")).structures.volumes for name in (f"pool.{suffix}", out)
    ]
    assert report["mean_volume_change_percent"] == pytest.approx(
        100 * np.mean(volumes[1] / volumes[0] - 1), abs=1e-4
    )
    labels = read_frames(out, ("Cu", "Pd")).training_set(out)
    np.testing.assert_allclose(
        labels.energies, [one["energy"] for one in again], atol=EXTXYZ_ENERGY
    )


def test_relax_says_how_each_structure_ended(run, tmp_path):
    frames = list(alloys(0, n_frames=3))
    frames[1].set_cell(frames[1].cell * 0.3, scale_atoms=True)
    frames[2].positions[1] = frames[2].positions[0]
    write(tmp_path / "in.xyz", frames)
    report = run(
        "relax", "p.mtp", str(tmp_path / "in.xyz"), "-o", str(tmp_path / "out.xyz"), "--json"
    )
    assert report["outcomes"] == {"converged": 1, "too_close": 2}
    good, *bad = read(tmp_path / "out.xyz", index=":")
    assert good.info["outcome"] == "converged"
    for atoms in bad:
        assert atoms.info["outcome"] == "too_close"
        assert atoms.calc is None
    text = run("relax", "p.mtp", str(tmp_path / "in.xyz"), "-o", str(tmp_path / "out.xyz"))
    assert "lower --shortest-distance" in text
    assert "mean change of those converged: " in text
    assert "evaluations" in text
    words = ("--max-evaluations", "2", "-o", str(tmp_path / "out.xyz"))
    text = run("relax", "p.mtp", "pool.xyz", *words)
    assert "raise --max-evaluations" in text
    assert "mean change" not in text


def test_relax_stops_where_the_potential_extrapolates(run, tmp_path):
    out = tmp_path / "out.cfg"
    report = run("relax", "p.almtp", "pool.cfg", "-o", str(out), "--break-grade", "1.2", "--json")
    assert report["outcomes"]["extrapolating"] > 0
    for one in read_cfg(out):
        stopped = one.features["outcome"] == ["extrapolating"]
        assert stopped == (float(one.features["MV_grade"][0]) >= 1.2)


def test_select_chooses_what_enlarges_the_set(run, tmp_path):
    out = str(tmp_path / "chosen.xyz")
    report = run("select", "p.mtp", "pool.xyz", "--training", "train.xyz", "-o", out, "--json")
    assert report["candidates"] == 30
    assert report["selected"] == len(report["indices"]) == len(report["grades"]) > 0
    assert report["grades"] == sorted(report["grades"], reverse=True)
    assert report["highest_grade"] == report["grades"][0] > 1.0
    chosen, pool = read(out, index=":"), read("pool.xyz", index=":")
    for atoms, index in zip(chosen, report["indices"], strict=True):
        np.testing.assert_allclose(atoms.positions, pool[index].positions, atol=1e-7)
        assert atoms.get_potential_energy() == pytest.approx(pool[index].get_potential_energy())
    # The active set stored with the potential is the training set's.
    stored = run("select", "p.almtp", "pool.xyz", "-o", out, "--json")
    assert stored["indices"] == report["indices"]
    text = run("select", "p.almtp", "pool.xyz", "-o", out)
    assert f"{report['selected']} of 30" in text
    head, first = text.splitlines()[1:3]
    assert head.split() == ["no.", "formula", "atoms", "grade"]
    assert first.split()[0] == str(report["indices"][0])
    assert first.split()[2] == "4"


def test_select_finds_nothing_new_in_what_was_learnt(run, tmp_path):
    out = tmp_path / "chosen.cfg"
    report = run(
        "select", "p.mtp", "train.cfg", "--training", "train.cfg", "-o", str(out), "--json"
    )
    assert report["selected"] == 0
    assert report["highest_grade"] < 1.001 + 1e-6
    assert report["output"] is None
    assert "was not written" in run(
        "select", "p.mtp", "train.cfg", "--training", "train.cfg", "-o", str(out)
    )
    assert not out.exists()


def test_species_rename_those_of_the_file(run, tmp_path):
    text = Path("p.mtp").read_text().replace("potential_tag = Cu Pd", "potential_tag = ")
    (tmp_path / "a.mtp").write_text(text)
    named = run("evaluate", str(tmp_path / "a.mtp"), "pool.xyz", "--species", "Cu", "Pd", "--json")
    assert named == run("evaluate", "p.mtp", "pool.xyz", "--json")


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["evaluate", "absent.mtp", "pool.xyz"], 2, "cannot read the potential absent.mtp"),
        (["evaluate", "pool.xyz", "pool.xyz"], 2, "is no .mtp file"),
        (["evaluate", "p.mtp", "absent.cfg"], 2, "cannot read absent.cfg"),
        (["evaluate", "p.mtp", "p.mtp"], 2, "or else extended XYZ"),
        (["evaluate", "p.mtp", "pool.xyz", "--species", "Cu"], 2, "has 2 species, but 1 symbols"),
        (["evaluate", "p.mtp", "pool.xyz", "--species", "Cu", "Au"], 2, "holds Pd"),
        (["evaluate", "p.mtp", "pool.xyz", "--species", "X0", "X1"], 2, "needs element symbols"),
        (["evaluate", "p.mtp", "pool.xyz", "--species", "Cu", "Xx"], 2, "'Xx' is not an element"),
        (["evaluate", "p.mtp", "pool.xyz", "-o", "a.cif"], 2, "must end in .cfg, .xyz or .extxyz"),
        (["relax", "p.mtp", "pool.xyz", "-o", "a.cfg.gz"], 2, "must end in .cfg, .xyz or .extxyz"),
        (["select", "p.mtp", "pool.xyz", "-o", "a"], 2, "must end in .cfg, .xyz or .extxyz"),
        (
            ["relax", "p.mtp", "pool.cfg", "-o", "a.xyz", "--species", "X0", "X1"],
            2,
            "are called X0 X1",
        ),
        (["fit", "train.xyz", "-o", "a.pot"], 2, "must end in .mtp or .almtp"),
        (["fit", "train.xyz", "-o", "a.mtp", "--species", "Cu,Pd"], 2, "--species Cu Pd"),
        (["evaluate", "p.mtp"], 2, "Missing argument"),
        (["errors", "p.mtp", "no_energy.cfg"], 2, "structure 0 has no energy"),
        (["fit", "train.xyz", "-o", "a.mtp", "--level", "7"], 2, "even number from 2 to 32, got 7"),
        (["fit", "train.xyz", "-o", "a.mtp", "--cutoff", "1.5"], 2, "give a larger --cutoff"),
        (
            ["fit", "train.xyz", "-o", "a.mtp", "--cutoff", "4", "--min-distance", "5"],
            2,
            "min_distance < cutoff",
        ),
        (
            ["fit", "train.xyz", "-o", "a.mtp", "--start", "p.mtp", "--level", "8"],
            2,
            "leave out --level",
        ),
        (
            ["fit", "train.xyz", "-o", "a.mtp", "--validation-fraction", "0.001"],
            2,
            "none to fit or none to test",
        ),
        (["fit", "train.xyz", "-o", "absent/a.mtp", "--level", "2"], 7, "absent/a.mtp"),
        (["fit", "no_energy.cfg", "-o", "a.mtp"], 2, "has no energy"),
        (["fit", "train.xyz"], 2, "Missing option '--output'"),
        (
            ["relax", "p.mtp", "pool.xyz", "-o", "a.xyz", "--break-grade", "2"],
            2,
            "needs an active set",
        ),
        (["relax", "p.mtp", "pool.xyz", "-o", "absent/a.cfg"], 7, "absent/a.cfg"),
        (["select", "p.mtp", "pool.xyz", "-o", "a.xyz"], 2, "give --training DATA"),
    ],
)
def test_bad_input_brings_one_sentence(words, code, sentence, refused, folder):
    frames = read_cfg(folder / "pool.cfg")[:1]
    write_frames(
        folder / "no_energy.cfg",
        [type(frames[0])(frames[0].cell, frames[0].positions, frames[0].types)],
        (),
    )
    found, text = refused(*words)
    assert sentence in text
    assert found == code
    assert not (folder / "a.mtp").exists()
    assert not (folder / "a.xyz").exists()


def test_sets_of_neighbourhoods_choose_no_structures(refused, folder):
    stored = (folder / "p.almtp").read_bytes()
    ones = (b"energy_weight 1.0", b"site_en_weight 0.0")
    zeros = (b"energy_weight 0.0", b"site_en_weight 1.0")
    for old, new in zip(ones, zeros, strict=True):
        assert old in stored
        stored = stored.replace(old, new)
    (folder / "n.almtp").write_bytes(stored)
    for words in (
        ["relax", "n.almtp", "pool.xyz", "-o", "a.xyz", "--break-grade", "2"],
        ["select", "n.almtp", "pool.xyz", "-o", "a.xyz"],
    ):
        code, text = refused(*words)
        assert code == 2
        assert "neighbourhoods" in text


@pytest.mark.reference
def test_relax_on_stored_cells(capsys, tmp_path):
    folder = os.environ.get("HULLSCREEN_REFERENCE_DATA")
    if not folder:
        pytest.skip("HULLSCREEN_REFERENCE_DATA is not set")
    relax = Path(folder) / "mtp_reference" / "relax"
    words = ["relax", str(relax / "CuAu_EMT_L08.mtp"), str(relax / "relax_in.cfg")]
    words += ["--output", str(tmp_path / "out.cfg"), "--force-tolerance", "1e-4"]
    assert main([*words, "--stress-tolerance", "1e-3", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["outcomes"] == {"converged": 200}
    assert len(read_cfg(tmp_path / "out.cfg")) == 200
