"""Failed DFT jobs once more, with an engine that fails and is then mended."""

import json

import pytest
from ase.calculators.emt import EMT
from fireworks import FWorker
from fireworks.core.rocket_launcher import launch_rocket

from hullscreen.potentials.errors import InputError
from hullscreen.workflows import decisions, rerun
from hullscreen.workflows.calculation_logs import firework_log, structure_log
from hullscreen.workflows.campaign import add_prototypes
from hullscreen.workflows.flows import submit_round
from hullscreen.workflows.structure_jobs import find_jobs, jobs_of_structure


@pytest.fixture
def failing(tmp_path, monkeypatch):
    """Formulas that DFT cannot compute."""
    formulas = {"CuPd"}
    calculate = EMT.calculate

    def calculate_or_fail(self, atoms, properties, system_changes):
        if atoms.get_chemical_formula() in formulas:
            raise RuntimeError(f"the charge density of {atoms.get_chemical_formula()} diverged")
        calculate(self, atoms, properties, system_changes)

    monkeypatch.setattr(EMT, "calculate", calculate_or_fail)
    monkeypatch.chdir(tmp_path)
    return formulas


@pytest.fixture
def run_dft(launchpad):
    """Function that runs all DFT that is ready."""

    def run():
        worker = FWorker(name="test", category="dft")
        while launch_rocket(launchpad, worker, strm_lvl="CRITICAL"):
            pass

    return run


@pytest.fixture
def campaign(make_campaign, launchpad, failing, run_dft):
    """A campaign whose first DFT is over, all of CuPd without success."""
    campaign = make_campaign(dft={"structures_per_job": 3})
    add_prototypes(campaign)
    decisions.first_round(campaign)
    submit_round(launchpad, campaign, 0)
    run_dft()
    return campaign


def stored(campaign):
    """State and time of each DFT result."""
    found = campaign.store.connection.database.dft_results.find({})
    return {one["key"]: (one["state"], one["created_at"]) for one in found}


def failed_structures(campaign):
    return sorted({one.structure_index for one in campaign.store.failed_dft()})


def test_all_failed_jobs_run_again_and_nothing_else_is_computed(
    campaign, launchpad, failing, run_dft
):
    before = stored(campaign)
    assert {state for state, _ in before.values()} == {"done", "failed"}
    failing.clear()
    jobs = rerun.failed_jobs(campaign.store)
    result = rerun.run_again(launchpad, campaign.store, jobs)
    assert [job.fw_id for job in result.again] == [job.fw_id for job in jobs]
    assert (result.too_early, result.superseded) == ([], [])
    assert rerun.failed_jobs(campaign.store) == []
    # Not even what failed is removed before it is computed.
    assert stored(campaign) == before
    run_dft()
    after = stored(campaign)
    assert {state for state, _ in after.values()} == {"done"}
    kept = {key: value for key, value in before.items() if value[0] == "done"}
    assert {key: after[key] for key in kept} == kept
    assert {job.state for job in find_jobs(campaign.store, **{"spec._category": "dft"})} == {
        "COMPLETED"
    }
    # FireWorks keeps states twice, and they agree.
    (workflow,) = launchpad.workflows.find({"metadata.round": 0})
    states = {str(job.fw_id): job.state for job in find_jobs(campaign.store)}
    assert workflow["fw_states"] == states
    assert "locked" not in workflow
    assert rerun.run_again(launchpad, campaign.store, []).again == []


def test_steps_that_followed_without_them_are_done_once_more(campaign, launchpad, failing):
    (fit,) = find_jobs(campaign.store, name={"$regex": "fit"})
    launchpad.fireworks.update_one({"fw_id": fit.fw_id}, {"$set": {"state": "COMPLETED"}})
    launchpad._refresh_wf(fit.fw_id)
    result = rerun.run_again(launchpad, campaign.store, rerun.failed_jobs(campaign.store))
    assert result.again
    states = {job.fw_id: job.state for job in find_jobs(campaign.store)}
    assert states[fit.fw_id] == "WAITING"


def test_the_jobs_of_some_structures(campaign, launchpad):
    index = failed_structures(campaign)[0]
    jobs = rerun.failed_jobs_of(campaign.store, [index])
    assert 0 < len(jobs) < len(rerun.failed_jobs(campaign.store))
    rerun.run_again(launchpad, campaign.store, jobs)
    states = {job.state for job in jobs_of_structure(campaign.store, index)}
    assert states == {"READY"}
    assert rerun.failed_jobs(campaign.store)


def test_a_job_that_fails_again_has_failed(campaign, launchpad, run_dft):
    before = [job.fw_id for job in rerun.failed_jobs(campaign.store)]
    rerun.run_again(launchpad, campaign.store, rerun.failed_jobs(campaign.store))
    run_dft()
    assert [job.fw_id for job in rerun.failed_jobs(campaign.store)] == before


def test_steps_under_way_are_not_taken_away(campaign, launchpad):
    (fit,) = find_jobs(campaign.store, name={"$regex": "fit"})
    launchpad.fireworks.update_one({"fw_id": fit.fw_id}, {"$set": {"state": "RUNNING"}})
    jobs = rerun.failed_jobs(campaign.store)
    result = rerun.run_again(launchpad, campaign.store, jobs)
    assert (result.again, result.too_early) == ([], jobs)
    assert rerun.failed_jobs(campaign.store) == jobs


def test_relaxations_of_a_final_stage_that_was_left_stay_as_they_are(campaign, launchpad):
    job = rerun.failed_jobs(campaign.store)[0]
    launchpad.fireworks.update_one(
        {"fw_id": job.fw_id},
        {"$set": {"spec._tasks.0._fw_name": "{{hullscreen.workflows.firetasks.FinalRelaxTask}}"}},
    )
    rounds = campaign.store.connection.database.rounds
    document = rounds.find_one({}, {"_id": 0})
    rounds.insert_one({**document, "number": 1})
    (job, *_) = rerun.failed_fireworks_of(campaign.store, [job.fw_id])
    result = rerun.run_again(launchpad, campaign.store, [job])
    assert (result.again, result.superseded) == ([], [job])


def test_what_did_not_fail_cannot_run_again(campaign):
    done = find_jobs(campaign.store, state="COMPLETED")[0]
    with pytest.raises(InputError, match=rf"got {done.fw_id}, which is COMPLETED"):
        rerun.failed_fireworks_of(campaign.store, [done.fw_id])
    with pytest.raises(InputError, match="got 999, which 'tiny' does not have"):
        rerun.failed_fireworks_of(campaign.store, [999])
    with pytest.raises(InputError, match=r"got 10000000 \(no DFT was asked for\)"):
        rerun.failed_jobs_of(campaign.store, [10_000_000])


# Logs


def test_the_log_of_a_structure_whose_dft_failed(campaign):
    index = failed_structures(campaign)[0]
    (result, *_) = [one for one in campaign.store.failed_dft() if one.structure_index == index]
    folder = campaign.directory / result.key[:2] / result.key
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "output.txt").write_text("begin\nno convergence\n\x1b[31mstop\n")
    log = structure_log(campaign.store, index, n_lines=2)
    assert json.loads(json.dumps(log)) == log
    assert log["structure_index"] == index
    (calculation,) = [one for one in log["calculations"] if one["key"] == result.key]
    assert calculation["state"] == "failed"
    assert "diverged" in calculation["reason"]
    assert calculation["folder"] == str(folder)
    (file,) = calculation["files"]
    assert file["lines"] == ["no convergence", "\\x1b[31mstop"]
    jobs = jobs_of_structure(campaign.store, index)
    assert [job["fw_id"] for job in log["jobs"]] == [job.fw_id for job in jobs]
    assert {job["state"] for job in log["jobs"]} == {"FIZZLED"}
    for job in log["jobs"]:
        assert job["host"]
        assert job["began_at"] <= job["ended_at"]
        assert "diverged" in job["reason"]
        assert job["trace"][0].startswith("Traceback")


def test_the_log_of_a_structure_without_dft(campaign):
    database = campaign.store.connection.database
    for name in ("selected", "dft_results"):
        database[name].delete_many({"structure_index": 3})
    log = structure_log(campaign.store, 3)
    assert (log["calculations"], log["jobs"], log["relaxed"]) == ([], [], None)


def test_the_log_of_a_job_shows_files_of_what_failed(campaign):
    job = rerun.failed_jobs(campaign.store)[0]
    for result in campaign.store.dft_results(campaign.store.selected_keys()).values():
        folder = campaign.directory / result.key[:2] / result.key
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "output.txt").write_text("something\n")
    log = firework_log(campaign.store, job.fw_id)
    assert len(log["calculations"]) == job.last - job.first
    for calculation in log["calculations"]:
        assert bool(calculation["files"]) == (calculation["state"] == "failed")
    assert {one["state"] for one in log["calculations"]} >= {"failed"}


def test_the_log_of_a_calculation_to_come(campaign, mongo):
    index = failed_structures(campaign)[0]
    mongo.database.dft_results.delete_many({"structure_index": index})
    log = structure_log(campaign.store, index)
    assert {one["state"] for one in log["calculations"]} == {"not done"}


def test_structures_and_fireworks_that_are_not_there(campaign):
    with pytest.raises(InputError, match=rf"numbers 0 to {campaign.store.count() - 1}, got 77777"):
        structure_log(campaign.store, 77777)
    with pytest.raises(InputError, match="got 77777"):
        firework_log(campaign.store, 77777)


def test_relaxations_in_a_log(small_campaign):
    store = small_campaign.store
    index = next(document["index"] for document in store.documents({"final.state": "done"}, []))
    log = structure_log(store, index)
    kinds = {one["kind"] for one in log["calculations"]}
    assert "relaxation" in kinds
    assert log["n_stored_evaluations"] > 0
    assert any("DFT relaxations" in job["name"] for job in log["jobs"])
    (job, *_) = [job for job in log["jobs"] if "DFT relaxations" in job["name"]]
    found = firework_log(store, job["fw_id"])["calculations"]
    assert index in {one["structure_index"] for one in found}
