import json
import os
import signal
import time

import pytest

from hullscreen.database.addresses import URI_VARIABLE
from hullscreen.database.embedded_server import acquire, stop
from hullscreen.database.server_files import process_start
from hullscreen.launch.command_line import main


@pytest.fixture
def campaign(tmp_path, monkeypatch):
    monkeypatch.delenv(URI_VARIABLE, raising=False)
    directory = tmp_path / "campaign"
    directory.mkdir()
    (directory / "hullscreen.toml").write_text(
        '[campaign]\nname = "campaign"\nelements = ["Cu", "Pd"]\n'
    )
    yield directory
    stop(directory, force=True)


def run(capsys, *words):
    code = main([str(word) for word in words])
    out, err = capsys.readouterr()
    return code, out, err


def run_json(capsys, *words):
    code, out, err = run(capsys, *words, "--json")
    assert (code, err) == (0, "")
    return json.loads(out)


def test_server_is_kept_from_start_to_stop(campaign, capsys):
    assert run_json(capsys, "db", "status", campaign)["running"] is False
    started = run_json(capsys, "db", "start", campaign)
    assert started["running"]
    assert started["kept"]
    assert started["embedded"]
    again = run_json(capsys, "db", "start", campaign)
    assert again["mongod_pid"] == started["mongod_pid"]
    _, out, _ = run(capsys, "db", "status", campaign)
    assert "runs until `hullscreen db stop`" in out
    assert started["uri"] in out
    assert run(capsys, "db", "stop", campaign) == (0, "the server is stopped\n", "")
    assert run_json(capsys, "db", "status", campaign)["running"] is False


def test_killed_server_starts_again(campaign, capsys):
    before = run_json(capsys, "db", "start", campaign)
    for pid in (before["keeper_pid"], before["mongod_pid"]):
        os.kill(pid, signal.SIGKILL)
        while process_start(pid):
            time.sleep(0.01)
    assert run_json(capsys, "db", "start", campaign)["uri"] == before["uri"]


def test_stop_waits_for_users_unless_forced(campaign, capsys):
    with acquire(campaign, cache_gb=0.25):
        code, out, _ = run(capsys, "db", "stop", campaign)
        assert code == 0
        assert "users    1 process\n" in out
        assert "`--force` stops it now" in out


def test_given_server_is_neither_started_nor_stopped(campaign, capsys, monkeypatch):
    monkeypatch.setenv(URI_VARIABLE, "mongodb://ann:s3cret@db.example.org:27017/")
    for verb in ("start", "stop"):
        code, out, _ = run(capsys, "db", verb, campaign)
        assert code == 0
        assert "db.example.org:27017, which hullscreen neither starts nor stops" in out
        found = run_json(capsys, "db", verb, campaign)
        assert found == {"embedded": False, "uri": "mongodb://***@db.example.org:27017/"}
    assert not (campaign / "database").exists()


def test_directory_without_a_campaign_is_named(tmp_path, capsys):
    code, out, err = run(capsys, "db", "start", tmp_path)
    assert code == 2
    assert out == ""
    assert "hullscreen.toml does not exist" in err
