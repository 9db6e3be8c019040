"""query and why: filters, orders, forms of output, and what they refuse."""

import csv
import io
import json
import re

import pytest

from hullscreen.launch.commands import query as query_command
from hullscreen.launch.query_output import show
from hullscreen.potentials.relaxation import Outcome
from hullscreen.workflows.job_states import STATES
from hullscreen.workflows.structure_filters import KEPT, REASONS
from hullscreen.workflows.structure_rows import FIELDS, JOB_STATE, SORTABLE


@pytest.fixture(scope="module")
def directory(small_campaign):
    return small_campaign.directory


@pytest.fixture
def found(call, directory):
    """Function: structures that `hullscreen query` finds, all of them."""

    def ask(*words):
        code, out, err = call("query", directory, "--limit", 0, "--json", *words)
        assert (code, err) == (0, "")
        document = json.loads(out)
        assert document["total"] == len(document["structures"])
        return document["structures"]

    return ask


def test_the_choices_are_those_that_there_are():
    assert set(query_command.REASONS) == {KEPT, *REASONS}
    assert query_command.JOB_STATES == STATES
    assert set(query_command.OUTCOMES) == {outcome.name.lower() for outcome in Outcome}


@pytest.mark.parametrize(
    ("words", "matches"),
    [
        (["--chemsys", "Pd-Cu"], lambda s: s["chemsys"] == "Cu-Pd"),
        (["--chemsys", "Cu"], lambda s: s["chemsys"] == "Cu"),
        (["--nelements", 1], lambda s: s["nelements"] == 1),
        (["--nelements", 2, "--chemsys", "Cu-Pd"], lambda s: s["nelements"] == 2),
        (["--space-group", "P6_3/mmc"], lambda s: s["space_group_number"] == 194),
        (["--space-group", "P63/mmc"], lambda s: s["space_group_number"] == 194),
        (["--space-group", 194], lambda s: s["space_group_number"] == 194),
        (["--prototype", "fcc-2-2-01"], lambda s: s["prototype"] == "fcc-2-2-01"),
        (["--prototype", "hcp-"], lambda s: s["prototype"].startswith("hcp-")),
        (["--outcome", "converged"], lambda s: s["outcome"] == "converged"),
        (["--min-grade", 4], lambda s: s["highest_grade"] >= 4),
        (["--max-grade", 1], lambda s: s["highest_grade"] <= 1),
        (["--min-grade", 1, "--max-grade", 3], lambda s: 1 <= s["highest_grade"] <= 3),
        (["--min-energy-above-hull", 0.03], lambda s: s["energy_above_hull"] >= 0.03),
        (
            ["--min-energy-above-hull", 0.001, "--max-energy-above-hull", 0.02],
            lambda s: 0.001 <= s["energy_above_hull"] <= 0.02,
        ),
        (["--dropped", "kept"], lambda s: s["dropped"] is None),
        (["--dropped", "height"], lambda s: "too far" in (s["dropped"] or {}).get("reason", "")),
        (["--dropped", "twin"], lambda s: "same_as" in (s["dropped"] or {})),
        (["--job-state", "done", "--stage", "final"], lambda s: s["stage"] == "final"),
        (["--formula", "CuPd", "--stage", "1"], lambda s: (s["formula_pretty"], s["stage"]) ==
         ("CuPd", "screen 1")),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) else "",
)  # fmt: skip
def test_filters_find_what_matches_and_all_of_it(found, words, matches):
    everything = found()
    expected = {s["structure_index"] for s in everything if matches(s)}
    assert {s["structure_index"] for s in found(*words)} == expected
    assert 0 < len(expected) < len(everything) or words[0] == "--outcome"


def value_of(row, field):
    """What a structure is sorted by."""
    if field == "dropped":
        return (row["dropped"] or {}).get("reason")
    if field == "stage":
        return ["screen 1", "screen 2", "final"].index(row["stage"])
    if field == "is_stable" and row["space_group"] is None:
        return None
    return row[field]


@pytest.mark.parametrize("field", SORTABLE)
def test_orders(found, field):
    rising = found("--sort", field)
    falling = found("--sort", f"-{field}")
    for rows, falls in ((rising, False), (falling, True)):
        values = [value_of(row, field) for row in rows]
        known = [value for value in values if value is not None]
        assert values[: len(known)] == known, "what has no value comes last"
        assert known == sorted(known, reverse=falls)
    assert {s["structure_index"] for s in rising} == {s["structure_index"] for s in falling}


def test_a_limit_takes_the_first(found, call, directory):
    wanted = [s["structure_index"] for s in found("--sort", "-highest_grade")]
    for limit in (1, 9, 15):
        _, out, _ = call("query", directory, "--sort", "-highest_grade", "--limit", limit, "--json")
        document = json.loads(out)
        assert document["total"] == len(wanted)
        assert [s["structure_index"] for s in document["structures"]] == wanted[:limit]


def test_fields_and_forms(found, call, directory):
    names = ["formula_pretty", "composition", "job_state", "dropped", "structure_index"]
    rows = found("--fields", ",".join(names))
    assert [list(row) for row in rows] == [names] * len(rows)
    code, out, err = call("query", directory, "--csv", "--fields", ",".join(names), "--limit", 0)
    assert (code, err) == (0, "")
    lines = list(csv.DictReader(io.StringIO(out)))
    assert [json.loads(line["composition"]) for line in lines] == [r["composition"] for r in rows]
    assert [line["dropped"] for line in lines] == [row["dropped"] or "" for row in rows]
    _, out, _ = call("query", directory, "--csv")
    assert set(next(csv.reader(io.StringIO(out)))) < set(FIELDS)
    _, out, _ = call("query", directory, "--table", "--fields", "formula_pretty, density")
    assert "density" in out.splitlines()[1]


def test_a_table_shows_what_it_is_sorted_by(found, call, directory):
    first = found("--sort", "-highest_grade")[0]
    _, out, _ = call("query", directory, "--sort", "-highest_grade", "--limit", 1)
    assert "highest_grade" in out
    assert f"{first['highest_grade']:.6g}" in out
    _, out, _ = call("query", directory, "--sort", "energy_above_hull", "--limit", 1)
    assert "energy_above_hull" not in out, "the table has it anyway"


def test_numbers_in_tables_can_be_typed(capsys, found):
    row = {**found()[0], "structure_index": 12345}
    show([row], 1, None)
    show([row], 1, ["structure_index"])
    assert capsys.readouterr().out.count("12345") == 2


def test_help_names_every_field_and_reason(call):
    _, out, _ = call("query", "--help")
    assert {*FIELDS, JOB_STATE, *REASONS} <= set(out.split())


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--sort", "densty"], "no order by 'densty'; the nearest known one is 'density'"),
        (["--sort", "-composition"], "no order by 'composition'"),
        (["--fields", "formula,volum"], "no field 'formula'; the nearest known one is"),
        (["--fields", ""], "no field ''"),
        (["--csv", "--json"], "exclude one another"),
        (["--formula", "Cu1e999"], "no chemical formula"),
        (["--chemsys", "Cu-Au"], "no chemical system of this campaign; expected some of Cu, Pd"),
        (["--chemsys", ""], "no chemical system"),
        (["--space-group", "231"], "no space group; expected a number from 1 to 230"),
        (["--space-group", "Fm3m"], "the nearest known one is 'Fm-3m'"),
        (["--space-group", "9" * 400], "no space group"),
        (["--prototype", "fcc\0"], "names hold no null character"),
        (["--dropped", "nowhere"], "is not one of"),
        (["--number", "-1"], "not in the range"),
        (["--number", 2**70], "not in the range"),
    ],
)
def test_what_cannot_be_asked_is_told_in_a_sentence(call, directory, words, sentence):
    code, out, err = call("query", directory, *words)
    assert (code, out) == (2, "")
    assert sentence in err
    assert "Traceback" not in err


@pytest.mark.parametrize("text", [".*", "(", "$where", "\n", "[a-z", "^", "fcc-2$", "é"])
def test_a_part_of_a_name_is_no_pattern(found, text):
    assert found("--prototype", text) == []


def test_a_strange_name_stays_in_its_cell(call, copied_campaign, mongo, directory, tmp_path):
    name = '=1+1,"<script>\n\x1b[31m'
    mongo.database.structures.update_one({"index": 3}, {"$set": {"prototype": name}})
    text = (directory / "hullscreen.toml").read_text()
    (tmp_path / "hullscreen.toml").write_text(
        re.sub(r'(?m)^name = "test_.*"', f'name = "{mongo.name}"', text)
    )
    _, out, _ = call("query", tmp_path, "--number", 3, "--csv", "--fields", "prototype")
    assert list(csv.reader(io.StringIO(out))) == [
        ["prototype"],
        [f"'{name}".replace("\x1b", "\ufffd")],
    ]
    for words in (["query", "--number", 3], ["why", 3]):
        code, out, err = call(words[0], tmp_path, *words[1:])
        assert (code, err) == (0, "")
        assert "\x1b" not in out


def test_an_older_database_is_to_be_migrated_first(
    call, copied_campaign, mongo, directory, tmp_path
):
    text = (directory / "hullscreen.toml").read_text()
    (tmp_path / "hullscreen.toml").write_text(
        re.sub(r'(?m)^name = "test_.*"', f'name = "{mongo.name}"', text)
    )
    mongo.database["schema"].update_one({}, {"$set": {"version": 1}})
    mongo.database.structures.update_many(
        {}, {"$unset": {"chemsys": "", "is_stable": "", "energy_from": "", "energy_above_hull": ""}}
    )
    for words in (["query", tmp_path], ["why", tmp_path, 3]):
        code, _, err = call(*words)
        assert code != 0
        assert f"run `hullscreen db migrate {tmp_path}`" in err
    code, out, _ = call("db", "migrate", tmp_path)
    assert code == 0
    assert "structures say where the hull is" in out
    _, out, _ = call("query", tmp_path, "--chemsys", "Cu-Pd", "--stable", "--json")
    assert json.loads(out)["total"] == 3
    _, out, _ = call("db", "migrate", tmp_path)
    assert out == "the schema is up to date; nothing was changed\n"


# why


def test_why(call, directory, found):
    dropped = found("--dropped", "height", "--sort", "energy_above_hull")[0]
    code, out, err = call("why", directory, dropped["structure_index"])
    assert (code, err) == (0, "")
    assert "left it behind in round" in out
    assert "There it competed with" in out
    assert "Relaxations with a potential" in out
    _, out, _ = call("why", directory, dropped["structure_index"], "--json")
    told = json.loads(out)
    assert told["dropped"]["energy_above_hull"] == dropped["energy_above_hull"]


def test_why_of_nothing(call, directory):
    code, out, err = call("why", directory, 10**6)
    assert (code, out) == (2, "")
    assert "expected a structure of campaign 'cu-pd', numbers 0 to 22, got 1000000" in err
