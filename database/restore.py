"""A dumped campaign into a database, beside whatever that holds.

FireWorks numbers its Fireworks from 1 in each database, so those of the dump get new numbers here.
A document of the collection ``restores`` says under which: a restore that was killed goes on with
them, and until it is complete nobody else can begin a campaign of this name.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from pymongo import InsertOne, WriteConcern
from pymongo.database import Database

from hullscreen.database.campaign_parts import CAMPAIGNS, FIREWORKS, LAUNCHES, WORKFLOWS
from hullscreen.database.chemical_systems import add_missing_fields
from hullscreen.database.collections import DUPLICATE_KEY, Collections, bulk_write, parts_of
from hullscreen.database.connection import Connection, reconnecting
from hullscreen.database.documents import now
from hullscreen.database.dump import Progress
from hullscreen.database.dump_files import Dump
from hullscreen.database.indexes import INDEXES
from hullscreen.database.renumbering import Shift
from hullscreen.database.schema import ensure_schema
from hullscreen.potentials.errors import CampaignError

RESTORES = "restores"
WRITE_AT_ONCE = 500

Document = dict[str, Any]


def restore_campaign(connection: Connection, dump: Dump, *, progress: Progress) -> None:
    """Write a dump into a database; killed at any time, it is completed when called again.

    Raises
    ------
    CampaignError
        The database holds a campaign of this name.
    DatabaseError
        The database has another schema and must be migrated first.
    FileFormatError
        The dump is damaged.
    """
    ensure_schema(connection)
    database = connection.database.with_options(write_concern=WriteConcern(w="majority", j=True))
    marks = database[RESTORES]
    mark = reconnecting(connection, lambda: marks.find_one({"_id": dump.name}))
    campaign = reconnecting(connection, lambda: database[CAMPAIGNS].find_one({"name": dump.name}))
    if campaign is not None and mark is None:
        raise CampaignError(
            f"the database {connection.name!r} holds a campaign {dump.name!r} already: restore "
            "into another database ([database] name), or remove that campaign first (`hullscreen "
            "db remove-campaign`)"
        )
    _restore_documents(connection, database, dump, progress)
    reconnecting(connection, lambda: marks.delete_one({"_id": dump.name}))


def _restore_documents(
    connection: Connection, database: Database[Document], dump: Dump, progress: Progress
) -> None:
    shift = _shift(connection, database, dump)
    changes: dict[str, Callable[[Document], Document]] = {
        FIREWORKS: shift.firework,
        LAUNCHES: shift.launch_of,
        WORKFLOWS: shift.workflow,
    }
    Collections(connection, dump.name).ensure_indexes()
    total = sum(map(dump.size, dump.collections()))
    read = 0
    for collection in dump.collections():
        _make_indexes(connection, database, dump, collection)
        change = changes.get(collection, lambda document: document)
        begun = read

        def tell(n_bytes: int, begun: int = begun) -> None:
            progress("kB of the dump restored", (begun + n_bytes) // 1000, total // 1000)

        for part in parts_of(map(change, dump.documents(collection, tell)), WRITE_AT_ONCE):
            _write(connection, database, collection, part)
        read += dump.size(collection)
    # Of a dump that an earlier version has made.
    add_missing_fields(connection, dump.name)


def refuse_half_restored(connection: Connection, name: str) -> None:
    """Refuse to begin a campaign whose documents are just being restored.

    Raises
    ------
    CampaignError
        A restore of this name was begun and is not complete.
    """
    found = reconnecting(connection, lambda: connection.database[RESTORES].find_one({"_id": name}))
    if found is not None:
        raise CampaignError(
            f"campaign {name!r} is being restored, or a restore of it was interrupted: run "
            "`hullscreen db restore` again, or `hullscreen db remove-campaign` to give it up"
        )


def _shift(connection: Connection, database: Database[Document], dump: Dump) -> Shift:
    """New numbers, the same ones each time that this dump is restored."""
    marks = database[RESTORES]
    mark = reconnecting(connection, lambda: marks.find_one({"_id": dump.name}))
    identity = dump.identity
    if mark is None:
        fw, launch = _reserve(connection, database, dump)
        mark = {"_id": dump.name, "dump": identity, "fw": fw, "launch": launch, "begun_at": now()}
        _write(connection, database, RESTORES, [mark])
        mark = reconnecting(connection, lambda: marks.find_one({"_id": dump.name})) or mark
    if mark["dump"] != identity:
        raise CampaignError(
            f"another dump of a campaign {dump.name!r} was partly restored into the database "
            f"{connection.name!r}: restore that one, or give it up with `hullscreen db "
            "remove-campaign`"
        )
    return Shift(mark["fw"], mark["launch"])


def _reserve(connection: Connection, database: Database[Document], dump: Dump) -> tuple[int, int]:
    """Take as many numbers as the dump has from FireWorks' counters; what is to be added."""
    first = {"next_fw_id": 1, "next_launch_id": 1}
    wanted = {
        "next_fw_id": max((d["fw_id"] for d in dump.documents(FIREWORKS)), default=0),
        "next_launch_id": max((d["launch_id"] for d in dump.documents(LAUNCHES)), default=0),
    }
    counters = database["fw_id_assigner"]
    reconnecting(connection, lambda: counters.update_one({}, {"$setOnInsert": first}, upsert=True))
    # Where an answer is lost, numbers are reserved twice, and some are just not used.
    before = reconnecting(connection, lambda: counters.find_one_and_update({}, {"$inc": wanted}))
    found = before or first
    return found["next_fw_id"] - 1, found["next_launch_id"] - 1


def _make_indexes(
    connection: Connection, database: Database[Document], dump: Dump, collection: str
) -> None:
    """Indexes of FireWorks' collections that are not there; ours are this program's."""
    if collection in INDEXES:
        return
    there = reconnecting(connection, database[collection].index_information)
    keys = {tuple(index["key"]) for index in there.values()}
    for index in dump.indexes(collection):
        key = [(field, int(direction)) for field, direction in index["key"].items()]
        if tuple(key) not in keys:
            # As they were, or FireWorks could not ask for them again.
            options = {name: index[name] for name in index if name not in ("v", "key", "ns")}
            reconnecting(connection, partial(database[collection].create_index, key, **options))


def _write(
    connection: Connection, database: Database[Document], collection: str, part: list[Document]
) -> None:
    """Insert documents; those that are there, from before or by somebody else, stay."""
    inserts = [InsertOne(document) for document in part]
    reconnecting(connection, lambda: bulk_write(database[collection], inserts, {DUPLICATE_KEY}))
