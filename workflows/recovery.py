"""Bringing a campaign's Fireworks back after workers, servers or whole machines have gone.

Steps may be repeated at any time, so a Firework whose worker is gone is simply run again.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from graphlib import TopologicalSorter
from typing import Any

from fireworks import LaunchPad

from hullscreen.database.campaign_store import CampaignStore
from hullscreen.workflows.campaign import Campaign
from hullscreen.workflows.flows import DFT, submit_campaign, submit_round
from hullscreen.workflows.holding import is_gone

# Failures that say nothing about the step: the server was away, or another process held the
# workflow.
PASSING = (
    "AutoReconnect",
    "ServerSelectionTimeoutError",
    "NetworkTimeout",
    "NotPrimaryError",
    "WriteConcernError",
    "CursorNotFound",
    "LockedWorkflowError",
    "errors.DatabaseError",
    "errors.ClaimLostError",
    "StepInterruptedError",
    "KeyboardInterrupt",
)
# Workflows are locked for milliseconds; who holds a lock for this long is gone.
LOCK_PATIENCE_S = 15.0
REMOVAL_PATIENCE_S = 30.0
# A DFT job that could not begin because its engine was missing is tried again when the campaign is.
ENGINE_MISSING = "EngineMissingError"


@dataclass(frozen=True)
class Failure:
    """A Firework that failed.

    Attributes
    ----------
    fw_id, name, category, round
        Of the Firework.
    reason
        The exception and its sentence.
    """

    fw_id: int
    name: str
    category: str
    round: int
    reason: str


def release_lost(launchpad: LaunchPad, campaign: Campaign) -> int:
    """Make Fireworks of workers that are gone ready again, and say how many there were.

    Only for what is known at once; `hullscreen.workflows.tending` finds the others.
    """
    resynchronise(launchpad, campaign)
    lost = [
        fw_id
        for fw_id, (_, launch_id, worker) in under_way(launchpad, campaign).items()
        # Reserved without a launch: its worker ended between two writes, or is just between them.
        if launch_id is None or is_gone(worker)
    ]
    for fw_id in lost:
        give_back(launchpad, fw_id)
    return len(lost)


def under_way(launchpad: LaunchPad, campaign: Campaign) -> dict[int, tuple[str, int | None, str]]:
    """Fireworks that somebody has: state, number of the launch if any, and name of the worker.

    Those for which `qlaunch -r` has submitted a job wait for it, which may take days.
    """
    query = {"spec.campaign": campaign.store.name, "state": {"$in": ["RESERVED", "RUNNING"]}}
    found = list(launchpad.fireworks.find(query, {"fw_id": 1, "state": 1, "launches": 1}))
    last = {one["fw_id"]: one["launches"][-1] for one in found if one["launches"]}
    launches = launchpad.launches.find(
        {"launch_id": {"$in": list(last.values())}},
        {"launch_id": 1, "fworker.name": 1, "state": 1, "state_history.reservation_id": 1},
    )
    workers, in_queue = {}, set()
    for launch in launches:
        workers[launch["launch_id"]] = launch["fworker"]["name"]
        if launch["state"] == "RESERVED" and any(launch["state_history"]):
            in_queue.add(launch["launch_id"])
    return {
        one["fw_id"]: (
            one["state"], last.get(one["fw_id"]), workers.get(last.get(one["fw_id"]), "")
        )
        for one in found
        if last.get(one["fw_id"]) not in in_queue
    }  # fmt: skip


def give_back(launchpad: LaunchPad, fw_id: int) -> None:
    """Make a Firework that somebody had ready again, unless it has ended since."""
    _wait_for_lock(launchpad, fw_id)
    query = {"fw_id": fw_id, "state": {"$in": ["RESERVED", "RUNNING"]}}
    if launchpad.fireworks.find_one(query, {"_id": 1}) is not None:
        launchpad.rerun_fw(fw_id)


def last_launch_of(launchpad: LaunchPad, fw_id: int) -> int | None:
    """Number of a Firework's newest launch."""
    found = launchpad.fireworks.find_one({"fw_id": fw_id}, {"launches": 1})
    return found["launches"][-1] if found and found["launches"] else None


def leave(launchpad: LaunchPad, fw_id: int, launch_id: int | None) -> None:
    """Let go of a Firework that was taken away, so that its end here does not count.

    Whoever takes it away does so in two steps; who was killed between them is stood in for.
    """
    deadline = time.monotonic() + REMOVAL_PATIENCE_S
    query = {"fw_id": fw_id, "launches": launch_id}
    while launchpad.fireworks.find_one(query, {"_id": 1}) is not None:
        if time.monotonic() >= deadline:
            give_back(launchpad, fw_id)
            return
        time.sleep(0.1)


def resynchronise(launchpad: LaunchPad, campaign: Campaign) -> None:
    """Make workflows agree with their Fireworks where a worker was killed between writing both.

    FireWorks keeps states twice, and looks at the workflow's to see whether a Firework may begin.
    """
    query = {"metadata.campaign": campaign.store.name, "state": {"$ne": "COMPLETED"}}
    for workflow in list(launchpad.workflows.find(query, {"nodes": 1})):
        nodes = workflow["nodes"]
        if not _disagreeing(launchpad, nodes):
            continue
        # Whoever holds the lock is just writing both.
        _wait_for_lock(launchpad, nodes[0])
        disagreeing = _disagreeing(launchpad, nodes)
        if not disagreeing:
            continue
        links = launchpad.workflows.find_one({"nodes": nodes[0]}, {"parent_links": 1}) or {}
        parents = {n: links.get("parent_links", {}).get(str(n), []) for n in nodes}
        for fw_id in TopologicalSorter(parents).static_order():
            # What is ready for both is left alone: a worker may be taking it at this moment, and
            # would lose it to another one. What one has just taken is its own; of lost ones the
            # state is changed anyway.
            now = launchpad.fireworks.find_one({"fw_id": fw_id}, {"state": 1})
            left_alone = {"RESERVED"} if fw_id in disagreeing else {"RESERVED", "READY"}
            if now is not None and now["state"] not in left_alone:
                launchpad._refresh_wf(fw_id)  # noqa: SLF001 - as `lpad refresh_wf` does


def _disagreeing(launchpad: LaunchPad, nodes: list[int]) -> set[int]:
    """Fireworks of a workflow whose state it has otherwise."""
    workflow = launchpad.workflows.find_one({"nodes": nodes[0]}, {"fw_states": 1})
    if workflow is None:
        return set()
    found = launchpad.fireworks.find({"fw_id": {"$in": nodes}}, {"fw_id": 1, "state": 1})
    stored = workflow["fw_states"]
    return {one["fw_id"] for one in found if stored.get(str(one["fw_id"])) != one["state"]}


def _wait_for_lock(launchpad: LaunchPad, fw_id: int) -> None:
    """Wait until a workflow is not locked, or take off a lock whose holder is gone."""
    query = {"nodes": fw_id, "locked": True}
    deadline = time.monotonic() + LOCK_PATIENCE_S
    while launchpad.workflows.find_one(query, {"_id": 1}) is not None:
        if time.monotonic() >= deadline:
            launchpad.workflows.update_one(query, {"$unset": {"locked": ""}})
            return
        time.sleep(0.1)


def unlock(launchpad: LaunchPad, campaign: Campaign) -> None:
    """Take the locks off workflows; only while no worker of the campaign runs."""
    query = {"metadata.campaign": campaign.store.name, "locked": True}
    launchpad.workflows.update_many(query, {"$unset": {"locked": ""}})


def retry_failed(launchpad: LaunchPad, campaign: Campaign, *, all_steps: bool) -> int:
    """Run failed Fireworks again that may succeed now.

    Parameters
    ----------
    all_steps
        Everything but DFT calculations that a round can do without: `lpad rerun_fws` repeats those.
        Otherwise only what failed because the server was away.
    """
    again = 0
    failed = failures(launchpad, campaign)
    stopped_rounds = {failure.round for failure in failed if failure.category != DFT}
    for failure in failed:
        passing = any(word in failure.reason for word in PASSING)
        needed = ENGINE_MISSING in failure.reason or failure.round in stopped_rounds
        if not (passing or (all_steps and needed)):
            continue
        # Somebody else may have been quicker, and yet another one be at it by now.
        still = {"fw_id": failure.fw_id, "state": "FIZZLED"}
        if launchpad.fireworks.find_one(still, {"_id": 1}) is not None:
            launchpad.rerun_fw(failure.fw_id)
            again += 1
    return again


def resubmit(launchpad: LaunchPad, campaign: Campaign) -> None:
    """Submit the last round if whoever decided it could not."""
    last = campaign.store.last_round()
    if last is None:
        submit_campaign(launchpad, campaign)
    elif not last.submitted:
        submit_round(launchpad, campaign, last.number)


def failures(launchpad: LaunchPad, campaign: Campaign) -> list[Failure]:
    """Fireworks that are FIZZLED, with their reasons."""
    query = {"spec.campaign": campaign.store.name, "state": "FIZZLED"}
    fields = {"fw_id": 1, "name": 1, "spec._category": 1, "spec.round": 1, "launches": 1}
    return [
        Failure(
            firework["fw_id"],
            firework["name"],
            firework["spec"]["_category"],
            firework["spec"]["round"],
            _reason(_last_launch(launchpad, firework)),
        )
        for firework in launchpad.fireworks.find(query, fields)
    ]


def taken_out(launchpad: LaunchPad, campaign: Campaign) -> list[int]:
    """Fireworks that somebody has defused or paused, by FireWorks' commands."""
    query = {"spec.campaign": campaign.store.name, "state": {"$in": ["DEFUSED", "PAUSED"]}}
    found = launchpad.fireworks.find(query, {"fw_id": 1})
    return sorted(int(firework["fw_id"]) for firework in found)


def is_idle(launchpad: LaunchPad, store: CampaignStore) -> bool:
    """Whether nothing of the campaign runs or can be run."""
    query = {
        "spec.campaign": store.name,
        "state": {"$in": ["READY", "RESERVED", "RUNNING"]},
    }
    return launchpad.fireworks.find_one(query, {"_id": 1}) is None


def _last_launch(launchpad: LaunchPad, firework: dict[str, Any]) -> dict[str, Any] | None:
    if not firework["launches"]:
        return None
    launch: dict[str, Any] | None = launchpad.launches.find_one(
        {"launch_id": firework["launches"][-1]}
    )
    return launch


def _reason(launch: dict[str, Any] | None) -> str:
    """The last line of a launch's traceback: the exception and its sentence."""
    stored = ((launch or {}).get("action") or {}).get("stored_data", {})
    trace = str(stored.get("_exception", {}).get("_stacktrace", "")).strip()
    return trace.splitlines()[-1] if trace else "no reason is recorded"
