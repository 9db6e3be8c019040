"""A process that works on one campaign's Fireworks until its hull is there."""

from __future__ import annotations

import resource
import time
from collections.abc import Sequence

from fireworks import FWorker, LaunchPad
from fireworks.core.rocket_launcher import launch_rocket

from hullscreen.database.campaign_store import CampaignStore
from hullscreen.database.claims import Claims
from hullscreen.database.connection import SERVER_AWAY
from hullscreen.potentials.errors import DatabaseError
from hullscreen.workflows.campaign import accounted, open_campaign
from hullscreen.workflows.flows import PROTOTYPES_ROUND
from hullscreen.workflows.holding import worker_name
from hullscreen.workflows.interruption import end_here, interruption
from hullscreen.workflows.recovery import give_back, is_idle
from hullscreen.workflows.tending import Tender

POLL_S = 0.2
# A server that is away for longer may be down for maintenance: the job then ends.
SERVER_PATIENCE_S = 3600.0
FIREWORKS_PART = "fireworks"


def launchpad_on(uri: str, database_name: str) -> LaunchPad:
    """FireWorks' view of our database, with journalled writes."""
    return LaunchPad(
        host=uri,
        name=database_name,
        uri_mode=True,
        strm_lvl="WARNING",
        mongoclient_kwargs={"w": "majority", "journal": True, "serverSelectionTimeoutMS": 20_000},
    )


def work(
    launchpad: LaunchPad,
    store: CampaignStore,
    *,
    categories: Sequence[str] = (),
    poll_s: float = POLL_S,
    idle_s: float = float("inf"),
) -> None:
    """Run ready Fireworks of a campaign, in this directory, until it is finished or cancelled.

    A finished campaign may have work again: steps that a user lets run once more. A server that
    goes away is waited for. Where this process is asked to end, it gives back what it holds.

    Parameters
    ----------
    categories
        Kinds of steps to take, of `hullscreen.workflows.flows.CATEGORIES`; empty: all of them.
    poll_s
        Seconds between looks while there is nothing to do.
    idle_s
        Seconds without anything to do after which this ends.

    Raises
    ------
    DatabaseError
        The server did not come back within an hour.
    """
    tender = Tender(launchpad, open_campaign(store))
    idle_since = away_since = None
    accounted.between = time.process_time() - accounted.seconds
    # In the middle of a step, which may take hours.
    with tender.in_background(end_here):
        while not interruption.requested:
            now = time.monotonic()
            try:
                if away_since is not None:
                    _give_back_own(launchpad, store)
                    away_since = None
                campaign = store.campaign()
                if campaign.get("cancelled"):
                    return
                if not campaign.get("paused") and _one_step(launchpad, store, categories):
                    idle_since = None
                    continue
                if campaign["finished"] and is_idle(launchpad, store):
                    return
            except (*SERVER_AWAY, DatabaseError):
                away_since = away_since or now
                if now - away_since > SERVER_PATIENCE_S:
                    raise
            idle_since = idle_since or now
            if now - idle_since > idle_s:
                return
            time.sleep(poll_s)


def _one_step(launchpad: LaunchPad, store: CampaignStore, categories: Sequence[str]) -> bool:
    """Carry out a Firework that is ready; False if there is none."""
    # A workflow is complete in the LaunchPad only when its round says so.
    last = store.last_round()
    submitted = PROTOTYPES_ROUND
    if last is not None:
        submitted = last.number if last.submitted else last.number - 1
    query = {"spec.campaign": store.name, "spec.round": {"$lte": submitted}}
    worker = FWorker(name=worker_name(), category=list(categories), query=query)
    # Asking first keeps idle turns out of the log.
    if not launchpad.run_exists(worker):
        return False
    launch_rocket(launchpad, worker, strm_lvl="CRITICAL")
    # What is left of this process's time went into finding, starting and ending steps.
    between = time.process_time() - accounted.seconds
    store.add_cpu_seconds(FIREWORKS_PART, between - accounted.between)
    accounted.between = between
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    store.note_peak_memory("worker", 1024 * peak_kib)
    return True


def _give_back_own(launchpad: LaunchPad, store: CampaignStore) -> None:
    """Give back what this process holds for others but not for itself: the server was away."""
    claims = Claims(store.connection, store.name)
    for claim in claims.held_by(worker_name()):
        if claims.revoke(claim.fw_id, claim.token):
            give_back(launchpad, claim.fw_id)
