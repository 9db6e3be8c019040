"""Commands that read, on documents that no campaign writes: one sentence, and nothing written."""

import json
import math
import re
from datetime import datetime

import pytest
from bson.datetime_ms import DatetimeMS

from hullscreen.database.schema import check_schema, require_current
from hullscreen.launch.command_line import main
from hullscreen.potentials.errors import DatabaseError

BEYOND_THE_YEARS = DatetimeMS(-(2**62))
# Collection, what is damaged in all of its documents, and a command that needs it.
DAMAGES = [
    ("dft_results", {"geometry": 3}, "hull"),
    ("dft_results", {"geometry.cell": b"\0" * 7}, "export"),
    ("dft_results", {"numbers": []}, "labels"),
    ("dft_results", {"created_at": "soon"}, "query"),
    ("structures", {"final.state": "\x1b[31mlost"}, "hull"),
    ("structures", {"last_updated": BEYOND_THE_YEARS, "nsites": BEYOND_THE_YEARS}, "query"),
    ("structures", {"relaxed.highest_grade": {"a": 1}}, "logs"),
    ("campaigns", {"settings": {}}, "report"),
    ("fireworks", {"launches": datetime(1, 1, 1)}, "status"),  # noqa: DTZ001
]


@pytest.fixture
def directory(small_campaign, copied_campaign, mongo, tmp_path):
    """A campaign's directory, of which the database may be damaged."""
    text = (small_campaign.directory / "hullscreen.toml").read_text()
    named = re.sub(r'(?m)^name = "test_.*"', f'name = "{mongo.name}"', text)
    (tmp_path / "hullscreen.toml").write_text(named)
    assert copied_campaign.find_campaign() is not None
    return tmp_path


@pytest.mark.parametrize(
    ("collection", "damage", "command"),
    DAMAGES,
    ids=[f"{collection}-{'-'.join(damage)}-{command}" for collection, damage, command in DAMAGES],
)
def test_a_sentence_says_that_documents_are_damaged(
    directory, mongo, capsys, collection, damage, command
):
    mongo.database[collection].update_many({}, {"$set": damage})
    output = directory / "entries.json"
    words = {"export": ["--format", "entries", "--output", str(output)], "logs": ["1"]}
    code = main([command, str(directory), *words.get(command, [])])
    error = capsys.readouterr().err
    assert code == 5
    assert error.startswith("hullscreen: ")
    assert error.count("\n") == 1
    assert "restore it from a dump" in error
    assert "\x1b" not in error
    assert not output.exists()


@pytest.mark.parametrize(
    ("command", "collection", "field"),
    [
        ("report", "potentials", "loss"),
        ("query", "structures", "relaxed.energy_per_atom"),
    ],
)
def test_a_number_that_is_none_is_null_in_json(
    directory, mongo, capsys, command, collection, field
):
    mongo.database[collection].update_many({field: {"$exists": True}}, {"$set": {field: math.nan}})
    assert main([command, str(directory), "--json"]) == 0
    out = capsys.readouterr().out
    assert json.loads(out, parse_constant=pytest.fail)
    assert f'"{field.rpartition(".")[2]}": null' in out


@pytest.mark.parametrize("version", [None, "2", [2], float("nan"), True, -1])
def test_a_database_that_does_not_say_its_version_is_refused(mongo, version):
    mongo.database["schema"].insert_one({"_id": "schema", "version": version})
    for check in (check_schema, require_current):
        with pytest.raises(DatabaseError, match="does not say which version"):
            check(mongo)
    mongo.database["schema"].update_one({}, {"$unset": {"version": ""}})
    with pytest.raises(DatabaseError, match="does not say which version"):
        check_schema(mongo)
