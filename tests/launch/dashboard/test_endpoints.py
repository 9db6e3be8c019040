"""Logs and actions beside the page: what they answer, what they keep to, what they refuse."""

import json
import os
import re

import pytest
from flask import Flask

from hullscreen.launch.campaign_session import Session, only_reading
from hullscreen.launch.dashboard.logs import LINES_OF_A_FILE
from hullscreen.launch.dashboard.serving import AT_ONCE, add_endpoints
from hullscreen.launch.settings import load

OUTSIDE = "root:x:0:0"
LOG_BYTES = 100 * 2**20


@pytest.fixture
def session(small_campaign, copied_campaign, mongo, tmp_path):
    """A campaign of the test's own, open, whose last DFT relaxations wait for a worker."""
    text = (small_campaign.directory / "hullscreen.toml").read_text()
    directory = tmp_path / "cu-pd"
    directory.mkdir()
    (directory / "hullscreen.toml").write_text(
        re.sub(r'(?m)^name = "test_.*"', f'name = "{mongo.name}"', text)
    )
    copied_campaign.set_campaign(finished=False, directory=str(directory / "calculations"))
    return Session(directory, load(directory), mongo, copied_campaign)


@pytest.fixture
def failed(session, mongo):
    """A job that failed: Firework, structure, and the folder of its calculation."""
    database = mongo.database
    last = database.rounds.find_one(sort=[("number", -1)])
    step = database.fireworks.find_one(
        {"spec._category": "dft", "spec.round": last["number"], "name": {"$regex": "relaxations"}}
    )
    index = last["final_indices"][step["spec"]["_tasks"][0]["first"]]
    trace = "Traceback (most recent call last):\nhullscreen.errors.DFTError: no scf <b>\x1b[31m"
    database.fireworks.update_one({"_id": step["_id"]}, {"$set": {"state": "FIZZLED"}})
    database.launches.update_one(
        {"launch_id": step["launches"][-1]},
        {"$set": {"action.stored_data._exception": {"_stacktrace": trace}}},
    )
    of_index = {"structure_index": index, "kind": "relaxation"}
    database.dft_results.update_one(of_index, {"$set": {"state": "failed", "reason": "no scf"}})
    key = database.dft_results.find_one({**of_index, "state": "failed"})["key"]
    folder = session.directory / "calculations" / key[:2] / key
    folder.mkdir(parents=True)
    return step["fw_id"], index, folder


def client_of(*sessions, allow_actions=False):
    server = Flask(__name__)
    add_endpoints(
        server, {session.store.name: session for session in sessions}, allow_actions=allow_actions
    )
    return server.test_client()


def lines_of(client, query):
    answer = client.get(f"/campaigns/cu-pd/log?{query}")
    assert answer.status_code == 200, answer.text
    assert set(answer.get_json()) == {"title", "lines"}
    return answer.get_json()["lines"]


# Logs


def test_the_log_of_a_failed_job(session, failed):
    fw_id, index, folder = failed
    (folder / "output.txt").write_bytes(b"one\n\xff\x00\x1b[31mtwo\n<script>alert(1)</script>\n")
    client = client_of(session)
    for query in (f"firework={fw_id}", f"structure={index}"):
        lines = lines_of(client, query)
        text = "\n".join(lines)
        assert "reason: no scf" in text
        assert "Traceback (most recent call last):" in text
        assert "    \ufffd\\x00\\x1b[31mtwo" in lines
        # As it stands: the page shows it as text.
        assert "    <script>alert(1)</script>" in lines
        assert "\x1b" not in text
    title = client.get(f"/campaigns/cu-pd/log?firework={fw_id}").get_json()["title"]
    assert title.startswith(f"Step {fw_id}, ")


def test_of_a_large_file_only_the_end_is_read(session, failed):
    fw_id, _, folder = failed
    with (folder / "output.txt").open("wb") as file:
        file.truncate(LOG_BYTES)
        file.seek(LOG_BYTES)
        file.write(b"\n" + b"".join(b"line %d\n" % n for n in range(1000)))
    client = client_of(session)
    answer = client.get(f"/campaigns/cu-pd/log?firework={fw_id}")
    assert len(answer.data) < 100_000
    lines = [line.strip() for line in answer.get_json()["lines"]]
    shown = [line for line in lines if re.fullmatch(r"line \d+", line)]
    assert shown == [f"line {n}" for n in range(1000 - LINES_OF_A_FILE, 1000)]
    assert any(f"({LOG_BYTES + 8891:,} bytes)" in line for line in lines)


@pytest.mark.parametrize("where", ["absolute", "dots", "link", "file", "folder", "zero"])
def test_nothing_outside_the_campaign_is_read(session, failed, mongo, tmp_path, where):
    fw_id, _, folder = failed
    outside = tmp_path / "outside" / folder.parent.name / folder.name
    outside.mkdir(parents=True)
    (outside / "output.txt").write_text(OUTSIDE)
    root = session.directory / "calculations"
    leads_there = {
        "absolute": str(tmp_path / "outside"),
        "dots": str(root / ".." / ".." / "outside"),
        "zero": f"{tmp_path}\0/outside",
    }
    if where in leads_there:
        session.store.set_campaign(directory=leads_there[where])
    elif where == "link":
        folder.rmdir()
        folder.parent.rmdir()
        root.rmdir()
        root.symlink_to(tmp_path / "outside")
    elif where == "file":
        (folder / "output.txt").symlink_to(outside / "output.txt")
    else:
        folder.rmdir()
        folder.symlink_to(outside)
    lines = lines_of(client_of(session), f"firework={fw_id}")
    assert OUTSIDE not in "\n".join(lines)
    remark = "is not inside the campaign's directory"
    assert any(remark in line for line in lines) == (where in {*leads_there, "link"})


def test_a_pipe_does_not_keep_the_log_waiting(session, failed):
    fw_id, _, folder = failed
    os.mkfifo(folder / "output.txt")
    assert lines_of(client_of(session), f"firework={fw_id}")


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("", 400),
        ("structure=1&firework=1", 400),
        ("structure=", 400),
        ("structure=-1", 400),
        ("structure=1.5", 400),
        ("structure=٣", 400),
        ("structure=../../etc/passwd", 400),
        (f"structure={2**63}", 400),
        (f"firework={'9' * 5000}", 400),
        (f"structure={10**18 - 1}", 404),
        (f"firework={10**18 - 1}", 404),
    ],
)
def test_what_there_is_no_log_of(session, query, code):
    answer = client_of(session).get(f"/campaigns/cu-pd/log?{query}")
    assert answer.status_code == code
    assert list(answer.get_json()) == ["message"]


@pytest.mark.parametrize("name", ["other", "..", "%2e%2e", "cu-pd%00", "<script>"])
def test_campaigns_of_other_names(session, name):
    answer = client_of(session).get(f"/campaigns/{name}/log?structure=1")
    assert answer.status_code in {404, 308}
    assert "<script>" not in answer.text


def test_documents_that_make_no_sense_are_an_answer_too(session, failed, mongo):
    fw_id, index, _ = failed
    mongo.database.structures.update_one(
        {"index": index}, {"$set": {"formula_pretty": "<script>alert(1)</script>", "stage": "x"}}
    )
    client = client_of(session)
    answer = client.get(f"/campaigns/cu-pd/log?structure={index}")
    assert answer.status_code == 500
    assert list(answer.get_json()) == ["message"]
    assert lines_of(client, f"firework={fw_id}")


def test_no_more_than_a_few_wait_for_the_database_at_once(session, failed, monkeypatch):
    from hullscreen.launch.dashboard import serving

    client, codes = client_of(session), []
    original = serving.read_log

    def asking_again(*arguments):
        if len(codes) < AT_ONCE:
            codes.append(client.get("/campaigns/cu-pd/log?structure=1").status_code)
        return original(*arguments)

    monkeypatch.setattr(serving, "read_log", asking_again)
    assert client.get("/campaigns/cu-pd/log?structure=1").status_code == 200
    # The innermost is answered first: it finds all places taken.
    assert codes == [503, *([200] * (AT_ONCE - 1))]
    assert client.get("/campaigns/cu-pd/log?structure=1").status_code == 200


# The report


def test_the_report_is_a_file_to_keep(session):
    answer = client_of(session).get("/campaigns/cu-pd/report.html")
    assert answer.status_code == 200
    assert answer.mimetype == "text/html"
    # Its scripts never run beside the page's.
    assert answer.headers["Content-Disposition"] == "attachment; filename=cu-pd.html"
    assert answer.text.startswith("<!doctype html>")
    assert "</html>" in answer.text
    assert client_of(session).get("/campaigns/other/report.html").status_code == 404


# Actions


@pytest.mark.parametrize("action", ["rerun", "pause", "resume"])
def test_a_dashboard_that_only_shows_changes_nothing(session, failed, mongo, action):
    before = documents(mongo)
    answer = client_of(session).post(f"/campaigns/cu-pd/{action}", json={"firework": failed[0]})
    assert answer.status_code == 403
    assert "--allow-actions" in answer.get_json()["message"]
    assert documents(mongo) == before


def documents(mongo):
    database = mongo.database
    return {name: list(database[name].find()) for name in database.list_collection_names()}


def test_rerun(session, failed, mongo):
    client = client_of(session, allow_actions=True)
    answer = client.post("/campaigns/cu-pd/rerun", json={"firework": failed[0]})
    assert answer.status_code == 200
    said = answer.get_json()["message"]
    assert said.startswith(f"Ready to run once more: {failed[0]} (")
    assert f"Next: `hullscreen run {session.directory}` computes them" in said
    assert mongo.database.fireworks.find_one({"fw_id": failed[0]})["state"] == "READY"
    answer = client.post("/campaigns/cu-pd/rerun", json={"firework": failed[0]})
    assert answer.status_code == 404
    assert "expected a Firework that failed" in answer.get_json()["message"]


@pytest.mark.parametrize(
    "body",
    [
        {}, {"firework": "1"}, {"firework": True}, {"firework": -1}, {"firework": 2**64},
        {"firework": {"$gt": 0}}, {"firework": 1, "more": 2}, {"firework": None},
    ],
)  # fmt: skip
def test_what_cannot_run_again(session, mongo, body):
    before = documents(mongo)
    answer = client_of(session, allow_actions=True).post("/campaigns/cu-pd/rerun", json=body)
    assert answer.status_code == 400
    assert documents(mongo) == before


def test_pause_and_resume(session):
    client = client_of(session, allow_actions=True)
    answer = client.post("/campaigns/cu-pd/pause", json={})
    assert (answer.status_code, session.store.campaign()["paused"]) == (200, True)
    assert answer.get_json() == {"message": "Paused: no step is under way."}
    assert client.post("/campaigns/cu-pd/resume", json={"a": 1}).status_code == 400
    answer = client.post("/campaigns/cu-pd/resume", json={})
    assert (answer.status_code, session.store.campaign()["paused"]) == (200, False)
    assert answer.get_json()["message"].startswith("Resumed: workers that waited go on.")
    answer = client.post("/campaigns/cu-pd/resume", json={})
    assert answer.status_code == 409
    assert answer.get_json() == {"message": "campaign 'cu-pd' is neither paused nor cancelled"}


def test_a_session_that_only_reads_writes_not_even_an_index(session, mongo):
    reading = only_reading(session)
    client = client_of(reading, allow_actions=True)
    before = json.dumps(documents(mongo), default=str)
    assert client.post("/campaigns/cu-pd/pause", json={}).status_code == 503
    # Reads that name an index do without it: the copied campaign has none.
    assert lines_of(client, "structure=1")
    assert reading.store.search({"index": 3}, ["index"], sort=[])
    assert list(mongo.database.structures.index_information()) == ["_id_"]
    assert json.dumps(documents(mongo), default=str) == before
    # Whereas a command that may write makes it.
    assert session.store.search({"index": 3}, ["index"], sort=[])
    assert "campaign_1_index_1" in mongo.database.structures.index_information()
