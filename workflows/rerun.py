"""Letting failed DFT jobs run once more; nothing that is done is computed again or removed.

A job that failed leaves its labels out, and its round goes on. Where it succeeds later, the next
fit learns the labels, and a finished campaign is screened once more by the next run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from fireworks import LaunchPad
from fireworks.core.launchpad import WFLock

from hullscreen.database.campaign_store import CampaignStore
from hullscreen.potentials.errors import InputError
from hullscreen.workflows.structure_jobs import DFT, RELAXATIONS, Job, find_jobs, jobs_of_structure

FAILED = "FIZZLED"
# Workflows are locked for milliseconds; who holds a lock for this long is gone.
LOCK_PATIENCE_S = 15


@dataclass(frozen=True)
class Rerun:
    """What runs once more, and what does not.

    Attributes
    ----------
    again
        Jobs that are ready again.
    too_early
        Jobs of a round whose later steps are under way without them: these would be lost.
    superseded
        Relaxations of a final stage that was left since, when everything was screened once more.
    """

    again: Sequence[Job]
    too_early: Sequence[Job]
    superseded: Sequence[Job]


def failed_jobs(store: CampaignStore) -> list[Job]:
    """All DFT jobs that failed."""
    return find_jobs(store, **{"spec._category": DFT, "state": FAILED})


def failed_jobs_of(store: CampaignStore, indices: Sequence[int]) -> list[Job]:
    """DFT jobs of these structures that failed.

    Raises
    ------
    InputError
        A structure has none.
    """
    jobs: dict[int, Job] = {}
    for index in indices:
        found = jobs_of_structure(store, index)
        failed = {job.fw_id: job for job in found if job.state == FAILED}
        if not failed:
            states = ", ".join(sorted({job.state for job in found})) or "no DFT was asked for"
            raise InputError(
                f"expected a structure with a failed DFT job, got {index} ({states}); "
                "`hullscreen status` lists failed jobs"
            )
        jobs |= failed
    return list(jobs.values())


def failed_fireworks_of(store: CampaignStore, fw_ids: Sequence[int]) -> list[Job]:
    """Fireworks by their ids.

    Raises
    ------
    InputError
        One is not of this campaign, or has not failed.
    """
    found = {job.fw_id: job for job in find_jobs(store, fw_id={"$in": list(fw_ids)})}
    for fw_id in fw_ids:
        job = found.get(fw_id)
        if job is None or job.state != FAILED:
            state = f"which is {job.state}" if job else f"which {store.name!r} does not have"
            raise InputError(
                f"expected a Firework that failed, got {fw_id}, {state}; `hullscreen status` lists "
                "failed jobs"
            )
    return list(found.values())


def run_again(launchpad: LaunchPad, store: CampaignStore, jobs: Sequence[Job]) -> Rerun:
    """Make failed jobs ready, but for those that the campaign could not make use of now."""
    last = store.last_round()
    newest = last.number if last is not None else -1
    busy = {
        job.round
        for job in find_jobs(store, state={"$in": ["RUNNING", "RESERVED"]})
        if job.category != DFT
    }
    again, too_early, superseded = [], [], []
    for job in jobs:
        if job.task == RELAXATIONS and job.round < newest:
            superseded.append(job)
        elif job.category == DFT and job.round in busy:
            too_early.append(job)
        else:
            again.append(job)
    for _, members in groupby(sorted(again, key=_by_round), key=_by_round):
        _run_again_in_round(launchpad, [job.fw_id for job in members])
    return Rerun(again, too_early, superseded)


def _by_round(job: Job) -> int:
    return job.round


def _run_again_in_round(launchpad: LaunchPad, fw_ids: Sequence[int]) -> None:
    """Rerun Fireworks of one workflow: as `lpad rerun_fws`, which would read it for each."""
    with WFLock(launchpad, fw_ids[0], expire_secs=LOCK_PATIENCE_S, kill=True):
        workflow = launchpad.get_wf_by_fw_id_lzyfw(fw_ids[0])
        updated: set[int] = set()
        for fw_id in fw_ids:
            if workflow.id_fw[fw_id].state == FAILED:
                updated = workflow.rerun_fw(fw_id, updated)
        if updated:
            launchpad._update_wf(workflow, updated)  # noqa: SLF001 - as `rerun_fw` does
