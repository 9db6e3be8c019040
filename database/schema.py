"""The version of what a database holds, and the way from older versions to this one.

The document ``{_id: "schema", version, hullscreen}`` of the collection ``schema`` comes before the
first campaign. A database with campaigns and without it was written before there were versions: 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from pymongo import ASCENDING, WriteConcern
from pymongo.database import Database
from pymongo.errors import DuplicateKeyError, OperationFailure

from hullscreen.database.chemical_systems import add_missing_fields
from hullscreen.database.collections import Collections
from hullscreen.database.connection import Connection, reconnecting
from hullscreen.database.documents import SCHEMA_VERSION, now
from hullscreen.database.indexes import INDEXES, PARTIAL
from hullscreen.potentials.errors import DatabaseError

COLLECTION = "schema"
KEY = {"_id": "schema"}
# Along the index of the names.
ANY_CAMPAIGN = {"name": {"$gte": ""}}
# The server's codes for an index or a collection that is gone already.
GONE_CODES = {26, 27}


def stored_version(connection: Connection) -> int | None:
    """Version of the schema of a database; None if it holds no campaign yet."""
    document = _read(connection, COLLECTION, KEY)
    if document is None and _read(connection, "campaigns", ANY_CAMPAIGN) is not None:
        # Both may just have been written, the version first.
        document = _read(connection, COLLECTION, KEY) or {"version": 0}
    return None if document is None else _version(connection, document)


def check_schema(connection: Connection) -> None:
    """Refuse a database that a newer program has written; nothing is written.

    Raises
    ------
    DatabaseError
        Its schema is newer, or is not told.
    """
    document = _read(connection, COLLECTION, KEY)
    if document is not None and _version(connection, document) > SCHEMA_VERSION:
        raise DatabaseError(
            f"the database {connection.name!r} was written by hullscreen "
            f"{document.get('hullscreen', 'of another version')} "
            f"(schema {document['version']}), and this one knows schemas up to {SCHEMA_VERSION}: "
            "update hullscreen; nothing was changed"
        )


def _version(connection: Connection, document: Mapping[str, Any]) -> int:
    version = document.get("version")
    if type(version) is not int or version < 0:
        raise DatabaseError(
            f"the collection {COLLECTION!r} of the database {connection.name!r} does not say which "
            "version of hullscreen wrote it: restore the database from a dump"
        )
    return version


def ensure_schema(connection: Connection) -> None:
    """Write the version into a database without campaigns; refuse one of another version.

    Raises
    ------
    DatabaseError
        Its schema is newer, or older and must be migrated first.
    """
    check_schema(connection)
    found = stored_version(connection)
    if found is None:
        _set_version(connection, None, SCHEMA_VERSION)
    require_current(connection)


def require_current(connection: Connection) -> None:
    """Refuse a database whose documents lack what this program asks for.

    Raises
    ------
    DatabaseError
        Its schema is older and must be migrated first.
    """
    found = stored_version(connection)
    if found is not None and found < SCHEMA_VERSION:
        where = connection.directory
        directory = "`, with the campaign's directory" if where is None else f" {where}`"
        raise DatabaseError(
            f"the database {connection.name!r} has schema {found}, and this hullscreen needs "
            f"{SCHEMA_VERSION}: run `hullscreen db migrate{directory}; results stay as they are"
        )


def migrate(connection: Connection) -> Iterator[str]:
    """Bring a database to this program's schema, one version after another.

    Killed at any time, it goes on when it is called again; called twice at once, it does no harm.

    Yields
    ------
    A sentence about each migration that was carried out.

    Raises
    ------
    DatabaseError
        The schema is newer than this program.
    """
    check_schema(connection)
    found = stored_version(connection)
    if found is None:
        ensure_schema(connection)
        return
    for number in range(found + 1, SCHEMA_VERSION + 1):
        done = MIGRATIONS[number](connection)
        _set_version(connection, number - 1, number)
        yield f"schema {number}: {done}"


def campaign_names(connection: Connection) -> list[str]:
    """Names of the campaigns of a database, in alphabetical order."""
    campaigns = connection.database["campaigns"]
    found = reconnecting(
        connection, lambda: list(campaigns.find(ANY_CAMPAIGN, {"name": 1}).sort("name", ASCENDING))
    )
    return [campaign["name"] for campaign in found]


def program_version() -> str:
    """Version of the installed hullscreen."""
    try:
        return version("hullscreen")
    except PackageNotFoundError:
        return "from a source tree"


def _without_old_indexes(connection: Connection) -> str:
    """Remove indexes of our collections that no query uses any more, and make those that are new.

    Indexes with a name of their own were made by somebody, and stay.
    """
    n_dropped = 0
    database = _durable(connection)
    for collection, indexes in INDEXES.items():
        wanted = {tuple((name, ASCENDING) for name in fields): unique for fields, unique in indexes}
        found = reconnecting(connection, database[collection].index_information)
        for name, index in found.items():
            keys = tuple(index["key"])
            generated = name == "_".join(f"{field}_{direction}" for field, direction in keys)
            partial = PARTIAL.get(tuple(field for field, _ in keys))
            keep = wanted.get(keys) == index.get("unique", False)
            keep = keep and index.get("partialFilterExpression") == partial
            if name != "_id_" and generated and not keep:
                reconnecting(connection, _dropping(database, collection, name))
                n_dropped += 1
    Collections(connection, "").ensure_indexes()
    return f"{n_dropped} indexes that nothing uses any more were removed"


def _dropping(
    database: Database[dict[str, Any]], collection: str, index: str
) -> Callable[[], None]:
    def drop() -> None:
        try:
            database[collection].drop_index(index)
        except OperationFailure as error:
            if error.code not in GONE_CODES:
                raise

    return drop


def _with_fields_to_ask_for(connection: Connection) -> str:
    """Give structures the fields of schema 2, as far as their documents tell them."""
    _without_old_indexes(connection)
    n_changed = sum(add_missing_fields(connection, name) for name in campaign_names(connection))
    return f"{n_changed:,} structures can be found by chemical system and height above the hull"


MIGRATIONS: dict[int, Callable[[Connection], str]] = {
    1: _without_old_indexes,
    2: _with_fields_to_ask_for,
}
"""What leads to each version from the one before; every one may be repeated, also in part."""


def _read(connection: Connection, collection: str, query: dict[str, Any]) -> dict[str, Any] | None:
    return reconnecting(connection, lambda: connection.database[collection].find_one(query))


def _set_version(connection: Connection, before: int | None, after: int) -> None:
    """Write a version, if nobody else has meanwhile."""
    values = {"version": after, "hullscreen": program_version(), "last_updated": now()}
    schema = _durable(connection)[COLLECTION]

    def write() -> None:
        if before:
            schema.update_one({**KEY, "version": before}, {"$set": values})
        else:
            schema.update_one(KEY, {"$setOnInsert": values}, upsert=True)

    try:
        reconnecting(connection, write)
    except DuplicateKeyError:
        # Another process was quicker.
        return


def _durable(connection: Connection) -> Database[dict[str, Any]]:
    return connection.database.with_options(write_concern=WriteConcern(w="majority", j=True))
