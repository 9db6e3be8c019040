"""Forecasts against what campaigns did, and that what was measured for them is not paid twice."""

import json
import math

import pytest

from hullscreen.dft_adapters.engine import CalculationError
from hullscreen.launch.settings import from_tables
from hullscreen.workflows import decisions
from hullscreen.workflows.campaign import Campaign, add_prototypes
from hullscreen.workflows.expected_work import LEARNING_RANGE
from hullscreen.workflows.forecast import cost_model, forecast, processes_of
from hullscreen.workflows.pool_survey import measure, survey
from hullscreen.workflows.report import campaign_report
from hullscreen.workflows.settings_tree import DFT

# The settings of a campaign that says nothing, beside its pool.
USUAL = {
    "potential": {"level_first": 8, "level_second": 12, "cutoff_angstrom": 5.5},
    "learning": {"first_wave": 100, "max_selected_per_wave": 40},
    "dft": {"structures_per_job": 0},
    "relaxation": {"batch_size": 1000},
    "screening": {"validation_structures": 0, "sigma_multiple": 4.0},
}


def usual_campaign(make_campaign, elements, max_atoms, name="usual"):
    prototypes = {"max_atoms": max_atoms, "aflow": False, "lattices": ["fcc", "bcc", "hcp"]}
    campaign = {"name": name, "elements": elements}
    return make_campaign(name, campaign=campaign, prototypes=prototypes, **USUAL)


def finish(campaign, work_off_round):
    add_prototypes(campaign)
    decisions.first_round(campaign)
    while not campaign.store.campaign()["finished"]:
        round_ = campaign.store.last_round()
        work_off_round(campaign, round_)
        decisions.decide(campaign, round_)


def foretold(campaign, **options):
    return forecast(campaign, survey(campaign), **{"n_workers": 2, **options})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("elements", "max_atoms"),
    [(["Cu", "Pd"], 4), (["Ni", "Pt"], 5), (["Ag", "Al"], 4), (["Cu", "Ni", "Pt"], 3)],
)
def test_a_campaign_asks_for_about_what_was_foretold(
    elements, max_atoms, make_campaign, work_off_round
):
    campaign = usual_campaign(make_campaign, elements, max_atoms)
    made = foretold(campaign)
    finish(campaign, work_off_round)
    report = campaign_report(campaign.store)
    evaluations = report["dft_evaluations"]
    numbers = made["calculations"]
    assert numbers["seed"]["expected"] == evaluations["seed"]
    # The forecast is told from other campaigns, so that a factor of two is what it promises.
    assert evaluations["total"] / 2 <= numbers["evaluations"]["expected"]
    assert numbers["evaluations"]["expected"] <= 2 * evaluations["total"]
    relaxed = report["funnel"]["final"]["dft_relaxed"]
    assert numbers["relaxations"]["low"] <= relaxed <= numbers["relaxations"]["high"]
    assert sum(made["pool"]["by_atoms"].values()) == report["funnel"]["prototypes"]["total"]
    # When all is chosen nothing is left to guess.
    known = foretold(campaign)["calculations"]
    assert known["single_points"]["low"] == known["single_points"]["high"]
    assert known["relaxations"]["expected"] == relaxed


@pytest.fixture
def before(make_campaign, mongo):
    """A tiny campaign that nobody has started: not even its document is there."""
    campaign = make_campaign()
    mongo.database.campaigns.delete_many({})
    return campaign


def test_what_was_measured_is_not_paid_again(before, mongo, make_campaign, work_off_round):
    found, calls = survey(before), []
    measured = measure(before, found, lambda done, total: calls.append((done, total)))
    # Each element, the smallest compound, and the largest one of the seed.
    assert measured.n_computed == 4
    assert calls == [(0, 4), (1, 4), (2, 4), (3, 4), (4, 4)]
    assert measured.failures == []
    results = mongo.database.dft_results
    first = {document["key"]: document["created_at"] for document in results.find({})}
    assert len(first) == 4
    # Measured again, nothing is computed.
    assert measure(before, found, lambda *_: None).n_computed == 0

    campaign = make_campaign()
    add_prototypes(campaign)
    decisions.first_round(campaign)
    asked = [selected.key for selected in campaign.store.selected()]
    assert set(first) <= set(asked)
    assert len(asked) == len(found.seed)
    work_off_round(campaign, campaign.store.last_round())
    assert results.count_documents({"purpose": "seed"}) == len(set(asked))
    for key, created in first.items():
        assert results.find_one({"key": key})["created_at"] == created
    # They count as the campaign's own.
    assert campaign_report(campaign.store)["dft_evaluations"]["seed"] == len(set(asked))


def test_a_measurement_that_fails_is_told_and_the_others_go_on(before, monkeypatch):
    compute = before.engine.single_point

    def fail_on_palladium(atoms, directory):
        if set(atoms.symbols) == {"Pd"}:
            raise CalculationError("diverged", "the charge density diverged", directory)
        return compute(atoms, directory)

    monkeypatch.setattr(before.engine, "single_point", fail_on_palladium)
    measured = measure(before, survey(before), lambda *_: None)
    assert measured.failures == ["the charge density diverged"]
    assert measured.n_computed == 3


def with_costs(mongo, seconds):
    """Let every calculation have taken so long."""
    mongo.database.dft_results.update_many({}, {"$set": {"cpu_seconds": seconds}})


def test_costs_are_those_of_calculations_at_hand(before, mongo):
    assert cost_model(before) is None
    unknown = foretold(before)
    assert unknown["cost"] is None
    assert unknown["cpu_seconds"]["total"] is None
    assert unknown["wall_seconds"]["labels"] is None
    assert unknown["cpu_seconds"]["potential"]["expected"] > 0
    measure(before, survey(before), lambda *_: None)
    with_costs(mongo, 100.0)
    made = foretold(before)
    assert made["cost"]["n_single_points"] == 4
    assert json.loads(json.dumps(made)) == made
    cpu, labels = made["cpu_seconds"], made["calculations"]["single_points"]
    # Hundred seconds for cells of one to three atoms; more or less for others.
    assert 50 < cpu["labels"]["expected"] / labels["expected"] < 300
    assert cpu["labels"]["low"] < cpu["labels"]["expected"] < cpu["labels"]["high"]
    parts = [cpu[part]["expected"] for part in ("labels", "final_relaxations", "potential")]
    assert cpu["total"]["expected"] == pytest.approx(sum(parts))
    assert made["done"]["single_points"] == 4
    assert made["done"]["cpu_seconds"] == pytest.approx(400)
    # Those of another engine or of other elements say nothing.
    mongo.database.dft_results.update_many({}, {"$set": {"engine": "another"}})
    assert cost_model(before) is None


def test_more_workers_need_less_time_but_rounds_wait_for_one_another(before, mongo):
    measure(before, survey(before), lambda *_: None)
    with_costs(mongo, 100.0)
    wall = {
        n: foretold(before, n_workers=n)["wall_seconds"]["labels"]["expected"]
        for n in (1, 2, 8, 1000)
    }
    assert wall[1] > wall[2] > wall[8] > wall[1000]
    # Each of the dozen rounds takes as long as one calculation at least.
    assert wall[1000] > 5 * 50
    few_cores = foretold(before, n_workers=8, n_cores=2)["wall_seconds"]["labels"]["expected"]
    assert few_cores > 2 * wall[8]


def test_a_campaign_under_way_is_known_in_part(tiny_history, make_campaign, mongo, put_back):
    campaign = make_campaign()
    middle = next(d for d in tiny_history if d.next_round.purpose == "validate")
    put_back(mongo, middle.after)
    n_learnt = len(campaign.store.selected(purpose="learn"))
    learn = foretold(campaign)["calculations"]["learn"]
    assert learn["low"] >= n_learnt
    assert LEARNING_RANGE[0] < 1 < LEARNING_RANGE[1]
    document = campaign.store.campaign()
    assert foretold(campaign)["campaign"] == document["name"]
    # The end of it: everything is there.
    put_back(mongo, tiny_history[-1].after)
    made = foretold(campaign)
    for purpose in ("seed", "learn", "validate", "refine"):
        n = len(campaign.store.selected(purpose=purpose))
        assert made["calculations"][purpose] == {"low": n, "expected": n, "high": n}


@pytest.mark.parametrize(
    ("command", "n"),
    [
        ("pw.x", 1),
        ("mpirun -np 8 pw.x", 8),
        ("srun -n 32 pw.x -nk 4", 32),
        ("srun --ntasks=32 pw.x", 32),
        ("mpirun -np x pw.x", 1),
    ],
)
def test_processes_of_a_command(command, n):
    settings = DFT(engine="quantum_espresso", quantum_espresso={"command": command})
    assert processes_of(settings) == n
    assert processes_of(DFT()) == 1


def test_a_program_costs_disk(before, tmp_path):
    tables = before.settings.tables()
    tables["dft"] |= {"engine": "vasp", "vasp": {"potcar_spec": True}}
    program = Campaign(from_tables(tables), before.store, tmp_path / "calculations")
    without = foretold(before)["disk_bytes"]
    guessed = foretold(program)["disk_bytes"]
    assert guessed > without + 1e6
    folder = program.directory / "ab" / "abcdef"
    # VASP has a folder for each run.
    (folder / "static.1").mkdir(parents=True)
    (folder / "static.1" / "OUTCAR").write_bytes(bytes(10_000_000))
    # As long as it runs, it may have scratch files.
    assert foretold(program)["disk_bytes"] == guessed
    (folder / "result.json").touch()
    assert foretold(program)["disk_bytes"] > 10 * (guessed - without)
    assert math.isfinite(guessed)
