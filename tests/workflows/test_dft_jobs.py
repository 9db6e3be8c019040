"""DFT is paid for once: by content, whatever the order of atoms, and after any interruption."""

import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms

from hullscreen.database.claims import Claims
from hullscreen.dft_adapters.engine import CalculationError, load_engine
from hullscreen.potentials.errors import DatabaseError
from hullscreen.workflows.dft_jobs import (
    MAX_ATTEMPTS,
    RELAXATION,
    RUN_VARIABLE,
    SINGLE_POINT,
    DFTJobs,
    atoms_of,
    forces_for,
    relaxation_kind,
)
from hullscreen.workflows.holding import holding
from hullscreen.workflows.interruption import StepInterruptedError

CALCULATORS = Path(__file__).parents[1] / "launch" / "calculators"
# Tight enough for a dozen evaluations, eV/Å and eV/Å³.
TOLERANCES = {"force_tolerance": 1e-3, "stress_tolerance": 1e-5}


@pytest.fixture
def log(tmp_path, monkeypatch):
    """Where EMT notes what it computes."""
    monkeypatch.syspath_prepend(str(CALCULATORS))
    path = tmp_path / "evaluations.log"
    monkeypatch.setenv("COUNTING_EMT_LOG", str(path))
    path.touch()
    yield path
    sys.modules.pop("counting_emt", None)


@pytest.fixture
def make_jobs(log, make_campaign, tmp_path):
    """Function: DFT jobs of a new process, with counting EMT and its arguments."""

    def make(campaign="tiny", purpose="learn", **arguments):
        table = {"engine": "ase", "calculator": "counting_emt:CountingEMT", "arguments": arguments}
        return DFTJobs(load_engine(table), make_campaign(campaign).store, purpose, tmp_path)

    return make


def crystal(seed=0):
    """CuPd of four atoms without any symmetry; no force vanishes."""
    rng = np.random.default_rng(seed)
    cell = 3.75 * np.eye(3) + rng.normal(scale=0.05, size=(3, 3))
    sites = np.array([[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]])
    positions = sites @ cell + rng.normal(scale=0.05, size=(4, 3))
    return Atoms("Cu2PdCu", positions=positions, cell=cell, pbc=True)


def evaluations(log):
    return log.read_text().split()


def test_a_stored_single_point_is_not_computed_again(make_jobs, log):
    first = make_jobs().single_point(crystal(), 7)
    again = make_jobs().single_point(crystal(), 7)
    assert len(evaluations(log)) == 1
    assert again.energy == first.energy
    assert again.forces.tobytes() == first.forces.tobytes()
    assert again.stress.tobytes() == first.stress.tobytes()
    assert (first.n_evaluations, first.purpose, first.structure_index) == (1, "learn", 7)


@pytest.mark.parametrize("seed", range(3))
def test_permuted_and_translated_atoms_are_the_same_and_get_their_own_forces(seed, make_jobs, log):
    jobs = make_jobs()
    atoms = crystal(seed)
    rng = np.random.default_rng(seed)
    twin = atoms[rng.permutation(4)]
    twin.positions += rng.normal(size=3)
    twin.wrap()
    stored = jobs.single_point(atoms, 0)
    shared = jobs.single_point(twin, 1)
    assert shared.key == stored.key
    assert len(evaluations(log)) == 1
    own = jobs.engine.single_point(twin, Path()).forces
    # One code at one geometry up to a translation: rounding of sums over neighbours.
    assert forces_for(twin, shared) == pytest.approx(own, abs=1e-10)
    assert np.abs(own).max() > 0.1
    assert forces_for(atoms, stored) == pytest.approx(
        jobs.engine.single_point(atoms, Path()).forces, abs=1e-10
    )


def test_keys_tell_apart_what_differs(make_jobs):
    jobs, other_settings = make_jobs(), make_jobs(asap_cutoff=True)
    atoms, strained, transmuted = crystal(), crystal(), crystal()
    strained.set_cell(strained.cell[:] * 1.001, scale_atoms=True)
    transmuted.numbers[0] = 46
    keys = {
        jobs.key(atoms, SINGLE_POINT),
        jobs.key(strained, SINGLE_POINT),
        jobs.key(transmuted, SINGLE_POINT),
        jobs.key(atoms, RELAXATION),
        jobs.key(atoms, relaxation_kind(0.01, 1e-3)),
        jobs.key(atoms, relaxation_kind(0.02, 1e-3)),
        jobs.key(atoms, relaxation_kind(0.01, 2e-3)),
        other_settings.key(atoms, SINGLE_POINT),
    }
    assert len(keys) == 8


def test_results_are_shared_by_campaigns_and_paid_once(make_jobs, log):
    paid = make_jobs("first").single_point(crystal(), 0)
    borrower = make_jobs("second")
    assert borrower.single_point(crystal(), 5).campaign == "first"
    assert len(evaluations(log)) == 1
    assert borrower.store.dft_costs() == {}
    assert borrower.store.borrowed_evaluations([paid.key]) == 1


def test_each_evaluation_of_a_relaxation_is_counted_once(make_jobs, log):
    jobs = make_jobs(purpose="final")
    done = jobs.relax(crystal(), 3, max_steps=200, **TOLERANCES)
    n = len(evaluations(log))
    assert n > 5
    assert done.kind == "relaxation"
    assert done.converged
    assert np.abs(done.forces).max() <= TOLERANCES["force_tolerance"]
    assert np.abs(done.stress).max() <= TOLERANCES["stress_tolerance"]
    assert jobs.store.dft_costs()["final"]["evaluations"] == n
    assert make_jobs().relax(crystal(), 3, max_steps=200, **TOLERANCES).energy == done.energy
    assert len(evaluations(log)) == n


def test_other_tolerances_are_another_relaxation(make_jobs):
    jobs = make_jobs()
    loose = jobs.relax(crystal(), 3, force_tolerance=0.3, stress_tolerance=0.03, max_steps=200)
    tight = jobs.relax(crystal(), 3, max_steps=200, **TOLERANCES)
    assert np.abs(loose.forces).max() > TOLERANCES["force_tolerance"]
    assert np.abs(tight.forces).max() <= TOLERANCES["force_tolerance"]


def test_killed_at_any_write_a_relaxation_goes_on_where_it_was(make_jobs, log, mortal):
    atoms, jobs = crystal(1), make_jobs()
    undisturbed = jobs.relax(atoms, 3, max_steps=200, **TOLERANCES)
    path = evaluations(log)
    assert len(set(path)) == len(path) > 5
    # Each evaluation is a write, and the relaxation itself is the last.
    for lives in range(len(path) + 1):
        jobs.store._database.dft_results.delete_many({})
        log.write_text("")
        with mortal(lives) as fate:
            jobs.relax(atoms, 3, max_steps=200, **TOLERANCES)
        assert fate.dead
        resumed = jobs.relax(atoms, 3, max_steps=200, **TOLERANCES)
        # Stored energies are the computed ones, so the path is the same to the last bit.
        assert resumed.energy == undisturbed.energy
        assert resumed.geometry.cell.tobytes() == undisturbed.geometry.cell.tobytes()
        # Only what was being stored at that moment is computed twice.
        lost = path[lives : lives + 1]
        assert Counter(evaluations(log)) == Counter(path + lost)
        assert jobs.store.dft_costs()["learn"]["evaluations"] == len(path)


def test_a_failure_is_stored_with_its_reason_and_computed_again_when_asked_for(
    make_jobs, log, monkeypatch
):
    jobs, tried = make_jobs(), []

    def fail(*_args):
        tried.append(1)
        raise RuntimeError("the charge density diverged")

    with monkeypatch.context() as patch:
        patch.setattr(jobs.engine.calculator, "calculate", fail)
        with pytest.raises(CalculationError, match="charge density diverged"):
            jobs.single_point(crystal(), 4)
        with pytest.raises(CalculationError, match="charge density diverged"):
            jobs.relax(crystal(), 4, max_steps=9, **TOLERANCES)
        # Any campaign is told what is known.
        for later in (jobs, make_jobs("second")):
            with pytest.raises(CalculationError, match="charge density diverged"):
                later.single_point(crystal(), 4)
            with pytest.raises(CalculationError, match="charge density diverged"):
                later.relax(crystal(), 4, max_steps=9, **TOLERANCES)
        assert len(tried) == 2
    failed = {document.kind: document for document in jobs.store.failed_dft()}
    assert set(failed) == {"single_point", "relaxation"}
    for document in failed.values():
        assert document.state == "failed"
        assert "charge density diverged" in document.reason
        assert document.structure_index == 4
        assert document.energy is None
    # What failed later than somebody asked for has failed in answer.
    at = failed[SINGLE_POINT].created_at
    jobs.repeat_before = at - timedelta(milliseconds=1)
    with pytest.raises(CalculationError, match="charge density diverged"):
        jobs.single_point(crystal(), 4)
    jobs.repeat_before = at
    assert jobs.single_point(crystal(), 4).state == "done"
    assert len(evaluations(log)) == 1
    assert [document.kind for document in jobs.store.failed_dft()] == ["relaxation"]


def test_with_other_limits_a_failure_is_computed_again(make_jobs, log, monkeypatch):
    jobs = make_jobs()

    def fail(*_args):
        raise RuntimeError("out of time")

    with monkeypatch.context() as patch:
        patch.setattr(jobs.engine.calculator, "calculate", fail)
        with pytest.raises(CalculationError, match="out of time"):
            jobs.single_point(crystal(), 4)
    patient = make_jobs("second")
    # It changes no energy, so that the key is the same.
    patient.settings = '{"timeout_s": 1000}'
    assert patient.key(crystal(), SINGLE_POINT) == jobs.key(crystal(), SINGLE_POINT)
    assert patient.single_point(crystal(), 4).state == "done"
    assert len(evaluations(log)) == 1


def test_what_is_quarantined_is_not_computed_again(make_jobs, log):
    jobs = make_jobs()
    key = jobs.single_point(crystal(), 4).key
    jobs.store.quarantine(key, reason="it is wrong", judged="range", judged_by="tiny, round 1")
    with pytest.raises(CalculationError, match="it is wrong"):
        jobs.single_point(crystal(), 4)
    assert len(evaluations(log)) == 1


def test_the_processor_time_of_failed_attempts_is_stored(make_jobs, tmp_path, monkeypatch):
    jobs = make_jobs()

    def fail(*_args, **_options):
        raise CalculationError("killed", "it was killed", tmp_path, cpu_seconds=12.5)

    monkeypatch.setattr(jobs.engine, "single_point", fail)
    with pytest.raises(CalculationError, match="killed"):
        jobs.single_point(crystal(), 4)
    (failed,) = jobs.store.failed_dft()
    assert failed.cpu_seconds == 12.5
    assert jobs.store.dft_costs()["learn"]["cpu_seconds"] == 12.5


@pytest.mark.parametrize(
    ("moment", "error"),
    [("calculate", StepInterruptedError("asked to end")), ("save_dft", DatabaseError("away"))],
)
def test_attempts_that_ended_in_order_do_not_count(make_jobs, log, monkeypatch, moment, error):
    monkeypatch.setenv(RUN_VARIABLE, "a run")
    jobs = make_jobs()

    def interrupted(*_args):
        raise error

    with monkeypatch.context() as patch:
        owner = jobs.store if moment == "save_dft" else jobs.engine.calculator
        patch.setattr(owner, moment, interrupted)
        # A long calculation may meet the end of its worker's time as often as it likes.
        for _ in range(2 * MAX_ATTEMPTS):
            with pytest.raises(type(error)):
                jobs.single_point(crystal(), 4)
    assert jobs.single_point(crystal(), 4).state == "done"


def test_attempts_that_end_the_process_count(make_jobs, log, monkeypatch):
    monkeypatch.setenv(RUN_VARIABLE, "a run")
    jobs = make_jobs()
    key = jobs.key(crystal(), SINGLE_POINT)
    for _ in range(MAX_ATTEMPTS):
        jobs.store.count_attempt(key, "a run")
    with pytest.raises(CalculationError, match=f"process ended {MAX_ATTEMPTS} times while"):
        jobs.single_point(crystal(), 4)
    assert evaluations(log) == []
    monkeypatch.setenv(RUN_VARIABLE, "another run")
    with pytest.raises(CalculationError, match=f"process ended {MAX_ATTEMPTS} times while"):
        jobs.single_point(crystal(), 4)
    # Somebody asks for it.
    jobs.repeat_before = jobs.store.failed_dft()[0].created_at
    assert jobs.single_point(crystal(), 4).state == "done"


def test_a_relaxation_that_does_not_converge_is_a_failure_that_says_so(make_jobs, log):
    jobs = make_jobs()
    with pytest.raises(
        CalculationError, match=r"did not converge .*3 evaluations; raise max_steps"
    ):
        jobs.relax(crystal(), 2, max_steps=3, **TOLERANCES)
    (failed,) = jobs.store.failed_dft()
    assert "step_limit" in failed.reason
    # With more steps it goes on: the three that are known are not computed again.
    jobs.relax(crystal(), 2, max_steps=200, **TOLERANCES)
    assert max(Counter(evaluations(log)).values()) == 1


def test_stored_geometry_and_forces_belong_to_the_same_atoms(make_jobs):
    jobs = make_jobs()
    stored = jobs.relax(crystal(2), 0, force_tolerance=0.2, stress_tolerance=0.02, max_steps=99)
    end = Atoms(
        stored.numbers, positions=stored.geometry.positions, cell=stored.geometry.cell, pbc=True
    )
    computed = jobs.engine.single_point(end, Path())
    # The same geometry in another order of atoms: rounding of sums over neighbours.
    assert computed.forces == pytest.approx(stored.forces, abs=1e-10)
    assert computed.energy == pytest.approx(stored.energy, abs=1e-10)


def test_species_are_elements_in_the_campaigns_order():
    cell, positions = 3.0 * np.eye(3), np.array([[0.0, 0, 0], [1.5, 1.5, 1.5]])
    atoms = atoms_of(cell, positions, np.array([1, 0], dtype=np.int32), ("Cu", "Pd"))
    assert list(atoms.symbols) == ["Pd", "Cu"]
    assert atoms.pbc.all()


def test_two_campaigns_at_work_at_once_compute_a_structure_once(make_jobs, log, mongo):
    def compute(campaign, fw_id):
        with holding(Claims(mongo, campaign), fw_id, "dft", 0.5) as held:
            jobs = replace(make_jobs(campaign), held=held)
            both_ready.wait()
            return jobs.single_point(crystal(), fw_id)

    both_ready = threading.Barrier(2, timeout=60.0)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(compute, ["tiny", "other"], [1, 2])
    assert len(evaluations(log)) == 1
    assert first.key == second.key
    assert first.energy == second.energy
