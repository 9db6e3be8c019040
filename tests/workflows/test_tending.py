"""Who is looked after by whom: steps that stand still, jobs that ended, workflows half written."""

import dataclasses
import time

import pytest
from fireworks import FWAction, FWorker

from hullscreen.database.claims import Claims
from hullscreen.database.publications import CHANGES, PUBLISHED
from hullscreen.workflows import flows, holding, recovery
from hullscreen.workflows.flows import submit_campaign, submit_round
from hullscreen.workflows.tending import LOOKS, Tender

ELSEWHERE = "hullscreen|elsewhere|1|1"
LIMIT_S = 30.0


@pytest.fixture
def campaign(make_campaign, launchpad):
    """The tiny campaign, submitted, with looks as often as one wants."""
    campaign = dataclasses.replace(make_campaign(), heartbeat_s=0.0)
    submit_campaign(launchpad, campaign)
    return campaign


@pytest.fixture
def claims(mongo):
    return Claims(mongo, "tiny")


def check_out(launchpad, worker=ELSEWHERE):
    firework, launch_id = launchpad.checkout_fw(FWorker(name=worker), "/")
    return firework.fw_id, launch_id


def take(claims, fw_id, job_id="", holder=ELSEWHERE):
    return claims.take(fw_id, category="train", holder=holder, host="elsewhere", job_id=job_id)


def state(launchpad, fw_id):
    return launchpad.fireworks.find_one({"fw_id": fw_id})["state"]


def test_a_step_that_beats_is_left_alone(campaign, launchpad, claims):
    fw_id, _ = check_out(launchpad)
    token = take(claims, fw_id)
    tender = Tender(launchpad, campaign)
    for _ in range(3 * LOOKS):
        assert tender.look() == 0
        assert claims.beat(fw_id, token)
    assert state(launchpad, fw_id) == "RUNNING"


@pytest.mark.parametrize("began", [True, False], ids=["in-its-step", "before-its-step"])
def test_a_step_that_stands_still_is_given_to_others_once(campaign, launchpad, claims, began):
    fw_id, launch_id = check_out(launchpad)
    token = take(claims, fw_id) if began else 0
    tenders = [Tender(launchpad, campaign), Tender(launchpad, campaign)]
    looks = [[tender.look() for tender in tenders] for _ in range(2 * LOOKS)]
    assert [sum(found) for found in looks] == [0] * LOOKS + [1] + [0] * (LOOKS - 1)
    assert state(launchpad, fw_id) == "READY"
    assert campaign.store.campaign()["n_reclaimed"] == 1
    assert not claims.is_held(fw_id, token)
    # The end of the one that was slow counts for nothing.
    launchpad.complete_launch(launch_id, FWAction(), "COMPLETED")
    assert state(launchpad, fw_id) == "READY"


def test_a_worker_that_began_with_a_longer_heartbeat_is_given_its_time(campaign, launchpad, claims):
    fw_id, _ = check_out(launchpad)
    claims.take(
        fw_id, category="train", holder=ELSEWHERE, host="elsewhere", job_id="", heartbeat_s=0.025
    )
    often = dataclasses.replace(campaign, heartbeat_s=0.01)
    tender, found = Tender(launchpad, often), []
    while sum(found) == 0:
        before = tender._last_look
        lost = tender.look()
        if tender._last_look != before:
            found.append(lost)
    # After the first one three times as many as of one with the same heartbeat.
    assert len(found) == 1 + 3 * LOOKS


def test_looks_are_no_more_often_than_heartbeats(campaign, launchpad, claims):
    fw_id, _ = check_out(launchpad)
    take(claims, fw_id)
    tender = Tender(launchpad, dataclasses.replace(campaign, heartbeat_s=60.0))
    assert [tender.look() for _ in range(3 * LOOKS)] == [0] * 3 * LOOKS


def test_a_machine_that_slept_takes_nothing_away(campaign, launchpad, claims, monkeypatch):
    fw_id, _ = check_out(launchpad)
    take(claims, fw_id)
    tender = Tender(launchpad, campaign)
    assert tender.look() == 0
    awake = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: awake() + 86400.0)
    assert tender.look() == 0


def test_what_a_job_held_that_has_ended_is_given_to_others_at_once(campaign, launchpad, claims):
    fw_id, _ = check_out(launchpad)
    token = take(claims, fw_id, job_id="42")
    tender = Tender(launchpad, campaign)
    for ended_jobs in ((), {"41", "43"}):
        assert tender.look(ended_jobs) == 0
        claims.beat(fw_id, token)
    assert tender.look({"41", "42"}) == 1
    assert state(launchpad, fw_id) == "READY"
    # Nobody holds it: there is nothing to take away once more.
    assert tender.look({"41", "42"}) == 0


def test_a_process_of_this_host_that_has_ended_is_replaced_at_once(campaign, launchpad, claims):
    fw_id, _ = check_out(launchpad)
    tender = Tender(launchpad, campaign)
    take(claims, fw_id, holder=holding.worker_name())
    assert tender.look() == 0
    take(claims, fw_id, holder=f"{holding.worker_name()}0")
    assert tender.look() == 1


def test_a_hull_that_lags_behind_is_written(campaign, launchpad):
    campaign.store.note_hull_change()
    Tender(launchpad, campaign).look()
    known = campaign.store.campaign()
    assert known[PUBLISHED] == known[CHANGES] > 1


def test_a_step_that_waits_in_a_queue_is_left_alone(campaign, launchpad):
    """As `qlaunch -r` reserves it; what nobody has submitted is lost."""
    firework, launch_id = launchpad.reserve_fw(FWorker(name=ELSEWHERE), "/")
    launchpad.set_reservation_id(launch_id, 4711)
    tender = Tender(launchpad, campaign)
    assert [tender.look() for _ in range(3 * LOOKS)] == [0] * 3 * LOOKS
    assert recovery.release_lost(launchpad, campaign) == 0
    assert state(launchpad, firework.fw_id) == "RESERVED"
    launchpad.cancel_reservation(launch_id)
    firework, _ = launchpad.reserve_fw(FWorker(name=ELSEWHERE), "/")
    assert sum(tender.look() for _ in range(2 * LOOKS)) == 1
    assert state(launchpad, firework.fw_id) == "READY"


def test_a_step_that_others_have_begun_again_is_left_to_them(campaign, launchpad, monkeypatch):
    fw_id, launch_id = check_out(launchpad)
    trace = "pymongo.errors.AutoReconnect: gone"
    action = FWAction(stored_data={"_exception": {"_stacktrace": trace}})
    launchpad.complete_launch(launch_id, action, "FIZZLED")
    failures = recovery.failures

    def and_somebody_is_quicker(*given):
        found = failures(*given)
        launchpad.rerun_fw(fw_id)
        assert check_out(launchpad)[0] == fw_id
        return found

    monkeypatch.setattr(recovery, "failures", and_somebody_is_quicker)
    assert recovery.retry_failed(launchpad, campaign, all_steps=False) == 0
    assert state(launchpad, fw_id) == "RUNNING"


def test_a_step_that_has_ended_meanwhile_is_not_done_again(campaign, launchpad):
    fw_id, launch_id = check_out(launchpad)
    launchpad.complete_launch(launch_id, FWAction(), "COMPLETED")
    recovery.give_back(launchpad, fw_id)
    assert state(launchpad, fw_id) == "COMPLETED"


def test_what_somebody_else_looks_after_in_this_process_is_looked_after_once(
    campaign, launchpad, claims
):
    fw_id, _ = check_out(launchpad)
    take(claims, fw_id)
    often = dataclasses.replace(campaign, heartbeat_s=0.01)
    with Tender(launchpad, often).in_background(), Tender(launchpad, often).in_background():
        deadline = time.monotonic() + LIMIT_S
        while state(launchpad, fw_id) != "READY":
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert campaign.store.campaign()["n_reclaimed"] == 1


def test_a_round_that_nobody_submitted_is_submitted(
    tiny_history, campaign, launchpad, mongo, put_back
):
    counters = list(launchpad.fw_id_assigner.find({}))
    put_back(mongo, {**tiny_history[0].after, "fw_id_assigner": counters})
    tender = Tender(launchpad, campaign)
    for _ in range(LOOKS - 1):
        tender.look()
        assert not campaign.store.last_round().submitted
    tender.look()
    assert campaign.store.last_round().submitted


def test_two_that_submit_a_round_make_one_workflow(
    tiny_history, campaign, launchpad, mongo, put_back, monkeypatch
):
    counters = list(launchpad.fw_id_assigner.find({}))
    put_back(mongo, {**tiny_history[0].after, "fw_id_assigner": counters})
    add_wf = launchpad.add_wf

    def as_another_does_just_now(workflow):
        monkeypatch.setattr(launchpad, "add_wf", add_wf)
        submit_round(launchpad, campaign, 0)
        # As if this one had looked before the other was done.
        return add_wf(workflow)

    workflow = flows.round_workflow(campaign, campaign.store.round(0))
    monkeypatch.setattr(launchpad, "add_wf", as_another_does_just_now)
    submit_round(launchpad, campaign, 0)
    assert mongo.database.workflows.count_documents({"metadata.round": 0}) == 1
    nodes = mongo.database.workflows.find_one({"metadata.round": 0})["nodes"]
    fireworks = [f["fw_id"] for f in mongo.database.fireworks.find({"spec.round": 0})]
    assert sorted(fireworks) == sorted(nodes)
    assert len(nodes) == len(workflow.fws)
