"""``hullscreen brute-force`` as a person and a script call it, interrupted and killed as well."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from hullscreen.database.addresses import URI_VARIABLE
from hullscreen.database.dft_documents import DFTDocument
from hullscreen.database.embedded_server import stop
from hullscreen.database.server_files import process_start
from hullscreen.launch.campaign_session import open_session
from hullscreen.launch.command_line import main
from hullscreen.launch.commands.brute_force import sentences
from hullscreen.workflows.campaign import Campaign, add_prototypes, register
from hullscreen.workflows.dft_jobs import RELAXATION
from hullscreen.workflows.reference_relaxations import relax_pool

# A machine with a hundred times the load that a start of Python and mongod takes a second on.
PATIENCE_S = 60.0
SETTINGS = """\
[campaign]
name = "small"
elements = ["Cu", "Pd"]
[prototypes]
max_atoms = {max_atoms}
aflow = false
[dft]
calculator = "{calculator}"
structures_per_job = 1
"""
# An EMT that leaves a line per call, and takes its time.
SLOW_EMT = """
import os, time
from pathlib import Path
from ase.calculators.emt import EMT

class SlowEMT(EMT):
    def calculate(self, atoms=None, *arguments):
        if "TEST_LOG" in os.environ:
            with Path(os.environ["TEST_LOG"]).open("a") as stream:
                stream.write(f"{os.getpid()}\\n")
            time.sleep(0.1)
        super().calculate(atoms, *arguments)
"""


@pytest.fixture
def make(tmp_path, monkeypatch):
    monkeypatch.delenv(URI_VARIABLE, raising=False)
    directory = tmp_path / "small"
    directory.mkdir()

    def write(max_atoms=2, calculator="ase.calculators.emt:EMT"):
        text = SETTINGS.format(max_atoms=max_atoms, calculator=calculator)
        (directory / "hullscreen.toml").write_text(text)
        return directory

    yield write
    stop(directory, force=True)


def run(capsys, *words):
    code = main([str(word) for word in words])
    out, err = capsys.readouterr()
    return code, out, err


def finish(directory):
    """Make the campaign look as if it had relaxed all that brute force relaxed, but for CuPd."""
    with open_session(directory) as session:
        store = session.store
        campaign = Campaign(session.settings, store, session.directory / "calculations")
        relaxed = relax_pool(campaign, 1)
        assert relaxed.n_computed == 0
        register(campaign)
        add_prototypes(campaign)
        for i, relaxation in enumerate(relaxed.relaxations):
            if len(set(relaxation.numbers)) == 2:
                store.drop([(i, {"stage": 1, "reason": "planted"})])
                continue
            store.save_dft(
                DFTDocument(
                    key=str(i), kind=RELAXATION, state="done", campaign=store.name,
                    purpose="final", structure_index=i, chemsys="Cu-Pd",
                    engine=relaxation.engine, numbers=relaxation.numbers,
                    geometry=relaxation.geometry, energy=relaxation.energy, converged=True,
                    n_evaluations=1,
                )
            )  # fmt: skip
            store.advance([i], 3)
            energy = relaxation.energy / len(relaxation.numbers)
            store.save_final(i, {"state": "done", "key": str(i), "energy_per_atom": energy})
        store.set_campaign(finished=True)


def test_before_the_campaign_and_after_it(make, capsys):
    directory = make()
    code, out, err = run(capsys, "brute-force", directory, "--workers", 1, "--json")
    assert code == 6
    assert "not finished" in err
    document = json.loads(out)
    assert document["campaign"] is None
    brute = document["brute_force"]
    assert brute["relaxations_computed_now"] == document["structures"] == 11
    assert brute["evaluations"] > 11
    assert [phase["formula_pretty"] for phase in brute["stable"]] == ["Cu", "Pd", "CuPd"]

    code, out, err = run(capsys, "brute-force", directory, "--workers", 1)
    assert code == 6
    assert "Stable in Cu-Pd by brute force" in out
    assert f"{brute['evaluations']:,} evaluations" in out

    finish(directory)
    code, out, err = run(capsys, "brute-force", directory, "--json")
    assert code == 0
    compared = json.loads(out)
    assert compared["brute_force"]["relaxations_computed_now"] == 0
    assert compared["brute_force"]["evaluations"] == brute["evaluations"]
    # Six pure structures at one evaluation each.
    assert compared["campaign"]["evaluations"] == 6
    assert compared["evaluation_ratio"] == pytest.approx(brute["evaluations"] / 6)
    assert compared["recall"] == pytest.approx(2 / 3)
    assert [missed["formula_pretty"] for missed in compared["missed"]] == ["CuPd"]
    assert "planted" in compared["missed"][0]["reason"]
    assert compared["hull_difference_mev_per_atom"]["at"] == "CuPd"
    assert set(compared) >= {"chemsys", "structures", "brute_force", "campaign"}

    code, out, err = run(capsys, "brute-force", directory)
    assert code == 0
    assert "2 of 3 stable structures" in out
    assert "Missed: CuPd" in out
    assert "planted" in out


def test_sentences_name_failures_and_doubts():
    brute = {
        "evaluations": 1234, "failed": 3, "failures": {"collapsed": 2, "stalled": 1},
        "cpu_seconds": 5.0, "stable": [],
        "unconverged_below_hull": [
            {"prototype": "fcc-2-2-01", "reason": "stalled", "formula_pretty": "CuPd",
             "below_hull_mev_per_atom": 1.5}
        ],
    }  # fmt: skip
    told = sentences({"structures": 99, "campaign": None, "brute_force": brute})
    assert "1,234 evaluations" in told[0]
    assert "3 failed (2 collapsed, 1 stalled)" in told[0]
    assert "in doubt" in told[1]


def wait_for_ends(pids):
    deadline = time.monotonic() + PATIENCE_S
    while any(process_start(pid) for pid in pids):
        assert time.monotonic() < deadline, f"some of {pids} still live"
        time.sleep(0.02)


@pytest.fixture
def slow(make, tmp_path):
    """Function that starts the command on a slow engine, in a process group of its own."""
    (tmp_path / "slow_emt.py").write_text(SLOW_EMT)
    directory = make(max_atoms=3, calculator="slow_emt:SlowEMT")
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    started = []

    def start(log=None):
        environment = os.environ | {"PYTHONPATH": path} | ({"TEST_LOG": str(log)} if log else {})
        words = ["-m", "hullscreen.launch", "brute-force", str(directory), "--workers", "2"]
        started.append(
            subprocess.Popen(
                [sys.executable, *words, "--json"],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        with process:
            pass


def wait_for_saved(directory, n):
    """Wait until the database holds so many relaxations, and say how many there are."""
    deadline = time.monotonic() + PATIENCE_S
    with open_session(directory) as session:
        relaxations = session.connection.database.reference_relaxations
        while (saved := relaxations.count_documents({})) < n:
            assert time.monotonic() < deadline, "nothing was saved in time"
            time.sleep(0.02)
    return saved


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=lambda s: s.name)
def test_stopped_at_any_time_it_continues(slow, tmp_path, number):
    log = tmp_path / "calls.txt"
    process = slow(log)
    saved = wait_for_saved(tmp_path / "small", 1)
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # what Ctrl-C in a terminal does
    else:
        process.kill()
    out, err = process.communicate(timeout=PATIENCE_S)
    # All processes that called the engine; the command itself did, to check it.
    wait_for_ends({int(pid) for pid in log.read_text().split()})
    if number == signal.SIGINT:
        assert process.returncode == 130
        assert "Traceback" not in err
        assert "running the same command again continues" in err
        assert out == ""
    again = slow()
    out, err = again.communicate(timeout=PATIENCE_S)
    assert again.returncode == 6, err
    document = json.loads(out)
    assert document["structures"] == 23
    assert 0 < document["brute_force"]["relaxations_computed_now"] <= 23 - saved
