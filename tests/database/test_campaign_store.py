"""Every write may be repeated, nothing newer is lost."""

import dataclasses

import numpy as np
import pytest

from hullscreen.database.campaign_store import CampaignStore
from hullscreen.database.dft_documents import DFTDocument, ReferenceRelaxation
from hullscreen.database.documents import CampaignDocument, Geometry, Prototype, Relaxed
from hullscreen.database.indexes import INDEXES
from hullscreen.database.round_documents import PotentialDocument, RoundDocument, Selected
from hullscreen.potentials.errors import CampaignError


@pytest.fixture
def store(mongo):
    store = CampaignStore(mongo, "c")
    store.ensure_indexes()
    return store


def geometry(seed, n_atoms=2):
    rng = np.random.default_rng(seed)
    return Geometry(4.0 * np.eye(3) + rng.normal(size=(3, 3)), rng.normal(size=(n_atoms, 3)))


def prototype(index, order=None, **changes):
    values = {
        "campaign": "c", "index": index, "order": index if order is None else order,
        "prototype": f"fcc-{index}", "nsites": 2, "counts": (1, 1), "formula_pretty": "CuPd",
        "chemsys": "Cu-Pd", "elements": ("Cu", "Pd"), "nelements": 2,
        "composition": {"Cu": 1, "Pd": 1},
        "species": np.array([0, 1], dtype=np.int32), "start": geometry(index),
    }  # fmt: skip
    return Prototype(**{**values, **changes})


def relaxed(potential, *, stage=1, outcome="converged", seed=0, grade=1.0):
    return Relaxed(
        stage=stage, potential=potential, outcome=outcome, energy_per_atom=-0.01 * seed,
        evaluations=9, grade=grade, highest_grade=grade, geometry=geometry(100 + seed),
        snapshot=geometry(200 + seed) if grade > 2 else None,
    )  # fmt: skip


def selected(round_, number, key, purpose="learn"):
    return Selected(
        campaign="c", round=round_, number=number, purpose=purpose, structure_index=number,
        grade=2.5, predicted_energy_per_atom=None, key=key,
        species=np.array([0, 1], dtype=np.int32), geometry=geometry(number),
    )  # fmt: skip


def round_document(number, **changes):
    values = {
        "campaign": "c", "number": number, "stage": 1, "purpose": "learn", "potential": number,
        "fits": True, "wave": 10,
    }  # fmt: skip
    return RoundDocument(**{**values, **changes})


def dft(key, *, state="done", energy=-1.0, **changes):
    values = {
        "key": key, "kind": "single_point", "state": state, "campaign": "c", "purpose": "learn",
        "structure_index": 0, "chemsys": "Cu-Pd", "engine": "e", "numbers": (29, 46),
        "geometry": geometry(0), "energy": energy if state == "done" else None,
        "n_evaluations": 1, "cpu_seconds": 0.5,
    }  # fmt: skip
    return DFTDocument(**{**values, **changes})


def everything(store):
    database = store._database
    return {name: list(database[name].find({}).sort("_id", 1)) for name in INDEXES}


# The campaign


def campaign_document(**changes):
    values = {
        "name": "c", "chemsys": "Cu-Pd", "elements": ("Cu", "Pd"), "settings": {"a": 1},
        "engine": {"name": "EMT"}, "directory": "/d",
    }  # fmt: skip
    return CampaignDocument(**{**values, **changes})


def test_the_first_campaign_of_a_name_stays(store):
    store.create(campaign_document())
    store.set_campaign(finished=True)
    store.create(campaign_document(chemsys="Ni-Pt"))
    document = store.campaign()
    assert (document["chemsys"], document["finished"]) == ("Cu-Pd", True)
    assert document["last_updated"] >= document["created_at"]


def test_a_missing_campaign_is_named(store):
    assert store.find_campaign() is None
    with pytest.raises(CampaignError, match=r"no campaign 'c'; `hullscreen submit` or `run`"):
        store.campaign()


def test_processor_time_adds_up_by_part(store):
    store.create(campaign_document())
    for part, seconds in (("training", 1.5), ("relaxation", 2.0), ("training", 0.25)):
        store.add_cpu_seconds(part, seconds)
    assert store.campaign()["cpu_seconds"] == {"training": 1.75, "relaxation": 2.0}


# Structures


def test_prototypes_come_back_bit_by_bit_in_order_of_their_index(store):
    store.insert_prototypes(prototype(i, order=10 - i, nsites=2 + i % 2) for i in (3, 0, 2))
    batch = store.structures({}, geometry="start")
    assert batch.indices.tolist() == [0, 2, 3]
    for i, index in enumerate(batch.indices):
        cell, positions, species = batch.structures.one(i)
        assert cell.tobytes() == geometry(index).cell.tobytes()
        assert positions.tobytes() == geometry(index).positions.tobytes()
        assert species.tolist() == [0, 1]
    assert batch.counts.tolist() == [[1, 1]] * 3
    assert np.isnan(batch.energies_per_atom).all()
    assert batch.potentials.tolist() == [-1] * 3
    assert batch.outcomes == [""] * 3


def test_prototypes_inserted_twice_stay_as_they_are(store):
    store.insert_prototypes(prototype(i) for i in range(3))
    store.save_relaxed({1: relaxed(0)})
    before = everything(store)
    # Half of them are new: those come in, the others stay.
    store.insert_prototypes(prototype(i, prototype="other") for i in range(5))
    after = everything(store)
    assert after["structures"][:3] == before["structures"]
    assert [document["prototype"] for document in after["structures"][3:]] == ["other"] * 2


def test_an_empty_batch_is_a_batch(store):
    batch = store.structures({"index": 5})
    assert len(batch) == 0
    assert len(batch.structures) == 0


def test_structures_without_the_geometry_asked_for_are_left_out(store):
    store.insert_prototypes(prototype(i) for i in range(3))
    store.save_relaxed({0: relaxed(0, grade=1.0), 2: relaxed(0, grade=3.0, seed=2)})
    assert store.structures({}).indices.tolist() == [0, 2]
    candidates = store.structures({}, geometry="relaxed.snapshot")
    assert candidates.indices.tolist() == [2]
    assert candidates.structures.cells[0].tobytes() == geometry(202).cell.tobytes()
    assert candidates.highest_grades.tolist() == [3.0]


def test_a_relaxation_is_never_overwritten_by_an_older_potential(store):
    store.insert_prototypes([prototype(0)])
    energies = []
    for potential, seed in ((4, 1), (4, 2), (2, 3), (5, 4), (0, 5)):
        store.save_relaxed({0: relaxed(potential, seed=seed)})
        energies.append(store.structures({}).energies_per_atom[0])
    # Neither the same potential again nor an older one changes anything.
    assert energies == [-0.01, -0.01, -0.01, -0.04, -0.04]


def test_a_relaxation_of_a_stage_that_is_over_is_not_stored(store):
    store.insert_prototypes([prototype(0)])
    store.save_relaxed({0: relaxed(3)})
    store.advance([0], 2)
    # A worker that was thought lost ends its batch of the first stage.
    store.save_relaxed({0: relaxed(4, seed=1)})
    assert store.structures({}).potentials.tolist() == [3]
    store.save_relaxed({0: relaxed(6, stage=2, seed=2)})
    assert store.structures({}).potentials.tolist() == [6]


def test_the_first_reason_for_dropping_stays_until_a_structure_advances(store):
    store.insert_prototypes(prototype(i) for i in range(2))
    store.drop([(0, {"stage": 1, "reason": "first"}), (1, {"stage": 1, "reason": "first"})])
    store.drop([(0, {"stage": 2, "reason": "second"})])
    store.advance([1], 2)
    documents = list(store.documents({}, ["index", "dropped", "stage"]))
    assert documents == [
        {"index": 0, "dropped": {"stage": 1, "reason": "first"}, "stage": 1},
        {"index": 1, "stage": 2},
    ]


def test_campaigns_do_not_see_each_other(store, mongo):
    other = CampaignStore(mongo, "other")
    store.insert_prototypes([prototype(0)])
    other.insert_prototypes([prototype(0, campaign="other")])
    store.save_relaxed({0: relaxed(0)})
    store.insert_round(round_document(0), [selected(0, 0, "k")])
    assert other.count(**{"relaxed.potential": 0}) == 0
    assert (other.last_round(), other.selected(), other.selected_counts()) == (None, [], {})
    other.drop([(0, {"reason": "no"})])
    assert store.count(dropped={"$exists": True}) == 0


def test_tally_counts_by_fields_and_none_where_one_is_missing(store):
    store.insert_prototypes(prototype(i) for i in range(4))
    store.save_relaxed({0: relaxed(0), 1: relaxed(0), 2: relaxed(0, outcome="collapsed")})
    assert store.tally("relaxed.stage", "relaxed.outcome") == {
        (1, "converged"): 2,
        (1, "collapsed"): 1,
        (None, None): 1,
    }
    assert store.tally("stage", index={"$lt": 3}) == {(1,): 3}


# What a round has still to relax


def orders(store, round_):
    found = store.waiting_orders(round_).tolist()
    # Workflows and steps ask in two ways for the same thing.
    places = {d["index"]: d["order"] for d in store.documents({}, ["order"])}
    waiting = store.waiting(round_, 0, 10**6, limit=1000)
    assert sorted(places[index] for index in waiting.indices.tolist()) == found
    for place in found:
        (index,) = store.waiting(round_, place, place + 1, limit=1000).indices.tolist()
        assert places[index] == place
    assert len(store.waiting(round_, 0, 10**6, limit=1)) == min(len(found), 1)
    return found


def test_a_wave_relaxes_what_is_new_and_what_waits_for_a_newer_potential(store):
    store.insert_prototypes(prototype(i, order=9 - i) for i in range(10))
    wave = round_document(2, wave=6, fits=False)
    assert orders(store, wave) == [0, 1, 2, 3, 4, 5]
    store.save_relaxed(
        {
            9: relaxed(0),
            8: relaxed(0, outcome="extrapolating"),
            7: relaxed(2, outcome="extrapolating"),
            6: relaxed(1, outcome="collapsed"),
        }
    )
    # Order 0 converged, order 2 has just met this very potential; 6 and above are a later wave's.
    assert orders(store, wave) == [1, 3, 4, 5]
    assert orders(store, dataclasses.replace(wave, number=3, potential=3)) == [1, 2, 3, 4, 5]
    assert orders(store, dataclasses.replace(wave, wave=8)) == [1, 3, 4, 5, 6, 7]


def test_a_new_stage_relaxes_all_that_entered_it(store):
    store.insert_prototypes(prototype(i) for i in range(4))
    store.save_relaxed({i: relaxed(1) for i in range(4)})
    store.advance([0, 2], 2)
    begun = round_document(5, stage=2)
    assert orders(store, begun) == [0, 2]
    store.save_relaxed({0: relaxed(5, stage=2)})
    assert orders(store, begun) == [2]


def test_again_relaxes_what_an_older_potential_has_relaxed(store):
    store.insert_prototypes(prototype(i) for i in range(4))
    store.save_relaxed({i: relaxed(5) for i in range(3)})
    store.save_relaxed({1: relaxed(6), 2: relaxed(6, outcome="step_limit")})
    assert orders(store, round_document(6, again=True)) == [0]
    assert orders(store, round_document(7, again=True)) == [0, 1, 2]


# Rounds


def test_the_first_round_of_a_number_stays(store):
    store.insert_round(round_document(0), [selected(0, 0, "a"), selected(0, 1, "b")])
    store.insert_round(round_document(0, purpose="seed"), [selected(0, 0, "c")])
    assert store.round(0).purpose == "learn"
    assert [one.key for one in store.selected(round=0)] == ["a", "b"]


def test_what_a_killed_decision_left_is_replaced(store, mortal):
    with mortal(1) as fate:
        # Half of what was written.
        store.insert_round(round_document(1), [selected(1, i, f"old {i}") for i in range(3)])
    assert fate.dead
    assert store.find_round(1) is None
    assert len(store.selected(round=1)) == 2
    # A round that has not begun has asked for nothing.
    assert store.selected() == []
    assert store.selected_counts() == {}
    store.insert_round(round_document(1), [selected(1, 0, "new")])
    assert [one.key for one in store.selected(round=1)] == ["new"]


def test_selected_structures_come_back_bit_by_bit_and_in_order(store):
    store.insert_round(round_document(1), [selected(1, i, f"k{i}") for i in (2, 0, 1)])
    store.insert_round(round_document(0), [selected(0, 0, "k", purpose="seed")])
    found = store.selected()
    assert [(one.round, one.number) for one in found] == [(0, 0), (1, 0), (1, 1), (1, 2)]
    assert found[-1].geometry.positions.tobytes() == geometry(2).positions.tobytes()
    assert found[-1].species.dtype == np.int32
    assert (found[-1].grade, found[-1].predicted_energy_per_atom) == (2.5, None)
    assert [one.key for one in store.selected(purpose="seed")] == ["k"]
    assert store.selected_counts() == {0: 1, 1: 3}


def test_rounds_come_back_in_order(store):
    third = round_document(2, sigma={"sigma": 0.1}, final_indices=(5, 3), again=True)
    for round_ in (round_document(0), third, round_document(1)):
        store.insert_round(round_, [])
    assert [round_.number for round_ in store.rounds()] == [0, 1, 2]
    assert store.last_round() == third
    store.set_submitted(1)
    assert [round_.submitted for round_ in store.rounds()] == [False, True, False]


def test_a_missing_round_is_named(store):
    assert store.last_round() is None
    with pytest.raises(CampaignError, match="campaign 'c' has no round 7"):
        store.round(7)


def test_the_first_potential_of_a_number_stays(store):
    rows = np.arange(4.0).tobytes()
    first = PotentialDocument("c", 3, 1, 8, "MTP", rows, 12, 0.5, 1e6)
    store.save_potential(first)
    store.save_potential(dataclasses.replace(first, text="other"))
    store.save_potential(dataclasses.replace(first, number=1))
    assert store.potential(3) == first
    assert store.potential(2) is None
    assert store.potentials(["number", "level"]) == [
        {"number": 1, "level": 8},
        {"number": 3, "level": 8},
    ]


# DFT


def test_a_result_that_is_done_is_never_replaced(store):
    store.save_dft(dft("k", energy=-1.0))
    store.save_dft(dft("k", energy=-2.0, campaign="other"))
    store.save_dft(dft("k", state="failed", reason="late"))
    assert store.dft_result("k").energy == -1.0
    assert store.dft_result("k").campaign == "c"


def test_a_failed_result_is_replaced(store):
    store.save_dft(dft("k", state="failed", reason="first"))
    store.save_dft(dft("k", state="failed", reason="second"))
    assert [one.reason for one in store.failed_dft()] == ["second"]
    store.save_dft(dft("k"))
    assert store.failed_dft() == []
    assert store.dft_result("k").state == "done"
    assert len(everything(store)["dft_results"]) == 1


def test_many_keys_are_asked_for_in_parts_and_missing_ones_are_missing(store):
    keys = [f"k{i}" for i in range(2500)]
    store._database.dft_results.insert_many([dft(key).to_bson() for key in keys[::2]])
    assert set(store.dft_results(keys)) == set(keys[::2])
    assert store.dft_results([]) == {}


def test_costs_are_those_this_campaign_paid(store):
    for i in range(3):
        store.save_dft(dft(f"a{i}"))
    store.save_dft(dft("b", purpose="final", kind="relaxation", n_evaluations=7))
    store.save_dft(dft("c", state="failed"))
    store.save_dft(dft("d", campaign="other"))
    assert store.dft_costs() == {
        "final": {
            "calculations": 1, "single_points": 0, "relaxations": 1, "evaluations": 7,
            "failed": 0, "quarantined": 0, "cpu_seconds": 0.5,
        },
        "learn": {
            "calculations": 4, "single_points": 4, "relaxations": 0, "evaluations": 4,
            "failed": 1, "quarantined": 0, "cpu_seconds": 2.0,
        },
    }  # fmt: skip
    assert store.count_dft() == 5
    assert store.last_dft_at() == store.dft_result("c").created_at
    assert CampaignStore(store.connection, "idle").last_dft_at() is None


def test_borrowed_evaluations_are_those_another_campaign_paid(store):
    other = {"campaign": "other", "purpose": "final", "structure_index": 8}
    store.save_dft(dft("relaxation", kind="relaxation", **{**other, "n_evaluations": 0}))
    for i in range(3):
        store.save_dft(dft(f"inside {i}", **other))
    store.save_dft(dft("elsewhere", **{**other, "structure_index": 9}))
    store.save_dft(dft("own"))
    assert store.borrowed_evaluations(["relaxation", "own", "missing"]) == 3
    assert store.borrowed_evaluations(["elsewhere"]) == 1
    assert store.borrowed_evaluations([]) == 0


def test_a_relaxation_goes_with_its_evaluations_but_for_any_campaigns_labels(store, mongo):
    relaxation = dft("r", kind="relaxation", purpose="final", structure_index=3)
    store.save_dft(relaxation)
    for key in ("step", "learnt", "learnt elsewhere"):
        store.save_dft(dft(key, purpose="final", structure_index=3))
    store.save_dft(dft("another's", purpose="final", structure_index=4))
    store.insert_round(round_document(0), [selected(0, 0, "learnt")])
    other = CampaignStore(mongo, "d")
    for name in ("c", "d"):
        CampaignStore(mongo, name).create(campaign_document(name=name))
    theirs = dataclasses.replace(selected(0, 0, "learnt elsewhere"), campaign="d")
    other.insert_round(round_document(0, campaign="d"), [theirs])
    store.remove_dft(relaxation)
    keys = ["r", "step", "learnt", "learnt elsewhere", "another's"]
    assert set(store.dft_results(keys)) == {"learnt", "learnt elsewhere", "another's"}


def test_reference_relaxations_that_are_done_stay(store):
    first = ReferenceRelaxation(
        key="k", state="failed", engine="e", numbers=(29, 46), geometry=geometry(0), energy=None,
        reason="collapsed", message="", n_evaluations=3, max_steps=9, cpu_seconds=0.0,
        wall_seconds=0.0,
    )  # fmt: skip
    done = dataclasses.replace(first, state="done", energy=-1.0, reason="")
    store.save_reference_relaxations([first])
    store.save_reference_relaxations([done, dataclasses.replace(done, key="l")])
    store.save_reference_relaxations([dataclasses.replace(done, energy=-9.0), first])
    found = store.reference_relaxations(["k", "l", "m"])
    assert set(found) == {"k", "l"}
    assert (found["k"].state, found["k"].energy) == ("done", -1.0)


def test_attempts_are_counted_by_run(store):
    counts = [store.count_attempt(*one) for one in (("k", "a"), ("k", "a"), ("k", "b"), ("l", "a"))]
    assert counts == [1, 2, 1, 1]
    store.forget_attempt("k", "a")
    assert store.count_attempt("k", "a") == 2
    # Nothing is below zero.
    for _ in range(3):
        store.forget_attempt("l", "a")
    store.forget_attempt("m", "a")
    assert (store.count_attempt("l", "a"), store.count_attempt("m", "a")) == (1, 1)
