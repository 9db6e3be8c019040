"""Removing a campaign from a database that others use: its documents, never DFT results."""

from __future__ import annotations

from functools import partial

from pymongo import WriteConcern

from hullscreen.database.campaign_parts import (
    CAMPAIGNS,
    own_parts,
    parts_of_workers,
    refuse_at_work,
)
from hullscreen.database.connection import Connection, reconnecting
from hullscreen.database.restore import RESTORES
from hullscreen.database.schema import check_schema
from hullscreen.potentials.errors import CampaignError


def remove_campaign(connection: Connection, name: str) -> dict[str, int]:
    """Remove a campaign, or what a restore of it has left; killed, it can be repeated.

    Returns
    -------
    Number of documents that were removed from each collection.

    Raises
    ------
    CampaignError
        There is nothing of this name, or somebody works on it.
    DatabaseError
        A newer program has written the database.
    """
    check_schema(connection)
    refuse_at_work(connection, name, "its removal")
    database = connection.database.with_options(write_concern=WriteConcern(w="majority", j=True))
    removed: dict[str, int] = {}
    for part in (*own_parts(connection, name), *parts_of_workers(name)):
        delete = partial(database[part.collection].delete_many, part.query)
        removed[part.collection] = reconnecting(connection, delete).deleted_count
    # Last, so that a removal that was interrupted is still known by its name.
    for collection, query in ((RESTORES, {"_id": name}), (CAMPAIGNS, {"name": name})):
        delete = partial(database[collection].delete_one, query)
        removed[collection] = reconnecting(connection, delete).deleted_count
    if not any(removed.values()):
        raise CampaignError(f"the database {connection.name!r} has no campaign {name!r}")
    return {collection: n for collection, n in removed.items() if n}
