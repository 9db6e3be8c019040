"""`hullscreen labels`: what was put aside is shown, released, or computed again."""

import json
import os
import socket

import pytest

from hullscreen.launch.campaign_session import open_session
from hullscreen.launch.campaign_start import prepare
from hullscreen.launch.command_line import main
from hullscreen.launch.dashboard.reader import seen_now
from hullscreen.launch.dashboard.status_words import status_sentence
from hullscreen.workflows import decisions
from hullscreen.workflows.results import final_hull
from hullscreen.workflows.screening import TIE

REASON = "its energy of 9.000 eV/atom contradicts all other labels"


@pytest.fixture
def directory(small_campaign, copied_campaign, mongo, tmp_path):
    """Directory of a copy of the finished campaign."""
    text = (small_campaign.directory / "hullscreen.toml").read_text()
    own = small_campaign.connection
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "hullscreen.toml").write_text(
        text.replace(own.uri, mongo.uri).replace(own.name, mongo.name)
    )
    copied_campaign.set_campaign(directory=str(copy / "calculations"))
    return copy


@pytest.fixture
def call(capsys):
    """Function that runs a command: exit code, standard output, standard error."""

    def run(*words):
        code = main([str(word) for word in words])
        out, err = capsys.readouterr()
        return code, " ".join(out.split()), err

    return run


@pytest.fixture
def call_json(call):
    def run(*words):
        code, out, err = call(*words, "--json")
        assert (code, err) == (0, "")
        return json.loads(out)

    return run


def put_aside(store, key):
    store.quarantine(key, reason=REASON, judged="contradiction", judged_by="cu-pd, round 1")


@pytest.fixture
def aside(copied_campaign):
    """Key of a label of the copy that is quarantined."""
    key = copied_campaign.selected(purpose="learn")[0].key
    put_aside(copied_campaign, key)
    return key


def test_labels_are_listed_with_their_state(directory, call, call_json, copied_campaign, aside):
    everything = call_json("labels", directory)
    keys = copied_campaign.selected_keys() + copied_campaign.final_keys()
    assert {row["key"] for row in everything["labels"]} == set(keys)
    assert everything["total"] == len(everything["labels"])
    (row,) = call_json("labels", directory, "--quarantined")["labels"]
    result = copied_campaign.dft_result(aside)
    assert row["key"] == aside
    assert row["energy_per_atom"] == result.energy / len(result.numbers)
    assert (row["state"], row["purpose"], row["reason"]) == ("quarantined", "learn", REASON)
    assert call_json("labels", directory, "--failed")["labels"] == []
    _, out, _ = call("labels", directory, "--quarantined")
    assert f"{aside[:12]} quarantined: {REASON}" in out
    assert "--release KEY` lets one count" in out
    assert "No DFT result matches" in call("labels", directory, "--failed")[1]


@pytest.mark.usefixtures("aside")
def test_hull_report_and_status_say_how_many_and_the_way_out(directory, call, call_json):
    for command in ("hull", "report", "status"):
        _, out, _ = call(command, directory)
        assert "cannot be right" in out
        assert "--quarantined`" in out
    assert call_json("hull", directory)["n_labels_quarantined"] == 1
    assert [row["reason"] for row in call_json("report", directory)["quarantined"]] == [REASON]
    assert call_json("report", directory)["dft_calculations"]["learn"]["quarantined"] == 1
    assert call_json("status", directory)["n_quarantined"] == 1


def test_nothing_is_said_where_nothing_is_quarantined(directory, call):
    for command in ("hull", "report", "status"):
        assert "cannot be right" not in call(command, directory)[1]


def test_doubts_are_said(directory, call, copied_campaign):
    copied_campaign.set_campaign(**{"doubts.3": "5 of 28 labels contradict the potential"})
    for command in ("labels", "report", "status"):
        assert "Round 3: 5 of 28 labels contradict the potential." in call(command, directory)[1]


def test_a_released_label_counts_and_is_learnt_by_the_next_run(
    directory, call, copied_campaign, aside
):
    with open_session(directory) as session:
        campaign, launchpad = prepare(session)
        launchpad.connection.close()
        # One label less than the last potential has learnt is no reason to screen again.
        assert campaign.store.new_labels() <= 0
        code, out, _ = call("labels", directory, "--release", aside[:10])
        assert code == 0
        assert f"hullscreen run {directory}` learns and screens once more" in out
        result = copied_campaign.dft_result(aside)
        assert (result.state, result.judged, result.reason) == ("done", "by hand", "")
        assert campaign.store.new_labels() == 1
        put_aside(copied_campaign, aside)
        assert copied_campaign.dft_result(aside).state == "done"


@pytest.mark.slow
@pytest.mark.parametrize("purpose", ["learn", "refine", "final"])
def test_a_removed_result_is_computed_again_and_all_is_screened_once_more(
    purpose, directory, call, copied_campaign, work_off_round
):
    store = copied_campaign
    before = {e.formula_pretty: e.energy_per_atom for e in final_hull(store).stable}
    keys = {"final": store.final_keys(), **{s.purpose: [s.key] for s in store.selected()}}
    key = keys[purpose][-1]
    put_aside(store, key)
    folder = directory / "calculations" / key[:2] / key
    folder.mkdir(parents=True)
    (folder / "result.json").write_text("{}")
    code, out, err = call("labels", directory, "--recompute", key)
    assert (code, err) == (0, "")
    assert "is removed" in out
    assert store.dft_result(key) is None
    assert [path.name for path in folder.parent.iterdir()] == [f"{key}.set-aside-1"]
    with open_session(directory) as session:
        campaign, launchpad = prepare(session)
        launchpad.connection.close()
        assert campaign.store.new_labels() >= 1
        decisions.reopen(campaign)
        while not store.campaign()["finished"]:
            round_ = store.last_round()
            work_off_round(campaign, round_)
            decisions.decide(campaign, round_)
        assert campaign.store.new_labels() == 0
    if purpose != "final":
        assert store.dft_result(key).state == "done"
    after = {e.formula_pretty: e.energy_per_atom for e in final_hull(store).stable}
    # Relaxations from other starts end within their force tolerance of the same minimum.
    assert after == pytest.approx(before, abs=TIE)


def test_that_a_run_is_due_is_said_wherever_one_looks(
    directory, call, call_json, copied_campaign, aside
):
    def page():
        snapshot = seen_now(copied_campaign, copied_campaign.connection)
        return status_sentence(snapshot, snapshot.seen_at)

    due = "DFT results have changed since everything was screened: `hullscreen run {}` learns"
    said = [call(command, directory)[1] for command in ("status", "hull")]
    assert not [text for text in (*said, page()) if "have changed" in text]
    assert call_json("status", directory)["due"] == ""
    call("labels", directory, "--recompute", aside)
    for command in ("status", "hull"):
        assert due.format(directory) in call(command, directory)[1]
    assert due.format("cu-pd") in page()
    assert call_json("status", directory)["due"].startswith(due.format(directory))
    copied_campaign.set_campaign(finished=False)
    assert "have changed" not in call("status", directory)[1]


def test_a_relaxation_that_another_campaign_removed_is_noticed(directory, copied_campaign):
    key = copied_campaign.final_keys()[0]
    copied_campaign.remove_dft(copied_campaign.dft_result(key))
    with open_session(directory) as session:
        campaign, launchpad = prepare(session)
        launchpad.connection.close()
        assert campaign.store.new_labels() == 1


def test_submitting_again_screens_once_more_what_was_changed_by_hand(
    directory, call, copied_campaign, aside
):
    code, _, err = call("submit", directory)
    assert (code, err) == (0, "Already submitted; nothing changed.\n")
    call("labels", directory, "--release", aside)
    code, _, err = call("submit", directory)
    assert code == 0
    assert "Submitted." in err
    last = copied_campaign.last_round()
    assert last.submitted
    assert last.stage == 1
    assert not copied_campaign.campaign()["finished"]
    # It is under way now.
    assert "Already submitted" in call("submit", directory)[2]


@pytest.mark.parametrize(
    ("reason", "again"),
    [
        ("hullscreen.dft_adapters.engine.EngineMissingError: the disk has no room left", True),
        ("hullscreen.potentials.errors.DFTError: 1 of 5 calculations failed: it diverged", False),
    ],
)
def test_submitting_again_repeats_what_the_machine_could_not_do(
    reason, again, directory, call, copied_campaign, mongo
):
    database = mongo.database
    job = database.fireworks.find_one({"name": {"$regex": "DFT single points"}})
    fw_id = job["fw_id"]
    stored = {"_exception": {"_stacktrace": f"Traceback\n{reason}", "_details": None}}
    database.launches.update_one(
        {"launch_id": job["launches"][-1]},
        {"$set": {"state": "FIZZLED", "action.stored_data": stored}},
    )
    database.fireworks.update_one({"fw_id": fw_id}, {"$set": {"state": "FIZZLED"}})
    database.workflows.update_one(
        {"nodes": fw_id}, {"$set": {f"fw_states.{fw_id}": "FIZZLED", "state": "FIZZLED"}}
    )
    code, _, err = call("submit", directory)
    assert code == 0
    assert ("1 failed steps are run again." in err) is again
    state = database.fireworks.find_one({"fw_id": fw_id})["state"]
    assert state == ("READY" if again else "FIZZLED")
    assert copied_campaign.campaign()["finished"]


def test_submitting_frees_what_a_killed_run_held(directory, call, copied_campaign, mongo):
    database = mongo.database
    job = database.fireworks.find_one({"name": {"$regex": "DFT single points"}})
    fw_id = job["fw_id"]
    gone = f"hullscreen|{socket.gethostname()}|{os.getpid()}|1"
    database.launches.update_one(
        {"launch_id": job["launches"][-1]}, {"$set": {"state": "RUNNING", "fworker.name": gone}}
    )
    database.fireworks.update_one({"fw_id": fw_id}, {"$set": {"state": "RUNNING"}})
    database.workflows.update_one(
        {"nodes": fw_id}, {"$set": {f"fw_states.{fw_id}": "RUNNING", "state": "RUNNING"}}
    )
    copied_campaign.set_campaign(finished=False)
    code, _, err = call("submit", directory)
    assert code == 0
    assert "1 steps are free again whose workers are gone." in err
    assert database.fireworks.find_one({"fw_id": fw_id})["state"] == "READY"


def test_what_cannot_be_done_is_said(directory, call, copied_campaign, aside):
    done = next(key for key in copied_campaign.selected_keys() if key != aside)
    for words, sentence in (
        (("--release", done), "is done, and only what is quarantined can be released"),
        (("--release", "abc"), "expected at least 6 letters of a key"),
        (("--recompute", "0" * 12), "no DFT results of campaign 'cu-pd' have a key"),
        (("--release", aside, "--recompute", aside), "expected one of them"),
    ):
        code, _, err = call("labels", directory, *words)
        assert code == 2
        assert sentence in err
    copied_campaign.set_campaign(finished=False)
    code, _, err = call("labels", directory, "--recompute", done)
    assert code == 6
    assert "let `hullscreen run` come to its end" in err
