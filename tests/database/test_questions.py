"""The twenty questions of the page: both answers are the same, and an index serves each."""

import json
import re
import shutil

import pymongo
import pytest
from pymongo import monitoring

from hullscreen.database import structures_of
from hullscreen.database.collections import Collections
from hullscreen.database.connection import Connection
from hullscreen.launch.command_line import main
from hullscreen.potentials.errors import InputError


class Asked(monitoring.CommandListener):
    """Commands that read structures, of every client that is made later."""

    def __init__(self):
        self.commands = []
        self.listens = False

    def started(self, event):
        name = event.command_name
        reads = name in {"find", "aggregate", "count", "distinct"}
        if self.listens and reads and event.command[name] == "structures":
            self.commands.append(
                {
                    key: value
                    for key, value in event.command.items()
                    if not key.startswith("$") and key not in {"lsid", "batchSize"}
                }
            )

    def succeeded(self, event):
        pass

    def failed(self, event):
        pass


@pytest.fixture(scope="module")
def asked():
    # pymongo has no way to take it back; it hears nothing unless it listens.
    listener = Asked()
    monitoring.register(listener)
    return listener


@pytest.fixture(scope="module")
def folder(small_campaign, tmp_path_factory):
    """Folder with ``cu-pd``, a finished campaign to which happened what seldom happens.

    A relaxation without an end, a DFT relaxation that failed.
    """
    source = small_campaign.connection
    name = f"{source.name}_asked"
    parent = tmp_path_factory.mktemp("asked")
    (parent / "cu-pd").mkdir()
    text = (small_campaign.directory / "hullscreen.toml").read_text()
    (parent / "cu-pd" / "hullscreen.toml").write_text(text.replace(source.name, name))
    with pymongo.MongoClient(source.uri, tz_aware=True) as client:
        database = client[name]
        for collection in source.database.list_collection_names():
            if documents := list(source.database[collection].find()):
                database[collection].insert_many(documents)
        Collections(Connection(database, source.uri, name, embedded=True), "").ensure_indexes()
        structures = database["structures"]
        unconverged = {
            "stage": 1, "round": 3, "outcome": "volume_limit",
            "reason": "its relaxation ended without convergence",
        }  # fmt: skip
        structures.update_one(
            {"index": 22}, {"$set": {"relaxed.outcome": "volume_limit", "dropped": unconverged}}
        )
        failed = {"state": "failed", "key": "none", "reason": "no end of the SCF cycle"}
        structures.update_one(
            {"index": 0}, {"$set": {"stage": 3, "final": failed}, "$unset": {"dropped": ""}}
        )
        yield parent
        client.drop_database(name)
    shutil.rmtree(parent)


def numbers_of(command, capsys):
    """Structures that a command of the page finds, in its order."""
    assert main([*command, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    rows = document.get("structures", [document])
    return [row["structure_index"] for row in rows]


def test_the_page_has_twenty_questions(questions):
    assert len({question.title for question in questions}) == 20


@pytest.mark.parametrize("number", range(1, 21))
def test_a_command_and_plain_pymongo_answer_alike(questions, folder, monkeypatch, capsys, number):
    question = questions[number - 1]
    monkeypatch.chdir(folder)
    by_command = numbers_of(question.command, capsys)
    with structures_of("cu-pd") as structures:
        by_pymongo = [document["index"] for document in question.plainly(structures)]
    assert by_command
    if "--sort" in question.command:
        assert by_command == by_pymongo
    else:
        assert sorted(by_command) == sorted(by_pymongo)


@pytest.mark.parametrize("number", range(1, 21))
def test_an_index_serves_both(questions, folder, monkeypatch, capsys, asked, number):
    question = questions[number - 1]
    monkeypatch.chdir(folder)
    asked.commands = []
    asked.listens = True
    numbers_of(question.command, capsys)
    with structures_of("cu-pd") as structures:
        list(question.plainly(structures))
        asked.listens = False
        assert len(asked.commands) >= 2
        for command in asked.commands:
            explained = {**command, "cursor": {}} if "aggregate" in command else command
            plan = structures.database.command({"explain": explained, "verbosity": "queryPlanner"})
            stages = set(re.findall(r"'stage': '(\w+)'", str(plan)))
            assert "COLLSCAN" not in stages
            assert stages & {"IXSCAN", "COUNT_SCAN", "EOF"}


def test_what_no_index_serves_is_seen(folder):
    with structures_of(folder / "cu-pd") as structures:
        plan = str(structures.find({"nsites": 2}).explain()["queryPlanner"])
    assert "COLLSCAN" in plan


def test_plain_access_needs_a_campaign(tmp_path):
    for prepare, sentence in (
        (lambda: None, "expected the directory of a campaign"),
        (lambda: (tmp_path / "hullscreen.toml").write_text("["), "expected the directory"),
        (lambda: (tmp_path / "hullscreen.toml").write_text("database = 3"), "should hold texts"),
        (lambda: (tmp_path / "hullscreen.toml").write_text(""), "has no database yet"),
    ):
        prepare()
        with pytest.raises(InputError, match=sentence), structures_of(tmp_path):
            pass
    assert not (tmp_path / "database").exists()
    with pytest.raises(InputError, match="expected the directory"), structures_of("cu\0pd"):
        pass
