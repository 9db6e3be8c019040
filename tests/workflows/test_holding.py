"""Names of workers, signs of life while a step lasts, and writes of those that have lost it."""

import os
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from hullscreen.database.campaign_store import CampaignStore
from hullscreen.database.claims import Claims
from hullscreen.database.round_documents import PotentialDocument
from hullscreen.potentials.errors import ClaimLostError
from hullscreen.workflows import holding

HERE = socket.gethostname()
# A process that has never been: this one's number with another start.
GONE = f"hullscreen|{HERE}|{os.getpid()}|1"
LIMIT_S = 30.0


def test_a_live_process_is_not_gone():
    assert not holding.is_gone(holding.worker_name())


def test_a_process_that_ended_is_gone():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        *where, _, _ = holding.worker_name().split("|")
        name = "|".join([*where, str(process.pid), holding.process_start(process.pid)])
        assert not holding.is_gone(name)
        process.kill()
        process.wait()
        assert holding.is_gone(name)


def test_a_process_number_that_was_given_again_is_gone():
    assert holding.is_gone(GONE)
    assert holding.is_gone(f"{holding.worker_name()}0")


@pytest.mark.parametrize(
    "name",
    [
        "hullscreen|elsewhere|1|1",
        "rocket-launcher-7",
        "a|b|c|d",
    ],
)
def test_of_other_workers_nothing_is_known(name):
    assert not holding.is_gone(name)


def test_in_a_container_of_this_host_numbers_of_processes_are_others():
    assert not holding.is_gone(f"hullscreen|{HERE}|pid:[1]|{os.getpid()}|1")


def wait_until(condition):
    """Wait for something that happens at once unless the machine is very busy."""
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def beats(claims, fw_id):
    return claims.of([fw_id])[fw_id].beats


@pytest.fixture
def claims(mongo):
    return Claims(mongo, "tiny")


def test_signs_of_life_last_as_long_as_the_step(claims):
    with holding.holding(claims, 7, "dft", 0.01) as held:
        assert claims.of([7])[7].holder == holding.worker_name()
        wait_until(lambda: beats(claims, 7) > 2)
    held.require()
    # The last one may just be on its way.
    time.sleep(0.1)
    last = beats(claims, 7)
    time.sleep(0.1)
    assert beats(claims, 7) == last


def test_the_job_of_the_queue_is_named_by_its_number(claims, monkeypatch):
    for name in holding.JOB_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    assert holding.queue_job() == ""
    monkeypatch.setenv("PBS_JOBID", "12.head")
    with holding.holding(claims, 7, "dft", 10.0):
        assert claims.of([7])[7].job_id == "12"


def test_a_step_that_was_taken_away_is_not_gone_on_with(claims):
    with holding.holding(claims, 7, "dft", 10.0) as held:
        held.require()
        claims.revoke(7, held.token)
        with pytest.raises(ClaimLostError, match="Firework 7 was taken away"):
            held.require()


def test_no_document_of_the_campaign_is_written_without_the_claim(make_campaign, mongo):
    campaign = make_campaign()
    claims = Claims(mongo, "tiny")
    potential = PotentialDocument(
        campaign="tiny", number=0, stage=1, level=4, text="", active_rows=b"", n_training=1,
        loss=0.0, condition=1.0, lowest_energy_per_atom=-1.0,
    )  # fmt: skip
    with holding.holding(claims, 7, "train", 10.0) as slow:
        store = CampaignStore(mongo, "tiny", slow.require)
        store.save_potential(potential)
        with holding.holding(claims, 7, "train", 10.0):
            for write in (
                lambda: store.save_potential(potential),
                lambda: store.advance([1], 2),
                lambda: store.drop([(1, {"stage": 1})]),
                lambda: store.save_final(1, {"state": "done"}),
                lambda: store.set_submitted(0),
            ):
                with pytest.raises(ClaimLostError):
                    write()
    assert campaign.store.potential(0) is not None
    assert np.isclose(campaign.store.potential(0).lowest_energy_per_atom, -1.0)


def test_a_calculation_of_another_campaign_is_waited_for(mongo):
    began, may_end, ended = threading.Event(), threading.Event(), threading.Event()

    def compute_slowly():
        with holding.holding(Claims(mongo, "quick"), 1, "dft", 0.05) as first:
            with first.computing("key"):
                began.set()
                may_end.wait(LIMIT_S)
            # It goes on to its next calculation.
            ended.wait(LIMIT_S)

    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(compute_slowly)
        began.wait(LIMIT_S)
        with holding.holding(Claims(mongo, "tiny"), 2, "dft", 0.05) as second:
            # Far longer than a silent step would be waited for.
            threading.Timer(10 * holding.HEARTBEATS_AWAITED * 0.05, may_end.set).start()
            with second.computing("other key"):
                assert not may_end.is_set()
            with second.computing("key"):
                assert may_end.is_set()
                assert slow.running()
        ended.set()
        slow.result()


@pytest.mark.parametrize("how", ["revoked", "ended", "gone", "silent"])
def test_a_calculation_whose_step_is_lost_is_not_waited_for(claims, mongo, how):
    theirs = Claims(mongo, "quick")
    holder = {"gone": GONE, "silent": "hullscreen|elsewhere|1|1"}.get(how, holding.worker_name())
    token = theirs.take(1, category="dft", holder=holder, host=HERE, job_id="")
    assert theirs.take_calculation("key", 1, token) is None
    if how == "revoked":
        theirs.revoke(1, token)
    if how == "ended":
        theirs.release(1, token)
    with holding.holding(claims, 2, "dft", 0.05) as held, held.computing("key"):
        # Whoever comes back from a long sleep does not take it from its new holder.
        theirs.leave_calculation("key", 1, token)
        assert mongo.database.calculations.find_one({"_id": "key"})["fw_id"] == 2
    assert mongo.database.calculations.find_one({"_id": "key"}) is None


def test_a_step_of_another_campaign_may_give_signs_of_life_less_often(mongo):
    began, may_end = threading.Event(), threading.Event()

    def compute_slowly():
        calm = holding.holding(Claims(mongo, "calm"), 1, "dft", 600.0)
        with calm as first, first.computing("key"):
            began.set()
            may_end.wait(LIMIT_S)

    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(compute_slowly)
        began.wait(LIMIT_S)
        with holding.holding(Claims(mongo, "tiny"), 2, "dft", 0.05) as second:
            # Far longer than one of its own campaign would be waited for.
            threading.Timer(10 * holding.HEARTBEATS_AWAITED * 0.05, may_end.set).start()
            with second.computing("key"):
                assert may_end.is_set()
        slow.result()


def test_waiting_ends_with_the_step(claims, mongo):
    with holding.holding(Claims(mongo, "quick"), 1, "dft", 0.05) as first, first.computing("key"):
        with holding.holding(claims, 2, "dft", 0.05) as second:
            claims.revoke(2, second.token)
            with pytest.raises(ClaimLostError), second.computing("key"):
                pass
        assert mongo.database.calculations.find_one({"_id": "key"})["fw_id"] == 1
