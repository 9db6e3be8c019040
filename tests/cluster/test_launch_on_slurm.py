"""`hullscreen launch --queue slurm` on a real Slurm: to the hull, whatever befalls the command."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pymongo
import pytest

from hullscreen.database.queue_jobs import QueueJobs
from hullscreen.launch.campaign_session import open_session
from hullscreen.launch.campaign_start import prepare
from hullscreen.launch.queue_files import write_queue_files
from hullscreen.workflows.flows import submit_campaign

EMT = "ase.calculators.emt:EMT"
PASSWORD = "pw-Zq83hK"  # noqa: S105  of a server that ends with the tests
PATIENCE_S = 120


@pytest.fixture
def login(server_with_users, admin_uri):
    """Address, with a password, of a user who may read and write one database."""
    with pymongo.MongoClient(admin_uri) as client:
        name = f"queued_{os.getpid()}"
        client[name].command("createUser", "ann", pwd=PASSWORD, roles=["readWrite"])
        yield server_with_users.uri(f"ann:{PASSWORD}", authSource=name), name
        client[name].command("dropUser", "ann")
        client.drop_database(name)


@contextlib.contextmanager
def watched_command_lines():
    """Collect the command lines of all processes while the block runs, as `ps` shows them."""
    seen, ended = set(), threading.Event()

    def look():
        while not ended.wait(0.2):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                with contextlib.suppress(OSError):
                    seen.add(path.read_bytes())

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        ended.set()
        thread.join()


def holds(path, text):
    return text.encode() in path.read_bytes()


@pytest.mark.slow
def test_a_campaign_comes_to_the_hull_of_run_and_no_password_is_seen(
    make_campaign, login, slurm, launch, assert_hull_of_run, wait_for
):
    uri, name = login
    directory = make_campaign(f'uri_file = "address"\nname = "{name}"', calculator=EMT)
    (directory / "address").write_text(f"{uri}\n")
    (directory / "address").chmod(0o600)
    # A job that would begin when all is done: it must not stay behind.
    late = slurm("sbatch", "--parsable", "--begin=now+1hour", "--wrap", "true").strip()
    with open_session(directory) as session:
        QueueJobs(session.connection, "queued").add(str(directory), late, "other", "nowhere")
    with watched_command_lines() as command_lines:
        said = launch(directory).finish()
    there = f"The hull is there: hullscreen hull {directory}\n"
    assert f"cancelled what was left in the queue: job {late}\n" in said
    assert said.endswith(there)
    # On a busy machine those that were at work are cancelled too, and take a moment to end.
    wait_for(lambda: slurm.jobs() == {})
    assert_hull_of_run(directory)
    submitted = re.findall(r"submitted Slurm job (\d+) for (\w+) \(\d of at most \d\)", said)
    assert {kind for _, kind in submitted} == {"relax", "train", "dft"}
    with open_session(directory) as session:
        assert QueueJobs(session.connection, "queued").in_queue(str(directory)) == []
        jobs = list(session.connection.database.queue_jobs.find({}))
        claims = list(session.connection.database.claims.find({}))
    assert {job["job_id"] for job in jobs} == {late} | {number for number, _ in submitted}
    assert all(job["ended_at"] >= job["submitted_at"] for job in jobs)
    # All the work was done in jobs, and none of them was taken for lost.
    assert {claim["job_id"] for claim in claims} <= {job["job_id"] for job in jobs}

    # A finished campaign has nothing to submit, and nothing that would have to be waited for.
    assert launch(directory).finish() == there

    scripts = [slurm("scontrol", "write", "batch_script", job, "-") for job, _ in submitted]
    assert not any(PASSWORD in text for text in [said, *scripts])
    assert not any(PASSWORD.encode() in line for line in command_lines)
    assert any(b"--stop-after" in line for line in command_lines)
    holding = {path for path in directory.rglob("*") if path.is_file() and holds(path, PASSWORD)}
    assert {path.name for path in holding} == {"address", "my_launchpad.yaml"}
    assert all(path.stat().st_mode & 0o077 == 0 for path in holding)
    assert not [path for path in slurm.directory.rglob("*.log") if holds(path, PASSWORD)]


@pytest.mark.slow
def test_whoever_launches_goes_on_with_the_jobs_of_the_one_before(
    campaign, slurm, launch, gate, call, wait_for
):
    directory = campaign()

    def dft_jobs():
        return {job for job, name in slurm.jobs().items() if name == "queued-dft"}

    launched = launch(directory)
    # A new campaign tries its engine first.
    wait_for(lambda: "submitted" in launched.said)
    gate.close()
    wait_for(lambda: len(gate.waiting()) == 2)
    jobs = slurm.jobs()
    # Three steps are ready, and two jobs are allowed.
    assert len(dft_jobs()) == 2
    assert sorted(jobs.values()) == ["queued-dft", "queued-dft", "queued-train"]

    stay = f"jobs {', '.join(sorted(jobs, key=int))} stay in the queue and go on"
    for number, status in ((signal.SIGINT, 130), (signal.SIGTERM, 130), (signal.SIGKILL, -9)):
        said = launched.end(number, status)
        if number != signal.SIGKILL:
            *_, before, last = [line for line in said.splitlines() if line]
            assert before == stay
            assert last == (
                "hullscreen: interrupted; jobs in the queue go on, and the same command continues "
                "with them"
            )
        assert slurm.jobs() == jobs
        launched = launch(directory)
        wait_for(lambda launched=launched: "round 0" in launched.said)
        # Two supervisors would be one too many; meanwhile the one has looked at its jobs.
        second = call("launch", directory, "--queue", "slurm")
        assert second.returncode == 6
        assert f"`hullscreen launch` is already at work in {directory}" in second.stderr
        assert slurm.jobs() == jobs
        assert "submitted" not in launched.said

    # Paused, it lets jobs end and submits none.
    assert call("pause", directory).returncode == 0
    ended = min(dft_jobs(), key=int)
    slurm("scancel", ended)
    wait_for(lambda: ended not in slurm.jobs())
    # Takes some heartbeats.
    assert call("status", directory).returncode == 0
    assert "submitted" not in launched.said
    launched.end(signal.SIGTERM, 130)
    done = call("launch", directory, "--queue", "slurm")
    assert done.returncode == 6
    assert f"is paused; `hullscreen resume {directory}` lets it go on" in done.stderr
    assert call("resume", directory).returncode == 0
    launched = launch(directory)
    wait_for(lambda: len(dft_jobs()) == 2)
    # It is said a moment later than the queue has it.
    wait_for(lambda: "submitted" in launched.said)
    assert launched.said.count("submitted") == 1

    # Cancelled, it ends with its jobs; called again, it goes on.
    assert call("cancel", directory, "--yes").returncode == 0
    said = launched.finish(6)
    assert said.endswith(
        "hullscreen: campaign 'queued' was cancelled; everything computed is kept, and "
        "`hullscreen launch` goes on with it\n"
    )
    wait_for(lambda: slurm.jobs() == {})
    launch(directory)
    wait_for(lambda: len(dft_jobs()) == 2)


def test_a_partition_that_does_not_exist_is_named(campaign, slurm, call):
    directory = campaign(partition="nowhere")
    done = call("launch", directory, "--queue", "slurm")
    assert done.returncode == 6
    *_, last = done.stderr.splitlines()
    assert last == (
        f"hullscreen: Slurm did not take the job of {directory}/queue/train: invalid partition "
        "specified: nowhere; Batch job submission failed: Invalid partition name specified"
    )
    assert slurm.jobs() == {}


def test_a_queue_that_cannot_be_asked_is_one_sentence(campaign, slurm, call, tmp_path, monkeypatch):
    path = tmp_path / "slurm.conf"
    path.write_text("Nonsense=1\n")
    monkeypatch.setenv("SLURM_CONF", str(path))
    done = call("launch", campaign(), "--queue", "slurm")
    assert done.returncode == 6
    *_, last = done.stderr.splitlines()
    assert last.startswith("hullscreen: Slurm cannot be asked for its jobs: ")
    assert last.endswith("Unable to process configuration file")


@pytest.mark.slow
def test_jobs_that_cannot_work_are_not_submitted_for_ever(campaign, slurm, call):
    done = call(
        "launch", campaign(setup=["echo no compiler here >&2", "exit 3"]), "--queue", "slurm"
    )
    assert done.returncode == 6
    *_, last = done.stderr.splitlines()
    assert "jobs for train have ended 3 times in a row without taking a step, though" in last
    assert "'no compiler here' into " in last


@pytest.mark.slow
def test_fireworks_own_qlaunch_understands_the_files(campaign, slurm, wait_for):
    directory = campaign(calculator=EMT, idle_s=1.0)
    with open_session(directory) as session:
        prepared, launchpad = prepare(session)
        with closing(launchpad.connection):
            submit_campaign(launchpad, prepared)
        folders = write_queue_files(
            directory / "queue", session.settings, session.connection.uri, "slurm", "run-1"
        )
        qlaunch = Path(sys.executable).with_name("qlaunch")
        subprocess.run(
            [qlaunch, "singleshot"], cwd=folders["train"], check=True, timeout=PATIENCE_S
        )
        fireworks = session.connection.database.fireworks
        wait_for(lambda: fireworks.count_documents({"state": "COMPLETED"}) == 1)
        wait_for(lambda: slurm.jobs() == {})
