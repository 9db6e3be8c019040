"""From a round to a FireWorks workflow, and into the LaunchPad exactly once."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from fireworks import Firework, LaunchPad, Workflow

from hullscreen.database.collections import ALREADY_THERE
from hullscreen.database.round_documents import RoundDocument
from hullscreen.potentials.structures import IndexArray
from hullscreen.workflows.borrowed_labels import BORROWED
from hullscreen.workflows.campaign import Campaign
from hullscreen.workflows.packing import job_spans

# Before the first round: the prototypes.
PROTOTYPES_ROUND = -1
STAGE_NAMES = {1: "screen 1", 2: "screen 2", 3: "final"}
# FireWorks takes long over workflows of hundreds: batches grow where a round has more to relax.
MOST_BATCHES = 48
# Categories by which workers choose: one pool may relax while another runs DFT.
CATEGORIES = RELAX, TRAIN, DFT = "relax", "train", "dft"


def prepare_launchpad(launchpad: LaunchPad) -> None:
    """Make a new LaunchPad usable; one in use stays as it is (`lpad reset` would empty it)."""
    counters = {"next_fw_id": 1, "next_launch_id": 1}
    launchpad.fw_id_assigner.update_one({}, {"$setOnInsert": counters}, upsert=True)
    launchpad.tuneup()
    # FireWorks knows nothing of campaigns, and a LaunchPad may hold many.
    launchpad.fireworks.create_index([("spec.campaign", 1), ("spec.round", 1), ("state", 1)])
    # What `hullscreen status` counts, without reading a Firework.
    launchpad.fireworks.create_index(
        [("spec.campaign", 1), ("spec._category", 1), ("state", 1), ("updated_on", 1)]
    )
    launchpad.workflows.create_index([("metadata.campaign", 1), ("metadata.round", 1)])
    # One workflow for each round, whoever submits it, and how often.
    launchpad.workflows.create_index(
        [("metadata.round", 1), ("metadata.campaign", 1)],
        unique=True,
        partialFilterExpression={"metadata.round": {"$exists": True}},
    )


def submit_campaign(launchpad: LaunchPad, campaign: Campaign) -> None:
    """Put the first workflow of a campaign, its prototypes, into the LaunchPad."""
    if campaign.store.last_round() is not None:
        return
    name = campaign.store.name
    firework = _firework(campaign, PROTOTYPES_ROUND, "PrototypesTask", "prototypes", TRAIN)
    _add_once(
        launchpad, campaign, PROTOTYPES_ROUND, Workflow([firework], name=f"{name}: prototypes")
    )


def submit_round(launchpad: LaunchPad, campaign: Campaign, number: int) -> None:
    """Put the workflow of a round into the LaunchPad unless it is there."""
    round_ = campaign.store.round(number)
    if round_.submitted:
        return
    _add_once(launchpad, campaign, number, round_workflow(campaign, round_))
    campaign.store.set_submitted(number)


def round_workflow(campaign: Campaign, round_: RoundDocument) -> Workflow:
    """DFT jobs, then the fit, then batches of relaxations, then the decision."""
    fireworks: list[Firework] = []
    layer: list[Firework] = []

    def add(task: str, what: str, category: str, **parameters: int) -> Firework:
        firework = _firework(
            campaign, round_.number, task, _title(round_, what), category, layer, **parameters
        )
        fireworks.append(firework)
        return firework

    def add_dft(task: str, what: str, n_atoms: IndexArray, walltime_s: float) -> list[Firework]:
        relaxations = task == "FinalRelaxTask"
        jobs = []
        for first, last in job_spans(n_atoms, campaign.settings.dft, relaxations=relaxations):
            job = add(task, f"{what} {first + 1} to {last}", DFT, first=first, last=last)
            if walltime_s:
                # Read by `qlaunch -r`, on top of my_qadapter.yaml.
                job.spec["_queueadapter"] = {"walltime": clock_time((last - first) * walltime_s)}
            jobs.append(job)
        return jobs

    dft = campaign.settings.dft
    n_atoms = np.array(
        [
            len(chosen.species)
            for chosen in campaign.store.selected(round=round_.number)
            if chosen.purpose != BORROWED
        ]
    )
    layer = add_dft("LabelTask", "DFT single points", n_atoms, dft.single_point_walltime_s) or layer
    if round_.fits:
        level = campaign.level(round_.stage)
        layer = [add("FitTask", f"fit of the level {level} potential", TRAIN)]
    if round_.purpose in ("seed", "learn", "refine"):
        orders = campaign.store.waiting_orders(round_)
        batch = max(campaign.settings.relaxation.batch_size, -(-len(orders) // MOST_BATCHES))
        spans = [
            (int(orders[a]), int(orders[b - 1]) + 1, b - a) for a, b in _spans(len(orders), batch)
        ]
        layer = [
            add("RelaxTask", f"relaxation of {n} structures", RELAX, first=first, last=last)
            for first, last, n in spans
        ] or layer
    n_atoms = _sizes(campaign, round_.final_indices)
    layer = (
        add_dft("FinalRelaxTask", "DFT relaxations", n_atoms, dft.relaxation_walltime_s) or layer
    )
    add("DecideTask", "decision", TRAIN)
    return Workflow(
        fireworks,
        name=f"{campaign.store.name}: {_title(round_, round_.purpose)}",
        metadata={
            "campaign": campaign.store.name,
            "round": round_.number,
            "stage": STAGE_NAMES[round_.stage],
            "purpose": round_.purpose,
        },
    )


def clock_time(seconds: float) -> str:
    """A wall time as queues read it, HH:MM:SS, rounded up; hours may exceed a day's."""
    minutes, rest = divmod(math.ceil(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{rest:02d}"


def _sizes(campaign: Campaign, indices: Sequence[int]) -> IndexArray:
    """Atoms of structures of the pool, in this order, shape (n_structures,)."""
    found = campaign.store.documents({"index": {"$in": list(indices)}}, ["nsites"])
    sizes = {document["index"]: document["nsites"] for document in found}
    return np.array([sizes[index] for index in indices], dtype=np.int64)


def _title(round_: RoundDocument, what: str) -> str:
    return f"{STAGE_NAMES[round_.stage]}, round {round_.number}: {what}"


def _firework(
    campaign: Campaign,
    number: int,
    task: str,
    name: str,
    category: str,
    parents: Sequence[Firework] = (),
    **parameters: int,
) -> Firework:
    from hullscreen.workflows import firetasks

    given = {"campaign": campaign.store.name, **parameters}
    if number != PROTOTYPES_ROUND:
        given["round"] = number
    return Firework(
        [getattr(firetasks, task)(given)],
        spec={
            "campaign": campaign.store.name,
            "round": number,
            "_category": category,
            "_add_launchpad_and_fw_id": True,
            # A DFT job that failed leaves its label out; everything else must have succeeded.
            "_allow_fizzled_parents": all(p.spec["_category"] == DFT for p in parents),
        },
        name=name,
        parents=list(parents),
    )


def _spans(n: int, size: int) -> Iterator[tuple[int, int]]:
    for first in range(0, n, size):
        yield first, min(n, first + size)


def _add_once(launchpad: LaunchPad, campaign: Campaign, number: int, workflow: Workflow) -> None:
    """Add a workflow unless the LaunchPad has it, and remove what killed submissions have left."""
    mine = {"campaign": campaign.store.name, "round": number}
    workflow.metadata.update(mine)
    query = {f"metadata.{key}": value for key, value in mine.items()}
    if launchpad.workflows.find_one(query, {"_id": 1}) is None:
        campaign.store.require_claim()
        try:
            launchpad.add_wf(workflow)
        except ALREADY_THERE:
            launchpad.fireworks.delete_many({"fw_id": {"$in": list(workflow.id_fw)}})
    submitted = launchpad.workflows.find_one(query, {"nodes": 1})
    launchpad.fireworks.delete_many(
        {
            **{f"spec.{key}": value for key, value in mine.items()},
            "fw_id": {"$nin": submitted["nodes"]},
        }
    )
