"""Jobs that a real Slurm ends: what they held is back at work within two heartbeats."""

import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import pytest

PATIENCE_S = 600
# The default, s.
HEARTBEAT_S = 10.0
HEARTBEATS = 2


@dataclass
class Loss:
    """A step whose job ends: when it did, when others could take the step, and when one did."""

    process: int
    job: str
    step: int
    token: int
    ended: float = 0.0
    free: float = 0.0
    back: float = 0.0
    next_job: str = ""

    def look(self, claims):
        if not self.ended and not Path(f"/proc/{self.process}/exe").exists():
            self.ended = time.time()
        if self.back:
            return
        claim = claims.find_one({"_id": self.step})
        if not self.free and claim["token"] != self.token:
            self.free = time.time()
        if claim["holder"] and claim["job_id"] != self.job:
            self.back, self.next_job = time.time(), claim["job_id"]


@dataclass
class Watch:
    """Looks at lost steps, and counts the signs of life of a worker that lives on."""

    claims: object
    metronome: dict
    losses: list = field(default_factory=list)
    beats: list = field(default_factory=list)

    def look(self):
        found = self.claims.find_one({"_id": self.metronome["_id"]})
        assert found["token"] == self.metronome["token"], "the metronome must not stop"
        while len(self.beats) < found["beats"]:
            self.beats.append(time.time())
        for loss in self.losses:
            loss.look(self.claims)

    def loss(self, process, job):
        held = self.claims.find_one({"job_id": job, "holder": {"$ne": ""}})
        self.losses.append(Loss(process, job, held["_id"], held["token"]))
        return self.losses[-1]

    def heartbeats(self, begin, end):
        return sum(begin < moment <= end for moment in self.beats)


@pytest.mark.slow
def test_what_a_lost_job_held_is_back_at_work_within_two_heartbeats(
    campaign, mongo, slurm, launch, gate, wait_for, job_of, monkeypatch, assert_hull_of_run
):
    hosts = Path(__file__).with_name("other_hosts")
    monkeypatch.setenv("PYTHONPATH", f"{hosts}{os.pathsep}{os.environ['PYTHONPATH']}")
    # Slurm counts in minutes, and ends what is over its time when it looks, every half minute.
    directory = campaign(heartbeat_s=HEARTBEAT_S, walltime="00:01:00")
    claims = mongo.database.claims
    launched = launch(directory)
    # A new campaign tries its engine first.
    wait_for(lambda: "submitted" in launched.said)
    gate.close()
    # Outside the queue, with all the time it wants; it takes one of three steps, two jobs the rest.
    worker = [sys.executable, "-m", "hullscreen.launch", "worker", directory, "--category", "dft"]
    with subprocess.Popen(worker) as outside:
        try:
            with gate.deaf():
                wait_for(lambda: len(gate.waiting()) == 3)
            metronome = claims.find_one({"holder": {"$regex": rf"\|{outside.pid}\|"}})
            watch = Watch(claims, metronome)
            known = {outside.pid}

            def at_gate(step=None):
                """Jobs that have come to the gate, all or those with one step, in their order."""
                watch.look()
                for pid in gate.waiting():
                    if pid not in known:
                        known.add(pid)
                        watch.loss(pid, job_of(pid))
                return [loss for loss in watch.losses if step in (None, loss.step)]

            # Deaf as they are, Slurm has to kill them.
            killed, out_of_time = at_gate()
            slurm("scancel", killed.job)
            _, cancelled = wait_for(lambda: len(found := at_gate(killed.step)) == 2 and found)
            slurm("scancel", cancelled.job)
            # The others run out of time by themselves.
            *_, before_time = wait_for(lambda: len(found := at_gate(killed.step)) == 3 and found)
            losses = (killed, cancelled, before_time, out_of_time)

            def all_are_back():
                watch.look()
                return all(loss.back for loss in losses)

            wait_for(all_are_back)
            told = {
                job: slurm("scontrol", "show", "job", job)
                for loss in losses
                for job in (loss.job, loss.next_job)
            }
            gate.open()
            launched.finish()
            assert outside.wait(timeout=PATIENCE_S) == 0
        finally:
            outside.kill()
    assert "JobState=CANCELLED" in told[killed.job]
    assert "JobState=CANCELLED" in told[cancelled.job]
    assert "JobState=TIMEOUT" in told[out_of_time.job]
    # It has ended by itself.
    assert "JobState=COMPLETED" in told[before_time.job]
    assert "ExitCode=0:0" in told[before_time.job]

    names = ("cancelled, deaf", "cancelled", "stopped before its time", "out of its time, deaf")
    for name, loss in zip(names, losses, strict=True):
        started = re.search(r"StartTime=(\S+)", told[loss.next_job])[1]
        begun = max(loss.free, datetime.fromisoformat(started).timestamp())
        beats = watch.heartbeats(loss.ended, begun)
        print(
            f"{name}: the step was free after {loss.free - loss.ended:.1f} s, the next job had "
            f"begun after {begun - loss.ended:.1f} s and {beats} heartbeats, and was at work after "
            f"{loss.back - loss.ended:.1f} s and {watch.heartbeats(loss.ended, loss.back)}"
        )
        # How long Python takes to start is another matter, on a machine that is busy.
        assert beats <= HEARTBEATS, name
    # Only those who could not give their steps back were taken for lost.
    assert mongo.database.campaigns.find_one()["n_reclaimed"] == 2
    assert mongo.database.fireworks.distinct("state") == ["COMPLETED"]
    assert_hull_of_run(directory)
    assert slurm.jobs() == {}
