"""`hullscreen run` with real workers: one at a time, through DFT failures and killed processes."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.parse import quote

import pytest

from hullscreen.database.connection import reconnecting
from hullscreen.database.mongod import find_mongod, server_command
from hullscreen.database.private_socket import server_answers
from hullscreen.launch import local_run
from hullscreen.launch.campaign_session import open_session
from hullscreen.launch.campaign_start import prepare
from hullscreen.launch.local_run import run
from hullscreen.launch.progress import LineBoard
from hullscreen.potentials.errors import CampaignError
from hullscreen.workflows import recovery
from hullscreen.workflows.flows import submit_campaign
from hullscreen.workflows.report import campaign_report
from hullscreen.workflows.results import final_hull

CALCULATORS = Path(__file__).parent / "calculators"
SETTINGS = """
[campaign]
name = "local"
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
calculator = "failing_emt:FailingEMT"
structures_per_job = 3
[database]
uri = "{uri}"
name = "{name}"
"""
PATIENCE_S = 120


@pytest.fixture
def server(tmp_path_factory):
    """Function that starts a mongod of the user's own and waits for it; its address."""
    folder = tmp_path_factory.mktemp("server")
    (folder / "data").mkdir()
    socket = folder / "s.sock"
    command = server_command(find_mongod(), folder / "data", socket, folder / "log", cache_gb=0.25)
    started = []

    def start():
        started.append(subprocess.Popen(command, stdout=subprocess.DEVNULL))
        while not server_answers(socket):
            assert started[-1].poll() is None
            time.sleep(0.02)
        return started[-1]

    start.uri = f"mongodb://{quote(str(socket), safe='')}/"
    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture
def failing(tmp_path):
    """File with the formulas that DFT cannot compute."""
    path = tmp_path / "failing.txt"
    path.touch()
    return path


@pytest.fixture
def session(mongo, tmp_path, failing, monkeypatch):
    """A campaign directory, open; its workers use the test's calculator and database."""
    monkeypatch.syspath_prepend(str(CALCULATORS))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
    monkeypatch.setenv("FAILING_EMT_FORMULAS", str(failing))
    directory = tmp_path / "campaign"
    directory.mkdir()
    (directory / "hullscreen.toml").write_text(SETTINGS.format(uri=mongo.uri, name=mongo.name))
    with open_session(directory) as session:
        yield session
    for pid in workers_of(directory):
        os.kill(pid, signal.SIGKILL)
    sys.modules.pop("failing_emt", None)


@pytest.mark.slow
def test_a_server_of_the_users_that_is_away_for_long_is_waited_for(
    server, tmp_path, failing, monkeypatch
):
    # A minute otherwise.
    monkeypatch.setitem(reconnecting.__kwdefaults__, "patience_s", 1.0)
    monkeypatch.syspath_prepend(str(CALCULATORS))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
    monkeypatch.setenv("FAILING_EMT_FORMULAS", str(failing))
    directory = tmp_path / "campaign"
    directory.mkdir()
    (directory / "hullscreen.toml").write_text(SETTINGS.format(uri=server.uri, name="away"))
    running, lines = [server()], []

    def note(line):
        lines.append(line)
        if len(lines) == 1:
            killer.start()
        if "waiting for it" in line:
            running.append(server())

    killer = threading.Timer(3.0, running[0].kill)
    with open_session(directory) as session:
        run(session, LineBoard(note), 1)
        assert session.store.campaign()["finished"]
    said = [line for line in lines if "waiting for it" in line]
    assert len(said) == len(running) - 1 == 1, lines
    sys.modules.pop("failing_emt", None)


def run_quietly(session, n_workers=1):
    """Run to the end; gives what was said on the way."""
    lines = []
    run(session, LineBoard(lines.append), n_workers)
    return lines


def workers_of(directory):
    """Worker processes of a campaign directory."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_bytes().split(b"\0")
                if {b"worker", str(directory).encode()} <= set(words):
                    found.append(int(entry.name))
    return found


def wait_for(condition):
    deadline = time.monotonic() + PATIENCE_S
    while not (value := condition()):
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.02)
    return value


@pytest.mark.slow
def test_one_run_at_a_time_and_killed_workers_are_replaced(session):
    problems = []

    def first():
        try:
            run_quietly(session, 2)
        except CampaignError as error:
            problems.append(error)

    running = threading.Thread(target=first)
    running.start()
    fireworks = session.connection.database.fireworks
    # In the middle of a step.
    wait_for(lambda: fireworks.find_one({"state": "RUNNING"}))
    with pytest.raises(CampaignError, match=rf"already at work in .* \(process {os.getpid()}\)"):
        run_quietly(session)
    killed = workers_of(session.directory)
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: set(workers_of(session.directory)) - set(killed))
    running.join(timeout=PATIENCE_S)
    assert not running.is_alive()
    assert problems == []
    assert workers_of(session.directory) == []
    assert final_hull(session.store).finished
    assert fireworks.distinct("state") == ["COMPLETED"]
    # A finished campaign starts nobody.
    assert run_quietly(session, 10**6) == []


def history(session):
    """What a campaign chose, fitted and found."""
    store = session.store
    return (
        [(one.round, one.structure_index, one.key) for one in store.selected()],
        [document["text"] for document in store.potentials(["text"])],
        [(e.structure_index, e.energy_above_hull) for e in final_hull(store).entries],
    )


@pytest.mark.slow
def test_results_do_not_depend_on_the_number_of_workers(session):
    run_quietly(session, 1)
    alone = history(session)
    # The same campaign once more, in a database of its own.
    session.connection.database.client.drop_database(session.connection.name)
    run_quietly(session, 3)
    chosen, potentials, hull = history(session)
    assert chosen == alone[0]
    assert potentials == alone[1]
    assert hull == alone[2]


def categories_of_launches(session):
    """Which kinds of worker took which kinds of steps."""
    database = session.connection.database
    kinds = {f["fw_id"]: f["spec"]["_category"] for f in database.fireworks.find({})}
    return {
        (tuple(launch["fworker"]["category"]), kinds[launch["fw_id"]])
        for launch in database.launches.find({})
    }


@pytest.mark.slow
def test_one_pool_of_workers_runs_dft_and_the_other_does_the_rest(session):
    lines = []
    run(session, LineBoard(lines.append), 1, n_dft_workers=2)
    assert final_hull(session.store).finished
    assert categories_of_launches(session) == {
        (("dft",), "dft"), (("relax", "train"), "relax"), (("relax", "train"), "train")
    }  # fmt: skip


@pytest.mark.slow
def test_workers_that_are_started_by_hand_bring_a_campaign_to_its_end(session):
    campaign, launchpad = prepare(session)
    submit_campaign(launchpad, campaign)
    launchpad.connection.close()
    worker = [sys.executable, "-m", "hullscreen.launch", "worker", str(session.directory)]
    kinds = (["dft"], ["relax", "train"])
    processes = [subprocess.Popen([*worker, "--category", *kind]) for kind in kinds]
    try:
        assert [process.wait(timeout=PATIENCE_S) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert final_hull(session.store).finished
    taken = categories_of_launches(session)
    assert {worker for worker, step in taken if step == "dft"} == {("dft",)}
    assert {step for worker, step in taken if worker == ("dft",)} == {"dft"}


@pytest.mark.slow
def test_dft_that_fails_is_named_and_can_be_run_again(session, failing):
    failing.write_text("CuPd2")
    lines = run_quietly(session)
    campaign, launchpad = prepare(session)
    failed = recovery.failures(launchpad, campaign)
    assert f"{len(failed)} DFT jobs failed and their structures were left out" in lines[-1]
    reason = "FailingEMT failed on CuPd2: the charge density of CuPd2 diverged"
    assert failed
    for failure in failed:
        assert failure.category == "dft"
        assert reason in failure.reason
        launch = launchpad.launches.find_one({"fw_id": failure.fw_id}, sort=[("launch_id", -1)])
        assert reason in launch["action"]["stored_data"]["_exception"]["_details"]["reason"]
    report = campaign_report(session.store)
    assert {failure["reason"] for failure in report["failures"]} == {reason}
    hull = final_hull(session.store)
    assert hull.finished
    assert "CuPd2" not in {entry.formula_pretty for entry in hull.entries}
    # The failures are single structures', so a new run leaves them alone.
    assert run_quietly(session) == []

    # Mended, and told to try again, as a FireWorks user would.
    failing.write_text("")
    lpad = Path(sys.executable).with_name("lpad")
    subprocess.run(
        [lpad, "-l", "my_launchpad.yaml", "rerun_fws", "-s", "FIZZLED"],
        cwd=session.directory, check=True, capture_output=True, timeout=PATIENCE_S,
        input=b"Y\n",  # asked for more than ten
    )  # fmt: skip
    assert not any("failed" in line for line in run_quietly(session))
    assert recovery.failures(launchpad, campaign) == []
    assert campaign_report(session.store)["failures"] == []
    assert session.connection.database.fireworks.distinct("state") == ["COMPLETED"]
    hull = final_hull(session.store)
    assert hull.finished
    # The labels that came late were learnt, and all was screened again.
    assert "CuPd2" in {entry.formula_pretty for entry in hull.entries}
    assert run_quietly(session) == []
    launchpad.connection.close()


@pytest.mark.slow
@pytest.mark.parametrize("way", ["+", "-"], ids=["crash", "SystemExit"])
def test_an_engine_that_takes_its_process_along_costs_one_structure(session, failing, way):
    failing.write_text(f"{way}CuPd2")
    lines = run_quietly(session)
    assert "DFT jobs failed and their structures were left out" in lines[-1]
    reasons = {failure["reason"] for failure in campaign_report(session.store)["failures"]}
    assert len(reasons) == 1
    expected = "the worker process ended 3 times while" if way == "+" else "failed on CuPd2"
    assert expected in reasons.pop()
    hull = final_hull(session.store)
    assert hull.finished
    assert hull.n_labels_failed > 0
    # What shares a job with it is computed all the same.
    assert {"Cu", "Pd", "Cu2Pd", "CuPd"} <= {entry.formula_pretty for entry in hull.entries}


@pytest.mark.slow
def test_a_campaign_that_cannot_go_on_says_why_and_tries_again_when_asked_to(
    session, failing, monkeypatch
):
    monkeypatch.setattr(local_run, "PATIENCE_S", 0.5)
    # The engine passes its first check, and then computes nothing more.
    campaign, launchpad = prepare(session)
    failing.write_text("Pd Pd2 Pd3 Cu Cu2 Cu3 CuPd Cu2Pd CuPd2")
    with pytest.raises(CampaignError, match=r"DFT gave no energy .* diverged; mend it and run"):
        run_quietly(session)
    assert workers_of(session.directory) == []
    fit, *labels = recovery.failures(launchpad, campaign)
    assert fit.category == "train"
    # The fit cannot do without them, so they come first when the same command is given again.
    assert recovery.retry_failed(launchpad, campaign, all_steps=True) == 1 + len(labels)
    ready = session.connection.database.fireworks.find({"state": "READY"})
    assert {firework["spec"]["_category"] for firework in ready} == {"dft"}
    launchpad.connection.close()
