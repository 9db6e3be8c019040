"""DFT that failed for good is repeated when somebody asks for it, and at no other time."""

import pytest
from fireworks import FWorker
from fireworks.core.rocket_launcher import launch_rocket

from hullscreen.dft_adapters.engine import CalculationError, EngineMissingError
from hullscreen.workflows import decisions, dft_jobs, recovery
from hullscreen.workflows.campaign import add_prototypes
from hullscreen.workflows.flows import submit_round
from hullscreen.workflows.repetition import asked_again_at


class Moody:
    """Answers in place of an engine's single point; ``asked`` counts how often it was asked."""

    def __init__(self, compute):
        self.compute, self.asked, self.fails, self.missing = compute, 0, False, False

    def __call__(self, atoms, directory):
        self.asked += 1
        if self.missing:
            raise EngineMissingError("disk_full", "the disk is full")
        if self.fails:
            raise CalculationError("diverged", "the charge density diverged", directory)
        return self.compute(atoms, directory)


@pytest.fixture
def job(make_campaign, launchpad, tmp_path, monkeypatch):
    """Function: run the first job of labels, or what is ready of it, and give its state."""
    monkeypatch.chdir(tmp_path)
    campaign = make_campaign()
    add_prototypes(campaign)
    decisions.first_round(campaign)
    submit_round(launchpad, campaign, 0)
    fw_id = launchpad.get_fw_ids({"name": {"$regex": "DFT single points 1 to"}})[0]
    worker = FWorker(query={"fw_id": fw_id})

    def run():
        launch_rocket(launchpad, worker, strm_lvl="CRITICAL")
        return launchpad.get_fw_by_id(fw_id).state

    run.campaign, run.fw_id = campaign, fw_id
    return run


@pytest.fixture
def moody(monkeypatch):
    """The engine of every campaign, under control."""
    from hullscreen.dft_adapters.ase_engine import ASEEngine

    answers = Moody(None)
    compute = ASEEngine.single_point

    def single_point(self, atoms, directory):
        answers.compute = lambda atoms, directory: compute(self, atoms, directory)
        return answers(atoms, directory)

    monkeypatch.setattr(ASEEngine, "single_point", single_point)
    return answers


def test_a_job_that_is_run_again_on_request_repeats_its_failures_once(job, launchpad, moody):
    moody.fails = True
    assert job() == "FIZZLED"
    n = moody.asked
    assert n == 5
    assert asked_again_at(launchpad, job.fw_id) is None
    launchpad.rerun_fw(job.fw_id)
    assert asked_again_at(launchpad, job.fw_id) is not None
    assert job() == "FIZZLED"
    assert moody.asked == 2 * n
    moody.fails = False
    launchpad.rerun_fw(job.fw_id)
    assert job() == "COMPLETED"
    assert moody.asked == 3 * n
    assert job.campaign.store.failed_dft() == []


def test_a_worker_that_is_ended_does_not_repeat_what_has_failed(job, launchpad, moody, monkeypatch):
    moody.fails = True
    failed, save = [], job.campaign.store.save_dft

    def save_and_die(self, document):
        del self
        save(document)
        failed.append(document.key)
        if len(failed) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(type(job.campaign.store), "save_dft", save_and_die)
        assert job() == "FIZZLED"
    assert moody.asked == 2
    assert recovery.retry_failed(launchpad, job.campaign, all_steps=False) == 1
    assert job() == "FIZZLED"
    assert moody.asked == 5


def test_what_the_machine_lacked_repeats_no_failure_of_a_structure(job, launchpad, moody):
    moody.fails = True
    jobs = dft_jobs.jobs_of(job.campaign, "seed")
    first = job.campaign.store.selected()[0]
    atoms = dft_jobs.atoms_of(
        first.geometry.cell, first.geometry.positions, first.species, job.campaign.elements
    )
    with pytest.raises(CalculationError):
        jobs.single_point(atoms, 0)
    moody.missing = True
    assert job() == "FIZZLED"
    assert moody.asked == 2
    moody.missing = moody.fails = False
    assert recovery.retry_failed(launchpad, job.campaign, all_steps=True) == 1
    # The first one is known to fail.
    assert job() == "FIZZLED"
    assert moody.asked == 6
