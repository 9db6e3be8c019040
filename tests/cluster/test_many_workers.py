"""Twenty workers on one server: every step is held by one of them, and done once."""

import contextlib
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from hullscreen.launch.campaign_session import open_session
from hullscreen.launch.campaign_start import prepare
from hullscreen.workflows.flows import submit_campaign
from hullscreen.workflows.results import final_hull

CHAOS = Path(__file__).parent / "chaos"
INJECTED = CHAOS / "injected"
N_WORKERS = 20
PATIENCE_S = 900
# Steps of one structure: as many, and as light, as they can be.
SETTINGS = """
[campaign]
name = "many"
elements = ["Cu", "Pd"]
[prototypes]
max_atoms = 3
lattices = ["fcc", "bcc"]
aflow = false
[potential]
level_first = 4
level_second = 6
cutoff_angstrom = 4.5
[learning]
first_wave = 20
[relaxation]
batch_size = 1
[dft]
calculator = "witnessed_emt:WitnessedEMT"
structures_per_job = 1
[database]
uri = "{uri}"
name = "{name}"
"""


@pytest.fixture
def log(tmp_path, monkeypatch):
    """Event log of all processes that the test starts."""
    path = tmp_path / "events.jsonl"
    monkeypatch.syspath_prepend(str(INJECTED))
    monkeypatch.syspath_prepend(str(CHAOS))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
    monkeypatch.setenv("HULLSCREEN_EVENT_LOG", str(path))
    monkeypatch.setenv("WITNESSED_EMT_TAKES_S", "0")
    return path


@pytest.mark.slow
def test_twenty_workers_share_a_campaign_and_do_every_step_once(mongo, tmp_path, log):
    from invariants import read_log

    directory = tmp_path / "many"
    directory.mkdir()
    (directory / "hullscreen.toml").write_text(SETTINGS.format(uri=mongo.uri, name=mongo.name))
    with open_session(directory) as session:
        campaign, launchpad = prepare(session)
        submit_campaign(launchpad, campaign)
        began = time.monotonic()
        with contextlib.ExitStack() as stack:
            workers = [stack.enter_context(_worker(directory)) for _ in range(N_WORKERS)]
            for worker in workers:
                assert worker.wait(timeout=PATIENCE_S) == 0
        seconds = time.monotonic() - began
        launchpad.connection.close()
        assert final_hull(session.store).finished
    fireworks = list(mongo.database.fireworks.find({}, {"state": 1, "launches": 1, "fw_id": 1}))
    assert {firework["state"] for firework in fireworks} == {"COMPLETED"}
    assert {len(firework["launches"]) for firework in fireworks} == {1}
    events = read_log(log)
    taken = Counter(event["fw_id"] for event in events if event["what"] == "taken")
    assert taken == {firework["fw_id"]: 1 for firework in fireworks}
    assert len({event["pid"] for event in events if event["what"] == "taken"}) > N_WORKERS / 2
    asked = Counter(event["structure"] for event in events if event["what"] == "evaluated")
    assert max(asked.values()) == 1
    print(
        f"\n{len(fireworks)} steps by {N_WORKERS} workers in {seconds:.0f} s: "
        f"{len(fireworks) / seconds:.1f} a second, starting the processes included"
    )


@contextlib.contextmanager
def _worker(directory):
    process = subprocess.Popen([sys.executable, "-m", "hullscreen.launch", "worker", directory])
    try:
        yield process
    finally:
        process.kill()
        process.wait()
