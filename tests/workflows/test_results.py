"""What a campaign says about itself: the hull, searches, exports, the report and the status."""

import json
import threading
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from fireworks import Firework, FWorker
from fireworks.core.rocket_launcher import launch_rocket
from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
from pymatgen.core import Composition

from hullscreen.database.dft_documents import DFTDocument
from hullscreen.database.documents import DFT_RELAXED, Geometry
from hullscreen.database.launchpad_state import failed_fireworks, fireworks_by_state
from hullscreen.potentials.errors import CampaignError, InputError
from hullscreen.workflows import exports
from hullscreen.workflows.campaign_status import campaign_status
from hullscreen.workflows.firetasks import LabelTask
from hullscreen.workflows.hull_entries import Entry
from hullscreen.workflows.report import PURPOSES, campaign_report
from hullscreen.workflows.results import final_hull, screened_background
from hullscreen.workflows.screening import TIE
from hullscreen.workflows.structure_filters import Wanted
from hullscreen.workflows.structure_search import search
from hullscreen.workflows.worker import launchpad_on

# Two sums of the same energies in another order, eV/atom.
ROUNDING = 1e-12


@pytest.fixture(scope="module")
def result(small_campaign):
    return final_hull(small_campaign.store)


def entry_of(atoms, **changes):
    result = DFTDocument(
        key="key", kind="relaxation", state="done", campaign="c", purpose="final",
        structure_index=7, chemsys="-".join(sorted(set(atoms.symbols))), engine="e",
        numbers=tuple(int(z) for z in atoms.numbers),
        geometry=Geometry(np.array(atoms.cell[:]), np.array(atoms.positions)), energy=-1.5,
        forces=np.zeros((len(atoms), 3)), stress=np.zeros((3, 3)),
    )  # fmt: skip
    values = {
        "structure_index": 7, "prototype": "aflow-A2B_cF12_225_a_c/:01", "formula_pretty": "Cu",
        "counts": (len(atoms), 0), "formation_energy_per_atom": 0.0, "energy_above_hull": 0.0,
        "is_stable": True, "result": result,
    }  # fmt: skip
    return Entry(**{**values, **changes})


# The hull


def test_the_hull_is_that_of_pymatgen(result):
    numbers = {entry.structure_index: entry for entry in result.entries}
    diagram = PhaseDiagram(
        [
            PDEntry(Composition("".join(e.symbols)), e.result.energy, attribute=number)
            for number, e in numbers.items()
        ]
    )
    assert len(diagram.all_entries) == len(result.entries) > 2
    for entry in diagram.all_entries:
        ours = numbers[entry.attribute]
        above = diagram.get_e_above_hull(entry)
        assert above == pytest.approx(ours.energy_above_hull, abs=ROUNDING)
        formation = diagram.get_form_energy_per_atom(entry)
        assert formation == pytest.approx(ours.formation_energy_per_atom, abs=ROUNDING)
    stable = {entry.attribute for entry in diagram.stable_entries}
    assert stable == {entry.structure_index for entry in result.stable}


def test_energies_belong_to_the_geometries(result):
    for entry in result.entries:
        geometry = entry.result.geometry
        atoms = Atoms(entry.symbols, positions=geometry.positions, cell=geometry.cell, pbc=True)
        atoms.calc = EMT()
        # The same arithmetic on the same numbers, atoms in another order.
        assert atoms.get_potential_energy() / len(atoms) == pytest.approx(
            entry.energy_per_atom, abs=1e-10
        )
        np.testing.assert_allclose(atoms.get_forces(), entry.result.forces, atol=1e-10)


def test_stable_entries_have_one_composition_each(result):
    formulas = [entry.formula_pretty for entry in result.stable]
    assert len(set(formulas)) == len(formulas)
    # From the first element to the second.
    assert formulas[0] == "Cu"
    assert formulas[-1] == "Pd"
    groups = [result.stable, result.ties, result.unstable]
    numbers = [entry.structure_index for group in groups for entry in group]
    assert sorted(numbers) == sorted(entry.structure_index for entry in result.entries)
    assert all(entry.energy_above_hull <= TIE for entry in result.ties)
    assert all(entry.energy_above_hull > TIE for entry in result.unstable)


def test_document_of_an_entry(result):
    entry = result.stable[1]
    document = result.document(entry)
    assert json.loads(json.dumps(document)) == document
    assert document["energy_per_atom"] * document["nsites"] == pytest.approx(entry.result.energy)
    assert sum(document["composition"].values()) == document["nsites"]
    assert np.shape(document["structure"]["positions"]) == (document["nsites"], 3)
    assert document["chemsys"] == "Cu-Pd"
    assert document["decomposes_to"] is None


def test_unstable_entries_decompose_to_stable_ones(copied_campaign, mongo):
    # Raised by 0.1 eV/atom, every compound is unstable against the elements.
    keys = [
        (entry.result.key, entry.result.energy + 0.1 * entry.nsites)
        for entry in final_hull(copied_campaign).entries
        if all(entry.counts)
    ]
    for key, energy in keys:
        mongo.database.dft_results.update_one({"key": key}, {"$set": {"energy": energy}})
    raised = final_hull(copied_campaign)
    assert [entry.formula_pretty for entry in raised.stable] == ["Cu", "Pd"]
    for entry in raised.unstable:
        amounts = {p["formula"]: p["amount"] for p in raised.document(entry)["decomposes_to"]}
        expected = {"Cu": entry.counts[0] / entry.nsites, "Pd": entry.counts[1] / entry.nsites}
        # A pure phase decomposes into its own element alone.
        present = {symbol: share for symbol, share in expected.items() if share}
        assert amounts == pytest.approx(present)


def test_ties_are_told_apart_from_twins(copied_campaign, mongo):
    before = final_hull(copied_campaign)
    compound = next(entry for entry in before.stable if all(entry.counts))
    other = mongo.database.structures.find_one(
        {"formula_pretty": compound.formula_pretty, "final": {"$exists": False}}
    )
    # A second structure that DFT relaxed into the same crystal, a hair above it.
    twin = mongo.database.dft_results.find_one({"key": compound.result.key})
    del twin["_id"]
    twin |= {"key": "twin", "energy": compound.result.energy + 1e-4 * compound.nsites}
    mongo.database.dft_results.insert_one(twin)
    mongo.database.structures.update_one(
        {"index": other["index"]}, {"$set": {"stage": 3, "final": {"state": "done", "key": "twin"}}}
    )
    tie = next(
        tie
        for tie in final_hull(copied_campaign).to_dict()["ties"]
        if tie["structure_index"] == other["index"]
    )
    assert tie["tied_with"] == compound.structure_index
    assert tie["same_crystal"]
    assert tie["energy_above_hull"] == pytest.approx(1e-4)


def test_before_the_end_the_hull_is_provisional(copied_campaign, mongo):
    whole = final_hull(copied_campaign)
    compound = next(entry for entry in whole.stable if all(entry.counts))
    copied_campaign.set_campaign(finished=False)
    mongo.database.structures.update_one(
        {"index": compound.structure_index}, {"$unset": {"final": ""}}
    )
    partial = final_hull(copied_campaign).to_dict()
    assert partial["finished"] is False
    assert partial["n_pending"] == 1
    assert compound.structure_index not in {s["structure_index"] for s in partial["stable"]}


def test_without_an_element_there_is_no_hull(copied_campaign, mongo):
    pure = {"formula_pretty": "Pd", "final": {"$exists": True}}
    mongo.database.structures.update_many(pure, {"$unset": {"final": ""}})
    with pytest.raises(CampaignError, match=r"no structure of pure Pd .* still to come"):
        final_hull(copied_campaign)
    failed = {"final": {"state": "failed", "reason": "no convergence"}}
    mongo.database.structures.update_many({"formula_pretty": "Pd", "stage": 3}, {"$set": failed})
    with pytest.raises(CampaignError, match=r"pure Pd .* it failed: no convergence"):
        final_hull(copied_campaign)
    # The report does without a hull.
    assert campaign_report(copied_campaign)["funnel"]["final"]["stable"] is None


def test_failed_relaxations_are_named(copied_campaign, mongo):
    compound = next(e for e in final_hull(copied_campaign).stable if all(e.counts))
    copied_campaign.save_final(compound.structure_index, {"state": "failed", "reason": "scf"})
    result = final_hull(copied_campaign)
    assert result.n_pending == 0
    assert [(f["structure_index"], f["reason"]) for f in result.failed] == [
        (compound.structure_index, "scf")
    ]


def test_what_another_campaign_has_quarantined_is_on_no_hull(copied_campaign):
    compound = next(e for e in final_hull(copied_campaign).stable if all(e.counts))
    copied_campaign.quarantine(
        compound.result.key, reason="it went uphill", judged="relaxation", judged_by="other"
    )
    result = final_hull(copied_campaign)
    assert compound.structure_index not in {e.structure_index for e in result.entries}
    assert [(f["structure_index"], f["reason"]) for f in result.failed] == [
        (compound.structure_index, "quarantined: it went uphill")
    ]


def test_lost_dft_results_are_named(copied_campaign, mongo):
    mongo.database.dft_results.delete_many({})
    with pytest.raises(CampaignError, match="restore its collection dft_results"):
        final_hull(copied_campaign)


def test_background_lies_above_the_hull(small_campaign, result):
    fractions, energies = screened_background(small_campaign.store, result)
    assert len(fractions) == small_campaign.store.count(
        dropped={"$exists": True}, energy_above_hull={"$exists": True}
    )
    assert (energies >= result.hull.hull_energy_at(fractions)).all()


@pytest.mark.parametrize(
    ("atoms", "symbol", "number", "system"),
    [
        (bulk("Cu", cubic=True), "Fm-3m", 225, "Cubic"),
        (bulk("Co"), "P6_3/mmc", 194, "Hexagonal"),
        (bulk("Cu", "bct", a=3.0, c=3.6), "I4/mmm", 139, "Tetragonal"),
    ],
)
def test_symmetry(atoms, symbol, number, system):
    rng = np.random.default_rng(0)
    # A tenth of the tolerance: what relaxations leave.
    atoms.positions += rng.normal(scale=0.005, size=(len(atoms), 3))
    symmetry = entry_of(atoms).symmetry
    assert symmetry["symbol"] == symbol
    assert symmetry["number"] == number
    assert symmetry["crystal_system"] == system


def test_density_of_copper():
    # Four atoms of 63.546 u in (3.61 Å)³.
    assert entry_of(bulk("Cu", cubic=True, a=3.61)).density == pytest.approx(8.972, abs=1e-3)


# Exports


def test_file_names_are_safe():
    assert exports.file_stem(entry_of(bulk("Cu"))) == "Cu_aflow-A2B-cF12-225-a-c-01_7"


def test_left_handed_cells_become_right_handed():
    atoms = bulk("Cu", cubic=True)
    atoms.set_cell(atoms.cell[[1, 0, 2]])
    assert np.linalg.det(atoms.cell[:]) < 0
    structure = exports.structure_of(entry_of(atoms))
    assert np.linalg.det(structure.lattice.matrix) > 0
    # 12 neighbours at a/√2 each, as in the crystal that went in.
    assert [len(found) for found in structure.get_all_neighbors(2.6)] == [12] * 4


# Searches


def test_a_search_finds_everything_once(small_campaign, result):
    found = search(small_campaign.store, result, Wanted())
    assert found.total == len(found.rows) == small_campaign.store.count()
    assert len({row["structure_index"] for row in found.rows}) == found.total
    relaxed = [row for row in found.rows if row["dft"]]
    assert found.rows[: len(relaxed)] == relaxed
    assert len(relaxed) == len(result.entries)
    # Those that follow: by height, unknown heights last.
    heights = [row["energy_above_hull"] for row in found.rows[len(relaxed) :]]
    known = [height for height in heights if height is not None]
    assert known == sorted(known) == heights[: len(known)]


def test_energies_are_labelled(small_campaign, result):
    for row in search(small_campaign.store, result, Wanted()).rows:
        assert row["mtp"]["outcome"]
        source = row["energy_above_hull_from"]
        if row["dft"]:
            assert source == DFT_RELAXED
            assert row["dropped"] is None
        elif row["energy_above_hull"] is None:
            assert source is None
            assert row["dropped"]["reason"]
        else:
            assert source in {"MTP of screen 1", "MTP of screen 2", "DFT single point"}
            assert row["dropped"]["reason"]


@pytest.mark.parametrize("limit", [1, 3, 7, 15, 1000])
def test_a_limit_cuts_the_same_list(small_campaign, result, limit):
    store = small_campaign.store
    whole, part = search(store, result, Wanted()), search(store, result, Wanted(), limit=limit)
    assert part.total == whole.total
    assert [r["structure_index"] for r in part.rows] == [
        r["structure_index"] for r in whole.rows[:limit]
    ]


@pytest.mark.parametrize("formula", ["CuPd2", "Pd2Cu", "Pd4Cu2"])
def test_any_spelling_of_a_formula(small_campaign, result, formula):
    found = search(small_campaign.store, result, Wanted(formula=formula))
    assert found.total == len(found.rows) > 0
    assert {row["formula_pretty"] for row in found.rows} == {"CuPd2"}


@pytest.mark.parametrize("formula", ["CuAu", "Qq2", "", "Cu(", "2"])
def test_what_is_no_formula_of_the_campaign(small_campaign, result, formula):
    with pytest.raises(InputError, match="formula"):
        search(small_campaign.store, result, Wanted(formula=formula))


def test_searches_by_height_stage_and_number(small_campaign, result):
    store = small_campaign.store
    everything = search(store, result, Wanted()).rows
    limit = 0.02
    near = search(store, result, Wanted(max_energy_above_hull=limit))
    assert {row["structure_index"] for row in near.rows} == {
        row["structure_index"]
        for row in everything
        if row["energy_above_hull"] is not None and row["energy_above_hull"] <= limit
    }
    assert near.total == len(near.rows)
    for stage, name in ((1, "screen 1"), (2, "screen 2"), (3, "final")):
        rows = search(store, result, Wanted(stage=stage)).rows
        assert len(rows) == store.count(stage=stage)
        assert {row["stage"] for row in rows} <= {name}
    for row in everything:
        one = search(store, result, Wanted(structure_index=row["structure_index"]))
        assert (one.total, one.rows) == (1, [row])
    stable = search(store, result, Wanted(stable_only=True))
    assert {row["structure_index"] for row in stable.rows} == {
        entry.structure_index for entry in result.stable
    }


def test_a_search_needs_no_hull(small_campaign):
    found = search(small_campaign.store, None, Wanted(), limit=1000)
    assert found.total == len(found.rows) == small_campaign.store.count()


# The report


def test_the_funnel_loses_nobody(small_campaign, result):
    funnel = campaign_report(small_campaign.store)["funnel"]
    assert funnel["screen_1"]["entered"] == funnel["prototypes"]["total"]
    for stage, following in (("screen_1", "screen_2"), ("screen_2", "final")):
        rows = funnel[stage]
        assert rows["entered"] == rows["kept"] + sum(rows["dropped"].values())
        assert rows["kept"] == funnel[following]["entered"]
    final = funnel["final"]
    assert final["entered"] == final["dft_relaxed"] + sum(final["dropped"].values())
    assert final["pending"] == final["dft_failed"] == 0
    assert final["stable"] == len(result.stable)
    assert final["ties"] == len(result.ties)


def test_the_report_counts_what_was_computed(small_campaign):
    report = campaign_report(small_campaign.store)
    stored = list(small_campaign.connection.database.dft_results.find())
    evaluations = report["dft_evaluations"]
    assert evaluations["total"] == sum(document["n_evaluations"] for document in stored)
    assert evaluations["total"] == sum(evaluations[purpose] for purpose in PURPOSES)
    assert sum(c["calculations"] for c in report["dft_calculations"].values()) == len(stored)
    for outcomes, stage in zip(report["outcomes"].values(), ("screen_1", "screen_2"), strict=True):
        assert sum(outcomes.values()) == report["funnel"][stage]["entered"]
    parts = dict(report["cpu_seconds"])
    assert parts.pop("total") == pytest.approx(sum(parts.values()))
    assert {"training", "relaxation", "dft_labels", "dft_final"} <= set(parts)
    assert json.loads(json.dumps(report)) == report


def test_the_report_has_the_sigma_of_each_stage(small_campaign):
    rounds = small_campaign.store.rounds()
    report = campaign_report(small_campaign.store)["sigma"]
    first = next(round_ for round_ in rounds if round_.stage == 2)
    for stage, round_ in (("screen_1", first), ("screen_2", rounds[-1])):
        shown = report[stage]
        assert shown["sigma_mev_per_atom"] == pytest.approx(1e3 * round_.sigma["sigma"])
        assert shown["window_mev_per_atom"] == pytest.approx(
            max(4 * shown["sigma_mev_per_atom"], -shown["lowest_mev_per_atom"])
        )
        assert shown["n_structures"] == round_.sigma["n_structures"]
        assert shown["final"]
    assert report["screen_1"] != report["screen_2"]


def test_engines_outside_our_processes_are_in_the_cpu_seconds(copied_campaign, mongo):
    before = campaign_report(copied_campaign)["cpu_seconds"]
    mongo.database.dft_results.update_one(
        {"purpose": "learn"}, {"$inc": {"cpu_seconds": before["dft_labels"] + 1000.0}}
    )
    after = campaign_report(copied_campaign)["cpu_seconds"]
    assert after["dft_labels"] > before["dft_labels"] + 999.0
    assert after["dft_final"] == before["dft_final"]


def test_pauses_and_overlaps_in_the_wall_time(small_campaign):
    start = datetime(2026, 1, 1, tzinfo=UTC)
    second = timedelta(seconds=1)
    intervals = [(0, 10), (2, 5), (8, 20), (100, 101)]
    times = [(start + a * second, start + b * second) for a, b in intervals]
    wall = campaign_report(small_campaign.store, times)["wall_seconds"]
    assert wall == {"elapsed": 101.0, "working": 21.0}


def test_every_moment_of_a_campaign_has_a_report_and_a_status(tiny_history, mongo, put_back):
    from hullscreen.database.campaign_store import CampaignStore

    store = CampaignStore(mongo, "tiny")
    kept = []
    for decided in tiny_history:
        for documents in (decided.before, decided.after):
            put_back(mongo, documents)
            report, status = campaign_report(store), campaign_status(store, mongo)
            kept.append([report["funnel"][stage]["kept"] for stage in ("screen_1", "screen_2")])
            for counts in status["progress"].values():
                assert 0 <= counts["done"] <= counts["total"]
            assert report["finished"] == status["finished"]
        # Just before the next decision, everything of the round is done.
        if decided.round is not None:
            put_back(mongo, decided.before)
            for counts in campaign_status(store, mongo)["progress"].values():
                assert counts["done"] == counts["total"]
    assert kept[0] == [None, None]
    assert None not in kept[-1]


# The status


def test_status_of_a_finished_campaign(small_campaign):
    status = campaign_status(small_campaign.store, small_campaign.connection)
    assert status["finished"]
    assert status["stage"] == status["purpose"] == "final"
    assert set(status["fireworks"]) == {"dft", "relax", "train"}
    assert all(set(states) == {"COMPLETED"} for states in status["fireworks"].values())
    assert status["failures"] == []
    assert sum(status["structures"].values()) == small_campaign.store.count()
    assert json.loads(json.dumps(status)) == status


def test_failed_fireworks_and_why(make_campaign, mongo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    campaign = make_campaign()
    launchpad = launchpad_on(mongo.uri, mongo.name)
    launchpad.reset("", require_password=False, max_reset_wo_password=10**6)
    task = LabelTask({"campaign": "tiny", "round": 99, "first": 0, "last": 1})
    spec = {"campaign": "tiny", "_category": "dft", "_add_launchpad_and_fw_id": True}
    launchpad.add_wf(Firework([task], spec=spec, name="labels"))
    other = {**spec, "campaign": "another"}
    launchpad.add_wf(Firework([task], spec=other, name="labels"))
    assert fireworks_by_state(mongo, "tiny") == {"dft": {"READY": 1}}
    launch_rocket(launchpad, FWorker(query={"name": "labels"}), strm_lvl="CRITICAL", fw_id=1)
    # FireWorks' heartbeat beats once more after its step has ended.
    for thread in threading.enumerate():
        if "ping_launch" in thread.name:
            thread.join()
    launchpad.connection.close()
    assert fireworks_by_state(mongo, "tiny") == {"dft": {"FIZZLED": 1}}
    (failed,) = failed_fireworks(mongo, "tiny")
    assert (failed.fw_id, failed.name, failed.category) == (1, "labels", "dft")
    assert failed.reason == "campaign 'tiny' has no round 99"
    assert campaign_status(campaign.store, mongo)["stage"] == "prototypes"
