import os
import signal
import subprocess
import time
import traceback
import uuid
from datetime import UTC, datetime, timedelta, timezone

import pytest
from pymongo import MongoClient
from pymongo.errors import (
    AutoReconnect,
    CursorNotFound,
    DuplicateKeyError,
    NetworkTimeout,
    NotPrimaryError,
    OperationFailure,
    ServerSelectionTimeoutError,
)

from hullscreen.database.addresses import URI_VARIABLE
from hullscreen.database.connection import connect, open_database, reconnecting
from hullscreen.database.embedded_server import status
from hullscreen.database.mongod import find_mongod, server_command
from hullscreen.database.private_socket import server_answers
from hullscreen.potentials.errors import DatabaseError, InputError

DEAD = "mongodb://ann:s3cret@127.0.0.1:1/?authSource=admin"


@pytest.fixture(autouse=True)
def no_variable(monkeypatch):
    monkeypatch.delenv(URI_VARIABLE, raising=False)


def test_writes_are_journalled_by_a_majority(mongo):
    assert mongo.database.write_concern.document == {"w": "majority", "j": True}
    assert mongo.database["numbers"].insert_one({"_id": 1}).acknowledged


def test_options_of_the_uri_do_not_weaken_writes(mongo):
    database = connect(f"{mongo.uri}&w=0&journal=false", mongo.name)
    try:
        assert database.write_concern.document == {"w": "majority", "j": True}
    finally:
        database.client.close()


def test_dates_come_back_as_utc(mongo):
    # MongoDB stores milliseconds.
    written = datetime(2024, 5, 6, 7, 8, 9, 123000, tzinfo=timezone(timedelta(hours=5)))
    mongo.database["dates"].insert_one({"last_updated": written, "key": uuid.UUID(int=7)})
    read = mongo.database["dates"].find_one()
    assert read["last_updated"] == written
    assert read["last_updated"].tzinfo is UTC or read["last_updated"].utcoffset() == timedelta(0)
    assert read["key"] == uuid.UUID(int=7)


def test_dead_server_is_one_sentence_without_the_password(tmp_path):
    started = time.monotonic()
    with (
        pytest.raises(DatabaseError, match=r"No MongoDB server answers at 127.0.0.1:1:") as caught,
        open_database(tmp_path, uri=DEAD, timeout_s=0.5),
    ):
        pass
    # Half a second was given; the rest is for a loaded machine.
    assert time.monotonic() - started < 10.0
    assert "\n" not in str(caught.value)
    assert "s3cret" not in "".join(traceback.format_exception(caught.value))
    assert list(tmp_path.iterdir()) == [], "no embedded server is started beside a given one"


@pytest.mark.parametrize(
    "uri",
    [
        "http://host",
        "mongodb://ann:s3cret@host:port",
        "mongodb://ann:s3cret@",
        "mongodb://ann:s3/cret@host/",
        "mongodb://ann:s3cret:x@host",
        "mongodb://ann:s3cret@host/?w=lots&unknown==",
        "mongodb://ann:s3cret@host/?tls=perhaps",
        "mongodb://ann:s3cret%zz@host",
        "mongodb://ann:s3 cret@host/?x=y",
        "ann:s3cret@host:27017",
        "mongodb:/ann:s3cret@host",
    ],
)
def test_malformed_uri_is_one_sentence_without_the_password(uri):
    with pytest.raises(InputError, match="no usable MongoDB URI") as caught:
        connect(uri, "test", timeout_s=0.2).client.close()
    assert "s3" not in "".join(traceback.format_exception_only(caught.value))
    assert "\n" not in str(caught.value)


def test_connection_does_not_show_its_uri(tmp_path, mongo):
    assert mongo.uri not in repr(mongo)
    assert mongo.embedded


@pytest.fixture(scope="module")
def server_with_login(tmp_path_factory):
    """A mongod of a user's own that asks for a login; yields its socket's URI part."""
    folder = tmp_path_factory.mktemp("login")
    (folder / "data").mkdir()
    socket = folder / "s.sock"
    command = server_command(find_mongod(), folder / "data", socket, folder / "log", cache_gb=0.25)
    with subprocess.Popen([*command, "--auth"], stdout=subprocess.DEVNULL) as process:
        while not server_answers(socket):
            assert process.poll() is None
            time.sleep(0.02)
        host = str(socket).replace("/", "%2F")
        # The first user may be made without a login, from this host.
        with MongoClient(f"mongodb://{host}/") as client:
            client["admin"].command("createUser", "ann", pwd="s3cret", roles=["root"])  # noqa: S106
        yield host
        process.send_signal(signal.SIGTERM)


def test_login_is_accepted(server_with_login):
    database = connect(f"mongodb://ann:s3cret@{server_with_login}/?authSource=admin", "test")
    try:
        assert database.list_collection_names() == []
    finally:
        database.client.close()


@pytest.mark.parametrize(
    ("login", "way_out"),
    [
        ("ann:wr0ng@", "check user, password and authSource"),
        ("bob:s3cret@", "check user, password and authSource"),
        ("", "it asks for a user, a password and perhaps authSource, and the URI has none"),
    ],
)
def test_refused_login_is_one_sentence_without_the_password(server_with_login, login, way_out):
    with pytest.raises(DatabaseError, match=rf"s\.sock refused the login: {way_out}") as caught:
        connect(f"mongodb://{login}{server_with_login}/", "test", timeout_s=5.0)
    shown = "".join(traceback.format_exception(caught.value))
    assert "wr0ng" not in shown
    assert "s3cret" not in shown
    assert "\n" not in str(caught.value)


def failing(*errors):
    """Operation that fails with each error in turn and then returns the number of calls."""
    waiting = list(errors)

    def operation():
        if waiting:
            raise waiting.pop(0)
        return len(errors) + 1

    return operation


def test_operation_is_repeated_while_the_server_is_away(mongo):
    errors = (
        AutoReconnect("gone"),
        NetworkTimeout("slow"),
        NotPrimaryError("another one"),
        ServerSelectionTimeoutError("none"),
        CursorNotFound("restarted"),
    )
    assert reconnecting(mongo, failing(*errors)) == len(errors) + 1


def test_patience_ends_with_a_sentence(mongo):
    def operation():
        raise AutoReconnect("gone")

    with pytest.raises(DatabaseError, match="No MongoDB server answers at /"):
        reconnecting(mongo, operation, patience_s=0.3)


def test_refusals_are_not_repeated(mongo):
    with pytest.raises(DuplicateKeyError):
        reconnecting(mongo, failing(DuplicateKeyError("twice", 11000)))
    with pytest.raises(OperationFailure, match="odd"):
        reconnecting(mongo, failing(OperationFailure("odd", 2)))
    with pytest.raises(DatabaseError, match="is full: free space"):
        reconnecting(mongo, failing(OperationFailure("OutOfDiskSpace", 14031)))
    with pytest.raises(DatabaseError, match="is full: free space"):
        reconnecting(mongo, failing(OperationFailure("28: No space left on device", 8)))


def test_embedded_server_is_brought_back_during_an_operation(tmp_path):
    with open_database(tmp_path) as connection:
        numbers = connection.database["numbers"]
        reconnecting(connection, lambda: numbers.replace_one({"_id": 1}, {"a": 1}, upsert=True))
        found = status(tmp_path)
        os.kill(found.keeper_pid, signal.SIGKILL)
        os.kill(found.mongod_pid, signal.SIGKILL)
        assert reconnecting(connection, lambda: numbers.count_documents({})) == 1
        assert status(tmp_path).mongod_pid != found.mongod_pid


def test_databases_of_one_project_are_apart(tmp_path):
    for name in ("one", "two"):
        with open_database(tmp_path, name=name) as connection:
            assert connection.name == name
            assert connection.database["numbers"].count_documents({}) == 0
            connection.database["numbers"].insert_one({"name": name})
