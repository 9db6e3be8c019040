"""``fit`` and ``errors``: starts, what is held out, and errors by group."""

import json

import numpy as np
import pytest
from ase.io import read, write

from hullscreen.launch.command_line import main
from hullscreen.launch.commands.errors import describe_groups
from hullscreen.launch.formulas import reduced_formula
from hullscreen.potentials.data_files import read_potential
from hullscreen.potentials.example_data import copper_gold

SMALL = ("--level", "4", "--cutoff", "4.5", "--radial-basis-size", "4")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """grouped.xyz, whose frames say what they are, and plain.xyz, whose frames do not."""
    folder = tmp_path_factory.mktemp("fit")
    frames = copper_gold(20)
    write(folder / "plain.xyz", frames)
    for i, atoms in enumerate(frames):
        atoms.info["config_type"] = "warm" if i % 4 else "cold"
    write(folder / "grouped.xyz", frames)
    return folder


@pytest.fixture
def run(folder, capsys, monkeypatch):
    """Run a command in the folder; what it wrote to stdout, read if it is JSON, and to stderr."""
    monkeypatch.chdir(folder)

    def call(*words):
        capsys.readouterr()
        assert main(list(words)) == 0, capsys.readouterr().err
        written = capsys.readouterr()
        return (json.loads(written.out) if "--json" in words else written.out), written.err

    return call


def test_errors_by_group_of_both_parts(run, tmp_path):
    out = str(tmp_path / "a.mtp")
    words = ("fit", "grouped.xyz", *SMALL, "--max-iterations", "5", "--validation-fraction", "0.3")
    report, _ = run(*words, "-o", out, "--json")
    parts = (report["by_group"], report["validation"]["by_group"])
    assert [sum(one["structures"] for one in part.values()) for part in parts] == [14, 6]
    for part in parts:
        assert set(part) <= {"cold", "warm"}
    # A root mean square over all structures is that of its groups.
    squares = [
        one["structures"] * one["energy_rmse_mev_per_atom"] ** 2 for one in parts[0].values()
    ]
    assert np.sqrt(sum(squares) / 14) == pytest.approx(report["energy_rmse_mev_per_atom"])
    text, _ = run(*words, "-o", out)
    table = text[text.index("RMSE by group") :].splitlines()
    assert {line.split()[0] for line in table[1:]} == {"cold", "warm"}
    assert table[0].count("count meV/atom") == 2
    assert "fitted: 14 structures" in text
    assert "held out: 6 structures" in text


def test_errors_by_group_of_a_potential(run, tmp_path):
    out = str(tmp_path / "a.mtp")
    run("fit", "plain.xyz", *SMALL, "--max-iterations", "3", "-o", out)
    plain, _ = run("errors", out, "plain.xyz", "--by-group", "--json")
    # Without labels formulas stand for groups, the elements in the potential's order.
    assert set(plain["by_group"]) == {"Au", "Cu", "AuCu", "Au3Cu", "AuCu3"}
    grouped, _ = run("errors", out, "grouped.xyz", "--by-group", "--json")
    assert {name: one["structures"] for name, one in grouped["by_group"].items()} == {
        "cold": 5,
        "warm": 15,
    }
    # Files with and without labels hold the same cells.
    assert grouped["energy_rmse_mev_per_atom"] == pytest.approx(plain["energy_rmse_mev_per_atom"])
    assert "by_group" not in run("errors", out, "grouped.xyz", "--json")[0]
    text, _ = run("errors", out, "grouped.xyz", "--by-group")
    assert text.splitlines()[-1].split()[:2] == ["warm", "15"]


def test_groups_that_only_one_part_has():
    numbers = {
        "energy_rmse_mev_per_atom": 1.0,
        "force_rmse_mev_per_angstrom": 2.0,
        "stress_rmse_gpa": None,
    }
    table = describe_groups({"fitted": {"a": {"structures": 3, **numbers}}, "held out": {}})
    assert table.splitlines()[-1].split() == ["a", "3", "1", "2", "–", "–", "–", "–", "–"]
    assert table.splitlines()[0].split() == ["fitted", "held", "out"]


@pytest.mark.parametrize("name", ["an energy {}" + "x" * 60, "{}"])
def test_a_table_of_groups_is_narrow_and_short(name):
    groups = {
        name.format(i): {
            "structures": 10_000,
            "energy_rmse_mev_per_atom": 1e6 - i,
            "force_rmse_mev_per_angstrom": 123456.7,
            "stress_rmse_gpa": 0.012345,
        }
        for i in range(20)
    }
    lines = describe_groups({"fitted": groups, "held out": groups}).splitlines()
    assert max(map(len, lines)) <= 80
    # Two of titles, a dozen groups, and what is not shown.
    assert len(lines) == 15
    assert lines[-1].startswith("and 8 more groups")
    for line in lines[2:-1]:
        shown = line.split()[-8:]
        assert shown[:4] == shown[4:]
        assert shown[0] == "10000"
    if name == "{}":
        assert [line.split()[0] for line in lines[2:-1]] == [str(i) for i in range(12)]


def test_formulas_without_symbols_can_be_read():
    assert reduced_formula([0, 1, 1, 1], ("X0", "X1")) == "X0(X1)3"
    assert reduced_formula([0, 0, 1, 1, 1, 1], ("Cu", "Au")) == "CuAu2"


def test_more_starts_are_no_worse_and_the_seed_decides(run, tmp_path):
    words = ("fit", "plain.xyz", *SMALL, "--max-iterations", "20", "--json", "-o")
    one, _ = run(*words, str(tmp_path / "one.mtp"), "--starts", "1")
    many, _ = run(*words, str(tmp_path / "many.mtp"), "--starts", "5")
    run(*words, str(tmp_path / "again.mtp"), "--starts", "5")
    run(*words, str(tmp_path / "other.mtp"), "--starts", "5", "--seed", "100")
    texts = [(tmp_path / f"{name}.mtp").read_text() for name in ("many", "again", "other")]
    assert texts[0] == texts[1] != texts[2]
    # Both come to rest within a per cent, in the same minimum or a better one.
    assert many["loss"] < 1.05 * one["loss"]


def test_a_larger_ridge_makes_smaller_coefficients_and_is_bounded(run, tmp_path):
    norms = []
    for ridge in ("1e-10", "0.1"):
        out = tmp_path / f"{ridge}.mtp"
        words = ("--max-iterations", "3", "--starts", "1", "--ridge", ridge, "-o", str(out))
        run("fit", "plain.xyz", *SMALL, *words)
        norms.append(np.abs(read_potential(out)[0].shifts).sum())
    assert norms[1] < norms[0]
    assert main(["fit", "plain.xyz", "--ridge", "-1", "-o", str(tmp_path / "a.mtp")]) == 2


def test_progress_tells_the_most_steps(run, tmp_path):
    words = ("--max-iterations", "2", "--starts", "1", "-o", str(tmp_path / "a.mtp"))
    _, told = run("fit", "plain.xyz", *SMALL, *words)
    assert "steps of the fit: 2 of 2" in told
    assert "random starts" not in told


def test_starts_and_steps_are_told(run, tmp_path):
    out = str(tmp_path / "a.mtp")
    words = ("fit", "plain.xyz", *SMALL, "--max-iterations", "1", "--starts", "5", "-o", out)
    text, told = run(*words)
    # Five, then the better two of them.
    assert "random starts tried: 7 of 7" in told
    assert text.startswith("the best of 5 random starts, 1 step, ")
    report, _ = run(*words, "--json")
    assert (report["starts"], report["iterations"]) == (5, 1)
    text, _ = run("fit", "plain.xyz", "--start", out, "--max-iterations", "2", "-o", out)
    assert text.startswith("one start, ")


def test_an_interrupted_fit_writes_nothing(run, capsys, monkeypatch, tmp_path):
    def interrupted(*_arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("hullscreen.potentials.fit.errors", interrupted)
    words = ["fit", "plain.xyz", *SMALL, "--max-iterations", "1", "--starts", "1"]
    assert main([*words, "-o", str(tmp_path / "a.mtp")]) == 130
    assert capsys.readouterr().err.endswith("interrupted; nothing was written\n")
    assert list(tmp_path.iterdir()) == []


def test_a_start_is_one_start(folder, run, capsys, tmp_path):
    out = str(tmp_path / "a.mtp")
    run("fit", "plain.xyz", *SMALL, "--max-iterations", "1", "-o", out)
    capsys.readouterr()
    assert main(["fit", "plain.xyz", "--start", out, "--starts", "2", "-o", out]) == 2
    assert "leave out --level" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda frames: frames[3].positions.__setitem__(1, frames[3].positions[0]), "structure 3"),
        (lambda frames: frames[3].calc.results.update(energy=np.nan), "structure 3"),
    ],
)
def test_bad_training_data_is_named(change, sentence, run, folder, capsys, tmp_path):
    frames = read(folder / "plain.xyz", index=":")
    change(frames)
    write(tmp_path / "bad.xyz", frames)
    capsys.readouterr()
    words = ["fit", str(tmp_path / "bad.xyz"), *SMALL, "-o", str(tmp_path / "a.mtp")]
    assert main(words) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1
    assert not (tmp_path / "a.mtp").exists()
