"""`hullscreen init` makes a directory that can be run, and refuses what cannot."""

import pytest

from hullscreen.launch.command_line import main
from hullscreen.launch.settings import FILE_NAME, load


def test_a_binary(tmp_path, capsys):
    directory = tmp_path / "a" / "cu-pd"
    assert main(["init", str(directory), "--elements", "Cu", "Pd"]) == 0
    settings = load(directory)
    assert settings.campaign.name == "cu-pd"
    assert settings.campaign.elements == ("Cu", "Pd")
    assert settings.prototypes.max_atoms == 8
    assert "max_atoms = 8\n" in (directory / FILE_NAME).read_text()
    assert (directory / "my_launchpad.yaml").exists()
    said = capsys.readouterr().out
    assert f"Next: hullscreen run {directory}" in said
    assert f"hullscreen forecast {directory}" in said


def test_choices(tmp_path):
    directory = tmp_path / "a b!"
    words = ["--lattices", "fcc", "9R", "--max-atoms", "5", "--db", "mongodb://host"]
    words += ["--aflow-max-atoms", "4"]
    assert main(["init", str(directory), "--elements", "Cu", "Ni", "Pt", *words]) == 0
    settings = load(directory)
    assert settings.campaign.name == "a-b-"
    assert settings.prototypes.lattices == ("fcc", "9R")
    assert settings.prototypes.max_atoms == 5
    assert settings.prototypes.aflow_max_atoms == 4
    assert settings.database.uri == "mongodb://host"


@pytest.mark.parametrize("preset", [None, "debian-pbe"])
def test_an_engine_and_its_preset(preset, tmp_path, capsys):
    directory = tmp_path / "cu-ni"
    words = ["--engine", "quantum_espresso", *(["--preset", preset] if preset else [])]
    assert main(["init", str(directory), "--elements", "Cu", "Ni", *words]) == 0
    dft = load(directory).dft
    assert dft.engine == "quantum_espresso"
    assert dft.quantum_espresso.preset == (preset or "debian-lda")
    # The pool is that of any campaign of two elements.
    assert load(directory).prototypes.max_atoms == 8
    capsys.readouterr()


def test_an_engine_that_lacks_something_says_what(tmp_path, capsys):
    directory = tmp_path / "cu-ni"
    words = ["--engine", "quantum_espresso", "--preset", "pseudo-dojo-pbe"]
    assert main(["init", str(directory), "--elements", "Cu", "Ni", *words]) == 0
    said = capsys.readouterr().out
    assert f"First complete [dft] in {directory / FILE_NAME}: " in said
    assert "pseudopotentials" in said


def test_nothing_is_overwritten(tmp_path, capsys):
    (tmp_path / FILE_NAME).write_text("mine")
    assert main(["init", str(tmp_path), "--elements", "Cu", "Pd"]) == 2
    assert (tmp_path / FILE_NAME).read_text() == "mine"
    assert "exists already and is not overwritten" in capsys.readouterr().err


def test_an_element_that_the_default_engine_does_not_know(tmp_path, capsys):
    assert main(["init", str(tmp_path / "x"), "--elements", "Ti", "Cu"]) == 0
    said = capsys.readouterr().out
    assert "First choose another engine under [dft]" in said
    assert "Ti" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--elements", "Cu", "Xy"], '"Xy" is no element symbol'),
        (["--elements", "Cu"], "expected two to four elements"),
        (["--elements", "Cu", "Pd", "--lattices", "fc"], "did you mean fcc?"),
        (["--elements", "Cu", "Pd", "--max-atoms", "99"], "max_atoms is 99"),
        (["--elements", "Cu", "Pd", "--db", "host"], "[database] uri"),
        (
            ["--elements", "Cu", "Pd", "--engine", "qe"],
            "there is no DFT engine 'qe'; did you mean quantum_espresso?",
        ),
        (["--elements", "Cu", "Pd", "--preset", "debian-lda"], "name it with --engine"),
        (
            ["--elements", "Cu", "Pd", "--engine", "quantum_espresso", "--preset", "debian"],
            "has no preset 'debian'; its presets: debian-lda,",
        ),
    ],
)
def test_wrong_words_leave_nothing_behind(words, said, tmp_path, capsys):
    directory = tmp_path / "new"
    assert main(["init", str(directory), *words]) == 2
    written = capsys.readouterr().err
    assert said in written
    assert written.count("\n") == 1
    assert not directory.exists()


def test_a_file_in_the_way(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert main(["init", str(tmp_path / "file" / "x"), "--elements", "Cu", "Pd"]) == 7
    assert "is no directory" in capsys.readouterr().err
