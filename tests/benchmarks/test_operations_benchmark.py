"""What it costs to look after a campaign of 10,000 jobs, beside one of 100."""

import os
import statistics
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from fireworks import Firework, FWAction, FWorker, Launch, Workflow
from pymongo import UpdateOne

from hullscreen.database.connection import connect
from hullscreen.database.embedded_server import acquire, stop
from hullscreen.launch.campaign_session import open_session
from hullscreen.workflows import rerun
from hullscreen.workflows.calculation_logs import structure_log
from hullscreen.workflows.campaign import Campaign, add_prototypes, register
from hullscreen.workflows.campaign_control import pause, resume
from hullscreen.workflows.campaign_status import campaign_status
from hullscreen.workflows.firetasks import DecideTask, FitTask, LabelTask
from hullscreen.workflows.flows import prepare_launchpad
from hullscreen.workflows.worker import launchpad_on

pytestmark = [pytest.mark.benchmark, pytest.mark.slow]

FEW, MANY = 100, 10_000
WORKFLOW = 48
REPEATED = 15
# A hundred times as many jobs may not cost more than this factor; a busy machine needs the room.
MOST_STATUS, MOST_CLAIM = 50.0, 4.0
SETTINGS = """
[campaign]
name = "c{n}"
elements = ["Cu", "Pd"]
[prototypes]
max_atoms = 3
aflow = false
[database]
uri = "{uri}"
name = "n{n}"
"""


def fill(session, n):
    """As many Fireworks as said, in workflows of 48: a third done, a tenth failed, the rest ready.

    Their results and what they were asked for are there as well, in a round that goes on.
    """
    store, database = session.store, session.connection.database
    campaign = Campaign(session.settings, store, session.directory / "calculations")
    register(campaign)
    add_prototypes(campaign)
    launchpad = launchpad_on(session.connection.uri, session.connection.name)
    launchpad.m_logger.setLevel("CRITICAL")
    prepare_launchpad(launchpad)
    for number in range(n // WORKFLOW):
        tasks = [(LabelTask, "dft")] * (WORKFLOW - 2) + [(FitTask, "train"), (DecideTask, "train")]
        steps, layer = [], []
        for place, (task, category) in enumerate(tasks):
            if category == "train":
                layer = list(steps) if task is FitTask else steps[-1:]
            spec = {
                "campaign": store.name, "round": number, "_category": category,
                "_allow_fizzled_parents": True,
            }  # fmt: skip
            given = {
                "campaign": store.name, "round": number, "first": place, "last": place + 1,
            }  # fmt: skip
            steps.append(Firework([task(given)], spec=spec, name="a step", parents=layer))
        metadata = {"campaign": store.name, "round": number}
        launchpad.add_wf(Workflow(steps, metadata=metadata))
    ready = [one["fw_id"] for one in database.fireworks.find({"state": "READY"}, {"fw_id": 1})]
    now = datetime.now(UTC)
    trace = "Traceback\n" + 40 * "  File\n    line\n" + "errors.DFTError: no scf for Cu{}Pd"
    launches, changes = [], []
    for place, fw_id in enumerate(ready[: n * 4 // 10]):
        failed = place >= n * 3 // 10
        start = now - timedelta(seconds=10 * place)
        end = start + timedelta(seconds=60)
        stored = {"_exception": {"_stacktrace": trace.format(place)}} if failed else {}
        state = "FIZZLED" if failed else "COMPLETED"
        launch = Launch(state, ".", FWorker(name="x"), "n1", launch_id=fw_id, fw_id=fw_id)
        times = {"time_start": start.isoformat(), "time_end": end.isoformat()}
        launches.append({**launch.to_db_dict(), **times, "action": FWAction(stored).to_dict()})
        change = {"state": state, "launches": [fw_id], "updated_on": end.isoformat()}
        changes.append(UpdateOne({"fw_id": fw_id}, {"$set": change}))
    database.launches.insert_many(launches)
    database.fireworks.bulk_write(changes, ordered=False)
    geometry = {"cell": bytes(72), "positions": bytes(24)}
    database.selected.insert_many(
        {
            "campaign": store.name, "round": 0, "number": i, "purpose": "learn", "grade": 3.0,
            "structure_index": i, "key": f"{i:064x}", "species": bytes(4),
            "geometry": geometry, "predicted_energy_per_atom": None,
        }
        for i in range(n)
    )  # fmt: skip
    database.dft_results.insert_many(
        {
            "key": f"{i:064x}", "campaign": store.name, "kind": "single_point", "state": "done",
            "created_at": now - timedelta(seconds=i), "n_evaluations": 1, "purpose": "learn",
            "structure_index": i, "engine": "x", "chemsys": "Cu-Pd", "numbers": [29],
            "geometry": geometry, "energy": 0.0, "forces": bytes(24), "stress": bytes(72),
        }
        for i in range(n // 2)
    )  # fmt: skip
    database.rounds.insert_one(
        {
            "campaign": store.name, "number": 0, "stage": 1, "purpose": "learn", "potential": 0,
            "fits": True, "wave": 10, "again": False, "sigma": None, "final_indices": [],
            "submitted": True, "created_at": now,
        }
    )  # fmt: skip
    return launchpad


@pytest.fixture(scope="module")
def campaigns(tmp_path_factory):
    """Open campaigns of 100 and of 10,000 jobs, with their LaunchPads, on one server."""
    project = tmp_path_factory.mktemp("server")
    with acquire(project) as server:
        opened = {}
        for n in (FEW, MANY):
            directory = tmp_path_factory.mktemp(f"c{n}")
            (directory / "hullscreen.toml").write_text(SETTINGS.format(n=n, uri=server.uri))
            context = open_session(directory)
            session = context.__enter__()
            opened[n] = session, fill(session, n), context
        yield {n: (session, launchpad) for n, (session, launchpad, _) in opened.items()}
        for _, launchpad, context in opened.values():
            launchpad.connection.close()
            context.__exit__(None, None, None)
    stop(project)


def milliseconds(action, times=REPEATED):
    """Median time of an action; the first time does not count."""
    action()
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        action()
        taken.append(1e3 * (time.perf_counter() - start))
    return statistics.median(taken)


def compared(campaigns, what, action, times=REPEATED):
    few, many = (milliseconds(lambda n=n: action(*campaigns[n]), times) for n in (FEW, MANY))
    print(f"\n{what}: {few:.1f} ms at {FEW} jobs, {many:.1f} ms at {MANY}, {many / few:.1f} times")
    return many / few


def test_status(campaigns):
    factor = compared(
        campaigns, "status", lambda session, _: campaign_status(session.store, session.connection)
    )
    assert factor < MOST_STATUS


def test_status_with_the_start_of_its_process(campaigns):
    paths = os.pathsep.join(path for path in sys.path if path)
    session, _ = campaigns[MANY]

    def run(words):
        subprocess.run(
            [sys.executable, *words], check=True, capture_output=True,
            env={**os.environ, "PYTHONPATH": paths}, cwd=Path(session.directory),
        )  # fmt: skip

    whole = milliseconds(lambda: run(["-m", "hullscreen.launch", "status", "."]), 5)
    bare = milliseconds(lambda: run(["-c", "import pymongo, numpy, rich.table"]), 5)
    print(f"\nhullscreen status: {whole:.0f} ms, {whole / bare:.1f} times the libraries' imports")


def test_pause_resume_and_logs(campaigns):
    def rest(session, _):
        pause(session.store)
        resume(session.store)

    assert compared(campaigns, "pause and resume", rest) < MOST_STATUS
    compared(campaigns, "logs", lambda session, _: structure_log(session.store, 3))


def test_claiming(campaigns):
    def claim(session, launchpad):
        query = {"spec.campaign": session.store.name, "spec.round": {"$lte": 10**6}}
        worker = FWorker(name="x", category="dft", query=query)
        assert launchpad.run_exists(worker)
        firework, _ = launchpad.checkout_fw(worker, ".")
        assert firework.spec["campaign"] == session.store.name

    assert compared(campaigns, "finding and claiming a step", claim) < MOST_CLAIM
    session, _ = campaigns[MANY]
    probe = connect(session.connection.uri, session.connection.name).probe
    write = milliseconds(lambda: probe.update_one({"_id": 1}, {"$inc": {"n": 1}}, upsert=True), 50)
    probe.database.client.close()
    print(f"a journalled write alone: {write:.1f} ms, and FireWorks makes seven for a claim")


def test_looking_for_work_of_which_there_is_none(campaigns):
    def look(session, launchpad):
        query = {"spec.campaign": session.store.name, "spec.round": {"$lte": 10**6}}
        assert not launchpad.run_exists(FWorker(category="relax", query=query))

    assert compared(campaigns, "looking in vain", look) < MOST_CLAIM


def test_running_all_failed_jobs_again(campaigns):
    for session, launchpad in campaigns.values():
        jobs = rerun.failed_jobs(session.store)
        start = time.perf_counter()
        result = rerun.run_again(launchpad, session.store, jobs)
        seconds = time.perf_counter() - start
        assert len(result.again) == len(jobs) > 0
        print(
            f"\nrerun: {len(jobs)} jobs in {seconds:.1f} s, {1e3 * seconds / len(jobs):.1f} ms each"
        )
        assert rerun.failed_jobs(session.store) == []
