"""`hullscreen status` and `cancel` of a campaign whose jobs are in a real Slurm."""

import os
import subprocess
import sys
import time

import pytest

from hullscreen.database.queue_jobs import QueueJobs
from hullscreen.launch import queue_commands
from hullscreen.launch.campaign_session import open_session
from hullscreen.launch.campaign_start import prepare
from hullscreen.launch.queue_commands import QUEUES
from hullscreen.launch.queue_files import write_queue_files

PATIENCE_S = 120.0
SETTINGS = """
[campaign]
name = "queued"
elements = ["Cu", "Pd"]
[prototypes]
max_atoms = 3
aflow = false
[database]
uri = "{uri}"
name = "{name}"
"""


@pytest.fixture
def campaign(mongo, slurm, tmp_path, monkeypatch):
    """Directory of a campaign that has two jobs in the queue."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
    directory = tmp_path / "campaign"
    directory.mkdir()
    (directory / "hullscreen.toml").write_text(SETTINGS.format(uri=mongo.uri, name=mongo.name))
    with open_session(directory) as session:
        _, launchpad = prepare(session)
        launchpad.connection.close()
        root = session.directory / "queue"
        folders = write_queue_files(root, session.settings, mongo.uri, "slurm", "a-run")
        stored = QueueJobs(session.connection, "queued")
        for _ in range(2):
            job_id, folder = queue_commands.submit(QUEUES["slurm"], folders["dft"])
            stored.add(str(session.directory), job_id, "dft", str(folder))
    return directory


def call(*words):
    done = subprocess.run(
        [sys.executable, "-m", "hullscreen.launch", *map(str, words)],
        capture_output=True, text=True, check=False, timeout=PATIENCE_S,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_jobs_are_shown_and_cancelled(campaign, slurm, mongo):
    assert len(slurm.jobs()) == 2
    assert "No `hullscreen launch` is at work: new jobs come only while it runs" in call(
        "status", campaign
    )
    said = call("cancel", campaign, "--yes")
    assert "2 jobs are cancelled in the queue.\n" in said
    deadline = time.monotonic() + PATIENCE_S
    while slurm.jobs():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    ended = [job["ended_at"] for job in mongo.database.queue_jobs.find({})]
    assert len(ended) == 2
    assert None not in ended
    # Nothing is left to cancel, and a second time is no error.
    assert "in the queue" not in call("cancel", campaign, "--yes")
