"""Rounds: what the next one inherits, what is asked for, and σ from what was measured."""

import dataclasses

import numpy as np
import pytest

from hullscreen.database.round_documents import RoundDocument
from hullscreen.potentials.errors import CampaignError
from hullscreen.potentials.structures import join
from hullscreen.workflows.dft_jobs import SINGLE_POINT, DFTJobs, atoms_of
from hullscreen.workflows.rounds import (
    Choice,
    Predictions,
    begin_round,
    beyond_dft,
    drop,
    drop_above,
    drop_unconverged,
    fractions,
    measured_errors,
    next_round,
    not_asked_before,
    predictions,
)
from hullscreen.workflows.screening import estimate_errors


@pytest.fixture
def finished(tiny_history, make_campaign, mongo, put_back):
    """The finished tiny campaign in a database of the test's own."""
    campaign = make_campaign()
    put_back(mongo, tiny_history[-1].after)
    return campaign


ROUND = RoundDocument(
    campaign="tiny", number=4, stage=1, purpose="learn", potential=2, fits=False, wave=20,
    again=True, sigma={"sigma": 0.01}, final_indices=(1,), submitted=True,
)  # fmt: skip


def test_a_round_inherits_stage_wave_sigma_and_potential():
    following = next_round(ROUND, purpose="validate")
    expected = dataclasses.replace(
        ROUND, number=5, purpose="validate", again=False, final_indices=(), submitted=False,
        created_at=following.created_at,
    )  # fmt: skip
    assert following == expected


def test_a_round_that_fits_has_its_own_potential():
    assert next_round(ROUND, purpose="learn", fits=True).potential == 5
    assert next_round(ROUND, purpose="learn", fits=True, wave=80, stage=2).wave == 80


def test_what_was_asked_for_is_not_asked_for_again(finished):
    asked = finished.store.selected()
    geometries = [(one.geometry.cell, one.geometry.positions, one.species) for one in asked]
    new = [(1.01 * cell, 1.01 * positions, species) for cell, positions, species in geometries]
    structures = join(part for pair in zip(geometries, new, strict=True) for part in pair)
    choices = [Choice(i, structures, i, 3.0, None) for i in range(len(structures))]
    assert not_asked_before(finished, choices) == choices[1::2]


def test_what_dft_could_not_compute_on_its_way_is_named(finished):
    assert beyond_dft(finished) == []
    results = finished.store._database.dft_results
    of_purpose = {
        purpose: results.find_one({"purpose": purpose})["structure_index"]
        for purpose in ("seed", "learn")
    }
    for purpose, index in of_purpose.items():
        results.update_many(
            {"purpose": purpose, "structure_index": index}, {"$set": {"state": "failed"}}
        )
    # A strained copy of a structure, for the seed, says nothing of the structure itself.
    assert beyond_dft(finished) == [of_purpose["learn"]]


def key_of(campaign, structures, place):
    jobs = DFTJobs(campaign.engine, campaign.store, "", campaign.directory)
    return jobs.key(atoms_of(*structures.one(place), campaign.elements), SINGLE_POINT)


def test_a_round_is_written_with_all_that_its_labels_need(finished):
    batch = finished.store.structures({"index": {"$in": [3, 7]}}, geometry="start")
    choices = [
        Choice(3, batch.structures, 0, 2.5, None),
        Choice(7, batch.structures, 1, None, -0.25),
    ]
    round_ = dataclasses.replace(ROUND, number=90, purpose="refine")
    begin_round(finished, round_, choices)
    assert finished.store.round(90) == dataclasses.replace(
        round_, created_at=finished.store.round(90).created_at
    )
    found = finished.store.selected(round=90)
    assert [(s.number, s.structure_index, s.purpose) for s in found] == [
        (0, 3, "refine"),
        (1, 7, "refine"),
    ]
    assert [(s.grade, s.predicted_energy_per_atom) for s in found] == [(2.5, None), (None, -0.25)]
    for i, one in enumerate(found):
        cell, positions, species = batch.structures.one(i)
        assert one.geometry.cell.tobytes() == cell.tobytes()
        assert one.geometry.positions.tobytes() == positions.tobytes()
        assert one.species.tobytes() == species.tobytes()
        assert one.key == key_of(finished, batch.structures, i)


def errors_of(campaign, round_number):
    selected = campaign.store.selected(round=round_number)
    results = campaign.store.dft_results([one.key for one in selected])
    predicted = np.array([one.predicted_energy_per_atom for one in selected])
    computed = np.array([results[s.key].energy / len(s.species) for s in selected])
    return predicted, computed


def test_sigma_compares_predictions_with_labels_of_the_round(finished):
    (round_,) = [r for r in finished.store.rounds() if r.purpose == "validate"]
    predicted, computed = errors_of(finished, round_.number)
    assert measured_errors(finished, "validate", round_.number) == estimate_errors(
        predicted, computed
    )


def test_labels_that_failed_do_not_count(finished):
    (round_,) = [r for r in finished.store.rounds() if r.purpose == "validate"]
    first, *others = finished.store.selected(round=round_.number)
    results = finished.store._database.dft_results
    results.update_one({"key": first.key}, {"$set": {"state": "failed", "energy": None}})
    assert measured_errors(finished, "validate", round_.number).n_structures == len(others)
    results.update_many(
        {"key": {"$in": [one.key for one in others]}}, {"$set": {"state": "failed"}}
    )
    with pytest.raises(CampaignError, match="at least two validated structures, got 0"):
        measured_errors(finished, "validate", round_.number)


def test_a_sample_that_is_too_small_takes_earlier_rounds_in(finished):
    rounds = [r for r in finished.store.rounds() if r.purpose == "refine"]
    assert len(rounds) > 1
    wanted = finished.settings.screening.validation_structures
    sizes = [len(finished.store.selected(round=r.number)) for r in rounds]
    estimate = measured_errors(finished, "refine", rounds[-1].number)
    # The newest rounds, whole ones, until there are enough.
    expected, taken = 0, []
    for round_, size in zip(reversed(rounds), reversed(sizes), strict=True):
        taken.append(round_.number)
        expected += size
        if expected >= wanted:
            break
    assert len(taken) > 1
    assert estimate.n_structures == expected
    parts = [errors_of(finished, number) for number in taken]
    joined = estimate_errors(*(np.concatenate(side) for side in zip(*parts, strict=True)))
    assert estimate.sigma == pytest.approx(joined.sigma, rel=1e-12)


def test_structures_that_did_not_converge_are_left_behind_with_their_outcome(finished):
    structures = finished.store._database.structures
    structures.update_many({}, {"$unset": {"dropped": ""}, "$set": {"stage": 1}})
    structures.update_many({}, {"$set": {"relaxed.stage": 1, "relaxed.outcome": "converged"}})
    structures.update_one({"index": 3}, {"$set": {"relaxed.outcome": "collapsed"}})
    structures.update_one({"index": 4}, {"$unset": {"relaxed": ""}})
    structures.update_one({"index": 5}, {"$set": {"relaxed.outcome": "collapsed", "stage": 2}})
    drop_unconverged(finished, dataclasses.replace(ROUND, stage=1))
    dropped = {
        d["index"]: d["dropped"]["outcome"]
        for d in finished.store.documents({"dropped": {"$exists": True}}, ["index", "dropped"])
    }
    assert dropped == {3: "collapsed", 4: "not relaxed"}
    potential, _ = finished.potential(finished.store.potentials(["number"])[-1]["number"])
    round_ = dataclasses.replace(ROUND, stage=1)
    assert set(predictions(finished, round_, potential).indices) == set(range(20)) - {3, 4, 5}
    # What this very round drops is seen again, if it has to decide again; later rounds do not.
    drop(finished, round_, [(7, {"stage": 1, "reason": "planted"})])
    assert 7 in predictions(finished, round_, potential).indices
    later = dataclasses.replace(round_, number=round_.number + 1)
    assert set(predictions(finished, later, potential).indices) == set(range(20)) - {3, 4, 5, 7}


def test_a_reason_names_height_window_and_sigma(finished):
    structures = finished.store._database.structures
    structures.update_many({}, {"$unset": {"dropped": ""}})
    estimate = estimate_errors(np.zeros(2), np.array([0.01, -0.01]))
    heights = np.array([0.2, 0.04, 0.0])
    found = Predictions(np.array([7, 3, 5]), np.ones((3, 2)), heights, heights, heights)
    drop_above(finished, dataclasses.replace(ROUND, stage=1), found, estimate, 0.04)
    (document,) = finished.store.documents({"dropped": {"$exists": True}}, ["dropped"])
    assert document == {
        "index": 7,
        "dropped": {
            "stage": 1, "reason": "too far above the hull of its stage", "energy_above_hull": 0.2,
            "window": 0.04, "sigma": 0.01, "round": ROUND.number,
        },
    }  # fmt: skip


def test_fractions_are_shares_of_the_atoms():
    assert fractions(np.array([[1, 3], [2, 0]])).tolist() == [[0.25, 0.75], [1.0, 0.0]]
