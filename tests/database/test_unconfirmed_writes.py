"""Writes that a majority of a replica set has not confirmed: a primary may step down with them."""

import subprocess
import time

import pytest
from pymongo import InsertOne, UpdateOne

from hullscreen.database.collections import Collections, bulk_write
from hullscreen.database.connection import Connection, connect, reconnecting
from hullscreen.database.mongod import find_mongod, server_command
from hullscreen.database.private_socket import server_answers
from hullscreen.potentials.errors import DatabaseError

# Not 189, PrimarySteppedDown, after which the driver would first look for another primary.
UNCONFIRMED = {"code": 64, "codeName": "WriteConcernFailed", "errmsg": "nobody answers"}


@pytest.fixture(scope="module")
def connection(tmp_path_factory):
    """To a server that can be told how to fail."""
    folder = tmp_path_factory.mktemp("failing")
    (folder / "data").mkdir()
    socket = folder / "s.sock"
    command = server_command(find_mongod(), folder / "data", socket, folder / "log", cache_gb=0.25)
    command += ["--setParameter", "enableTestCommands=1"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        while not server_answers(socket):
            assert process.poll() is None
            time.sleep(0.02)
        uri = f"mongodb://{str(socket).replace('/', '%2F')}/"
        database = connect(uri, "test")
        yield Connection(database, uri, "test", embedded=False)
        database.client.close()
        process.terminate()


@pytest.fixture
def unconfirmed(connection):
    """Function that lets the next commands of a name be carried out, but not confirmed."""
    admin = connection.database.client.admin

    def fail(command, times):
        data = {"failCommands": [command], "writeConcernError": UNCONFIRMED}
        admin.command({"configureFailPoint": "failCommand", "mode": times, "data": data})

    yield fail
    admin.command({"configureFailPoint": "failCommand", "mode": "off"})


@pytest.fixture
def calls(connection, monkeypatch):
    """Bulk writes that were made."""
    made = []
    kind = type(connection.database["structures"])
    original = kind.bulk_write
    monkeypatch.setattr(
        kind, "bulk_write", lambda *given, **named: made.append(1) or original(*given, **named)
    )
    return made


def test_many_writes_are_repeated_until_they_are_confirmed(connection, unconfirmed, calls):
    store = Collections(connection, "tiny")
    unconfirmed("insert", {"times": 2})
    store._bulk("structures", [InsertOne({"_id": n}) for n in range(3)])
    assert len(calls) == 3
    assert connection.database["structures"].count_documents({}) == 3


def test_a_change_is_repeated_until_it_is_confirmed(connection, unconfirmed):
    store = Collections(connection, "tiny")
    connection.database["campaigns"].insert_one({"_id": 1, "name": "tiny"})
    unconfirmed("update", {"times": 2})
    store._update("campaigns", {"name": "tiny"}, {"$set": {"finished": True}})
    assert connection.database["campaigns"].find_one()["finished"]


def test_what_is_never_confirmed_is_told_in_a_sentence(connection, unconfirmed):
    unconfirmed("update", "alwaysOn")
    change = [UpdateOne({"_id": 1}, {"$set": {"a": 1}}, upsert=True)]
    numbers = connection.database["numbers"]
    with pytest.raises(DatabaseError, match="do not confirm what is written: check"):
        reconnecting(connection, lambda: bulk_write(numbers, change, set()), patience_s=0.1)
