"""Everything of a campaign is killed at random moments; the same command goes on."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

CALCULATORS = Path(__file__).parent / "calculators"
MAX_ATOMS = os.environ.get("HULLSCREEN_TEST_KILL_ATOMS", "4")
N_KILLS = int(os.environ.get("HULLSCREEN_TEST_KILLS", "4"))

SETTINGS = """
[campaign]
name = "killed"
elements = ["Cu", "Pd"]
[prototypes]
max_atoms = {max_atoms}
aflow = false
[dft]
calculator = "counting_emt:CountingEMT"
structures_per_job = 5
[launch]
workers = 2
"""


def environment(log):
    paths = [str(CALCULATORS), *[path for path in sys.path if path]]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "COUNTING_EMT_LOG": str(log)}


def hullscreen(*words):
    return [sys.executable, "-m", "hullscreen.launch", *map(str, words)]


def make_campaign(directory):
    directory.mkdir()
    (directory / "hullscreen.toml").write_text(SETTINGS.format(max_atoms=MAX_ATOMS))


def processes_of(directory):
    """Every process that has this directory on its command line: run, workers, keeper, mongod."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                if str(directory).encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
    return found


def kill_everything(directory):
    """Kill until nothing is left: the keeper may just have started another mongod."""
    for _ in range(50):
        left = processes_of(directory)
        if not left:
            return
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)
    raise AssertionError(f"processes {processes_of(directory)} outlive a kill")


def hull_of(directory, log):
    finished = subprocess.run(
        hullscreen("hull", directory, "--json"),
        env=environment(log), capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    return json.loads(finished.stdout)


def documents_of(directory):
    from hullscreen.launch.campaign_session import open_session

    with open_session(directory) as session:
        database = session.connection.database
        return {
            name: [
                {key: document.get(key) for key in keys}
                for document in database[name].find({}, dict.fromkeys(keys, 1))
            ]
            for name, keys in {
                "structures": ["campaign", "index"],
                "selected": ["campaign", "round", "number"],
                "rounds": ["campaign", "number"],
                "potentials": ["campaign", "number"],
                "dft_results": ["key"],
            }.items()
        }


@pytest.mark.slow
def test_killed_at_random_moments_a_campaign_ends_with_the_same_hull(tmp_path):
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    calm_log, log = tmp_path / "calm.log", tmp_path / "killed.log"
    make_campaign(undisturbed)
    start = time.monotonic()
    subprocess.run(
        hullscreen("run", undisturbed), env=environment(calm_log), check=True, timeout=900
    )
    usual_s = time.monotonic() - start
    make_campaign(killed)
    moments = random.Random(1)
    # Many kills must come early, or the campaign is finished before the last of them.
    latest_s = min(0.7, 2.0 / N_KILLS) * usual_s
    interrupted = 0
    for _ in range(N_KILLS):
        with subprocess.Popen(hullscreen("run", killed), env=environment(log)) as process:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=moments.uniform(0.5, latest_s))
            interrupted += process.poll() is None
            kill_everything(killed)
    assert interrupted > 0, "every run was quicker than its kill"
    print(f"{interrupted} of {N_KILLS} kills hit a campaign at work")
    subprocess.run(hullscreen("run", killed), env=environment(log), check=True, timeout=900)

    ours, calm = hull_of(killed, log), hull_of(undisturbed, calm_log)
    assert ours["finished"]
    assert ours["stable"], "a hull has at least its elements"
    for mine, theirs in zip(ours["stable"], calm["stable"], strict=True):
        assert mine["formula_pretty"] == theirs["formula_pretty"]
        # Energies come from one code at one geometry: equal to rounding.
        assert mine["energy_per_atom"] == pytest.approx(theirs["energy_per_atom"], abs=1e-9)

    evaluations = log.read_text().split()
    repeated = sum(Counter(evaluations).values()) - len(set(evaluations))
    # Only what was just being computed when everything was killed, one for each worker.
    print(f"{repeated} of {len(evaluations)} evaluations were computed twice")
    assert repeated <= 2 * interrupted
    for name, documents in documents_of(killed).items():
        keys = [tuple(document.values()) for document in documents]
        assert len(keys) == len(set(keys)), f"{name} holds a document twice"
    assert len(documents_of(killed)["structures"]) == len(documents_of(undisturbed)["structures"])
