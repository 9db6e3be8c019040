"""What a database on a server of the user's is: who one is there, and which campaigns it holds."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from hullscreen.database.addresses import host_of
from hullscreen.database.campaign_parts import CAMPAIGNS
from hullscreen.database.connection import Connection, reconnecting
from hullscreen.database.schema import ANY_CAMPAIGN, stored_version

# MongoDB's names of what `run`, workers and readers need at least.
READING = {"find"}
WRITING = {"insert", "update", "remove"}


@dataclass(frozen=True)
class CampaignState:
    """A campaign of a database.

    Attributes
    ----------
    name, chemsys
        As in its document.
    state
        ``under way``, ``finished``, ``paused`` or ``cancelled``.
    last_updated
        When its document was changed last.
    """

    name: str
    chemsys: str
    state: str
    last_updated: datetime


@dataclass(frozen=True)
class ServerReport:
    """A server that answers, and a database on it.

    Attributes
    ----------
    host, version
        Of the server.
    database
        Name of the database.
    user
        Who is logged in, and in which database that user is; empty without a login.
    may_read, may_write
        Whether the user may in this database; where no login is asked for everybody may.
    schema
        Version of the schema; None if the database holds no campaign.
    campaigns
        By name.
    """

    host: str
    version: str
    database: str
    user: str
    may_read: bool
    may_write: bool
    schema: int | None
    campaigns: tuple[CampaignState, ...]


def server_report(connection: Connection) -> ServerReport:
    """Describe the server and the database of a connection; nothing is written.

    Raises
    ------
    DatabaseError
        The server is away.
    """
    database = connection.database
    ask = {"connectionStatus": 1, "showPrivileges": True}
    info = reconnecting(connection, lambda: database.command(ask))["authInfo"]
    users = [f"{user['user']}@{user['db']}" for user in info["authenticatedUsers"]]
    allowed = _allowed(info.get("authenticatedUserPrivileges", ()), connection.name)
    may_read = not users or allowed >= READING
    version = reconnecting(connection, lambda: database.command("buildInfo"))["version"]
    return ServerReport(
        host=host_of(connection.uri),
        version=str(version),
        database=connection.name,
        user=", ".join(users),
        may_read=may_read,
        may_write=not users or allowed >= WRITING,
        schema=stored_version(connection) if may_read else None,
        campaigns=_campaigns(connection) if may_read else (),
    )


def _allowed(privileges: Any, database: str) -> set[str]:
    """What a user may do in every collection of a database."""
    everything: list[dict[str, Any]] = [
        {"db": database, "collection": ""},
        {"db": "", "collection": ""},
        {"anyResource": True},
    ]
    return {
        action
        for privilege in privileges
        if privilege["resource"] in everything
        for action in privilege["actions"]
    }


def _campaigns(connection: Connection) -> tuple[CampaignState, ...]:
    fields = ["name", "chemsys", "finished", "paused", "cancelled", "last_updated"]
    campaigns = connection.database[CAMPAIGNS]
    found = reconnecting(
        connection, lambda: list(campaigns.find(ANY_CAMPAIGN, fields).sort("name", 1))
    )
    return tuple(
        CampaignState(one["name"], one["chemsys"], _state(one), one["last_updated"])
        for one in found
    )


def _state(campaign: dict[str, Any]) -> str:
    marks = ("finished", "cancelled", "paused")
    return next((mark for mark in marks if campaign.get(mark)), "under way")
