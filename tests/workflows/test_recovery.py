"""Fireworks of processes that are gone, failures, and rockets killed at any write."""

import os
import socket
import subprocess
import sys

import pytest
from fireworks import FWorker
from fireworks.core import rocket
from fireworks.core.launchpad import WFLock
from fireworks.core.rocket_launcher import launch_rocket

from hullscreen.workflows import recovery
from hullscreen.workflows.decisions import decide
from hullscreen.workflows.flows import submit_round

# A process that has never been: this one's number with another start.
GONE = f"hullscreen|{socket.gethostname()}|{os.getpid()}|1"


@pytest.fixture(autouse=True)
def _rockets_run_elsewhere(tmp_path, monkeypatch):
    """Rockets write FW.json where they run; threads that say "I live" would outlive a simulated death."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(rocket, "start_ping_launch", lambda *_: None)
    monkeypatch.setattr(rocket, "stop_backgrounds", lambda *_: None)


def run_rockets(launchpad, round_number, name=None):
    """Run what is ready of a round, as a worker does, until nothing is."""
    worker = FWorker(name=name or recovery.worker_name(), query={"spec.round": round_number})
    while launch_rocket(launchpad, worker, strm_lvl="CRITICAL"):
        pass


def states_in(database):
    """States of Fireworks by name, as the Fireworks and as the workflows say."""
    fireworks = {f["fw_id"]: f for f in database.fireworks.find({})}
    of_workflows = {
        int(fw_id): state
        for workflow in database.workflows.find({})
        for fw_id, state in workflow["fw_states"].items()
    }
    return sorted((f["name"], f["state"], of_workflows[i]) for i, f in fireworks.items())


@pytest.mark.parametrize("kind", ["validate", "wave"])
def test_killed_at_any_write_of_a_rocket_a_round_still_ends(
    kind, tiny_history, make_campaign, mongo, launchpad, put_back, mortal, monkeypatch
):
    # The next process to want a dead one's lock waits seconds for it; the test need not.
    monkeypatch.setattr(WFLock.__init__, "__defaults__", (0.0, True))
    monkeypatch.setattr(recovery, "LOCK_PATIENCE_S", 0.0, raising=False)
    purposes = {"validate": ("validate", False), "wave": ("learn", False)}
    decided = next(
        d for d in tiny_history if (d.next_round.purpose, d.next_round.fits) == purposes[kind]
    )
    number = decided.next_round.number
    campaign = make_campaign()
    counters = list(launchpad.fw_id_assigner.find({}))
    lives, expected = 10**6, None
    while True:
        put_back(mongo, {**decided.after, "fw_id_assigner": counters})
        submit_round(launchpad, campaign, number)
        with mortal(lives) as fate:
            run_rockets(launchpad, number, GONE)
        if fate.dead:
            recovery.release_lost(launchpad, campaign)
            recovery.resubmit(launchpad, campaign)
            run_rockets(launchpad, number)
        outcome = states_in(mongo.database)
        if expected is None:
            expected, lives = outcome, -1
            assert {state for name, *both in outcome if f"round {number}:" in name for state in both} == {"COMPLETED"}
        elif not fate.dead:
            break
        assert outcome == expected, f"killed after {lives} writes"
        assert campaign.store.round(number + 1).submitted
        lives += 1
    print(lives)
    assert 0
