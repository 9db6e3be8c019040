"""Every MongoDB call of a campaign.

All writes are idempotent and keyed, so that a step that is repeated changes nothing, and all of
them are repeated while the server is away.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from hullscreen.database.cost_queries import CostQueries
from hullscreen.database.dft_queries import DFTQueries
from hullscreen.database.documents import CampaignDocument, now
from hullscreen.database.publications import Publications
from hullscreen.database.restore import refuse_half_restored
from hullscreen.database.round_queries import RoundQueries
from hullscreen.database.schema import ensure_schema
from hullscreen.database.structure_queries import StructureBatch, StructureQueries
from hullscreen.database.structure_writes import StructureWrites
from hullscreen.potentials.errors import CampaignError

__all__ = ["CampaignStore", "StructureBatch"]


class CampaignStore(
    StructureQueries, StructureWrites, RoundQueries, DFTQueries, Publications, CostQueries
):
    """One campaign in one database: its own document, and all queries."""

    def create(self, campaign: CampaignDocument) -> None:
        """Register the campaign unless it exists; the database's first one brings its schema.

        Raises
        ------
        CampaignError
            A restore of a campaign of this name is not complete.
        DatabaseError
            The database has another schema than this program.
        """
        ensure_schema(self.connection)
        refuse_half_restored(self.connection, self.name)
        self._insert("campaigns", campaign.to_bson())

    def campaign(self) -> dict[str, Any]:
        """The campaign's document.

        Raises
        ------
        CampaignError
            There is none of this name.
        """
        document = self.find_campaign()
        if document is None:
            raise CampaignError(
                f"the database has no campaign {self.name!r}; `hullscreen submit` or `run` makes it"
            )
        return document

    def find_campaign(self) -> dict[str, Any] | None:
        """The campaign's document, or None."""
        found = self._find("campaigns", {"name": self.name})
        return found[0] if found else None

    def earlier_campaigns(self, before: datetime) -> list[dict[str, Any]]:
        """Name, elements and engine of the database's campaigns, the oldest first."""
        fields = ["name", "elements", "engine"]
        return self._find(
            "campaigns", {"created_at": {"$lt": before}}, fields, sort=["created_at", "name"]
        )

    def new_labels(self) -> int:
        """Labels that came after the last fit, of jobs run again, or results changed by hand.

        So are final relaxations that another campaign's user has removed.
        """
        fitted = self.potentials(["n_training"])
        learnt = int(fitted[-1]["n_training"]) if fitted else 0
        states = self.dft_states(list({key for _, key in self.asked()}))
        n_labels = sum(state == "done" for state in states.values())
        # A released or removed result of a relaxation is in no training set.
        changed = int(self.campaign().get("labels_changed", 0))
        final = set(self.final_keys())
        removed = len(final) - len(self.dft_states(list(final)))
        return max(n_labels - learnt, changed, removed)

    def set_campaign(self, **fields: Any) -> None:
        """Change fields of the campaign's document."""
        change = {"$set": {**fields, "last_updated": now()}}
        self._update("campaigns", {"name": self.name}, change)

    def add_cpu_seconds(self, part: str, seconds: float) -> None:
        """Account processor time to a part of the program."""
        change = {"$inc": {f"cpu_seconds.{part}": seconds}}
        self._update("campaigns", {"name": self.name}, change)

    def count_reclaimed(self) -> None:
        """Count a step that was taken away from a worker that is gone."""
        self._update("campaigns", {"name": self.name}, {"$inc": {"n_reclaimed": 1}})

    def note_peak_memory(self, process: str, n_bytes: int) -> None:
        """Keep the largest resident memory that processes of a kind have had."""
        change = {"$max": {f"peak_memory_bytes.{process}": n_bytes}}
        self._update("campaigns", {"name": self.name}, change)
