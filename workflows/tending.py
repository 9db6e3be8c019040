"""Looking after a campaign: steps whose worker is gone, or that failed for no reason of their own.

So are documents that lag behind the hull because relaxations ended too soon after one another.

Every worker does this once per heartbeat, `hullscreen run` and `launch` too; nobody has to call
`lpad detect_lostruns`. Whether a worker lives is told by how often it was *seen* to stand still,
not by times: clocks may jump, and a machine that slept finds everything as it was.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from fireworks import LaunchPad

from hullscreen.database.claims import Claim, Claims
from hullscreen.database.connection import SERVER_AWAY
from hullscreen.database.failures import DAMAGED
from hullscreen.potentials.errors import DatabaseError
from hullscreen.workflows import recovery
from hullscreen.workflows.campaign import Campaign
from hullscreen.workflows.holding import is_gone
from hullscreen.workflows.publishing import PUBLISHED_EVERY_S, publish_hull

# A step that has stood still in so many looks in a row has lost its worker.
LOOKS = 3
# Campaigns that a thread of this process looks after.
_TENDED: set[str] = set()


@dataclass
class _Seen:
    """A step as it was found, and how often it was found so."""

    sign: tuple[Any, ...]
    unchanged: int = 0


@dataclass
class Tender:
    """One process's memory of what it has seen of a campaign's steps.

    Attributes
    ----------
    launchpad, campaign
        What is looked after.
    """

    # Its text shows the address, and with it perhaps a password.
    launchpad: LaunchPad = field(repr=False)
    campaign: Campaign
    _seen: dict[int, _Seen] = field(default_factory=dict)
    _last_look: float = -float("inf")
    _idle_looks: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def look(self, ended_jobs: Collection[str] = ()) -> int:
        """Bring back what was lost, and say how many steps were; does nothing between heartbeats.

        Parameters
        ----------
        ended_jobs
            Numbers of jobs of which the queue has said that they have ended.
        """
        with self._lock:
            if time.monotonic() - self._last_look < self.campaign.heartbeat_s:
                return 0
            self._last_look = time.monotonic()
            lost = [claim for claim in self._lost(ended_jobs) if self._revoke(claim)]
            recovery.resynchronise(self.launchpad, self.campaign)
            recovery.retry_failed(self.launchpad, self.campaign, all_steps=False)
            self._wake()
            # Commands that read damaged documents say so; lost steps are looked for all the same.
            with suppress(*DAMAGED):
                publish_hull(self.campaign.store, if_older_s=PUBLISHED_EVERY_S)
        return len(lost)

    def _lost(self, ended_jobs: Collection[str]) -> list[Claim]:
        """Claims of steps that are under way for FireWorks, and whose worker is not."""
        under_way = recovery.under_way(self.launchpad, self.campaign)
        claims = Claims(self.campaign.store.connection, self.campaign.store.name).of(under_way)
        seen: dict[int, _Seen] = {}
        lost = []
        for fw_id, (state, launch_id, worker) in under_way.items():
            claim = claims.get(fw_id, Claim(fw_id))
            found = _Seen((state, launch_id, claim.token, claim.beats))
            before = self._seen.get(fw_id)
            if before is not None and before.sign == found.sign:
                found.unchanged = before.unchanged + 1
            seen[fw_id] = found
            if (
                is_gone(claim.holder or worker)
                or found.unchanged >= self._patience(claim)
                or (claim.holder and claim.job_id in ended_jobs)
            ):
                lost.append(claim)
        self._seen = seen
        return lost

    def _patience(self, claim: Claim) -> int:
        """Looks in which a step may stand still; its worker may have begun with another heartbeat.

        That setting may change while jobs are under way.
        """
        own_s = self.campaign.heartbeat_s
        return LOOKS * max(1, math.ceil(claim.heartbeat_s / own_s)) if own_s > 0.0 else LOOKS

    def _revoke(self, claim: Claim) -> bool:
        """Take a step away from its worker and let others do it; False if it has moved on."""
        store = self.campaign.store
        if not Claims(store.connection, store.name).revoke(claim.fw_id, claim.token):
            return False
        store.count_reclaimed()
        recovery.give_back(self.launchpad, claim.fw_id)
        return True

    def _wake(self) -> None:
        """Go on with a campaign in which nothing is under way though it is not finished."""
        store = self.campaign.store
        idle = recovery.is_idle(self.launchpad, store) and not store.campaign()["finished"]
        self._idle_looks = self._idle_looks + 1 if idle else 0
        if self._idle_looks >= LOOKS:
            recovery.resubmit(self.launchpad, self.campaign)

    @contextmanager
    def in_background(self, when_cancelled: Callable[[], None] | None = None) -> Iterator[None]:
        """Look once per heartbeat for as long as the block lasts, unless this process does.

        ``when_cancelled`` is called, in another thread, once the campaign is cancelled.
        """
        name = self.campaign.store.name
        if name in _TENDED:
            yield
            return
        _TENDED.add(name)
        ended = threading.Event()

        def go_on() -> None:
            while not ended.wait(self.campaign.heartbeat_s):
                try:
                    self.look()
                    if when_cancelled and self.campaign.store.campaign().get("cancelled"):
                        when_cancelled()
                except (*SERVER_AWAY, DatabaseError):
                    continue

        thread = threading.Thread(target=go_on, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            _TENDED.remove(name)
