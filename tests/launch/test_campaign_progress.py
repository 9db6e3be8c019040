"""What `hullscreen run` says of the time to come."""

import re

import pytest

from hullscreen.launch import campaign_progress
from hullscreen.launch.campaign_progress import CampaignProgress
from hullscreen.launch.commands import report as report_command
from hullscreen.launch.forecast_summary import span, summary, time_span
from hullscreen.launch.result_tables import result_console
from hullscreen.launch.settings import from_tables
from hullscreen.launch.worker_numbers import n_cores
from hullscreen.potentials.structures import join
from hullscreen.workflows import decisions, dft_steps
from hullscreen.workflows.campaign import Campaign, add_prototypes
from hullscreen.workflows.forecast import cost_model, workloads
from hullscreen.workflows.pool_survey import measure, survey
from hullscreen.workflows.report import campaign_report


class Board:
    """Remembers what it is told."""

    def __init__(self):
        self.notes, self.left = [], {}

    def show(self, name, done, total, left_s=None):
        del done, total
        self.left[name] = left_s

    def note(self, sentence):
        self.notes.append(sentence)


@pytest.fixture(autouse=True)
def compiled(monkeypatch):
    """Kernels are compiled, whatever is there."""
    monkeypatch.setattr(campaign_progress, "is_compiled", lambda: True)


@pytest.fixture
def program(make_campaign):
    """A tiny campaign whose engine counts as a program, and computes like EMT."""
    campaign = make_campaign()
    tables = campaign.settings.tables()
    tables["dft"] |= {"engine": "quantum_espresso"}
    disguised = Campaign(from_tables(tables), campaign.store, campaign.directory)
    disguised.__dict__["engine"] = campaign.engine
    return disguised


def cost_each(mongo, seconds):
    mongo.database.dft_results.update_many({}, {"$set": {"cpu_seconds": seconds}})


def costs_of(program, selected):
    """What single points would take if the cost were proportional to the workload, s."""
    work = workloads(program)
    return [
        1e-3 * work.of(join([(one.geometry.cell, one.geometry.positions, one.species)]))[0]
        for one in selected
    ]


def test_a_new_campaign_begins_with_a_forecast_from_data_at_hand(program, mongo):
    board = Board()
    CampaignProgress(program, board, 2).begin()
    (said,) = board.notes
    assert re.fullmatch(
        r"forecast: \d+ \(\d+ to \d+\) DFT single points and \d+ \(\d+ to \d+\) DFT relaxations; "
        r"what they cost, `hullscreen forecast` measures",
        said,
    )
    assert mongo.database.dft_results.count_documents({}) == 0
    assert program.store.campaign()["forecasts"]["start"]["cost"] is None
    # Begun again after a kill, it is the same campaign.
    CampaignProgress(program, board, 2).begin()
    assert len(board.notes) == 1


def test_compiling_is_told_before_it_keeps_somebody_waiting(make_campaign, monkeypatch):
    monkeypatch.setattr(campaign_progress, "is_compiled", lambda: False)
    board = Board()
    CampaignProgress(make_campaign(), board, 2).begin()
    (said,) = board.notes
    assert "compiled for this machine" in said


def test_emt_needs_no_forecast(make_campaign):
    board = Board()
    progress = CampaignProgress(make_campaign(), board, 2)
    progress.begin()
    assert board.notes == []


def test_when_the_seed_is_labelled_costs_are_known(program, mongo):
    board = Board()
    progress = CampaignProgress(program, board, 2)
    add_prototypes(program)
    decisions.first_round(program)
    name = "round 0: DFT single points"
    progress.show(now=True)
    assert board.left[name] is None
    measure(program, survey(program), lambda *_: None)
    selected = program.store.selected()
    left = 0.0
    for one, seconds in zip(selected, costs_of(program, selected), strict=True):
        changed = mongo.database.dft_results.update_one(
            {"key": one.key}, {"$set": {"cpu_seconds": seconds}}
        )
        left += 0.0 if changed.matched_count else seconds
    progress = CampaignProgress(program, board, 2)
    progress.show(now=True)
    # Four measured ones tell all others; two are computed at once, where there are two cores.
    assert board.left[name] == pytest.approx(left / min(2, n_cores()), rel=1e-6)
    assert not any(sentence.startswith("forecast") for sentence in board.notes)
    dft_steps.label(program, program.store.round(0), 0, 10**6)
    cost_each(mongo, 100.0)
    progress = CampaignProgress(program, board, 2)
    progress.show(now=True)
    progress.show(now=True)
    assert board.left[name] == 0
    (said,) = [sentence for sentence in board.notes if sentence.startswith("forecast")]
    n = cost_model(program).n_measured
    assert f"from {n} measured single points, within a factor of" in said
    kept = program.store.campaign()["forecasts"]["seed"]
    assert kept["calculations"]["seed"]["expected"] == len(selected)
    assert summary(kept) == said


def test_a_report_shows_what_was_expected(program, capsys):
    CampaignProgress(program, Board(), 2).begin()
    report = campaign_report(program.store)
    assert report["forecasts"].keys() == {"start"}
    report_command._show_forecasts(result_console(), report)
    said = capsys.readouterr().out
    assert re.match(r"Expected before it began: \d+ \(\d+ to \d+\) single points, \d+ ", said)
    report_command._show_forecasts(result_console(), {"forecasts": {}})
    assert capsys.readouterr().out == ""


def test_the_last_stage_knows_what_relaxations_cost(program, mongo, tiny_history, put_back):
    put_back(mongo, next(d for d in tiny_history if d.next_round.purpose == "final").after)
    cost_each(mongo, 10.0)
    board = Board()
    CampaignProgress(program, board, 1).show(now=True)
    n = len(program.store.last_round().final_indices)
    # A relaxation is worth several single points, and none is done yet.
    assert board.left["final: DFT relaxations"] > 2 * 10.0 * n


def test_words_for_ranges():
    assert span({"low": 3, "expected": 3, "high": 3}) == "3"
    assert span({"low": 900, "expected": 1200, "high": 2000}) == "1,200 (900 to 2,000)"
    seconds = {"low": 60.0, "expected": 3600.0, "high": 90_000.0}
    assert time_span(seconds) == "1 h 00 min (60.0 s to 1 d 1 h)"
