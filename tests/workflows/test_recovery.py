"""Fireworks of processes that are gone, failures, and rockets killed at any write."""

import os
import socket

import pytest
from fireworks import FWorker
from fireworks.core import rocket
from fireworks.core.launchpad import WFLock
from fireworks.core.rocket_launcher import launch_rocket

from hullscreen.database.campaign_parts import refuse_at_work
from hullscreen.database.claims import Claims
from hullscreen.dft_adapters.engine import EngineMissingError
from hullscreen.launch import campaign_outcome
from hullscreen.potentials.errors import CampaignError, DatabaseError, DFTError
from hullscreen.workflows import decisions, dft_steps, holding, recovery
from hullscreen.workflows.flows import submit_round

HERE = socket.gethostname()
# A process that has never been: this one's number with another start.
GONE = f"hullscreen|{HERE}|{os.getpid()}|1"


@pytest.fixture(autouse=True)
def _rockets_run_elsewhere(tmp_path, monkeypatch):
    """Rockets write files where they run; their threads would outlive a simulated death."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(rocket, "start_ping_launch", lambda *_: None)
    # The next process to want a dead one's lock waits seconds for it; the tests need not.
    monkeypatch.setattr(recovery, "LOCK_PATIENCE_S", 0.0)
    monkeypatch.setattr(WFLock.__init__, "__defaults__", (0.0, True))


@pytest.fixture
def round_begun(tiny_history, make_campaign, mongo, launchpad, put_back):
    """Function: campaign and number of the first round of a purpose, just submitted."""
    counters = list(launchpad.fw_id_assigner.find({}))
    campaign = make_campaign()

    def begin(purpose, *, fits):
        begun = next(
            d for d in tiny_history if (d.next_round.purpose, d.next_round.fits) == (purpose, fits)
        )
        put_back(mongo, {**begun.after, "fw_id_assigner": counters})
        submit_round(launchpad, campaign, begun.next_round.number)
        return campaign, begun.next_round.number

    return begin


def run_rockets(launchpad, round_number, name=None, most=1000):
    """Run what is ready of a round, as a worker does, until nothing is."""
    worker = FWorker(name=name or holding.worker_name(), query={"spec.round": round_number})
    for _ in range(most):
        if not launch_rocket(launchpad, worker, strm_lvl="CRITICAL"):
            return


def states_in(database, **query):
    """States of Fireworks by name, as the Fireworks and as the workflows say."""
    of_workflows = {
        int(fw_id): state
        for workflow in database.workflows.find({})
        for fw_id, state in workflow["fw_states"].items()
    }
    return sorted(
        (firework["name"], firework["state"], of_workflows[firework["fw_id"]])
        for firework in database.fireworks.find(query)
    )


# The smallest round with DFT, and one with several jobs side by side.
@pytest.mark.slow
@pytest.mark.parametrize("purpose", ["validate", "learn"])
def test_killed_at_any_write_of_a_rocket_a_round_still_ends(
    purpose, round_begun, mongo, launchpad, mortal
):
    campaign, number = round_begun(purpose, fits=False)
    run_rockets(launchpad, number)
    expected = states_in(mongo.database)
    assert {s for _, *s in states_in(mongo.database, **{"spec.round": number}) for s in s} == {
        "COMPLETED"
    }
    lives = 0
    while True:
        round_begun(purpose, fits=False)
        with mortal(lives) as fate:
            run_rockets(launchpad, number, GONE)
        if not fate.dead:
            break
        recovery.release_lost(launchpad, campaign)
        recovery.resubmit(launchpad, campaign)
        run_rockets(launchpad, number)
        assert states_in(mongo.database) == expected, f"killed after {lives} writes"
        assert campaign.store.round(number + 1).submitted
        lives += 1
    assert lives > 30


@pytest.mark.parametrize(
    ("worker", "state", "released"),
    [
        (GONE, "RUNNING", 1),
        (GONE, "RESERVED", 1),
        (None, "RUNNING", 0),
        ("hullscreen|elsewhere|1|1", "RUNNING", 0),
    ],
    ids=["gone-running", "gone-reserved", "mine-running", "elsewhere-running"],
)
def test_fireworks_of_lost_workers_are_ready_again(
    worker, state, released, round_begun, mongo, launchpad
):
    campaign, number = round_begun("validate", fits=False)
    fworker = FWorker(name=worker or holding.worker_name(), query={"spec.round": number})
    firework, _ = launchpad.checkout_fw(fworker, "/", state=state)
    assert recovery.release_lost(launchpad, campaign) == released
    after = "READY" if released else state
    assert (firework.name, after, after) in states_in(mongo.database)


def test_a_firework_reserved_by_nobody_is_ready_again(round_begun, mongo, launchpad):
    campaign, _ = round_begun("validate", fits=False)
    mongo.database.fireworks.update_one({"state": "READY"}, {"$set": {"state": "RESERVED"}})
    assert recovery.release_lost(launchpad, campaign) == 1
    assert mongo.database.fireworks.count_documents({"state": "READY"}) == 1


def test_fireworks_of_other_campaigns_stay_as_they_are(
    round_begun, make_campaign, mongo, launchpad
):
    _, number = round_begun("validate", fits=False)
    launchpad.checkout_fw(FWorker(name=GONE, query={"spec.round": number}), "/")
    other = make_campaign("other")
    assert recovery.release_lost(launchpad, other) == 0
    assert recovery.is_idle(launchpad, other.store)
    assert mongo.database.fireworks.count_documents({"state": "RUNNING"}) == 1


def test_locks_of_killed_processes_are_taken_off(round_begun, make_campaign, mongo, launchpad):
    campaign, _ = round_begun("validate", fits=False)
    locked = {"locked": True}
    mongo.database.workflows.update_many({}, {"$set": locked})
    recovery.unlock(launchpad, make_campaign("other"))
    assert mongo.database.workflows.count_documents(locked) == 1
    recovery.unlock(launchpad, campaign)
    assert mongo.database.workflows.count_documents(locked) == 0


def test_a_lost_firework_of_a_locked_workflow_is_released(round_begun, mongo, launchpad):
    campaign, number = round_begun("validate", fits=False)
    launchpad.checkout_fw(FWorker(name=GONE, query={"spec.round": number}), "/")
    mongo.database.workflows.update_many({}, {"$set": {"locked": True}})
    assert recovery.release_lost(launchpad, campaign) == 1
    assert mongo.database.workflows.count_documents({"locked": True}) == 0


# What was raised, whether in DFT, and whether a new `run` repeats it.
FAILURES = {
    "engine failed on a structure": (DFTError("1 of 4 jobs failed: no"), True, False),
    "engine missing": (EngineMissingError("missing_executable", "no pw.x"), True, True),
    "step failed": (CampaignError("no σ"), False, True),
}


@pytest.mark.parametrize("case", FAILURES)
def test_what_failed_is_run_again_if_it_may_succeed(case, round_begun, launchpad, monkeypatch):
    error, in_dft, by_a_new_run = FAILURES[case]
    campaign, number = round_begun("validate", fits=False)

    def fail(*_args):
        raise error

    with monkeypatch.context() as patch:
        if in_dft:
            patch.setattr(dft_steps, "label", fail)
        else:
            patch.setattr(decisions, "decide", fail)
        run_rockets(launchpad, number, most=1 if in_dft else 2)
    (failure,) = recovery.failures(launchpad, campaign)
    assert failure.category == ("dft" if in_dft else "train")
    assert failure.round == number
    assert failure.reason.endswith(str(error))
    assert type(error).__name__ in failure.reason
    # Nobody holds it, so that a campaign that rests may be dumped or removed at once.
    assert Claims(campaign.store.connection, "tiny").of([failure.fw_id])[failure.fw_id].holder == ""
    refuse_at_work(campaign.store.connection, "tiny", "a dump")
    assert recovery.retry_failed(launchpad, campaign, all_steps=False) == 0
    assert recovery.retry_failed(launchpad, campaign, all_steps=True) == int(by_a_new_run)
    assert len(recovery.failures(launchpad, campaign)) == int(not by_a_new_run)


@pytest.mark.parametrize("step", ["DFT", "decision"])
def test_a_step_that_lost_its_server_is_given_back(step, round_begun, launchpad, monkeypatch):
    campaign, number = round_begun("validate", fits=False)

    def fail(*_args):
        raise DatabaseError("No MongoDB server answers")

    with monkeypatch.context() as patch:
        if step == "DFT":
            patch.setattr(dft_steps, "label", fail)
        else:
            patch.setattr(decisions, "decide", fail)
        run_rockets(launchpad, number, most=1 if step == "DFT" else 2)
    assert recovery.failures(launchpad, campaign) == []
    assert len(launchpad.get_fw_ids({"spec.round": number, "state": "READY"})) == 1


def test_dft_that_a_stopped_round_needs_is_run_again(round_begun, launchpad, monkeypatch):
    campaign, number = round_begun("validate", fits=False)

    def fail(*_args):
        raise DFTError("4 of 4 calculations failed: the disk was full")

    with monkeypatch.context() as patch:
        patch.setattr(dft_steps, "label", fail)
        run_rockets(launchpad, number)
    # The decision found no label to measure σ with.
    assert {f.category for f in recovery.failures(launchpad, campaign)} == {"dft", "train"}
    assert recovery.retry_failed(launchpad, campaign, all_steps=True) == 2
    run_rockets(launchpad, number)
    assert recovery.failures(launchpad, campaign) == []
    assert campaign.store.round(number + 1).submitted


def test_a_round_that_was_decided_and_not_submitted_is_submitted(
    tiny_history, make_campaign, mongo, launchpad, put_back
):
    campaign = make_campaign()
    put_back(
        mongo, {**tiny_history[1].after, "fw_id_assigner": list(launchpad.fw_id_assigner.find({}))}
    )
    recovery.resubmit(launchpad, campaign)
    recovery.resubmit(launchpad, campaign)
    assert mongo.database.workflows.count_documents({}) == 1
    assert campaign.store.last_round().submitted


def test_a_campaign_without_rounds_is_submitted(make_campaign, mongo, launchpad):
    recovery.resubmit(launchpad, make_campaign())
    (firework,) = mongo.database.fireworks.find({})
    assert (firework["name"], firework["state"]) == ("prototypes", "READY")


def test_a_campaign_whose_step_was_defused_says_how_to_go_on(round_begun, launchpad):
    campaign, number = round_begun("validate", fits=False)
    (ready,) = launchpad.get_fw_ids({"spec.round": number, "state": "READY"})
    launchpad.defuse_fw(ready)
    error = campaign_outcome.stuck(launchpad, campaign)
    assert f"`lpad reignite_fws -i {ready}`" in str(error)
    launchpad.reignite_fw(ready)
    assert "lpad reignite" not in str(campaign_outcome.stuck(launchpad, campaign))


def test_what_a_worker_is_just_taking_is_not_given_to_another(
    round_begun, launchpad, mongo, monkeypatch
):
    campaign, number = round_begun("seed", fits=True)
    ready = [
        firework["fw_id"]
        for firework in mongo.database.fireworks.find({"spec.round": number, "state": "READY"})
    ]
    written_in_part, taken = ready[:2]
    workflow = {"nodes": written_in_part}
    launchpad.workflows.update_one(workflow, {"$set": {f"fw_states.{written_in_part}": "WAITING"}})
    refresh, reservations = launchpad._refresh_wf, [taken]

    def while_one_is_taken(fw_id):
        for reserved in reservations:
            query = {"fw_id": reserved}
            launchpad.fireworks.update_one(query, {"$set": {"state": "RESERVED"}})
        reservations.clear()
        refresh(fw_id)

    monkeypatch.setattr(launchpad, "_refresh_wf", while_one_is_taken)
    recovery.resynchronise(launchpad, campaign)
    assert mongo.database.fireworks.find_one({"fw_id": taken})["state"] == "RESERVED"
    stored = launchpad.workflows.find_one(workflow)["fw_states"]
    assert stored[str(written_in_part)] == "READY"
