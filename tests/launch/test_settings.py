"""Reading hullscreen.toml: defaults, relations, and a sentence for everything that is wrong."""

import dataclasses
import tomllib
from pathlib import Path

import pytest

from hullscreen.dft_adapters.espresso_settings import EspressoSettings, settings_from_table
from hullscreen.launch.settings import FILE_NAME, from_tables, load, with_database_uri
from hullscreen.potentials.errors import SettingsError
from hullscreen.workflows.settings_tree import MAX_ATOMS, QuantumEspresso

GOOD = {"campaign": {"elements": ["Cu", "Pd"]}}


def complaint(tables):
    with pytest.raises(SettingsError) as caught:
        from_tables({**GOOD, **tables})
    sentence = str(caught.value)
    assert "\n" not in sentence
    return sentence.removeprefix(f"{FILE_NAME}: ")


def write(directory, text):
    (directory / FILE_NAME).write_text(text, encoding="utf-8")
    return directory


def test_defaults():
    settings = from_tables(GOOD)
    assert settings.campaign.elements == ("Cu", "Pd")
    assert settings.prototypes.lattices == ("fcc", "bcc", "hcp")
    assert settings.dft.engine_table() == {
        "engine": "ase",
        "calculator": "ase.calculators.emt:EMT",
        "arguments": {},
    }
    assert settings.potential.level_second == 12


@pytest.mark.parametrize("elements", [["Cu", "Pd"], ["Cu", "Ni", "Pt"], ["Al", "Cu", "Ni", "Pt"]])
def test_max_atoms_follows_the_number_of_elements(elements):
    tables = {"campaign": {"elements": elements}}
    assert from_tables(tables).prototypes.max_atoms == MAX_ATOMS[len(elements)]
    tables["prototypes"] = {"max_atoms": 3}
    assert from_tables(tables).prototypes.max_atoms == 3


def test_quantum_espresso_has_every_key_of_its_adapter():
    ours = {field.name for field in dataclasses.fields(QuantumEspresso)}
    assert ours == {"preset", *(field.name for field in dataclasses.fields(EspressoSettings))}


def test_quantum_espresso_defaults_are_those_of_its_adapter():
    table = from_tables({**GOOD, "dft": {"engine": "quantum_espresso"}}).dft.engine_table()
    assert table.pop("engine") == "quantum_espresso"
    assert settings_from_table(table) == settings_from_table({"preset": "debian-lda"})


def test_quantum_espresso_keys_reach_its_adapter():
    given = {"command": "mpirun -np 4 pw.x", "cutoff_ry": 50, "spin": False, "timeout_s": 60}
    tables = {**GOOD, "dft": {"engine": "quantum_espresso", "quantum_espresso": given}}
    table = from_tables(tables).dft.engine_table()
    assert table.pop("engine") == "quantum_espresso"
    made = settings_from_table(table)
    assert made.command == ("mpirun", "-np", "4", "pw.x")
    assert (made.cutoff_ry, made.spin, made.timeout_s) == (50.0, False, 60.0)
    assert made.density_cutoff_ry == 240.0


def test_settings_cannot_be_changed():
    settings = from_tables(GOOD)
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.campaign = None


def test_whole_numbers_may_stand_for_fractions():
    assert from_tables({**GOOD, "potential": {"cutoff_angstrom": 6}}).potential.cutoff_angstrom == 6


@pytest.mark.parametrize(
    ("tables", "sentence"),
    [
        ({"lerning": {}}, "[lerning] is no table of the settings; did you mean [learning]?"),
        (
            {"learning": {"select_grad": 3.0}},
            "[learning] has no key select_grad; did you mean select_grade?",
        ),
        (
            {"learning": {"max_atoms": 3}},
            "[learning] has no key max_atoms; it belongs into [prototypes]",
        ),
        (
            {"max_atoms": 3},
            "max_atoms stands outside every table; move it below the line [prototypes]",
        ),
        (
            {"dft": {"quantum_espresso": {"comand": "pw.x"}}},
            "[dft.quantum_espresso] has no key comand; did you mean command?",
        ),
        (
            {"launch": {"xyz": 1}},
            (
                "[launch] has no key xyz; known are account, dft, dft_workers, environment, "
                "heartbeat_s, idle_s, parallel_environment, partition, queue, relax, setup, train, "
                "workers"
            ),
        ),
        ({"launch": 1}, "[launch] is 1, expected a table of keys"),
        (
            {"campaign": {}},
            '[campaign] elements is missing; add it, such as elements = ["Cu", "Pd"]',
        ),
        ({"campaign": {"elements": "Cu"}}, '[campaign] elements is "Cu", expected a list'),
        ({"campaign": {"elements": ["Cu", 3]}}, "[campaign] elements is 3, expected a string"),
        (
            {"campaign": {"elements": ["Cu", "copper"]}},
            '[campaign] elements: "copper" is no element symbol; did you mean "Cu"?',
        ),
        (
            {"campaign": {"elements": ["Cu"]}},
            "[campaign] elements: expected two to four elements, such as Cu Pd, but 1 came: Cu",
        ),
        (
            {"campaign": {"elements": ["Cu", "Cu"]}},
            "[campaign] elements: Cu is named twice; name each element once",
        ),
        (
            {"potential": {"level_first": "8"}},
            '[potential] level_first is "8", expected an integer',
        ),
        (
            {"potential": {"level_first": 8.0}},
            "[potential] level_first is 8.0, expected an integer",
        ),
        (
            {"potential": {"level_first": True}},
            "[potential] level_first is true, expected an integer",
        ),
        (
            {"potential": {"level_first": 7}},
            "[potential] level_first is 7, expected a multiple of 2",
        ),
        (
            {"potential": {"cutoff_angstrom": True}},
            "[potential] cutoff_angstrom is true, expected a number",
        ),
        (
            {"learning": {"select_grade": float("nan")}},
            "[learning] select_grade is nan, expected a finite number",
        ),
        (
            {"learning": {"select_grade": 1.0}},
            "[learning] select_grade is 1.0, expected greater than 1",
        ),
        ({"prototypes": {"aflow": 1}}, "[prototypes] aflow is 1, expected a boolean"),
        ({"prototypes": {"lattices": []}}, "[prototypes] lattices is [], expected at least one"),
        (
            {"dft": {"engine": "quantumespresso"}},
            (
                "[dft] engine is \"quantumespresso\", expected 'ase', 'quantum_espresso' or "
                "'vasp'; did you mean 'quantum_espresso'?"
            ),
        ),
        (
            {"learning": {"select_grade": 10.0}},
            "[learning]: break_grade is 10 and select_grade 10; expected break_grade to be larger",
        ),
        (
            {"potential": {"level_first": 18}},
            (
                "[potential]: level_second is 12 and level_first 18; expected level_second to be "
                "at least level_first"
            ),
        ),
        (
            {"potential": {"cutoff_angstrom": 5, "min_distance_angstrom": 5}},
            (
                "[potential]: cutoff_angstrom is 5 and min_distance_angstrom 5; expected the "
                "cutoff to be larger"
            ),
        ),
        (
            {"dft": {"quantum_espresso": {"cutoff_ry": 50, "density_cutoff_ry": 100}}},
            (
                "[dft.quantum_espresso]: density_cutoff_ry is 100 and cutoff_ry 50; expected the "
                "density's to be at least four times as large"
            ),
        ),
        (
            {"database": {"uri": "mongodb://a", "uri_file": "b"}},
            "[database]: uri and uri_file are both given; expected one of them",
        ),
    ],
)
def test_one_sentence_for_each_mistake(tables, sentence):
    assert complaint(tables) == sentence


@pytest.mark.parametrize(
    "tables",
    [
        {"database": {"uri": "localhost"}},
        {"database": {"name": "two words"}},
        {"campaign": {"name": "two words", "elements": ["Cu", "Pd"]}},
        {"dft": {"calculator": "emt"}},
    ],
)
def test_a_wrong_form_is_described(tables):
    assert ", expected: " in complaint(tables)


@pytest.mark.parametrize(
    "uri",
    [
        "http://me:secret@host",
        "http://me:s/secret@host",
        "me:secret@host",
        "mongodb:/a:secret@host",
    ],
)
def test_no_password_in_a_complaint(uri):
    said = complaint({"database": {"uri": uri}})
    assert "secret" not in said
    assert "host" in said


def test_an_address_in_place_of_a_file_with_it_is_not_shown():
    said = complaint({"database": {"uri_file": "mongodb://me:secret@host"}})
    assert "expected the name of a file" in said
    assert "secret" not in said


def test_unknown_keys_are_reported_before_wrong_values():
    assert "sed" in complaint({"campaign": {"elements": [], "sed": 1}})


def test_no_file(tmp_path):
    with pytest.raises(SettingsError, match=r"does not exist; `hullscreen init"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("[campaign]\nelements = [Cu]\n", "line 2"),
        (
            '[campaign]\nelements = ["Cu", "Pd"]\n\n[learning]\nfirst_wave = 1\nselect = 3\n',
            "line 6",
        ),
        (
            '[campaign]\nelements = ["Cu", "Pd"]\n[learning]\nselect_grade = 3\nbreak_grade = 2\n',
            "line 3",
        ),
        ('[campaign]\nelements = ["Cu", "Pd"]\n\n[ lerning ]\n', "line 4"),
    ],
)
def test_mistakes_in_a_file_have_a_line(text, place, tmp_path):
    with pytest.raises(SettingsError) as caught:
        load(write(tmp_path, text))
    assert place in str(caught.value)
    assert str(tmp_path / FILE_NAME) in str(caught.value)


def test_other_encodings_are_refused_with_the_line(tmp_path):
    (tmp_path / FILE_NAME).write_bytes("[campaign]\n# Größe\n".encode("latin-1"))
    with pytest.raises(SettingsError, match="line 2: expected UTF-8"):
        load(tmp_path)


def test_a_good_file(tmp_path):
    text = '[campaign]\nname = "x"\nelements = ["Ni", "Al"]\n[dft]\narguments = {a = [1, 2]}\n'
    settings = load(write(tmp_path, text))
    assert settings == from_tables(tomllib.loads(text))
    # The user's order is kept: species are indices into it.
    assert settings.campaign.elements == ("Ni", "Al")
    assert settings.dft.arguments == {"a": [1, 2]}


def test_another_database():
    settings = from_tables({**GOOD, "database": {"uri_file": "secret.txt"}})
    assert with_database_uri(settings, None) is settings
    changed = with_database_uri(settings, "mongodb://host")
    assert changed.database.uri == "mongodb://host"
    assert changed.database.uri_file == ""
    assert changed.potential == settings.potential
    with pytest.raises(SettingsError, match="--db"):
        with_database_uri(settings, "host")


def test_folders_of_engines_are_counted_from_the_campaign(tmp_path, monkeypatch):
    write(
        tmp_path,
        '[campaign]\nelements = ["Cu", "Pd"]\n[dft.quantum_espresso]\npseudopotentials = "pp"\n'
        '[dft.vasp]\npotcar_directory = "../psp"\n',
    )
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    dft = load(tmp_path).dft
    assert dft.quantum_espresso.pseudopotentials == str(tmp_path / "pp")
    assert dft.vasp.potcar_directory == str(tmp_path / "../psp")
    write(
        tmp_path,
        '[campaign]\nelements = ["Cu", "Pd"]\n[dft.quantum_espresso]\n'
        'pseudopotentials = "~/pp"\n[dft.vasp]\npotcar_directory = "/psp"\n',
    )
    dft = load(tmp_path).dft
    assert dft.quantum_espresso.pseudopotentials == str(Path.home() / "pp")
    assert dft.vasp.potcar_directory == "/psp"
    # Nothing given stays the preset's.
    write(tmp_path, '[campaign]\nelements = ["Cu", "Pd"]\n[dft.quantum_espresso]\n')
    assert load(tmp_path).dft.quantum_espresso.pseudopotentials == ""
