"""A worker's loop: what it runs, what it leaves alone, and when it ends."""

import threading

import pytest
from fireworks import FWAction, FWorker

from hullscreen.workflows import decisions, dft_steps
from hullscreen.workflows.flows import submit_campaign, submit_round
from hullscreen.workflows.worker import work


@pytest.fixture(autouse=True)
def _rockets_run_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def at_the_end(tiny_history, make_campaign, mongo, launchpad, put_back):
    """The tiny campaign with its last round just decided and not submitted."""
    campaign = make_campaign()
    counters = list(launchpad.fw_id_assigner.find({}))
    put_back(mongo, {**tiny_history[-2].after, "fw_id_assigner": counters})
    return campaign


def states(mongo):
    return {f["name"]: f["state"] for f in mongo.database.fireworks.find({})}


def test_a_worker_ends_when_the_hull_is_there(at_the_end, launchpad, mongo):
    store = at_the_end.store
    submit_round(launchpad, at_the_end, store.last_round().number)
    work(launchpad, store, poll_s=0.01)
    assert store.campaign()["finished"]
    assert set(states(mongo).values()) == {"COMPLETED"}
    # Again there is nothing to do.
    work(launchpad, store, poll_s=0.01)


def test_a_worker_goes_through_round_after_round(
    tiny_history, make_campaign, mongo, launchpad, put_back
):
    campaign = make_campaign()
    (validate,) = [d for d in tiny_history if d.next_round and d.next_round.purpose == "validate"]
    counters = list(launchpad.fw_id_assigner.find({}))
    put_back(mongo, {**validate.after, "fw_id_assigner": counters})
    submit_round(launchpad, campaign, validate.next_round.number)
    work(launchpad, campaign.store, poll_s=0.01)
    ours, theirs = campaign.store.rounds(), [d.next_round for d in tiny_history[:-1]]
    for mine, undisturbed in zip(ours, theirs, strict=True):
        assert (mine.purpose, mine.wave, mine.sigma) == (
            undisturbed.purpose,
            undisturbed.wave,
            undisturbed.sigma,
        )
        assert mine.final_indices == undisturbed.final_indices


def test_steps_that_are_to_be_run_once_more_are_run_though_the_hull_is_there(
    at_the_end, launchpad, mongo, monkeypatch
):
    store = at_the_end.store
    submit_round(launchpad, at_the_end, store.last_round().number)
    work(launchpad, store, poll_s=0.01)
    first = mongo.database.fireworks.find_one({"name": {"$regex": "DFT relaxations"}})
    launchpad.rerun_fw(first["fw_id"])
    ran = []
    monkeypatch.setattr(dft_steps, "relax_with_dft", lambda *args: ran.append(args))
    work(launchpad, store, poll_s=0.01)
    assert len(ran) == 1
    assert set(states(mongo).values()) == {"COMPLETED"}


def test_fireworks_of_a_round_that_is_not_completely_submitted_are_left_alone(
    at_the_end, launchpad, mongo, monkeypatch
):
    store, number = at_the_end.store, at_the_end.store.last_round().number
    submit_round(launchpad, at_the_end, number)
    # As if the submission were still going on; then it ends.
    mongo.database.rounds.update_one({"number": number}, {"$set": {"submitted": False}})
    seen = []

    def look(*_args):
        seen.append(store.last_round().submitted)

    monkeypatch.setattr(dft_steps, "relax_with_dft", look)
    monkeypatch.setattr(decisions, "_finish", lambda c: c.store.set_campaign(finished=True))
    timer = threading.Timer(0.5, store.set_submitted, [number])
    timer.start()
    work(launchpad, store, poll_s=0.01)
    timer.join()
    assert seen
    assert all(seen)


def test_fireworks_of_other_campaigns_are_left_alone(at_the_end, launchpad, mongo, make_campaign):
    submit_campaign(launchpad, make_campaign("other"))
    submit_round(launchpad, at_the_end, at_the_end.store.last_round().number)
    work(launchpad, at_the_end.store, poll_s=0.01)
    assert states(mongo)["prototypes"] == "READY"


def test_workers_take_their_kinds_of_steps_only(at_the_end, launchpad, mongo, monkeypatch):
    store = at_the_end.store
    submit_round(launchpad, at_the_end, store.last_round().number)
    ran = []
    relax = dft_steps.relax_with_dft
    monkeypatch.setattr(dft_steps, "relax_with_dft", lambda *args: (ran.append(args), relax(*args)))
    others = threading.Thread(
        target=work,
        args=(launchpad, store),
        kwargs={"categories": ["relax", "train"], "poll_s": 0.01},
    )
    others.start()
    others.join(timeout=1.0)
    # The last round begins with DFT, which is none of its business.
    assert others.is_alive()
    assert not ran
    assert set(states(mongo).values()) <= {"READY", "WAITING"}
    work(launchpad, store, categories=["dft"], poll_s=0.01)
    others.join(timeout=60)
    assert not others.is_alive()
    assert ran
    assert store.campaign()["finished"]
    assert set(states(mongo).values()) == {"COMPLETED"}


def test_a_worker_waits_for_steps_that_another_one_runs(at_the_end, launchpad):
    store = at_the_end.store
    submit_round(launchpad, at_the_end, store.last_round().number)
    _, launch_id = launchpad.checkout_fw(FWorker(name="another"), "/")
    store.set_campaign(finished=True)
    worker = threading.Thread(target=work, args=(launchpad, store), kwargs={"poll_s": 0.01})
    worker.start()
    worker.join(timeout=0.5)
    assert worker.is_alive()
    # The other one does its relaxations; then there is the decision to take.
    dft_steps.relax_with_dft(at_the_end, store.last_round(), 0, 10**9)
    launchpad.complete_launch(launch_id, FWAction())
    worker.join(timeout=60)
    assert not worker.is_alive()
    assert launchpad.fireworks.distinct("state") == ["COMPLETED"]
