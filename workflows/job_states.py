"""How the DFT of each structure stands: still to come, done, failed or put aside."""

from __future__ import annotations

from hullscreen.database.campaign_store import CampaignStore
from hullscreen.database.dft_queries import QUARANTINED
from hullscreen.workflows.campaign import FINAL_STAGE

WAITING, DONE, FAILED = "waiting", "done", "failed"
STATES = (WAITING, DONE, FAILED, QUARANTINED)


def dft_states(store: CampaignStore) -> dict[int, str]:
    """State, one of `STATES`, of the last DFT job of each structure that has one, by index.

    The relaxation, of those that are chosen for it; otherwise the newest single point.
    """
    asked = store.asked()
    stored = store.dft_states([key for _, key in asked])
    states = {index: stored.get(key, WAITING) for index, key in asked}
    last = store.last_round()
    if last is not None and last.purpose == "final":
        states |= dict.fromkeys(last.final_indices, WAITING)
    query = {"stage": FINAL_STAGE, "final": {"$exists": True}}
    done = store.search(query, ["index", "final.state", "final.key"], sort=["index"])
    relaxed = store.dft_states([document["final"].get("key", "") for document in done])
    for document in done:
        final = document["final"]
        # What it was judged later is in the result.
        states[document["index"]] = relaxed.get(final.get("key", ""), final["state"])
    return states
