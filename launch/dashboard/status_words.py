"""The sentence at the top of the page."""

from __future__ import annotations

from datetime import datetime

from hullscreen.launch.dashboard.job_data import clock
from hullscreen.launch.dashboard.reader import Snapshot
from hullscreen.launch.result_tables import duration

PURPOSES = {
    "seed": "first training structures and first wave",
    "learn": "learning while it relaxes",
    "validate": "measuring the potential's error",
    "refine": "labelling the most promising structures",
    "final": "DFT relaxations of what may be stable",
}


def status_sentence(snapshot: Snapshot, now: datetime) -> str:
    """Where the campaign is, and how old this knowledge is if it is old."""
    quick = snapshot.panels.get("quick")
    if quick is None or not quick.data:
        return snapshot.trouble or "Reading the database …"
    said = quick.data
    system = "–".join(said["elements"])
    sentence = f"{said['campaign']} ({system}): {_stage(said)}."
    if said["paused"]:
        sentence += " PAUSED: workers finish what they hold and take nothing new."
    if said["cancelled"]:
        sentence += " CANCELLED: workers end, and what was computed is kept."
    if said["finished"] and said["due"]:
        sentence += f" {said['due']}"
    if not said["finished"]:
        if said["left_s"] is not None:
            sentence += f" About {duration(said['left_s'])} left in this round."
        sentence += " The hull is provisional."
    if snapshot.seen_at is not None and snapshot.is_old(now):
        sentence += f" The database does not answer; last seen at {clock(snapshot.seen_at)}."
    return sentence


def _stage(said: dict[str, object]) -> str:
    if said["finished"]:
        # A user has asked for them; what they give is learnt when they are done.
        return "finished; failed steps run once more" if said["running"] else "finished"
    if said["round"] is None:
        return "generating prototypes"
    stage = str(said["stage"]).replace("_", " ")
    return f"{stage}, round {said['round']}, {PURPOSES.get(str(said['purpose']), '')}"
