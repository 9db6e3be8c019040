"""Who is at work, what is lost, how quickly it goes: from documents as workers leave them."""

import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from fireworks import Firework, Workflow

from hullscreen.database.supervisors import SignsOfLife, Supervisor
from hullscreen.workflows.campaign_status import campaign_status
from hullscreen.workflows.firetasks import FitTask, LabelTask, RelaxTask
from hullscreen.workflows.flows import prepare_launchpad
from hullscreen.workflows.worker import launchpad_on

HERE = os.uname().nodename
TASKS = {"dft": LabelTask, "train": FitTask, "relax": RelaxTask}
# Of what is reckoned from moments that the test and the server read one after another, s; a busy
# machine may take long between them.
SLACK_S = 60.0
HOLDS = """
import sys, time
from hullscreen.database.claims import Claims
from hullscreen.database.connection import Connection, connect
from hullscreen.workflows.holding import holding
uri, name, fw_id = sys.argv[1:]
connection = Connection(connect(uri, name), uri, name, embedded=False)
with holding(Claims(connection, "tiny"), int(fw_id), "dft", 0.05):
    print("holds", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def campaign(make_campaign):
    """A campaign that has been going on for a day."""
    campaign = make_campaign()
    campaign.store.set_campaign(created_at=datetime.now(UTC) - timedelta(days=1))
    return campaign


@pytest.fixture
def status(campaign, mongo):
    """Function that gives the status, as a script would read it."""
    return lambda: json.loads(json.dumps(campaign_status(campaign.store, mongo)))


@pytest.fixture
def add_steps(launchpad, mongo):
    """Function that puts steps into the LaunchPad, in states that workers would bring about."""

    def add(category, state, n=1, **fields):
        task = TASKS[category]({"campaign": "tiny", "round": 0, "first": 0, "last": 1})
        spec = {"campaign": "tiny", "round": 0, "_category": category}
        fireworks = [Firework([task], spec=spec, name=f"{category} step") for _ in range(n)]
        ids = sorted(launchpad.add_wf(Workflow(fireworks)).values())
        change = {"state": state, "updated_on": stamp(0), **fields}
        mongo.database.fireworks.update_many({"fw_id": {"$in": ids}}, {"$set": change})
        return ids

    return add


@pytest.fixture
def run_from(mongo):
    """Function that gives a step a launch with a start and an end, in seconds from now."""

    def run(fw_id, start, end, **fields):
        launch = {
            "launch_id": 1000 + fw_id, "fw_id": fw_id, "time_start": stamp(start),
            "time_end": stamp(end), "host": HERE, "fworker": {"name": "somebody"}, **fields,
        }  # fmt: skip
        mongo.database.launches.insert_one(launch)
        mongo.database.fireworks.update_one(
            {"fw_id": fw_id},
            {"$set": {"launches": [launch["launch_id"]], "updated_on": stamp(end)}},
        )

    return run


@pytest.fixture
def claim(mongo):
    """Function that leaves a claim as a worker would that was seen some seconds ago."""

    def leave(fw_id, *, seen=0.0, began=0.0, host=HERE, holder=None, job_id=""):
        mongo.database.claims.insert_one(
            {
                "_id": fw_id, "campaign": "tiny", "token": 1, "host": host, "job_id": job_id,
                "holder": f"hullscreen|{host}-elsewhere|1|1" if holder is None else holder,
                "began_at": moment(began), "seen_at": moment(seen),
            }
        )  # fmt: skip

    return leave


def workers_of(found):
    """The numbers of workers, without their steps."""
    return {name: found["workers"][name] for name in ("alive", "hosts")}


def moment(seconds):
    return datetime.now(UTC) + timedelta(seconds=seconds)


def stamp(seconds):
    """A time as FireWorks stores it."""
    return moment(seconds).isoformat()


def test_a_campaign_that_nobody_has_begun(status):
    found = status()
    assert found["steps"] == found["queue"] == {}
    assert workers_of(found) == {"alive": 0, "hosts": {}}
    assert found["left_s"] is None


def test_steps_with_a_living_worker_run_and_others_are_lost(status, add_steps, claim):
    alive, silent, gone = add_steps("dft", "RUNNING", 3)
    # The longest silence that is none: two heartbeats of ten seconds.
    claim(alive, seen=-20, host="node1")
    claim(silent, seen=-31 - SLACK_S)
    # A process of this host that has ended is known to be gone at once.
    claim(gone, seen=0, holder=f"hullscreen|{HERE}|{os.getpid()}|1")
    add_steps("relax", "WAITING", 7)
    found = status()
    dft, relax = found["steps"]["dft"], found["steps"]["relax"]
    assert (dft["running"], dft["lost"], dft["waiting"]) == (1, 2, 0)
    assert (relax["running"], relax["lost"], relax["waiting"]) == (0, 0, 7)
    assert workers_of(found) == {"alive": 1, "hosts": {"node1": 1}}
    assert found["fireworks"]["dft"] == {"RUNNING": 3}


def test_the_heartbeat_of_the_campaign_counts(campaign, status, add_steps, claim):
    (fw_id,) = add_steps("dft", "RUNNING")
    claim(fw_id, seen=-200)
    campaign.store.set_campaign(heartbeat_s=200.0)
    assert status()["workers"]["alive"] == 1
    campaign.store.set_campaign(heartbeat_s=20.0)
    assert status()["workers"]["alive"] == 0


def test_a_step_that_was_just_begun_runs(status, add_steps, run_from):
    # FireWorks says that it runs before its worker holds it.
    new, old = add_steps("train", "RUNNING", 2)
    run_from(new, 0, 0)
    run_from(old, -3600, -3600)
    train = status()["steps"]["train"]
    assert (train["running"], train["lost"]) == (1, 1)


def test_when_all_workers_are_killed_nobody_is_at_it(status, add_steps, mongo):
    (fw_id,) = add_steps("dft", "RUNNING")
    with subprocess.Popen(
        [sys.executable, "-c", HOLDS, mongo.uri, mongo.name, str(fw_id)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    ) as worker:
        assert worker.stdout.readline() == b"holds\n"
        assert workers_of(status()) == {"alive": 1, "hosts": {HERE: 1}}
        worker.send_signal(signal.SIGKILL)
        worker.wait()
        found = status()
    assert workers_of(found) == {"alive": 0, "hosts": {}}
    assert found["steps"]["dft"]["lost"] == 1
    assert found["left_s"] is None


def test_rates_are_those_of_the_last_hour(campaign, status, add_steps, run_from):
    for number, fw_id in enumerate(add_steps("relax", "COMPLETED", 6)):
        run_from(fw_id, -1000 * number - 100, -1000 * number - 50)
    add_steps("relax", "FIZZLED", 2)
    relax = status()["steps"]["relax"]
    # Of the six, four were done in the last 3,600 s.
    assert (relax["done"], relax["failed"], relax["per_hour"]) == (6, 2, 4.0)
    # One that has just begun is judged from its beginning.
    campaign.store.set_campaign(created_at=moment(-1800))
    per_hour = status()["steps"]["relax"]["per_hour"]
    assert per_hour == pytest.approx(2 * 3600 / 1800, rel=SLACK_S / 1800)


def test_dft_evaluations_per_minute(status, mongo):
    results = [(-10, 30, "tiny"), (-1800, 90, "tiny"), (-4000, 1000, "tiny"), (-10, 500, "other")]
    mongo.database.dft_results.insert_many(
        {"key": str(number), "campaign": name, "created_at": moment(at), "n_evaluations": n}
        for number, (at, n, name) in enumerate(results)
    )
    assert status()["dft_evaluations_per_minute"] == pytest.approx(2.0)
    assert status()["rate_window_s"] == 3600.0


def test_time_left_at_the_speed_while_somebody_worked(status, add_steps, run_from, claim):
    # Two at a time took 100 s each, an hour ago and a day ago.
    for fw_id, start in zip(
        add_steps("relax", "COMPLETED", 4), (-3600, -3600, -86400, -86400), strict=True
    ):
        run_from(fw_id, start, start + 100)
    add_steps("relax", "WAITING", 9)
    (fit,) = add_steps("train", "RUNNING")
    claim(fit)
    found = status()
    assert found["steps"]["relax"]["left_s"] == pytest.approx(450.0, abs=SLACK_S)
    assert found["steps"]["dft"]["left_s"] == 0.0
    # No fit was ever done, so nobody knows how long one takes.
    assert found["steps"]["train"]["left_s"] is None
    assert found["left_s"] is None
    (done,) = add_steps("train", "COMPLETED")
    run_from(done, -400, -200)
    found = status()
    assert found["steps"]["train"]["left_s"] == pytest.approx(200.0, abs=SLACK_S)
    assert found["left_s"] == pytest.approx(650.0, abs=SLACK_S)


def test_nobody_knows_when_steps_end_that_no_worker_takes(
    campaign, status, add_steps, run_from, claim
):
    (done,) = add_steps("dft", "COMPLETED")
    run_from(done, -200, -100)
    add_steps("dft", "READY", 5)
    # Somebody is at work, but on other things.
    (fit,) = add_steps("train", "RUNNING")
    claim(fit)
    assert status()["steps"]["dft"]["left_s"] is None
    (own,) = add_steps("dft", "RUNNING")
    claim(own)
    assert status()["steps"]["dft"]["left_s"] > 0
    for mark in ("paused", "cancelled"):
        campaign.store.set_campaign(**{mark: True})
        assert status()[mark] is True
        assert status()["steps"]["dft"]["left_s"] is None
        campaign.store.set_campaign(**{mark: False})


def test_time_left_of_dft_by_its_calculations(
    tiny_history, campaign, launchpad, status, add_steps, run_from, claim, mongo, put_back
):
    seeded = tiny_history[0]
    counters = list(launchpad.fw_id_assigner.find({}))
    put_back(mongo, {**seeded.after, "fw_id_assigner": counters})
    keys = [one.key for one in campaign.store.selected(round=0)]
    # One job for all, and under way for 300 s: three calculations are done.
    (job,) = add_steps("dft", "RUNNING")
    claim(job, began=-300)
    done = [
        {"key": key, "kind": "single_point", "state": "done", "campaign": "tiny",
         "created_at": moment(-100), "n_evaluations": 1, "structure_index": 0, "purpose": "seed"}
        for key in keys[:3]
    ]  # fmt: skip
    done[0]["state"] = "failed"
    mongo.database.dft_results.insert_many(done)
    found = status()
    assert found["progress"]["dft_single_points"] == {"done": 3, "total": len(keys), "failed": 1}
    expected = 100.0 * (len(keys) - 3)
    # What the server's clock has gone on since `claim` counts for each of those to come.
    assert expected <= found["steps"]["dft"]["left_s"] <= expected * (1 + SLACK_S / 300)


def test_jobs_in_the_queue(status, mongo, add_steps, claim):
    jobs = [("1", "dft", None), ("2", "dft", None), ("3", "relax", None), ("4", "dft", moment(-9))]
    mongo.database.queue_jobs.insert_many(
        {"campaign": "tiny", "job_id": job_id, "category": category, "ended_at": ended}
        for job_id, category, ended in jobs
    )
    mongo.database.queue_jobs.insert_one(
        {"campaign": "other", "job_id": "5", "category": "dft", "ended_at": None}
    )
    (step,) = add_steps("dft", "RUNNING")
    claim(step, job_id="2")
    assert status()["queue"] == {
        "dft": {"jobs": 2, "at_work": 1, "waiting": 0},
        "relax": {"jobs": 1, "at_work": 0, "waiting": 0},
    }
    waits = {"state": "waiting", "reason": "PartitionTimeLimit"}
    mongo.database.queue_jobs.update_one({"job_id": "3"}, {"$set": waits})
    found = status()
    assert found["queue"]["relax"]["waiting"] == 1
    assert [job["reason"] for job in found["jobs"]] == ["", "", "PartitionTimeLimit"]
    (at_work,) = found["workers"]["steps"]
    assert (at_work["job_id"], at_work["fw_id"], at_work["category"]) == ("2", step, "dft")
    assert 0.0 <= at_work["age_s"] <= SLACK_S


def test_a_supervisor_lives_while_it_gives_signs(campaign, status, mongo):
    assert status()["supervisor"] is None
    signs = SignsOfLife(mongo, "tiny")

    def supervisor(holder):
        return Supervisor("launch", ("--queue", "slurm"), holder, "login1", 17)

    elsewhere = supervisor("hullscreen|login1|1|1")
    signs.begin(elsewhere)
    found = status()["supervisor"]
    assert found.pop("seen_at")
    assert found == {
        "command": "launch", "options": ["--queue", "slurm"], "host": "login1", "pid": 17,
        "alive": True,
    }  # fmt: skip
    # Of one elsewhere nothing but its signs is known; killed here, it is known to be gone.
    campaign.store.set_campaign(**{"supervisor.seen_at": moment(-61 - SLACK_S)})
    assert not status()["supervisor"]["alive"]
    signs.give(elsewhere)
    assert status()["supervisor"]["alive"]
    # One of another cluster does not take its place, but takes over when it has ended.
    other = supervisor("hullscreen|login2|2|2")
    signs.give(other)
    signs.end(other)
    assert status()["supervisor"]["alive"]
    signs.end(elsewhere)
    found = status()["supervisor"]
    assert (found["command"], found["alive"], found["seen_at"]) == ("launch", False, None)
    signs.give(other)
    assert status()["supervisor"]["alive"]
    signs.begin(supervisor(f"hullscreen|{HERE}|{os.getpid()}|1"))
    assert not status()["supervisor"]["alive"]


def test_failures_by_reason(campaign, status, add_steps, run_from):
    for fw_id in add_steps("dft", "FIZZLED", 3):
        sentence = f"1 of 5 calculations failed: structure {fw_id}: no scf for Cu{fw_id}Pd"
        trace = f"Traceback\nhullscreen.potentials.errors.DFTError: {sentence}"
        run_from(fw_id, -9, -8, action={"stored_data": {"_exception": {"_stacktrace": trace}}})
    campaign.store.set_campaign(n_reclaimed=4)
    found = status()
    (group,) = found["failure_groups"]
    assert (group["count"], group["example"], group["category"]) == (3, 3, "dft")
    assert group["reason"] == "no scf for Cu3Pd"
    assert found["n_failed"] == len(found["failures"]) == 3
    assert found["failures"][0]["exception"] == "DFTError"
    assert found["n_reclaimed"] == 4


def test_other_campaigns_do_not_count(status, add_steps, mongo):
    add_steps("dft", "RUNNING", 3)
    mongo.database.fireworks.update_many({}, {"$set": {"spec.campaign": "another"}})
    assert status()["fireworks"] == {}
    assert status()["workers"]["alive"] == 0


def test_status_needs_no_fireworks(tmp_path):
    program = (
        "import sys; import hullscreen.workflows.campaign_status; "
        "import hullscreen.workflows.campaign_control, hullscreen.workflows.calculation_logs; "
        "print([name for name in ('fireworks', 'pymatgen', 'scipy', 'numba') "
        "if name in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True,
        env=environment, cwd=Path(tmp_path),
    )  # fmt: skip
    assert done.stdout == "[]\n"


def test_launchpads_of_earlier_versions_get_the_indexes(mongo, launchpad):
    launchpad.fireworks.drop_indexes()
    again = launchpad_on(mongo.uri, mongo.name)
    prepare_launchpad(again)
    keys = {tuple(one["key"]) for one in mongo.database.fireworks.list_indexes()}
    assert ("spec.campaign", "spec._category", "state", "updated_on") in keys
    again.connection.close()
