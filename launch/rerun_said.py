"""What `rerun` has done with failed jobs, and who computes them now, in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from hullscreen.launch.campaign_session import Session
from hullscreen.launch.going_on import going_on
from hullscreen.workflows.campaign_status import activity_of
from hullscreen.workflows.rerun import Rerun
from hullscreen.workflows.structure_jobs import Job


def what_was_done(result: Rerun, directory: Path) -> list[str]:
    """What was done with the jobs."""
    sentences = []
    if result.again:
        sentences.append(f"Ready to run once more: {_listed(result.again)}.")
    if result.too_early:
        sentences.append(
            f"Left as they are, because later steps of their round are under way without them: "
            f"{_listed(result.too_early)}; ask again when that round is over "
            f"(`hullscreen status {directory}`)."
        )
    if result.superseded:
        sentences.append(
            f"Left as they are, because everything was screened again since: "
            f"{_listed(result.superseded)}."
        )
    return sentences or ["No DFT job failed: there is nothing to run once more."]


def _listed(jobs: Sequence[Job]) -> str:
    """Jobs by round; of a few their ids."""
    if len(jobs) <= 5:
        # Names of jobs say the round.
        return ", ".join(f"{job.fw_id} ({job.name})" for job in jobs)
    rounds = Counter(job.round for job in jobs)
    parts = ", ".join(f"{n} of round {number}" for number, n in sorted(rounds.items()))
    return f"{len(jobs):,} jobs, {parts}"


def next_step(session: Session, directory: Path) -> str:
    """Who computes them."""
    campaign = session.store.campaign()
    if campaign.get("paused") or campaign.get("cancelled"):
        return f"The campaign rests: `hullscreen resume {directory}` lets workers take them."
    to_go_on = going_on(campaign, directory)
    if campaign["finished"]:
        return (
            f"Next: `{to_go_on}` computes them; with what it learns "
            "from them it screens everything once more. No other DFT is repeated."
        )
    if activity_of(session.connection, campaign).alive:
        return "Workers at it take them up; the next fit learns from them."
    return f"Next: `{to_go_on}` computes them and goes on."
