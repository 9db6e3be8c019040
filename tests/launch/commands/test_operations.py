"""status --watch, pause, resume, rerun, cancel, logs: what they print, change and refuse."""

import json
import os
import re
import subprocess
import sys
import time
import types

import pytest

from hullscreen.launch.campaign_news import CampaignNews
from hullscreen.launch.campaign_session import open_session
from hullscreen.launch.commands import status as status_command
from hullscreen.launch.progress import LineBoard
from hullscreen.launch.status_display import about
from hullscreen.potentials.errors import DatabaseError

PATIENCE_S = 120.0


@pytest.fixture
def directory(small_campaign, copied_campaign, mongo, tmp_path):
    """Directory of a campaign whose last DFT relaxations wait for a worker."""
    text = (small_campaign.directory / "hullscreen.toml").read_text()
    copy = tmp_path / "cu-pd"
    copy.mkdir()
    (copy / "hullscreen.toml").write_text(
        re.sub(r'(?m)^name = "test_.*"', f'name = "{mongo.name}"', text)
    )
    copied_campaign.set_campaign(finished=False, directory=str(copy / "calculations"))
    return copy


@pytest.fixture
def failed_job(directory, mongo):
    """A DFT job of the last round that failed, with the structure whose calculation it was."""
    database = mongo.database
    last = database.rounds.find_one(sort=[("number", -1)])
    step = database.fireworks.find_one(
        {"spec._category": "dft", "spec.round": last["number"], "name": {"$regex": "relaxations"}}
    )
    index = last["final_indices"][step["spec"]["_tasks"][0]["first"]]
    sentence = f"1 of 1 calculations failed: structure {index}: no scf"
    trace = (
        f"Traceback (most recent call last):\n  File ...\nhullscreen.errors.DFTError: {sentence}"
    )
    database.fireworks.update_one({"_id": step["_id"]}, {"$set": {"state": "FIZZLED"}})
    database.launches.update_one(
        {"launch_id": step["launches"][-1]},
        {"$set": {"action.stored_data._exception": {"_stacktrace": trace}}},
    )
    database.dft_results.update_one(
        {"structure_index": index, "kind": "relaxation"},
        {"$set": {"state": "failed", "reason": "no scf", "corrections": ["no_scf: slower mixing"]}},
    )
    return step["fw_id"], index


def marks(mongo):
    document = mongo.database.campaigns.find_one({})
    return bool(document.get("paused")), bool(document.get("cancelled"))


# pause, resume, cancel


def test_pause_and_resume(directory, mongo, call):
    code, out, err = call("pause", directory)
    assert (code, err) == (0, "")
    assert out == f"Paused: no step is under way. To go on: hullscreen resume {directory}\n"
    assert marks(mongo) == (True, False)
    _, out, _ = call("status", directory)
    assert "\nPAUSED: workers finish what they hold and take nothing new; " in out
    assert max(map(len, out.splitlines())) < 200, "lines end with their last word"
    assert out.endswith(f"\nTo go on: hullscreen resume {directory}\n")
    code, out, err = call("resume", directory)
    assert (code, err) == (0, "")
    assert out.startswith("Resumed: workers that waited go on.")
    assert marks(mongo) == (False, False)
    code, out, err = call("resume", directory)
    assert (code, out) == (6, "")
    assert err == "hullscreen: campaign 'cu-pd' is neither paused nor cancelled\n"


def test_pause_says_what_is_still_under_way(directory, mongo, call):
    found = list(mongo.database.fireworks.find({}, {"fw_id": 1}).limit(2))
    ids = [one["fw_id"] for one in found]
    now = mongo.database.command("hello")["localTime"]
    mongo.database.fireworks.update_many({"fw_id": {"$in": ids}}, {"$set": {"state": "RUNNING"}})
    mongo.database.claims.delete_many({})
    mongo.database.claims.insert_many(
        {"_id": fw_id, "holder": "a|b", "host": "n1", "began_at": now, "seen_at": now, "token": 1}
        for fw_id in ids
    )
    _, out, _ = call("pause", directory)
    assert out.startswith("Paused: 2 steps are under way and will be finished (")


def test_cancel_keeps_everything_and_resume_goes_on(directory, mongo, call):
    before = mongo.database.dft_results.count_documents({})
    code, out, err = call("cancel", directory)
    assert (code, out) == (2, "")
    assert "add --yes" in err
    assert marks(mongo) == (False, False)
    code, out, err = call("cancel", directory, "--yes")
    assert (code, err) == (0, "")
    assert out.splitlines()[0].startswith("Cancelled: no step is under way")
    assert out.splitlines()[-1] == f"To go on: hullscreen run {directory}"
    assert marks(mongo) == (False, True)
    assert mongo.database.dft_results.count_documents({}) == before
    _, out, _ = call("status", directory)
    assert "\nCANCELLED: " in out
    code, out, _ = call("resume", directory)
    assert code == 0
    assert f"`hullscreen run {directory}` starts workers" in out
    assert marks(mongo) == (False, False)


# rerun


def test_rerun_says_what_runs_again_and_what_is_next(directory, failed_job, mongo, call):
    fw_id, index = failed_job
    code, out, err = call("rerun", directory, index)
    assert (code, err) == (0, "")
    first, last = out.splitlines()
    assert first.startswith(f"Ready to run once more: {fw_id} (")
    assert first.count("round ") == 1
    assert last == f"Next: `hullscreen run {directory}` computes them and goes on."
    assert mongo.database.fireworks.find_one({"fw_id": fw_id})["state"] == "READY"
    code, out, _ = call("rerun", directory, "--failed")
    assert (code, out) == (0, "No DFT job failed: there is nothing to run once more.\n")


@pytest.mark.parametrize("finished", [True, False])
def test_rerun_of_a_campaign_at_rest(directory, failed_job, mongo, call, finished):
    mark = {"finished": True} if finished else {"paused": True}
    mongo.database.campaigns.update_one({}, {"$set": mark})
    _, out, _ = call("rerun", directory, "--firework", failed_job[0])
    _, shown, _ = call("status", directory)
    assert ("steps run once more: hullscreen run" in shown) == finished
    said = "screens everything once more" if finished else f"`hullscreen resume {directory}` lets"
    assert said in out.splitlines()[1]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "expected one of --failed, --firework ID and numbers of structures"),
        (["--failed", "3"], "expected one of"),
        (["9999999"], "got 9999999 (no DFT was asked for)"),
        (["--firework", "9999999"], "got 9999999, which 'cu-pd' does not have"),
        (["x"], "'x' is not a valid integer"),
    ],
)
def test_what_cannot_run_again(directory, call, words, sentence):
    code, out, err = call("rerun", directory, *words)
    assert (code, out) == (2, "")
    assert sentence in err
    assert err.count("\n") == 1


# logs


def test_logs_of_a_structure(directory, failed_job, mongo, call):
    fw_id, index = failed_job
    key = mongo.database.dft_results.find_one({"structure_index": index, "state": "failed"})["key"]
    folder = directory / "calculations" / key[:2] / key
    folder.mkdir(parents=True)
    (folder / "output.txt").write_bytes(b"one\ntwo\n\x1b[31mthree\n")
    code, out, err = call("logs", directory, index, "--lines", 2)
    assert (code, err) == (0, "")
    assert out.startswith(f"Structure {index}: ")
    assert f"DFT relaxation {key[:12]} of structure {index} to final: failed\n" in out
    for said in (
        "  reason: no scf\n", "  mended: no_scf: slower mixing\n", f"  folder: {folder}\n",
        "(19 bytes), its end:\n    two\n    \\x1b[31mthree\n", "--verbose shows the traceback",
        f"Step {fw_id} (", "): failed\n",
    ):  # fmt: skip
        assert said in out
    assert "\x1b" not in out
    assert "Traceback" not in out
    _, out, _ = call("logs", directory, "--firework", fw_id, "--verbose")
    assert "    Traceback (most recent call last):\n" in out
    code, out, _ = call("logs", directory, index, "--json")
    assert json.loads(out)["structure_index"] == index


def test_logs_name_the_job_in_the_queue(directory, failed_job, mongo, call, tmp_path):
    fw_id, index = failed_job
    folder = tmp_path / "launcher_1"
    folder.mkdir()
    for name in ("cu-pd-dft-17.out", "cu-pd-dft.e17", "cu-pd-dft.e171", "FW_submit.script"):
        (folder / name).write_text("words\n")
    mongo.database.queue_jobs.insert_one(
        {"campaign": "cu-pd", "job_id": "17", "category": "dft", "folder": str(folder)}
    )
    mongo.database.claims.update_one({"_id": fw_id}, {"$set": {"job_id": "17"}}, upsert=True)
    _, out, _ = call("logs", directory, index)
    files = f"{folder}/cu-pd-dft-17.out, {folder}/cu-pd-dft.e17"
    assert f"\n  in job 17 of the queue: {files}\n" in out
    # A calculator in the worker's process writes none.
    assert "no files" not in out


def test_what_befalls_a_watched_campaign_is_said_once(directory, failed_job, mongo):
    lines = []
    with open_session(directory) as session:
        news = CampaignNews(session.connection, directory, LineBoard(lines.append))
        for _ in range(2):
            news.look(session.store.campaign())
        session.store.set_campaign(paused=True)
        for _ in range(2):
            news.look(session.store.campaign())
        session.store.set_campaign(paused=False)
        news.look(session.store.campaign())
    failed, paused, resumed = lines
    assert failed.startswith(f"step {failed_job[0]} (dft) failed: ")
    assert failed.endswith(": no scf")
    assert paused == f"paused: no new jobs until `hullscreen resume {directory}`"
    assert resumed == "resumed"


@pytest.mark.parametrize("words", [[], ["3", "--firework", "3"]])
def test_logs_of_nothing_or_two_things(directory, call, words):
    code, out, err = call("logs", directory, *words)
    assert (code, out) == (2, "")
    assert "expected either" in err


# status


def test_a_campaign_that_was_registered_and_nothing_more(directory, mongo, call):
    for name in ("fireworks", "workflows", "rounds", "structures"):
        mongo.database[name].delete_many({})
    mongo.database.queue_jobs.insert_one(
        {"campaign": "cu-pd", "job_id": "7", "category": "relax", "ended_at": None}
    )
    code, out, err = call("status", directory)
    assert (code, err) == (0, "")
    assert "generating prototypes" in out
    assert "No worker is at it.\nJobs in the queue: relax 1 (0 at work).\n" in out
    goes_on = (
        "No `hullscreen launch` is at work: new jobs come only while it runs; "
        f"`hullscreen launch {directory}"
    )
    assert out.endswith(f"{goes_on}` goes on.\n")
    # Begun with an option that it needs again, and alive on another host.
    with_option = {"command": "launch", "options": ["--queue", "slurm"], "pid": 7}
    seen = {"host": "login1", "holder": "hullscreen|login1|7|7", "seen_at": None}
    mongo.database.campaigns.update_one({}, {"$set": {"supervisor": {**with_option, **seen}}})
    assert call("status", directory)[1].endswith(f"{goes_on} --queue slurm` goes on.\n")
    assert call("cancel", directory, "--yes")[1].endswith(
        f"To go on: hullscreen launch {directory} --queue slurm\n"
    )
    call("resume", directory)
    now = {"$currentDate": {"supervisor.seen_at": True}}
    mongo.database.campaigns.update_one({}, now)
    said = "`hullscreen launch` is at work on login1 (process 7).\n"
    assert call("status", directory)[1].endswith(said)
    waits = {"state": "waiting", "reason": "PartitionTimeLimit"}
    mongo.database.queue_jobs.update_one({}, {"$set": waits})
    _, out, _ = call("status", directory)
    assert "Jobs in the queue: relax 1 (0 at work, 1 waiting).\n" in out
    assert "Job 7 (relax) waits: PartitionTimeLimit.\n" in out
    assert out.endswith("Jobs wait in the queue.\n")


def test_workers_that_were_lost_are_said(directory, mongo, call):
    found = list(mongo.database.fireworks.find({"spec._category": "dft"}, {"fw_id": 1}).limit(2))
    change = {"state": "RUNNING", "updated_on": "2026-01-01T00:00:00"}
    mongo.database.claims.delete_many({})
    for one in found:
        mongo.database.fireworks.update_one({"_id": one["_id"]}, {"$set": change})
    mongo.database.campaigns.update_one({}, {"$set": {"n_reclaimed": 1}})
    _, out, _ = call("status", directory)
    assert "No worker is at it; 2 steps have lost their workers.\n" in out
    assert "1 step was taken back from workers that were lost, and done by others.\n" in out
    assert re.search(r"^dft +0 +0 +0 +2 ", out, flags=re.MULTILINE)


def test_watching_ends_when_the_campaign_is_finished(directory, mongo, call, monkeypatch):
    looks = []

    def finish(seconds):
        looks.append(seconds)
        mongo.database.campaigns.update_one({}, {"$set": {"finished": True}})

    clock = types.SimpleNamespace(sleep=finish, monotonic=time.monotonic)
    monkeypatch.setattr(status_command, "time", clock)
    code, out, err = call("status", directory, "--watch")
    assert (code, err) == (0, "")
    assert len(looks) == 1
    assert out.count("cu-pd (Cu–Pd)") == 2
    assert re.search(r"\n  \d+ stable phases; \d+ steps; .* to the end of the last step *\n", out)
    assert f"The hull: hullscreen hull {directory}\n" in out
    assert re.fullmatch(r"As of \d\d:\d\d:\d\d\.", out.rstrip().splitlines()[-1])
    code, _, err = call("status", directory, "--watch", "--json")
    assert code == 2
    assert "--watch and --json" in err


def test_watching_says_that_the_database_is_away(directory, mongo, call, monkeypatch):
    def go_away(*words):
        if not looks:
            looks.append(1)
            return look(*words)
        if len(looks) == 1:
            looks.append(2)
            raise DatabaseError("the server is away")
        mongo.database.campaigns.update_one({}, {"$set": {"finished": True}})
        return look(*words)

    looks, look = [], status_command._status
    monkeypatch.setattr(status_command, "_status", go_away)
    monkeypatch.setattr(status_command, "REDRAWN_EVERY_S", 0.0)
    monkeypatch.setattr(status_command, "REST_AFTER_LOOKING", 0.0)
    code, out, err = call("status", directory, "--watch")
    assert (code, err) == (0, "")
    said = re.findall(
        r"^The database has not answered since [\d:]{8}; waiting\.$", out, re.MULTILINE
    )
    assert len(said) == 1
    assert out.count("cu-pd (Cu–Pd)") == 2


def test_no_colours_in_a_pipe_and_some_on_a_terminal(directory, mongo, failed_job):
    words = [sys.executable, "-m", "hullscreen.launch", "status", str(directory)]
    environment = {
        **{name: value for name, value in os.environ.items() if name != "NO_COLOR"},
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "TERM": "xterm",
        "COLUMNS": "80",
    }
    piped = subprocess.run(words, capture_output=True, env=environment, check=True, text=True)
    assert "\x1b" not in piped.stdout
    primary, secondary = os.openpty()
    with subprocess.Popen(words, stdout=secondary, env=environment):
        os.close(secondary)
        shown = b""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            try:
                part = os.read(primary, 65536)
            except OSError:
                break
            if not part:
                break
            shown += part
    os.close(primary)
    assert b"\x1b[1;31m" in shown
    plain = re.sub(r"\x1b\[[0-9;]*m", "", shown.decode())
    assert max(len(line) for line in plain.splitlines()) <= 80


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(1.0, "1 min"), (100.0, "2 min"), (3599.0, "60 min"), (4000.0, "1 h 07 min")],
)
def test_times_that_are_reckoned(seconds, words):
    assert about(seconds) == words
