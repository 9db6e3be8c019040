"""What befalls a campaign while it is watched: steps that fail, pauses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hullscreen.database.connection import Connection
from hullscreen.database.launchpad_state import failed_fireworks
from hullscreen.launch.progress import Board

# Of failures that come at once; the rest is counted.
SHOWN_AT_ONCE = 3
LOOKED_AT = 100


@dataclass
class CampaignNews:
    """Says on the board what has changed since the last look.

    Attributes
    ----------
    directory
        The campaign's, for commands to type.
    """

    connection: Connection
    directory: Path
    board: Board
    _paused: bool = False
    _failed: set[int] = field(default_factory=set)

    def look(self, campaign: Mapping[str, Any]) -> None:
        """Say what is new, given the campaign's document."""
        paused = bool(campaign.get("paused"))
        if paused != self._paused:
            self.board.note(
                f"paused: no new jobs until `hullscreen resume {self.directory}`"
                if paused
                else "resumed"
            )
        self._paused = paused
        failed = failed_fireworks(self.connection, campaign["name"], limit=LOOKED_AT)
        new = [one for one in failed if one.fw_id not in self._failed]
        self._failed |= {one.fw_id for one in new}
        for one in new[:SHOWN_AT_ONCE]:
            self.board.note(f"step {one.fw_id} ({one.category}) failed: {one.reason}")
        if len(new) > SHOWN_AT_ONCE:
            self.board.note(
                f"and {len(new) - SHOWN_AT_ONCE} more steps: `hullscreen status {self.directory}`"
            )
