"""Brute force and the comparison with it: nothing is missed silently, nothing left uncounted."""

import contextlib
import dataclasses
import os
import subprocess
import sys
import uuid
from collections import Counter

import numpy as np
import pytest
from fireworks import FWorker
from fireworks.core.rocket_launcher import launch_rocket

from hullscreen.database.campaign_store import CampaignStore
from hullscreen.database.connection import Connection, connect
from hullscreen.database.dft_documents import DFTDocument, ReferenceRelaxation
from hullscreen.database.documents import Geometry
from hullscreen.launch.settings import from_tables
from hullscreen.potentials.errors import CampaignError, CompositionError, DFTError
from hullscreen.potentials.structures import join
from hullscreen.workflows.brute_force import (
    campaign_to_compare,
    fate,
    finished_hull,
    reference_phases,
    reference_report,
    report,
)
from hullscreen.workflows.campaign import Campaign, add_prototypes, register
from hullscreen.workflows.dft_jobs import RELAXATION
from hullscreen.workflows.flows import prepare_launchpad, submit_campaign
from hullscreen.workflows.hull_comparison import Phases, compare
from hullscreen.workflows.reference_relaxations import pool_of, relax_pool
from hullscreen.workflows.worker import launchpad_on

# What the comparison promises, meV/atom: phases that tie within it count as one.
AGREEMENT = 0.5
# An EMT whose every call leaves a line in a file, and which can be told to fail.
CALCULATOR = """
import os
from pathlib import Path
from ase.calculators.calculator import CalculatorSetupError
from ase.calculators.emt import EMT

# From the environment, so that the engine's fingerprint does not depend on them.
LOG = Path(os.environ["TEST_LOG"])
FAIL_AT_ATOMS, DIE_AT_ATOMS = (int(os.environ.get(n, 0)) for n in ("TEST_FAIL", "TEST_DIE"))
CALLS_BEFORE_FAILURE = 2

class LoggingEMT(EMT):
    def calculate(self, atoms=None, *arguments):
        with LOG.open("a") as stream:
            stream.write(f"{atoms.get_chemical_formula()}\\n")
        if len(atoms) == DIE_AT_ATOMS:
            os._exit(9)
        if len(atoms) == FAIL_AT_ATOMS:
            formula = atoms.get_chemical_formula()
            if LOG.read_text().splitlines()[-1 - CALLS_BEFORE_FAILURE :] == [formula] * 3:
                raise CalculatorSetupError("told to fail")
        super().calculate(atoms, *arguments)
"""


@pytest.fixture(scope="module")
def calculators(tmp_path_factory):
    """Folder on the import path, also that of new processes, with `CALCULATOR` as a module."""
    folder = tmp_path_factory.mktemp("calculators")
    (folder / "logging_emt.py").write_text(CALCULATOR)
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))


@pytest.fixture
def logged(calculators, tmp_path, mongo, monkeypatch):
    """Function that makes a campaign with a logging engine, in a database of the test's own.

    It also gives a function that counts the engine's calls, but for those of `Engine.check`, which
    happen in this process.
    """
    log, here = tmp_path / "calls.txt", tmp_path / "here.txt"
    monkeypatch.setenv("TEST_LOG", str(log))

    def make(name="logged", max_atoms=2, **dft):
        settings = from_tables(
            {
                "campaign": {"name": name, "elements": ["Cu", "Pd"]},
                "prototypes": {"max_atoms": max_atoms, "aflow": False},
                "dft": {
                    "calculator": "logging_emt:LoggingEMT",
                    "structures_per_job": 1,
                    **dft,
                },
            }
        )
        campaign = Campaign(settings, CampaignStore(mongo, name), tmp_path / "calculations")
        monkeypatch.setattr(sys.modules[type(campaign.engine.calculator).__module__], "LOG", here)
        return campaign, lambda: len(log.read_text().splitlines()) if log.exists() else 0

    return make


def finish(campaign, relaxed, leave_out=()):
    """Make a campaign look as if it had found everything that brute force found, or nearly."""
    register(campaign)
    add_prototypes(campaign)
    store = campaign.store
    for i, relaxation in enumerate(relaxed.relaxations):
        if relaxation.state == "failed" or i in leave_out:
            continue
        store.save_dft(
            DFTDocument(
                key=f"{store.name}-{i}", kind=RELAXATION, state="done", campaign=store.name,
                purpose="final", structure_index=i, chemsys="Cu-Pd", engine=relaxation.engine,
                numbers=relaxation.numbers, geometry=relaxation.geometry,
                energy=relaxation.energy, converged=True, n_evaluations=2, cpu_seconds=0.5,
            )
        )  # fmt: skip
        energy = relaxation.energy / len(relaxation.numbers)
        store.advance([i], 3)
        store.save_final(
            i, {"state": "done", "key": f"{store.name}-{i}", "energy_per_atom": energy}
        )
    store.set_campaign(finished=True)


def run_in_this_process(campaign, connection, folder):
    """Run a campaign's Fireworks one after another."""
    register(campaign)
    launchpad = launchpad_on(connection.uri, connection.name)
    prepare_launchpad(launchpad)
    submit_campaign(launchpad, campaign)
    with contextlib.chdir(folder):
        while launch_rocket(launchpad, FWorker(), strm_lvl="CRITICAL"):
            pass
    launchpad.connection.close()


@pytest.fixture(scope="module")
def server_database(mongo_server):
    name = f"test_{uuid.uuid4().hex[:12]}"
    database = connect(mongo_server.uri, name)
    yield Connection(database, mongo_server.uri, name, embedded=True, server=mongo_server)
    database.client.drop_database(name)
    database.client.close()


@pytest.mark.slow
@pytest.mark.parametrize("elements", [("Cu", "Pd"), ("Au", "Pt")], ids="-".join)
def test_a_small_campaign_agrees_with_brute_force(elements, server_database, tmp_path):
    name = "-".join(elements)
    settings = from_tables(
        {
            "campaign": {"name": name, "elements": list(elements)},
            "prototypes": {"max_atoms": 3, "aflow": False},
        }
    )
    campaign = Campaign(settings, CampaignStore(server_database, name), tmp_path)
    run_in_this_process(campaign, server_database, tmp_path)
    relaxed = relax_pool(campaign_to_compare(campaign), n_processes=2)
    found = report(campaign, relaxed)
    assert found["structures"] == 23
    assert found["recall"] == 1.0
    assert found["missed"] == []
    assert found["hull_difference_mev_per_atom"]["largest"] < AGREEMENT
    assert found["brute_force"]["failed"] == 0
    costs = sum(cost["evaluations"] for cost in campaign.store.dft_costs().values())
    assert found["campaign"]["evaluations"] == costs
    assert found["evaluation_ratio"] == pytest.approx(found["brute_force"]["evaluations"] / costs)


def test_every_call_of_the_engine_is_counted(logged):
    campaign, calls = logged(max_atoms=3)
    relaxed = relax_pool(campaign, n_processes=2)
    assert relaxed.n_computed == len(relaxed.relaxations) == 23
    found = reference_report(campaign, relaxed)
    assert found["evaluations"] == calls() > 23
    assert found["failed"] == 0
    assert found["cpu_seconds"] > 0.0


def test_failures_are_counted_with_their_reason_and_their_calls(logged, monkeypatch):
    # Cells of three atoms fail at the third call for one formula in a row.
    monkeypatch.setenv("TEST_FAIL", "3")
    campaign, calls = logged(max_atoms=3)
    relaxed = relax_pool(campaign, n_processes=1)
    reasons = Counter((len(r.numbers), r.state, r.reason) for r in relaxed.relaxations)
    assert (3, "failed", "calculator_failed") in reasons
    assert {state for n, state, _ in reasons if n != 3} == {"done"}
    failed = [r for r in relaxed.relaxations if r.state == "failed"]
    assert {r.reason for r in failed} == {"calculator_failed"}
    assert all("told to fail" in r.message for r in failed)
    assert max(r.n_evaluations for r in failed) == 3
    found = reference_report(campaign, relaxed)
    assert found["evaluations"] == calls()
    assert found["failed"] == len(failed)
    assert found["failures"] == {"calculator_failed": len(failed)}
    # Failures settle a structure, unless asked otherwise.
    before = calls()
    assert relax_pool(campaign, 1).n_computed == 0
    assert relax_pool(campaign, 1, retry_failed=True).n_computed == len(failed)
    assert calls() > before


def test_a_relaxation_short_of_steps_is_repeated_when_there_are_more(logged):
    campaign, _ = logged(max_steps=2)
    relaxed = relax_pool(campaign, 1)
    short = [r for r in relaxed.relaxations if r.reason == "step_limit"]
    assert short
    assert all(r.state == "failed" and r.energy is not None for r in short)
    assert relax_pool(campaign, 1).n_computed == 0
    longer = dataclasses.replace(campaign.settings.dft, max_steps=100)
    settings = dataclasses.replace(campaign.settings, dft=longer)
    again = relax_pool(Campaign(settings, campaign.store, campaign.directory), 1)
    assert again.n_computed == len(short)
    assert {r.state for r in again.relaxations} == {"done"}


def test_an_interrupted_pool_goes_on_where_it_was(logged, mongo):
    campaign, calls = logged(max_atoms=3)

    def interrupt(done, total):
        if done >= 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        relax_pool(campaign, 1, interrupt)
    stored = {d["key"]: d["created_at"] for d in mongo.database.reference_relaxations.find()}
    assert 5 <= len(stored) < 23
    relaxed = relax_pool(campaign, 1)
    assert relaxed.n_computed == 23 - len(stored)
    after = {d["key"]: d["created_at"] for d in mongo.database.reference_relaxations.find()}
    assert len(after) == 23
    assert stored.items() <= after.items()
    # Of what was under way, one structure in the process' hands and two chunks waiting are lost.
    counted = sum(r.n_evaluations for r in relaxed.relaxations)
    most = max(r.n_evaluations for r in relaxed.relaxations)
    assert counted <= calls() <= counted + 3 * most


def test_campaigns_with_one_pool_share_brute_force(logged):
    first, _ = logged("first")
    second, calls = logged("second")
    assert relax_pool(first, 1).n_computed > 0
    before = calls()
    assert relax_pool(second, 1).n_computed == 0
    assert calls() == before
    larger, _ = logged("larger", max_atoms=3)
    assert relax_pool(larger, 1).n_computed == 23 - len(pool_of(first).prototypes)
    stricter, _ = logged("stricter", force_tolerance=0.005)
    assert relax_pool(stricter, 1).n_computed == len(pool_of(first).prototypes)


def test_the_pool_is_that_of_the_database_once_it_is_there(logged):
    campaign, _ = logged()
    enumerated = pool_of(campaign)
    register(campaign)
    add_prototypes(campaign)
    stored = pool_of(campaign)
    assert stored.prototypes == enumerated.prototypes
    np.testing.assert_array_equal(stored.structures.cells, enumerated.structures.cells)
    np.testing.assert_array_equal(stored.structures.positions, enumerated.structures.positions)


def test_a_killed_process_is_an_error_and_keeps_the_rest(logged, mongo, monkeypatch):
    monkeypatch.setenv("TEST_DIE", "3")
    campaign, _ = logged(max_atoms=3)
    with pytest.raises(DFTError, match=r"killed.*run again"):
        relax_pool(campaign, 1)
    kept = mongo.database.reference_relaxations.count_documents({})
    assert kept < 23
    monkeypatch.delenv("TEST_DIE")
    relaxed = relax_pool(campaign, 1)
    assert relaxed.n_computed == 23 - kept
    assert {r.state for r in relaxed.relaxations} == {"done"}


def test_a_planted_miss_is_reported(logged):
    campaign, _ = logged(max_atoms=3)
    relaxed = relax_pool(campaign, 2)
    phases = reference_phases(relaxed, campaign.elements)
    deepest = int(np.argmin(phases.hull.formation_energies))
    twins = np.flatnonzero(
        (phases.counts * 2 == phases.counts.sum(axis=1, keepdims=True)).all(axis=1)
    )
    assert deepest in twins
    finish(campaign, relaxed, leave_out=set(phases.indices[twins].tolist()))
    reason = {
        "stage": 1, "reason": "too far above the hull of its stage",
        "energy_above_hull": 0.0431, "window": 0.02,
    }  # fmt: skip
    campaign.store.drop([(int(phases.indices[deepest]), reason)])
    found = report(campaign, relaxed)
    n_stable = len(found["brute_force"]["stable"])
    assert found["recall"] == pytest.approx((n_stable - 1) / n_stable)
    assert [missed["formula_pretty"] for missed in found["missed"]] == ["CuPd"]
    (missed,) = found["missed"]
    assert missed["structure_index"] == phases.indices[deepest]
    assert "too far above the hull of its stage" in missed["reason"]
    assert "43.1 meV/atom" in missed["reason"]
    difference = found["hull_difference_mev_per_atom"]
    assert difference["at"] == "CuPd"
    assert difference["largest"] == pytest.approx(missed["below_campaign_hull_mev_per_atom"])
    assert difference["largest"] == difference["highest"] > AGREEMENT
    # Elsewhere nothing is missing; the copied energies agree to rounding.
    assert difference["lowest"] == pytest.approx(0.0, abs=1e-9)


def test_a_campaign_that_found_everything_has_recall_one(logged):
    campaign, _ = logged(max_atoms=3)
    relaxed = relax_pool(campaign, 2)
    finish(campaign, relaxed)
    found = report(campaign, relaxed)
    assert (found["recall"], found["missed"]) == (1.0, [])
    assert found["hull_difference_mev_per_atom"]["largest"] < 1e-9
    assert found["campaign"]["evaluations"] == 2 * len(relaxed.relaxations)
    assert {phase["found_as"] for phase in found["brute_force"]["stable"]} == {"same crystal"}


def test_what_another_campaign_paid_for_is_counted(logged):
    first, _ = logged("first")
    relaxed = relax_pool(first, 1)
    finish(first, relaxed)
    n = len(relaxed.relaxations)
    single = first.store.dft_result("first-0")
    parts = {"kind": "single_point", "n_evaluations": 1, "purpose": "final"}
    for k in range(3):
        first.store.save_dft(dataclasses.replace(single, key=f"part-{k}", **parts))
    second, _ = logged("second")
    register(second)
    assert second.store.borrowed_evaluations([f"first-{i}" for i in range(n)]) == 2 * n + 3
    assert second.store.borrowed_evaluations(["first-1", "unknown"]) == 2
    assert first.store.borrowed_evaluations([f"first-{i}" for i in range(n)]) == 0


def test_a_campaign_without_a_hull_is_not_compared(logged):
    campaign, _ = logged()
    with pytest.raises(CampaignError, match="not finished"):
        finished_hull(campaign)
    register(campaign)
    with pytest.raises(CampaignError, match="not finished"):
        finished_hull(campaign)


def test_a_campaign_of_another_engine_is_refused(logged, mongo):
    campaign, _ = logged()
    register(campaign)
    assert campaign_to_compare(campaign).store is campaign.store
    mongo.database.campaigns.update_one({}, {"$set": {"engine.fingerprint": "other"}})
    with pytest.raises(CampaignError, match="another DFT engine"):
        campaign_to_compare(campaign)


def test_unconverged_relaxations_below_the_hull_put_brute_force_in_doubt(logged):
    campaign, _ = logged()
    relaxed = relax_pool(campaign, 1)
    assert reference_report(campaign, relaxed)["unconverged_below_hull"] == []
    phases = reference_phases(relaxed, campaign.elements)
    deepest = int(phases.indices[np.argmin(phases.hull.formation_energies)])
    # Another prototype ends in the same crystal, so the one that is lost is made deeper.
    relaxations = list(relaxed.relaxations)
    energy = relaxations[deepest].energy - 0.01
    relaxations[deepest] = dataclasses.replace(
        relaxations[deepest], state="failed", reason="stalled", energy=energy
    )
    found = reference_report(campaign, dataclasses.replace(relaxed, relaxations=relaxations))
    (doubt,) = found["unconverged_below_hull"]
    assert (doubt["structure_index"], doubt["reason"]) == (deepest, "stalled")
    n_atoms = len(relaxations[deepest].numbers)
    # The twin ends within 0.01 meV/atom.
    assert doubt["below_hull_mev_per_atom"] == pytest.approx(10.0 / n_atoms, abs=0.01)


def test_an_element_that_cannot_be_relaxed_is_named(logged):
    campaign, _ = logged()
    relaxed = relax_pool(campaign, 1)
    without = [
        dataclasses.replace(r, state="failed", reason="collapsed", message="the melt collapsed")
        if set(r.numbers) == {46}
        else r
        for r in relaxed.relaxations
    ]
    with pytest.raises(DFTError, match=r"pure Pd .* the melt collapsed"):
        reference_report(campaign, dataclasses.replace(relaxed, relaxations=without))


# The comparison itself, on crystals made by hand: A and B in fcc, AB in two stackings.
FCC = np.array([[0.0, 2.0, 2.0], [2.0, 0.0, 2.0], [2.0, 2.0, 0.0]])
CUBE = 4.0 * np.eye(3)
CORNERS = np.array([[0.0, 0.0, 0.0], [0.0, 2.0, 2.0], [2.0, 0.0, 2.0], [2.0, 2.0, 0.0]])
A = (FCC, np.zeros((1, 3)), (0,))
B = (FCC, np.zeros((1, 3)), (1,))
LAYERS_001 = (CUBE, CORNERS, (0, 1, 1, 0))
B2 = (3.2 * np.eye(3), np.array([[0.0, 0.0, 0.0], [1.6, 1.6, 1.6]]), (0, 1))
DEEP = -0.050


def phases(*entries):
    structures = join((c, p, np.array(s, dtype=np.int32)) for (c, p, s), _ in entries)
    return Phases(
        np.arange(len(entries)),
        structures.counts(2),
        np.array([energy for _, energy in entries]),
        structures,
    )


REFERENCE = phases((A, -3.0), (B, -4.0), (LAYERS_001, -3.5 + DEEP))
COUNTS = np.array([[1, 0], [2, 0], [0, 1], [1, 1], [2, 2], [1, 3]])


@pytest.mark.parametrize(
    ("crystal", "energy", "how"),
    [
        (LAYERS_001, DEEP, "same crystal"),
        (LAYERS_001, DEEP + 0.0004, "same crystal"),
        # Half the cell is the same crystal: the primitive one has two atoms.
        ((np.array([[2.0, 2.0, 0], [-2.0, 2.0, 0], [0, 0, 4.0]]),
          np.array([[0.0, 0, 0], [0.0, 2.0, 2.0]]), (0, 1)), DEEP, "same crystal"),
        (B2, DEEP + 0.0004, "tie"),
        (B2, DEEP - 0.0004, "tie"),
        (B2, DEEP + 0.0006, ""),
        (B2, DEEP - 0.0006, "undercut by the campaign"),
    ],
)  # fmt: skip
def test_how_a_phase_is_found(crystal, energy, how):
    campaign = phases((A, -3.0), (B, -4.0), (crystal, -3.5 + energy))
    comparison = compare(REFERENCE, campaign, COUNTS)
    assert comparison.found == {0: "same crystal", 1: "same crystal", 2: how}
    assert comparison.recall == pytest.approx(1.0 if how else 2 / 3)
    assert comparison.compositions.tolist() == [[0, 1], [1, 0], [1, 1], [1, 3]]
    change = energy - DEEP
    np.testing.assert_allclose(comparison.differences, [0.0, 0.0, change, change / 2], atol=1e-12)


def test_what_a_lower_structure_of_the_campaign_makes_unstable_is_not_missed():
    lower = -3.5 + DEEP - 0.01
    campaign = phases((A, -3.0), (B, -4.0), (B2, lower), (LAYERS_001, -3.5 + DEEP))
    comparison = compare(REFERENCE, campaign, COUNTS)
    assert comparison.found[2] == "undercut by the campaign"
    # Of the two elements both are found.
    assert comparison.recall == 1.0
    without = phases((A, -3.0), (B, -4.0), (B2, lower))
    assert compare(REFERENCE, without, COUNTS).found[2] == "undercut by the campaign"


def test_a_shifted_element_shows_although_it_is_no_formation_energy():
    campaign = phases((A, -3.0 + 0.002), (B, -4.0), (LAYERS_001, -3.5 + DEEP))
    comparison = compare(REFERENCE, campaign, COUNTS)
    assert comparison.compositions[comparison.largest].tolist() == [1, 0]
    assert comparison.differences[comparison.largest] == pytest.approx(0.002)


def test_a_missing_element_is_an_error():
    with pytest.raises(CompositionError, match="pure element"):
        compare(REFERENCE, phases((A, -3.0), (LAYERS_001, -3.55)), COUNTS)


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"final": {"state": "failed", "reason": "no more memory"}}, "failed: no more memory"),
        ({"final": {"state": "done"}}, "ended elsewhere"),
        ({"stage": 2}, "nothing was decided about it in stage 2"),
        (
            {
                "dropped": {
                    "stage": 2,
                    "reason": "the same basin as another structure",
                    "same_as": 7,
                }
            },
            "dropped in stage 2: the same basin as another structure (same as 7)",
        ),
        (
            {"dropped": {"stage": 1, "reason": "far", "energy_above_hull": 0.1, "window": 0.05}},
            "far (energy above hull 100.0 meV/atom, window 50.0 meV/atom)",
        ),
    ],
)
def test_fates_in_words(document, words):
    assert words in fate(document)


def test_documents_come_back_as_they_went(mongo):
    store = CampaignStore(mongo, "any")
    store.ensure_indexes()
    cell, positions = np.diag([1.0, 2.0, 3.0]), np.array([[0.1, 0.2, 0.3]])
    one = ReferenceRelaxation(
        key="k", state="failed", engine="e", numbers=(29,), geometry=Geometry(cell, positions),
        energy=None, reason="collapsed", message="it collapsed", n_evaluations=4, max_steps=9,
        cpu_seconds=0.1, wall_seconds=0.2,
    )  # fmt: skip
    store.save_reference_relaxations([one])
    (read,) = store.reference_relaxations(["k", "missing"]).values()
    assert read.geometry.cell.tolist() == cell.tolist()
    plain = {f.name: getattr(one, f.name) for f in dataclasses.fields(one)} | {"geometry": 0}
    assert {f.name: getattr(read, f.name) for f in dataclasses.fields(read)} | {
        "geometry": 0
    } == plain
    # A success replaces a failure, nothing replaces a success.
    store.save_reference_relaxations([dataclasses.replace(one, state="done", energy=-1.0)])
    store.save_reference_relaxations([one])
    assert store.reference_relaxations(["k"])["k"].energy == -1.0


def test_a_worker_starts_without_heavy_packages():
    program = "import hullscreen.workflows.reference_worker, sys; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert not loaded & {"numba", "pymatgen", "pymongo", "fireworks"}
