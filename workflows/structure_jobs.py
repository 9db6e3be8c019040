"""Which Fireworks compute a structure with DFT, and which structures a Firework computes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hullscreen.database.campaign_store import CampaignStore
from hullscreen.database.job_queries import asked_of_structure
from hullscreen.database.launchpad_state import fireworks

DFT = "dft"
# Ends of the names under which databases know the tasks.
LABELS, RELAXATIONS = "LabelTask", "FinalRelaxTask"
FIELDS = ("fw_id", "name", "state", "spec.round", "spec._category", "spec._tasks", "launches")


@dataclass(frozen=True)
class Job:
    """A Firework of a campaign.

    Attributes
    ----------
    fw_id, name, state, category, round
        As FireWorks knows it, and the round that it belongs to.
    task
        Last part of the name of its Firetask.
    first, last
        Of what it is to do; both zero where it does all of it.
    launch_id
        Its last launch; None before the first.
    """

    fw_id: int
    name: str
    state: str
    category: str
    round: int
    task: str
    first: int
    last: int
    launch_id: int | None


def find_jobs(store: CampaignStore, **query: Any) -> list[Job]:
    """Fireworks of a campaign that match, the oldest first."""
    full = {"spec.campaign": store.name, **query}
    return [_job(firework) for firework in fireworks(store.connection, full, FIELDS)]


def jobs_of_structure(store: CampaignStore, index: int) -> list[Job]:
    """The DFT jobs that compute a structure, or were to."""
    places = [
        (asked.round, LABELS, asked.number)
        for asked in asked_of_structure(store.connection, store.name, index)
    ]
    places += [
        (round_.number, RELAXATIONS, round_.final_indices.index(index))
        for round_ in store.rounds()
        if index in round_.final_indices
    ]
    # A job may compute several snapshots of one structure.
    jobs = {job.fw_id: job for place in places for job in _jobs_at(store, *place)}
    return [jobs[fw_id] for fw_id in sorted(jobs)]


def _jobs_at(store: CampaignStore, number: int, task: str, place: int) -> Sequence[Job]:
    span = {"first": {"$lte": place}, "last": {"$gt": place}}
    jobs = find_jobs(
        store, **{"spec.round": number, "spec._category": DFT, "spec._tasks": {"$elemMatch": span}}
    )
    return [job for job in jobs if job.task == task]


def _job(firework: Mapping[str, Any]) -> Job:
    task = firework["spec"]["_tasks"][0]
    launches = firework["launches"]
    return Job(
        firework["fw_id"],
        firework["name"],
        firework["state"],
        firework["spec"].get("_category", "none"),
        firework["spec"].get("round", -1),
        task["_fw_name"].strip("{}").rpartition(".")[2],
        task.get("first", 0),
        task.get("last", 0),
        launches[-1] if launches else None,
    )
