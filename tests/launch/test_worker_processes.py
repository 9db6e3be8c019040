"""Workers by themselves: asked to end they hand back their step, and launch files are enough."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hullscreen.database.claims import Claims
from hullscreen.launch.campaign_session import open_session
from hullscreen.launch.campaign_start import prepare
from hullscreen.workflows.flows import submit_campaign
from hullscreen.workflows.results import final_hull

CALCULATORS = Path(__file__).parent / "calculators"
SETTINGS = """
[campaign]
name = "slow"
elements = ["Cu", "Pd"]
[prototypes]
max_atoms = 2
lattices = ["fcc"]
aflow = false
[potential]
level_first = 4
level_second = 6
cutoff_angstrom = 4.5
[dft]
calculator = "slow_emt:SlowEMT"
structures_per_job = 3
[database]
uri = "{uri}"
name = "{name}"
[launch]
heartbeat_s = 1.0
"""
PATIENCE_S = 120


@pytest.fixture
def gate(tmp_path, monkeypatch):
    """File as long as which DFT does not end."""
    path = tmp_path / "gate"
    monkeypatch.setenv("SLOW_EMT_WHILE", str(path))
    return path


@pytest.fixture
def campaign(mongo, tmp_path, gate, monkeypatch):
    """A campaign that is submitted: directory, LaunchPad and documents."""
    monkeypatch.syspath_prepend(str(CALCULATORS))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
    directory = tmp_path / "campaign"
    directory.mkdir()
    (directory / "hullscreen.toml").write_text(SETTINGS.format(uri=mongo.uri, name=mongo.name))
    with open_session(directory) as session:
        campaign, launchpad = prepare(session)
        submit_campaign(launchpad, campaign)
        gate.touch()
        yield directory, launchpad, session.store
        launchpad.connection.close()
    sys.modules.pop("slow_emt", None)


@contextlib.contextmanager
def worker(*words, cwd=None):
    """A `hullscreen worker`, which does not outlive the test."""
    process = subprocess.Popen(
        [sys.executable, "-m", "hullscreen.launch", "worker", *map(str, words)],
        cwd=cwd,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for(condition):
    deadline = time.monotonic() + PATIENCE_S
    while not (value := condition()):
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.02)
    return value


def in_dft(gate):
    """Processes that have begun a DFT calculation that does not end."""
    return gate.read_text().split()


def states(launchpad, **query):
    return {one["state"] for one in launchpad.fireworks.find(query, {"state": 1})}


def launch_files(directory, mongo, **fworker):
    directory.mkdir()
    (directory / "my_launchpad.yaml").write_text(
        json.dumps({"host": mongo.uri, "name": mongo.name})
    )
    (directory / "my_fworker.yaml").write_text(
        json.dumps({"name": "here", "query": {"spec.campaign": "slow"}, **fworker})
    )
    return directory


@pytest.mark.slow
@pytest.mark.parametrize("how", ["SIGTERM", "SIGINT", "end-of-its-time"])
def test_asked_to_end_a_worker_hands_its_step_back(campaign, gate, mongo, how):
    directory, launchpad, store = campaign
    # Long enough to begin with; nothing but the time asks it to end.
    words = ("--stop-after", 30) if how == "end-of-its-time" else ()
    with worker(directory, *words) as process:
        wait_for(lambda: in_dft(gate))
        if how.startswith("SIG"):
            process.send_signal(getattr(signal, how))
        assert process.wait(timeout=PATIENCE_S) == 0
    assert states(launchpad, name={"$regex": "DFT"}) == {"READY"}
    assert states(launchpad, name={"$regex": "fit"}) == {"WAITING"}
    assert Claims(mongo, "slow").held_by(f"hullscreen|{os.uname().nodename}|{process.pid}|0") == []
    # The next one goes on at once, to the end.
    gate.unlink()
    with worker(directory) as process:
        assert process.wait(timeout=PATIENCE_S) == 0
    assert final_hull(store).finished
    assert states(launchpad) == {"COMPLETED"}


@pytest.mark.slow
def test_a_cancelled_campaign_ends_a_step_that_is_under_way(campaign, gate):
    directory, launchpad, store = campaign
    with worker(directory) as process:
        wait_for(lambda: in_dft(gate))
        store.set_campaign(cancelled=True)
        assert process.wait(timeout=PATIENCE_S) == 0
    # The calculation itself would not have ended.
    assert gate.exists()
    assert "RUNNING" not in states(launchpad, **{"spec.campaign": "slow"})


def test_several_processes_end_together(campaign, gate):
    directory, launchpad, _ = campaign
    with worker(directory, "--processes", 2) as process:
        wait_for(lambda: len(set(in_dft(gate))) == 2)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=PATIENCE_S) == 0
    assert states(launchpad, name={"$regex": "DFT"}) == {"READY"}
    for pid in set(in_dft(gate)):
        assert not Path("/proc", pid).exists()


@pytest.mark.slow
def test_a_worker_needs_nothing_but_the_launch_files(campaign, gate, mongo, tmp_path):
    _, _, store = campaign
    gate.unlink()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    files = launch_files(tmp_path / "files", mongo)
    with worker(files, cwd=elsewhere) as process:
        assert process.wait(timeout=PATIENCE_S) == 0
    assert final_hull(store).finished


def test_only_steps_of_the_category_are_taken_and_idle_workers_end(campaign, mongo, tmp_path):
    _, launchpad, _ = campaign
    files = launch_files(tmp_path / "files", mongo, category="relax")
    with worker(files, "--idle", 0.5) as process:
        assert process.wait(timeout=PATIENCE_S) == 0
    assert states(launchpad) == {"READY"}


def test_a_paused_campaign_is_left_alone_and_a_cancelled_one_ends_its_workers(campaign):
    directory, launchpad, store = campaign
    store.set_campaign(paused=True)
    with worker(directory, "--idle", 0.5) as process:
        assert process.wait(timeout=PATIENCE_S) == 0
    store.set_campaign(paused=False, cancelled=True)
    with worker(directory) as process:
        assert process.wait(timeout=PATIENCE_S) == 0
    assert states(launchpad) == {"READY"}


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({"my_fworker.yaml": "query: {}"}, "my_launchpad.yaml does not exist"),
        (
            {"my_fworker.yaml": "query: {}", "my_launchpad.yaml": "host: h\nname: n"},
            "but 'spec.campaign' is missing: `hullscreen launch` writes them",
        ),
        (
            {"my_fworker.yaml": "query: [", "my_launchpad.yaml": "host: h\nname: n"},
            "cannot be read as YAML",
        ),
        (
            {"my_fworker.yaml": "- 1", "my_launchpad.yaml": "host: h\nname: n"},
            "should hold keys and values",
        ),
        ({}, "hullscreen.toml"),
    ],
    ids=["no-launchpad", "no-campaign", "no-yaml", "a-list", "nothing"],
)
def test_launch_files_that_are_wrong_are_named(tmp_path, files, sentence):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with worker(tmp_path) as process:
        _, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode in (2, 7)
    assert sentence in said
    assert said.count("\n") == 1
