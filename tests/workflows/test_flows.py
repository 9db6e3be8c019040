"""Workflows: which Fireworks a round has, and that each is added exactly once."""

import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from fireworks import FWorker
from fireworks.core.rocket_launcher import launch_rocket
from fireworks.user_objects.queue_adapters.common_adapter import CommonAdapter

from hullscreen.launch.settings import from_tables
from hullscreen.potentials.errors import DFTError
from hullscreen.workflows import dft_steps, flows
from hullscreen.workflows.campaign import Campaign
from hullscreen.workflows.flows import (
    PROTOTYPES_ROUND,
    clock_time,
    prepare_launchpad,
    round_workflow,
    submit_campaign,
    submit_round,
)

TASK = "{{{{hullscreen.workflows.firetasks.{}Task}}}}".format


@pytest.fixture(autouse=True)
def _rockets_run_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def begun(tiny_history, make_campaign, mongo, launchpad, put_back):
    """Function: campaign and round just after the first decision for a purpose."""
    counters = list(launchpad.fw_id_assigner.find({}))
    campaign = make_campaign()

    def begin(purpose, *, fits):
        decided = next(
            d for d in tiny_history if (d.next_round.purpose, d.next_round.fits) == (purpose, fits)
        )
        put_back(mongo, {**decided.after, "fw_id_assigner": counters})
        return campaign, decided.next_round

    return begin


def layers_of(workflow):
    """Fireworks by the length of their longest path from a root."""
    parents = workflow.links.parent_links
    depth = {}

    def deep(fw_id):
        if fw_id not in depth:
            depth[fw_id] = 1 + max((deep(parent) for parent in parents.get(fw_id, [])), default=-1)
        return depth[fw_id]

    layers = {}
    for fw_id, firework in workflow.id_fw.items():
        layers.setdefault(deep(fw_id), []).append(firework)
    return [layers[d] for d in sorted(layers)]


def kinds(layer):
    """Task and category of a layer's Fireworks, which are all of one kind."""
    (kind,) = {
        (firework.tasks[0]._fw_name.rpartition(".")[2][:-2], firework.spec["_category"])
        for firework in layer
    }
    return kind


LABELS, FIT, RELAXATIONS = ("LabelTask", "dft"), ("FitTask", "train"), ("RelaxTask", "relax")
FINAL, DECISION = ("FinalRelaxTask", "dft"), ("DecideTask", "train")


@pytest.mark.parametrize(
    ("purpose", "fits", "expected"),
    [
        ("seed", True, [LABELS, FIT, RELAXATIONS, DECISION]),
        ("learn", True, [LABELS, FIT, RELAXATIONS, DECISION]),
        ("learn", False, [RELAXATIONS, DECISION]),
        ("validate", False, [LABELS, DECISION]),
        ("refine", True, [LABELS, FIT, RELAXATIONS, DECISION]),
        ("final", False, [FINAL, DECISION]),
    ],
)
def test_layers_of_a_round(purpose, fits, expected, begun):
    campaign, round_ = begun(purpose, fits=fits)
    workflow = round_workflow(campaign, round_)
    layers = layers_of(workflow)
    assert [kinds(layer) for layer in layers] == expected
    parents = workflow.links.parent_links
    for above, layer in pairwise(layers):
        for firework in layer:
            # Everything of a layer waits for everything of the one before.
            assert set(parents[firework.fw_id]) == {parent.fw_id for parent in above}
            # DFT may fail on single structures; nothing else may.
            assert firework.spec["_allow_fizzled_parents"] == (kinds(above)[1] == "dft")
    assert workflow.metadata["purpose"] == purpose
    assert workflow.metadata["round"] == round_.number
    assert workflow.name == (
        f"tiny: {workflow.metadata['stage']}, round {round_.number}: {purpose}"
    )
    for firework in workflow.id_fw.values():
        assert firework.name.startswith(f"{workflow.metadata['stage']}, round {round_.number}: ")
        assert firework.spec["campaign"] == "tiny"
        assert firework.spec["round"] == round_.number


def test_names_of_fireworks_are_for_people(begun):
    campaign, round_ = begun("seed", fits=True)
    names = [firework.name for firework in round_workflow(campaign, round_).fws]
    assert "screen 1, round 0: DFT single points 1 to 5" in names
    assert "screen 1, round 0: fit of the level 4 potential" in names
    assert "screen 1, round 0: relaxation of 7 structures" in names
    assert "screen 1, round 0: decision" in names


def spans_of(campaign, round_, task):
    return sorted(
        (firework.tasks[0]["first"], firework.tasks[0]["last"])
        for firework in round_workflow(campaign, round_).fws
        if firework.tasks[0]._fw_name == TASK(task)
    )


@pytest.mark.parametrize("size", [1, 5, 24, 100])
def test_every_label_is_in_one_job(size, tiny_history, begun, make_campaign):
    _, round_ = begun("seed", fits=True)
    campaign = make_campaign(dft={"structures_per_job": size})
    n = len(campaign.store.selected(round=0))
    spans = spans_of(campaign, round_, "Label")
    assert sorted(i for first, last in spans for i in range(first, last)) == list(range(n))
    assert max(last - first for first, last in spans) == min(size, n)


@pytest.mark.parametrize("size", [1, 3, 7, 500])
@pytest.mark.parametrize(("purpose", "fits"), [("seed", True), ("learn", False), ("refine", True)])
def test_every_structure_to_relax_is_in_one_batch(size, purpose, fits, begun, make_campaign):
    _, round_ = begun(purpose, fits=fits)
    campaign = make_campaign(relaxation={"batch_size": size})
    spans = spans_of(campaign, round_, "Relax")
    orders = campaign.store.waiting_orders(round_).tolist()
    assert orders
    for order in orders:
        assert sum(first <= order < last for first, last in spans) == 1
    size = max(size, -(-len(orders) // flows.MOST_BATCHES))
    for first, last in spans:
        assert 0 < sum(first <= order < last for order in orders) <= size


def test_a_workflow_stays_small_however_much_there_is_to_relax(begun, make_campaign, monkeypatch):
    _, round_ = begun("learn", fits=False)
    campaign = make_campaign(relaxation={"batch_size": 1})
    monkeypatch.setattr(flows, "MOST_BATCHES", 3)
    spans = spans_of(campaign, round_, "Relax")
    orders = campaign.store.waiting_orders(round_)
    assert len(spans) <= 3 < len(orders)
    for order in orders:
        assert sum(first <= order < last for first, last in spans) == 1


def test_every_final_structure_is_in_one_job(begun, make_campaign):
    _, round_ = begun("final", fits=False)
    campaign = make_campaign(dft={"structures_per_job": 2})
    spans = spans_of(campaign, round_, "FinalRelax")
    numbers = sorted(i for first, last in spans for i in range(first, last))
    assert numbers == list(range(len(round_.final_indices)))


def with_program(campaign, **dft):
    """The campaign as if its DFT were a program; only its workflows are looked at."""
    tables = campaign.settings.tables()
    tables["dft"] |= {"engine": "quantum_espresso", "structures_per_job": 0, **dft}
    return Campaign(from_tables(tables), campaign.store, campaign.directory)


@pytest.mark.parametrize(("purpose", "task"), [("seed", "Label"), ("final", "FinalRelax")])
def test_jobs_of_a_program_follow_from_the_sizes_of_its_structures(purpose, task, begun):
    campaign, round_ = begun(purpose, fits=purpose == "seed")
    n = len(campaign.store.selected(round=round_.number)) or len(round_.final_indices)
    spans = spans_of(with_program(campaign), round_, task)
    assert [i for first, last in spans for i in range(first, last)] == list(range(n))
    # Few small ones: each is a job of its own; and again the same.
    assert len(spans) == n
    assert spans == spans_of(with_program(campaign), round_, task)
    # A relaxation costs as much as eight single points.
    shared = spans_of(with_program(campaign, structures_per_job=16), round_, task)
    assert max(last - first for first, last in shared) == (16 if purpose == "seed" else 2)


@pytest.mark.parametrize(("purpose", "walltime"), [("seed", "00:07:30"), ("final", "10:00:00")])
def test_dft_jobs_ask_the_queue_for_time(purpose, walltime, begun, launchpad, tmp_path):
    campaign, round_ = begun(purpose, fits=purpose == "seed")
    campaign = with_program(
        campaign,
        structures_per_job=5 if purpose == "seed" else 16,
        single_point_walltime_s=90,
        relaxation_walltime_s=18000,
    )
    for firework in round_workflow(campaign, round_).fws:
        assert ("_queueadapter" in firework.spec) == (firework.spec["_category"] == "dft")
    submit_round(launchpad, campaign, round_.number)
    # FireWorks' own command, and a queue that takes everything: the script is what it is given.
    sbatch = tmp_path / "sbatch"
    sbatch.write_text("#!/bin/sh\necho Submitted batch job 17\n")
    sbatch.chmod(0o755)
    launchpad.to_file(str(tmp_path / "my_launchpad.yaml"))
    # The first job, which is full.
    query = {"spec.round": round_.number, "name": {"$regex": " 1 to "}}
    FWorker("queue", "dft", query).to_file(str(tmp_path / "my_fworker.yaml"))
    adapter = CommonAdapter("SLURM", rocket_launch="rlaunch singleshot", walltime="01:00:00")
    adapter.to_file(str(tmp_path / "my_qadapter.yaml"))
    qlaunch = Path(sys.executable).with_name("qlaunch")
    said = subprocess.run(
        [
            qlaunch, "-l", "my_launchpad.yaml", "-w", "my_fworker.yaml", "-q", "my_qadapter.yaml",
            "-r", "singleshot",
        ],
        cwd=tmp_path, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120,
        env={
            **os.environ,
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        },
    )  # fmt: skip
    assert b"reserved" in said.stdout, said.stdout.decode()
    (script,) = tmp_path.rglob("FW_submit.script")
    assert f"#SBATCH --time={walltime}\n" in script.read_text()
    assert launchpad.fireworks.find_one({"state": "RESERVED"})["spec"]["_category"] == "dft"


def test_without_walltimes_the_queue_adapter_is_left_alone(begun):
    campaign, round_ = begun("seed", fits=True)
    fireworks = round_workflow(with_program(campaign), round_).fws
    assert not any("_queueadapter" in firework.spec for firework in fireworks)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(1, "00:00:01"), (59.2, "00:01:00"), (3600, "01:00:00"), (360_061, "100:01:01")],
)
def test_wall_times_are_written_as_queues_read_them(seconds, text):
    assert clock_time(seconds) == text


@pytest.mark.parametrize("category", ["dft", ["relax", "train"]])
def test_a_worker_of_fireworks_takes_the_categories_of_its_file(
    category, begun, launchpad, mongo, tmp_path
):
    campaign, _ = begun("seed", fits=True)
    submit_round(launchpad, campaign, 0)
    path = tmp_path / "my_fworker.yaml"
    FWorker(name="cluster", category=category, query={"spec.round": 0}).to_file(str(path))
    worker = FWorker.from_file(str(path))
    while launch_rocket(launchpad, worker, strm_lvl="CRITICAL"):
        pass
    states = {}
    for firework in mongo.database.fireworks.find({"spec.round": 0}):
        states.setdefault(firework["spec"]["_category"], set()).add(firework["state"])
    if category == "dft":
        assert states["dft"] == {"COMPLETED"}
        assert "COMPLETED" not in states["train"] | states["relax"]
    else:
        # They wait for labels that nobody computes.
        assert states == {"dft": {"READY"}, "train": {"WAITING"}, "relax": {"WAITING"}}


def test_a_round_without_work_has_a_decision(begun):
    campaign, round_ = begun("learn", fits=False)
    campaign.store._database.structures.update_many(
        {}, {"$set": {"relaxed": {"stage": 1, "outcome": "converged", "potential": 0}}}
    )
    (firework,) = round_workflow(campaign, round_).fws
    assert firework.name.endswith("decision")


def test_a_round_is_submitted_once(begun, launchpad, mongo):
    campaign, round_ = begun("seed", fits=True)
    submit_round(launchpad, campaign, 0)
    # As if killed before the round's document said so.
    mongo.database.rounds.update_one({"number": 0}, {"$set": {"submitted": False}})
    submit_round(launchpad, campaign, 0)
    submit_round(launchpad, campaign, 0)
    assert mongo.database.workflows.count_documents({}) == 1
    assert mongo.database.fireworks.count_documents({}) == len(round_workflow(campaign, round_).fws)
    assert campaign.store.round(0).submitted


def test_fireworks_of_a_killed_submission_are_removed_and_no_others(
    begun, launchpad, mongo, make_campaign
):
    campaign, _ = begun("seed", fits=True)
    other = make_campaign("other")
    submit_campaign(launchpad, other)
    submit_round(launchpad, campaign, 0)
    expected = mongo.database.fireworks.count_documents({})
    orphans = [f["fw_id"] for f in mongo.database.fireworks.find({"spec.campaign": "tiny"})]
    mongo.database.workflows.delete_one({"metadata.campaign": "tiny"})
    mongo.database.rounds.update_one({"number": 0}, {"$set": {"submitted": False}})
    submit_round(launchpad, campaign, 0)
    assert mongo.database.fireworks.count_documents({}) == expected
    assert mongo.database.fireworks.count_documents({"fw_id": {"$in": orphans}}) == 0
    assert mongo.database.fireworks.count_documents({"spec.campaign": "other"}) == 1


def test_prototypes_are_submitted_once_and_not_after_the_first_round(
    make_campaign, begun, launchpad, mongo
):
    campaign = make_campaign("new")
    submit_campaign(launchpad, campaign)
    submit_campaign(launchpad, campaign)
    (firework,) = mongo.database.fireworks.find({})
    assert firework["spec"]["round"] == PROTOTYPES_ROUND
    assert firework["spec"]["_category"] == "train"
    campaign, _ = begun("seed", fits=True)
    submit_campaign(launchpad, campaign)
    assert mongo.database.fireworks.count_documents({}) == 0


def test_a_launchpad_in_use_keeps_its_counters(launchpad):
    launchpad.fw_id_assigner.update_one({}, {"$set": {"next_fw_id": 99}})
    prepare_launchpad(launchpad)
    assert launchpad.fw_id_assigner.count_documents({}) == 1
    assert launchpad.get_new_fw_id() == 99


def test_a_dft_job_that_failed_does_not_stop_the_fit(begun, launchpad, mongo, monkeypatch):
    campaign, _ = begun("seed", fits=True)
    submit_round(launchpad, campaign, 0)
    label, n_jobs = dft_steps.label, []

    def fail_on_the_last_job(*args):
        n_jobs.append(args)
        label(*args)
        if len(n_jobs) == 5:
            raise DFTError("1 of 5 calculations failed: structure 9: no convergence")

    monkeypatch.setattr(dft_steps, "label", fail_on_the_last_job)
    while launch_rocket(launchpad, FWorker(query={"spec.round": 0}), strm_lvl="CRITICAL"):
        pass
    mine = mongo.database.fireworks.find({"spec.round": 0})
    states = {f["name"].partition(": ")[2]: f["state"] for f in mine}
    assert sorted(states.values()) == ["COMPLETED"] * (len(states) - 1) + ["FIZZLED"]
    assert states["fit of the level 4 potential"] == "COMPLETED"
    assert states["decision"] == "COMPLETED"
    assert campaign.store.round(1).submitted
