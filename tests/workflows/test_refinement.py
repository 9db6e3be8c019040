"""The second screen's end: which basins are labelled, and which structures DFT relaxes."""

import numpy as np
import pytest

from hullscreen.workflows.decisions import decide
from hullscreen.workflows.hull import convex_hull
from hullscreen.workflows.labelled import labelled_structures
from hullscreen.workflows.refinement import refine
from hullscreen.workflows.rounds import fractions, predictions
from hullscreen.workflows.screening import TIE, ErrorEstimate


def deciding(history, before, begun):
    """The last decision after a round of one purpose that began one of another."""
    return [
        d for d in history if d.round and d.next_round
        and (d.round.purpose, d.next_round.purpose) == (before, begun)
    ][-1]  # fmt: skip


@pytest.fixture
def at(tiny_history, make_campaign, mongo, put_back):
    """Function: campaign and round just before or after a decision."""
    campaign = make_campaign()

    def put(before, begun, *, taken):
        decided = deciding(tiny_history, before, begun)
        put_back(mongo, decided.after if taken else decided.before)
        return campaign, decided.next_round if taken else decided.round

    return put


def predicted_by(campaign, round_):
    """Heights and energies by the potential of a round, by structure index."""
    potential, _ = campaign.potential(round_.potential)
    found = predictions(campaign, round_, potential)
    indices = found.indices.tolist()
    return dict(zip(indices, found.heights, strict=True)), dict(
        zip(indices, found.energies, strict=True)
    )


def test_the_most_promising_basins_are_labelled_first(at):
    campaign, round_ = at("learn", "refine", taken=True)
    _, before = at("learn", "refine", taken=False)
    heights, energies = predicted_by(campaign, before)
    campaign, round_ = at("learn", "refine", taken=True)
    chosen = campaign.store.selected(round=round_.number)
    # A tenth of so few basins is less than what is wanted for σ.
    assert len(chosen) == campaign.settings.screening.validation_structures
    mine = [heights[one.structure_index] for one in chosen]
    assert mine == sorted(mine)
    for one in chosen:
        assert one.predicted_energy_per_atom == energies[one.structure_index]
    assert round_.again
    assert round_.fits


def test_what_is_labelled_next_lies_within_the_window_and_is_new(at):
    campaign, before = at("refine", "refine", taken=False)
    heights, _ = predicted_by(campaign, before)
    campaign, round_ = at("refine", "refine", taken=True)
    window = ErrorEstimate(**round_.sigma).window(campaign.settings.screening.sigma_multiple)
    earlier = {
        one.structure_index
        for one in campaign.store.selected(purpose="refine")
        if one.round < round_.number
    }
    new = campaign.store.selected(round=round_.number)
    assert new
    for one in new:
        assert heights[one.structure_index] <= window
        assert one.structure_index not in earlier


def test_the_pure_elements_reach_the_final_stage(at):
    campaign, round_ = at("refine", "final", taken=True)
    counts = campaign.store.structures({"index": {"$in": list(round_.final_indices)}}).counts
    assert (counts > 0).sum(axis=1).min() == 1
    for element in (0, 1):
        assert (counts[:, element] == counts.sum(axis=1)).any()


def test_of_every_structure_it_is_known_what_became_of_it(at):
    campaign, round_ = at("refine", "final", taken=True)
    final = set(round_.final_indices)
    for document in campaign.store.documents({}, ["index", "stage", "dropped"]):
        if document["index"] in final:
            assert document["stage"] == 3
            assert "dropped" not in document
        else:
            assert document["stage"] < 3
            assert document["dropped"]["reason"]


def test_what_is_relaxed_by_dft_could_reach_the_hull_of_labels(at):
    campaign, round_ = at("refine", "final", taken=True)
    labelled = labelled_structures(campaign, purpose="refine")
    energies = np.array([r.energy / len(s.species) for s, r in labelled])
    counts = np.array([np.bincount(s.species, minlength=2) for s, _ in labelled])
    above = convex_hull(fractions(counts), energies).energies_above_hull
    on_hull = {s.structure_index for (s, _), h in zip(labelled, above, strict=True) if h <= TIE}
    assert on_hull <= set(round_.final_indices)
    assert set(round_.final_indices) <= {s.structure_index for s, _ in labelled}


def test_a_label_too_high_for_any_relaxation_is_dropped_with_its_numbers(at):
    campaign, round_ = at("refine", "final", taken=False)
    mixed = [
        (one, result)
        for one, result in labelled_structures(campaign, purpose="refine")
        if len(set(one.species.tolist())) > 1
    ]
    one, result = mixed[0]
    n = len(one.species)
    # As if DFT had found it 50 meV/atom higher, and the prediction had, so that σ stays.
    store = campaign.store._database
    store.dft_results.update_one(
        {"key": result.key}, {"$set": {"energy": result.energy + 0.05 * n}}
    )
    store.selected.update_one(
        {"key": one.key},
        {"$set": {"predicted_energy_per_atom": one.predicted_energy_per_atom + 0.05}},
    )
    decide(campaign, round_)
    (document,) = campaign.store.documents({"index": one.structure_index}, ["stage", "dropped"])
    assert document["stage"] == 2
    assert "higher above the hull than a relaxation can gain" in document["dropped"]["reason"]
    assert document["dropped"]["energy_above_hull"] > document["dropped"]["possible_gain"] > 0


def fail_a_label(campaign):
    """Let the label of a compound have failed; gives what was selected."""
    one, _ = next(
        (s, r)
        for s, r in labelled_structures(campaign, purpose="refine")
        if len(set(s.species.tolist())) > 1
    )
    campaign.store._database.dft_results.update_one(
        {"key": one.key}, {"$set": {"state": "failed", "reason": "no convergence"}}
    )
    return one


def test_a_label_that_failed_is_dropped_for_that(at):
    campaign, round_ = at("refine", "final", taken=False)
    one = fail_a_label(campaign)
    refine(campaign, round_)
    (document,) = campaign.store.documents({"index": one.structure_index}, ["dropped"])
    assert document["dropped"]["reason"] == "its DFT single point failed"


def test_what_was_given_up_is_taken_back_when_the_window_grows(at):
    campaign, round_ = at("refine", "final", taken=False)
    asked = {one.structure_index for one in campaign.store.selected(purpose="refine")}
    potential, _ = campaign.potential(round_.potential)
    found = predictions(campaign, round_, potential)
    (lowest, *_) = [int(i) for i in found.indices[np.argsort(found.heights)] if int(i) in asked]
    far = {"stage": 2, "reason": "too far", "energy_above_hull": 1.0, "sigma": 0.1, "round": 0}
    near = {**far, "energy_above_hull": 0.0}
    others = [int(i) for i in found.indices if int(i) != lowest][:2]
    campaign.store.drop(zip(others, [near, far], strict=True))
    refine(campaign, round_)
    reasons = {
        d["index"]: d.get("dropped", {}).get("reason")
        for d in campaign.store.documents({"index": {"$in": others}}, ["dropped"])
    }
    assert reasons[others[0]] != "too far"
    assert reasons[others[1]] == "too far"


def test_basins_of_a_failed_label_are_named(at):
    campaign, round_ = at("refine", "final", taken=False)
    one = fail_a_label(campaign)
    # A second structure that relaxed into the same crystal.
    structures = campaign.store._database.structures
    twin = structures.find_one({"index": one.structure_index})
    del twin["_id"]
    structures.insert_one({**twin, "index": 1000, "order": 1000})
    refine(campaign, round_)
    (document,) = campaign.store.documents({"index": 1000}, ["dropped"])
    assert document["dropped"]["same_as"] == one.structure_index
    assert "DFT single point failed" in document["dropped"]["reason"]
