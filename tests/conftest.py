import uuid

import pytest

from hullscreen.database.connection import Connection, connect
from hullscreen.database.embedded_server import acquire, stop


@pytest.fixture(scope="session")
def mongo_server(tmp_path_factory):
    """One embedded server for all tests that only need a database."""
    project = tmp_path_factory.mktemp("mongo")
    with acquire(project, cache_gb=0.25) as server:
        yield server
    stop(project)


@pytest.fixture
def mongo(mongo_server):
    """Connection to a database of the test's own, removed afterwards."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    database = connect(mongo_server.uri, name)
    try:
        yield Connection(database, mongo_server.uri, name, embedded=True, server=mongo_server)
        database.client.drop_database(name)
    finally:
        database.client.close()
