"""A process that works on one campaign's Fireworks until its hull is there."""

from __future__ import annotations

import resource
import time
from collections.abc import Sequence

from fireworks import FWorker, LaunchPad
from fireworks.core.rocket_launcher import launch_rocket

from hullscreen.database.campaign_store import CampaignStore
from hullscreen.workflows.campaign import accounted
from hullscreen.workflows.flows import PROTOTYPES_ROUND
from hullscreen.workflows.recovery import is_idle, worker_name

POLL_S = 0.2
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
) -> None:
    """Run ready Fireworks of a campaign, in this directory, until it is finished.

    A finished campaign may have work again: steps that a user lets run once more.

    Parameters
    ----------
    categories
        Kinds of steps to take, of `hullscreen.workflows.flows.CATEGORIES`; empty: all of them.
    poll_s
        Seconds between looks while there is nothing to do.
    """
    name = worker_name()
    charged = time.process_time()
    while True:
        # A workflow is complete in the LaunchPad only when its round says so.
        last = store.last_round()
        submitted = PROTOTYPES_ROUND
        if last is not None:
            submitted = last.number if last.submitted else last.number - 1
        query = {"spec.campaign": store.name, "spec.round": {"$lte": submitted}}
        worker = FWorker(name=name, category=list(categories), query=query)
        # Asking first keeps idle turns out of the log.
        if launchpad.run_exists(worker):
            launch_rocket(launchpad, worker, strm_lvl="CRITICAL")
            # What is left of this process's time went into finding, starting and ending steps.
            overhead = time.process_time() - accounted.seconds
            store.add_cpu_seconds(FIREWORKS_PART, overhead - charged)
            charged = overhead
            peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            store.note_peak_memory("worker", 1024 * peak_kib)
        elif store.campaign()["finished"] and is_idle(launchpad, store):
            return
        else:
            time.sleep(poll_s)
