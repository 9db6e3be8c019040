"""`hullscreen launch --queue slurm` on a real Slurm: to the hull, and through what befalls jobs."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pymongo
import pytest

from hullscreen.database.queue_jobs import QueueJobs
from hullscreen.launch.campaign_session import open_session
from hullscreen.launch.queue_launch import GRACE_S

CALCULATORS = Path(__file__).parents[1] / "launch" / "calculators"
PASSWORD = "pw-Zq83hK"  # noqa: S105  of a server that ends with the tests
# Kernels may have to be compiled, on a machine that has other things to do.
PATIENCE_S = 600
SETTINGS = """
[campaign]
name = "queued"
elements = ["Cu", "Pd"]
[prototypes]
max_atoms = 3
lattices = ["fcc"]
aflow = false
[potential]
level_first = 4
level_second = 6
cutoff_angstrom = 4.5
[learning]
first_wave = 5
[dft]
calculator = "{calculator}"
structures_per_job = 3
[database]
{database}
[launch]
heartbeat_s = 0.5
idle_s = {idle_s}
partition = "{partition}"
[launch.relax]
jobs = 1
cores = 2
[launch.dft]
jobs = 2
walltime = "{walltime}"
"""
EMT = "ase.calculators.emt:EMT"
SLOW_EMT = "slow_emt:SlowEMT"


@pytest.fixture
def environment(tmp_path, monkeypatch):
    """What every process of a test is given: our sources, and calculators that tests steer."""
    paths = [str(CALCULATORS), *[path for path in sys.path if path]]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    monkeypatch.setenv("SLOW_EMT_WHILE", str(tmp_path / "gate"))
    return tmp_path


@pytest.fixture
def make_campaign(environment):
    """Function that writes a campaign directory whose database is at an address."""

    def make(name, database, **changes):
        directory = environment / name
        directory.mkdir()
        values = {
            "calculator": EMT, "partition": "", "idle_s": 300.0, "walltime": "00:10:00", **changes
        }  # fmt: skip
        (directory / "hullscreen.toml").write_text(SETTINGS.format(database=database, **values))
        return directory

    return make


@pytest.fixture
def campaign(make_campaign, mongo, slurm):
    """Function that writes a campaign in the test's own database; DFT waits for the gate."""

    def make(**changes):
        database = f'uri = "{mongo.uri}"\nname = "{mongo.name}"'
        return make_campaign("campaign", database, **{"calculator": SLOW_EMT, **changes})

    return make


class Gate:
    """The file while which `SlowEMT` waits; each calculation adds its process to it."""

    def __init__(self, path):
        self.path = path

    def close(self):
        self.path.touch()

    def open(self):
        self.path.unlink()

    def waiting(self):
        """Processes that have come to it, in their order."""
        return [int(line) for line in self.path.read_text().split()]


@pytest.fixture
def gate(environment):
    gate = Gate(environment / "gate")
    yield gate
    gate.path.unlink(missing_ok=True)


def hullscreen(*words):
    return [sys.executable, "-m", "hullscreen.launch", *map(str, words)]


def call(*words):
    return subprocess.run(
        hullscreen(*words), capture_output=True, text=True, check=False, timeout=PATIENCE_S
    )


@pytest.fixture
def launched(environment):
    """Function that starts `hullscreen launch`; what it says goes into a file."""
    processes = []

    def start(directory, *words):
        said = environment / f"said-{len(processes)}.txt"
        with said.open("wb") as stream:
            process = subprocess.Popen(
                hullscreen("launch", directory, "--queue", "slurm", *words), stderr=stream
            )
        processes.append(process)
        process.said = said
        return process

    yield start
    for process in processes:
        process.kill()
        process.wait()


def wait_for(condition, patience_s=PATIENCE_S):
    deadline = time.monotonic() + patience_s
    while not (value := condition()):
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.05)
    return value


def launch_to_gate(launched, directory, gate):
    """Start a launch whose DFT jobs, two of them, wait in the middle of a step."""
    process = launched(directory)
    # A new campaign tries its engine first.
    wait_for(lambda: "submitted" in process.said.read_text())
    gate.close()
    wait_for(lambda: len(gate.waiting()) >= 2)
    return process


def finish(process):
    """Wait for a launch to end well; what it has said."""
    assert process.wait(timeout=PATIENCE_S) == 0, process.said.read_text()
    return process.said.read_text()


def job_of(process):
    """The Slurm job that a process runs in."""
    variables = Path(f"/proc/{process}/environ").read_bytes().split(b"\0")
    return next(v.partition(b"=")[2].decode() for v in variables if v.startswith(b"SLURM_JOB_ID="))


def hull_of(directory):
    done = call("hull", directory, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def assert_same_hull(ours, theirs):
    assert ours["finished"]
    assert theirs["finished"]
    assert ours["stable"]
    for mine, other in zip(ours["stable"], theirs["stable"], strict=True):
        assert mine["formula_pretty"] == other["formula_pretty"]
        # Energies come from one code at one geometry: equal to rounding.
        assert mine["energy_per_atom"] == pytest.approx(other["energy_per_atom"], abs=1e-9)


@pytest.fixture(scope="session")
def hull_of_run(mongo_server, tmp_path_factory):
    """The hull that `hullscreen run` finds for the same settings."""
    directory = tmp_path_factory.mktemp("run")
    name = f"run_{directory.name}"
    text = SETTINGS.format(
        calculator=EMT, partition="", idle_s=1.0, walltime="01:00:00",
        database=f'uri = "{mongo_server.uri}"\nname = "{name}"',
    )  # fmt: skip
    (directory / "hullscreen.toml").write_text(text)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    subprocess.run(hullscreen("run", directory), env=environment, check=True, timeout=PATIENCE_S)
    return hull_of(directory)


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
        while not ended.wait(0.5):
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


@pytest.mark.slow
def test_a_campaign_comes_to_the_hull_of_run_and_no_password_is_seen(
    make_campaign, login, slurm, launched, hull_of_run
):
    uri, name = login
    directory = make_campaign("campaign", f'uri_file = "address"\nname = "{name}"')
    (directory / "address").write_text(f"{uri}\n")
    (directory / "address").chmod(0o600)
    # A job that would begin when all is done: it must not stay behind.
    late = slurm("sbatch", "--parsable", "--begin=now+1hour", "--wrap", "true").strip()
    with open_session(directory) as session:
        QueueJobs(session.connection, "queued").add(str(directory), late, "other", "nowhere")
    with watched_command_lines() as command_lines:
        said = finish(launched(directory))
    assert f"cancelled what was left in the queue: job {late}\n" in said
    assert said.endswith(f"The hull is there: hullscreen hull {directory}\n")
    assert slurm.jobs() == {}
    assert_same_hull(hull_of(directory), hull_of_run)
    kinds = set(re.findall(r"submitted Slurm job \d+ for (\w+) \(\d of at most \d\)", said))
    assert kinds == {"relax", "train", "dft"}
    with open_session(directory) as session:
        assert QueueJobs(session.connection, "queued").in_queue(str(directory)) == []
        jobs = list(session.connection.database.queue_jobs.find({}))
        claims = list(session.connection.database.claims.find({}))
    assert len(jobs) == said.count("submitted Slurm job") + 1
    assert all(job["ended_at"] >= job["submitted_at"] for job in jobs)
    # All the work was done in jobs.
    assert {claim["job_id"] for claim in claims} <= {job["job_id"] for job in jobs}

    assert PASSWORD not in said
    for job in jobs:
        assert PASSWORD not in slurm("scontrol", "write", "batch_script", job["job_id"], "-")
    assert not any(PASSWORD.encode() in line for line in command_lines)
    assert any(b"--stop-after" in line for line in command_lines)
    holding = {path for path in directory.rglob("*") if path.is_file() and holds(path, PASSWORD)}
    assert {path.name for path in holding} == {"address", "my_launchpad.yaml"}
    assert all(path.stat().st_mode & 0o077 == 0 for path in holding)
    assert not [path for path in slurm.directory.rglob("*.log") if holds(path, PASSWORD)]


def holds(path, text):
    return text.encode() in path.read_bytes()


@pytest.mark.slow
def test_jobs_that_are_cancelled_or_killed_are_back_at_work_by_themselves(
    campaign, slurm, launched, gate, mongo, hull_of_run
):
    directory = campaign()
    process = launch_to_gate(launched, directory, gate)
    held = gate.waiting()
    # Cancelled: the worker hands its step back.
    cancelled = job_of(held[0])
    slurm("scancel", cancelled)
    held = wait_for(lambda: len(gate.waiting()) >= 3 and gate.waiting())
    again = job_of(held[2])
    assert again != cancelled
    # Killed: nobody is there to hand anything back.
    slurm("scancel", "--signal=KILL", "--full", again)
    held = wait_for(lambda: len(gate.waiting()) >= 4 and gate.waiting())
    assert job_of(held[3]) not in {cancelled, again}

    # Two supervisors would be one too many.
    second = call("launch", directory, "--queue", "slurm")
    assert second.returncode == 6
    assert f"`hullscreen launch` is already at work in {directory}" in second.stderr
    # One that is killed leaves its jobs; the next one goes on with them.
    jobs = set(slurm.jobs())
    process.kill()
    process.wait()
    assert jobs <= set(slurm.jobs())
    process = launched(directory)
    wait_for(lambda: "round 0" in process.said.read_text())
    assert jobs <= set(slurm.jobs())
    assert len(slurm.jobs()) <= 4
    gate.open()
    finish(process)
    assert_same_hull(hull_of(directory), hull_of_run)
    assert slurm.jobs() == {}
    assert mongo.database.fireworks.distinct("state") == ["COMPLETED"]


@pytest.mark.slow
def test_a_worker_hands_its_step_back_before_its_time_is_over(campaign, slurm, launched, gate):
    # Slurm counts in minutes, and the worker in seconds.
    directory = campaign(walltime="00:00:15")
    process = launch_to_gate(launched, directory, gate)
    held = gate.waiting()
    jobs = {job_of(pid) for pid in held}
    held = wait_for(lambda: len(gate.waiting()) >= 4 and gate.waiting())
    assert not jobs & {job_of(pid) for pid in held[2:]}
    for job in jobs:
        ended = slurm("scontrol", "show", "job", job)
        assert "JobState=COMPLETED" in ended
        assert "ExitCode=0:0" in ended
    gate.open()
    finish(process)


@pytest.mark.slow
def test_a_job_that_the_queue_ends_for_its_time_is_back_at_work(campaign, slurm, launched, gate):
    directory = campaign()
    launch_to_gate(launched, directory, gate)
    held = gate.waiting()
    job = job_of(held[0])
    # Less than the worker was told; Slurm looks every half minute.
    slurm("scontrol", "update", f"JobId={job}", "TimeLimit=1")
    held = wait_for(lambda: len(gate.waiting()) >= 3 and gate.waiting())
    assert "JobState=TIMEOUT" in slurm("scontrol", "show", "job", job)
    assert job_of(held[2]) != job


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_stopped_it_leaves_its_jobs_in_the_queue(campaign, slurm, launched, gate, number):
    directory = campaign()
    process = launch_to_gate(launched, directory, gate)
    jobs = set(slurm.jobs())
    process.send_signal(number)
    assert process.wait(timeout=PATIENCE_S) == 130
    *_, before, last = [line for line in process.said.read_text().splitlines() if line]
    assert before == f"jobs {', '.join(sorted(jobs, key=int))} stay in the queue and go on"
    assert last == (
        "hullscreen: interrupted; jobs in the queue go on, and the same command continues with them"
    )
    assert set(slurm.jobs()) == jobs


@pytest.mark.slow
def test_a_finished_campaign_submits_nothing(campaign, slurm, launched):
    directory = campaign(calculator=EMT)
    assert "submitted" in finish(launched(directory))
    began = time.monotonic()
    said = finish(launched(directory))
    assert said == f"The hull is there: hullscreen hull {directory}\n"
    # Nothing is left that it would have to wait for.
    assert time.monotonic() - began < PATIENCE_S / 10 + GRACE_S
    assert slurm.jobs() == {}


def test_a_partition_that_does_not_exist_is_named(campaign, slurm):
    directory = campaign(partition="nowhere")
    done = call("launch", directory, "--queue", "slurm")
    assert done.returncode == 6
    *_, last = done.stderr.splitlines()
    assert last == (
        f"hullscreen: Slurm did not take the job of {directory}/queue/train: invalid partition "
        "specified: nowhere; Batch job submission failed: Invalid partition name specified"
    )


@pytest.mark.slow
def test_jobs_that_cannot_work_are_not_submitted_for_ever(campaign, slurm):
    directory = campaign()
    path = directory / "hullscreen.toml"
    path.write_text(path.read_text().replace("[launch]\n", '[launch]\nsetup = ["exit 3"]\n'))
    done = call("launch", directory, "--queue", "slurm")
    assert done.returncode == 6
    assert "jobs have ended 10 times in a row and no step was done; the last one wrote" in (
        done.stderr
    )


@pytest.mark.slow
def test_fireworks_own_qlaunch_understands_the_files(campaign, slurm):
    directory = campaign(calculator=EMT, idle_s=1.0)
    assert call("launch", directory, "--queue", "slurm", "--dry-run").returncode == 0
    with open_session(directory) as session:
        from contextlib import closing

        from hullscreen.launch.local_run import prepare
        from hullscreen.launch.queue_files import write_queue_files
        from hullscreen.workflows.flows import submit_campaign

        prepared, launchpad = prepare(session)
        with closing(launchpad.connection):
            submit_campaign(launchpad, prepared)
        folders = write_queue_files(
            directory / "queue", session.settings, session.connection.uri, "slurm", "run-1"
        )
        qlaunch = Path(sys.executable).with_name("qlaunch")
        subprocess.run([qlaunch, "singleshot"], cwd=folders["train"], check=True, timeout=60)
        fireworks = session.connection.database.fireworks
        wait_for(lambda: fireworks.count_documents({"state": "COMPLETED"}) == 1)
        wait_for(lambda: slurm.jobs() == {})
