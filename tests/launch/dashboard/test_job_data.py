"""Jobs, failures and learning as plain data."""

from datetime import UTC, datetime

import pytest

from hullscreen.launch.dashboard import job_data, learning_data
from hullscreen.launch.dashboard.hull_data import hull_data, stable_data
from hullscreen.workflows.campaign_status import campaign_status
from hullscreen.workflows.report import campaign_report

QUICK = {
    "finished": False, "fireworks": {"dft": {"COMPLETED": 5, "RUNNING": 2, "RESERVED": 1}},
    "running": {"dft": 1}, "lost": {"dft": 1}, "hosts": {"node1": 1},
    "lost_steps": [{"firework": 4, "category": "dft", "reason": "its worker is gone"}],
}  # fmt: skip


def test_numbers_of_jobs_are_those_of_the_status(small_campaign):
    store, connection = small_campaign.store, small_campaign.connection
    quick, status = job_data.quick_look(store, connection), campaign_status(store, connection)
    jobs = job_data.jobs_data(quick, status)
    assert [row["category"] for row in jobs["rows"]] == ["train", "dft", "relax"]
    for row in jobs["rows"]:
        expected = status["steps"][row["category"]]
        for name in ("waiting", "ready", "running", "lost", "failed", "done"):
            assert row[name] == expected[name]
        # It is finished.
        assert row["per_hour"] is row["left_s"] is None


def test_speed_and_time_left_are_the_status_s():
    status = {
        "steps": {"dft": {"per_hour": 12.0, "left_s": 60.0}},
        "progress": {"dft_single_points": {"done": 3, "total": 9, "failed": 0}},
        "dft_evaluations_per_minute": 2.5,
    }
    jobs = job_data.jobs_data(QUICK, status)
    (row,) = jobs["rows"]
    assert (row["running"], row["lost"], row["done"], row["in_queue"]) == (1, 1, 5, 1)
    assert (row["per_hour"], row["left_s"], jobs["per_minute"]) == (12.0, 60.0, 2.5)
    assert jobs["progress"] == status["progress"]


def test_failures_name_a_step_or_a_structure():
    status = {"failures": [{"fw_id": 9, "category": "train", "reason": "x" * 1000}]}
    dft = [{"what": "DFT to learn", "structure": 3, "reason": "no convergence"}]
    lost, failed, calculation = job_data.failure_rows(QUICK, status, dft)
    assert (lost["what"], lost["firework"]) == ("lost: dft", 4)
    assert (failed["what"], failed["firework"]) == ("failed: train", 9)
    assert len(failed["reason"]) == job_data.LONGEST_TEXT
    assert calculation["structure"] == 3


def test_a_failed_calculation_is_listed(copied_campaign, mongo):
    one = mongo.database.dft_results.find_one({"purpose": "learn"})
    change = {"$set": {"state": "failed", "reason": "it did not converge"}}
    mongo.database.dft_results.update_one({"_id": one["_id"]}, change)
    (row,) = job_data.failed_calculations(copied_campaign)
    expected = {"what": "DFT to learn", "structure": one["structure_index"]}
    assert row == {**expected, "reason": "it did not converge"}


def test_the_clock_says_its_zone():
    assert job_data.clock(datetime(2026, 5, 1, 12, 0, 5, tzinfo=UTC)) == "2026-05-01 12:00:05 UTC"


def test_the_funnel_and_the_costs_are_the_reports(small_campaign):
    store = small_campaign.store
    report = campaign_report(store)
    funnel = report["funnel"]
    levels = learning_data.funnel_levels(store, stable_data(hull_data(store)))
    assert [level["n"] for level in levels] == [
        funnel["prototypes"]["total"], funnel["screen_1"]["kept"], funnel["screen_2"]["kept"],
        funnel["final"]["dft_relaxed"], funnel["final"]["stable"],
    ]  # fmt: skip
    parts = learning_data.cpu_parts(store)
    assert sum(part["seconds"] for part in parts) == pytest.approx(report["cpu_seconds"]["total"])


def test_a_potentials_errors_are_kept_with_it(small_campaign):
    curves = learning_data.learning_curves(small_campaign.store)
    assert len(curves["potentials"]) == len(small_campaign.store.potentials(["number"]))
    for potential in curves["potentials"]:
        # Errors on what was learnt, eV/atom and eV/Å: some, and no large ones.
        assert 0.0 < potential["energy_rmse"] < 0.2
        assert 0.0 < potential["force_rmse"] < 2.0


def test_sigma_is_that_of_the_stages(small_campaign):
    sigma = campaign_report(small_campaign.store)["sigma"]
    shown = learning_data.learning_curves(small_campaign.store)["sigmas"]
    first = [one for one in shown if one["stage"] == 1]
    assert len(first) == 1
    for one, stage in ((first[0], "screen_1"), (shown[-1], "screen_2")):
        assert 1e3 * one["sigma"] == pytest.approx(sigma[stage]["sigma_mev_per_atom"])
        assert 1e3 * one["uncertainty"] == pytest.approx(sigma[stage]["uncertainty_mev_per_atom"])
        assert one["n_structures"] == sigma[stage]["n_structures"]


def test_grades_are_those_of_the_structures(small_campaign, monkeypatch):
    store = small_campaign.store
    whole = learning_data.grade_histogram(store)
    graded = store.count(**{"relaxed.highest_grade": {"$gt": 0.0}})
    assert sum(sum(bins["numbers"]) for bins in whole["stages"].values()) == graded > 0
    assert (whole["select_grade"], whole["break_grade"], whole["every"]) == (2.0, 10.0, 1)
    monkeypatch.setattr(learning_data, "GRADES_READ", 5)
    part = learning_data.grade_histogram(store)
    assert part["every"] > 1
    counted = sum(sum(bins["numbers"]) for bins in part["stages"].values())
    # One in so many stands for as many; what is left over at the ends is less than one each.
    assert counted == pytest.approx(graded, abs=2 * part["every"])
