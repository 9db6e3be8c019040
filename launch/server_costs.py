"""What the embedded server costs, charged to the campaign that it was started for."""

from __future__ import annotations

import time
from dataclasses import dataclass

from hullscreen.database.connection import SERVER_AWAY
from hullscreen.launch.campaign_session import Session

CHARGE_EVERY_S = 5.0


@dataclass
class ServerCosts:
    """Processor time and memory of the embedded server; a server of others is not asked.

    Attributes
    ----------
    session
        The open campaign.
    charged
        Seconds of the present server process that are in the campaign's costs; None before.
    charged_at
        When that was, on the monotonic clock.
    """

    session: Session
    charged: float | None = None
    charged_at: float = 0.0

    def charge(self, *, now: bool = False) -> None:
        """Add what was spent since the last time, every few seconds or now."""
        due = time.monotonic() - self.charged_at > CHARGE_EVERY_S
        if not self.session.connection.embedded or not (now or due):
            return
        try:
            spent, peak = self.session.connection.server_usage()
        except SERVER_AWAY:
            return
        if self.charged is not None:
            # A server that was started anew counts from zero.
            new = spent - self.charged if spent >= self.charged else spent
            self.session.store.add_cpu_seconds("mongod", new)
            self.session.store.note_peak_memory("mongod", peak)
        self.charged, self.charged_at = spent, time.monotonic()
