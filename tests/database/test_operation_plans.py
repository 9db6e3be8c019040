"""What `status` and the others ask of a large LaunchPad comes from indexes alone."""

from datetime import UTC, datetime, timedelta

import pytest
from pymongo import MongoClient, monitoring

from hullscreen.database.connection import Connection
from hullscreen.workflows.campaign_status import campaign_status
from hullscreen.workflows.structure_jobs import jobs_of_structure

N = 2000
# What may be read as a whole: failures to be grouped, the steps whose times count, a few others.
READ_MOST = {"fireworks": 1200, "launches": 1200}


class Reads(monitoring.CommandListener):
    """Every command that reads."""

    def __init__(self):
        self.commands = []

    def started(self, event):
        if event.command_name in {"find", "aggregate", "count"}:
            self.commands.append(
                {
                    key: value
                    for key, value in event.command.items()
                    if key not in {"lsid", "txnNumber"} and not key.startswith("$")
                }
            )

    def succeeded(self, event):
        pass

    def failed(self, event):
        pass


@pytest.fixture
def reads(mongo, make_campaign, launchpad):
    """A campaign with 2,000 steps of each state, and what it takes to say how it is."""
    now = datetime.now(UTC)
    make_campaign().store.set_campaign(created_at=now - timedelta(days=1))
    fireworks, launches = [], []
    for number, state in enumerate(("READY", "COMPLETED", "FIZZLED")):
        for i in range(number * N, (number + 1) * N):
            end = now - timedelta(seconds=i)
            task = {"_fw_name": "{{x.LabelTask}}", "round": i // 48, "first": i, "last": i + 1}
            spec = {
                "campaign": "tiny", "_category": "dft", "round": i // 48, "_tasks": [task],
            }  # fmt: skip
            fireworks.append(
                {
                    "fw_id": i, "name": "step", "state": state, "launches": [i], "spec": spec,
                    "updated_on": end.isoformat(),
                }
            )  # fmt: skip
            launches.append(
                {"launch_id": i, "time_start": end.isoformat(), "time_end": end.isoformat()}
            )
    mongo.database.fireworks.insert_many(fireworks)
    mongo.database.launches.insert_many(launches)
    mongo.database.selected.insert_many(
        {"campaign": "tiny", "round": i // 48, "number": i, "purpose": "learn",
         "structure_index": i, "key": str(i)}
        for i in range(N)
    )  # fmt: skip
    listener = Reads()
    with MongoClient(mongo.uri, event_listeners=[listener], tz_aware=True) as client:
        connection = Connection(client[mongo.name], mongo.uri, mongo.name, embedded=True)
        store = make_campaign(connection=connection).store
        listener.commands.clear()
        status = campaign_status(store, connection)
        assert status["steps"]["dft"]["done"] == N
        assert status["steps"]["dft"]["per_hour"] > 0
        (job,) = jobs_of_structure(store, 7)
        assert job.fw_id == 7
    return listener.commands


def executed(database, command):
    """Totals of documents and keys that a command reads."""
    explained = {**command, "cursor": {}} if "aggregate" in command else command
    answer = database.command({"explain": explained, "verbosity": "executionStats"})
    found = answer.get("executionStats") or answer["stages"][0]["$cursor"]["executionStats"]
    return found["totalDocsExamined"], found["totalKeysExamined"]


def test_steps_are_counted_without_being_read(mongo, reads):
    seen = {"fireworks": 0, "launches": 0}
    for command in reads:
        collection = next(iter(command.values()))
        if collection in seen:
            documents, _ = executed(mongo.database, command)
            if "aggregate" in command:
                assert documents == 0, command
            seen[collection] += documents
    assert 0 < seen["fireworks"] <= READ_MOST["fireworks"]
    assert 0 < seen["launches"] <= READ_MOST["launches"]
