"""How far a campaign is, from a few counts: quick at any size of the pool."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from hullscreen.database.campaign_store import CampaignStore
from hullscreen.database.connection import Connection
from hullscreen.database.documents import RoundDocument
from hullscreen.database.launchpad_state import failed_fireworks, fireworks_by_state

STAGE_NAMES = {1: "screen_1", 2: "screen_2", 3: "final"}
FAILURES_SHOWN = 20


def campaign_status(store: CampaignStore, connection: Connection) -> dict[str, Any]:
    """Stage, round, progress, Fireworks by category and state, and failures, as plain JSON.

    Parameters
    ----------
    connection
        To the database that also holds FireWorks' collections.

    Returns
    -------
    ``campaign, chemsys, elements, finished, last_updated``;
    ``stage, round, purpose``: of the present round, None before the first;
    ``progress``: ``done`` and ``total`` by kind of work of the present round;
    ``structures``: by the stage they have reached;
    ``fireworks``: ``{category: {state: number}}``;
    ``n_quarantined``: DFT results that cannot be right and were put aside;
    ``doubts``: by round, why labels that look wrong were learnt nevertheless;
    ``failures``: FIZZLED Fireworks with a one-line reason, the newest 20.
    """
    campaign = store.campaign()
    last = store.last_round()
    return {
        "campaign": store.name,
        "chemsys": campaign["chemsys"],
        "elements": list(campaign["elements"]),
        "finished": campaign["finished"],
        "last_updated": campaign["last_updated"].isoformat(),
        "stage": STAGE_NAMES[last.stage] if last else "prototypes",
        "round": last.number if last else None,
        "purpose": last.purpose if last else None,
        "progress": _progress(store, campaign["pool"], last),
        "structures": {
            STAGE_NAMES[stage]: n for (stage,), n in sorted(store.tally("stage").items())
        },
        "fireworks": fireworks_by_state(connection, store.name),
        "n_quarantined": len(store.quarantined_dft([*store.selected_keys(), *store.final_keys()])),
        "doubts": campaign.get("doubts", {}),
        "failures": [
            asdict(failed)
            for failed in failed_fireworks(connection, store.name, limit=FAILURES_SHOWN)
        ],
    }


def _progress(
    store: CampaignStore, pool: dict[str, int], last: RoundDocument | None
) -> dict[str, dict[str, int | None]]:
    if last is None:
        return {"prototypes": {"done": store.count(), "total": pool.get("total")}}
    progress: dict[str, dict[str, int | None]] = {}
    keys = [chosen.key for chosen in store.selected(round=last.number)]
    if keys:
        progress["dft_single_points"] = {"done": len(store.dft_results(keys)), "total": len(keys)}
    if last.purpose in ("seed", "learn", "refine"):
        mine: dict[str, Any] = {"relaxed.stage": last.stage}
        waiting = {**mine, "relaxed.outcome": "extrapolating"}
        if last.again:
            done = store.count(**mine, **{"relaxed.potential": last.potential})
        else:
            done = store.count(**mine)
            # Those that wait for this round's potential.
            done -= store.count(**waiting, **{"relaxed.potential": {"$lt": last.potential}})
        progress["relaxations"] = {
            "done": done,
            "total": store.count(
                stage=last.stage, order={"$lt": last.wave}, dropped={"$exists": False}
            ),
            "extrapolating": store.count(**waiting, **{"relaxed.potential": last.potential}),
        }
    if last.purpose == "final":
        finals = store.tally("final.state", stage=last.stage)
        progress["dft_relaxations"] = {
            "done": sum(n for (state,), n in finals.items() if state is not None),
            "total": len(last.final_indices),
        }
    return progress
