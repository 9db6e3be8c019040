"""The supervisor of a campaign, `hullscreen run` or `launch`, and its signs of life."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pymongo
from pymongo.errors import PyMongoError

from hullscreen.database.collections import Collections

FIELD = "supervisor"
# A sign of life that does not reach the server is left out; whoever ends does not wait for it.
PATIENCE_S = 2.0


@dataclass(frozen=True)
class Supervisor:
    """What brings a campaign to its hull.

    Attributes
    ----------
    command, options
        ``run`` or ``launch``, and the options that it was started with and goes on with.
    holder, host, pid
        The process, as workers call themselves, and where it runs.
    seen_at
        Its last sign of life by the server's clock; None once it has ended.
    """

    command: str
    options: tuple[str, ...]
    holder: str
    host: str
    pid: int
    seen_at: datetime | None = None


def supervisor_of(campaign: Mapping[str, Any]) -> Supervisor | None:
    """The last supervisor of a campaign, from its document; None if it never had one."""
    found = campaign.get(FIELD)
    if not found:
        return None
    options = tuple(found.get("options", ()))
    return Supervisor(
        found["command"],
        options,
        found["holder"],
        found["host"],
        found["pid"],
        found.get("seen_at"),
    )


class SignsOfLife(Collections):
    """What a supervisor leaves in the campaign's document; the last one to begin is kept."""

    def begin(self, supervisor: Supervisor) -> None:
        """Take the place of the one before."""
        self._update("campaigns", {"name": self.name}, _sign(supervisor))

    def give(self, supervisor: Supervisor) -> None:
        """Say that it lives; another one of the same campaign, elsewhere, is left in its place."""
        mine = [{f"{FIELD}.holder": supervisor.holder}, {f"{FIELD}.seen_at": None}]
        self._at_once({"$or": mine}, _sign(supervisor))

    def end(self, supervisor: Supervisor) -> None:
        """Say that it has ended."""
        mine = {f"{FIELD}.holder": supervisor.holder}
        self._at_once(mine, {"$set": {f"{FIELD}.seen_at": None}})

    def _at_once(self, query: Mapping[str, Any], change: Mapping[str, Any]) -> None:
        """Change the document, if the server answers."""
        campaigns = self._database["campaigns"]
        try:
            with pymongo.timeout(PATIENCE_S):
                campaigns.update_one({"name": self.name, **query}, change)
        except PyMongoError:
            return


def _sign(supervisor: Supervisor) -> dict[str, Any]:
    options: Sequence[str] = list(supervisor.options)
    fields = {
        "command": supervisor.command,
        "options": options,
        "holder": supervisor.holder,
        "host": supervisor.host,
        "pid": supervisor.pid,
    }
    return {
        "$set": {f"{FIELD}.{name}": value for name, value in fields.items()},
        # Clocks of nodes may differ.
        "$currentDate": {f"{FIELD}.seen_at": True},
    }
