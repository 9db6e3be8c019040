"""A structure as the page shows it: the best geometry, its numbers, its story."""

import json
import math

import numpy as np
import pytest

from hullscreen.launch.dashboard.hull_data import hull_data
from hullscreen.launch.dashboard.structure_data import (
    structure_data,
    structure_facts,
    structure_named,
    wrapped,
)
from hullscreen.potentials.errors import InputError
from hullscreen.workflows.results import final_hull


def facts_of(structure):
    return {name.partition(" (")[0]: value for name, value in structure_facts(structure)}


def test_a_stable_structure_is_shown_as_dft_has_relaxed_it(small_campaign):
    store = small_campaign.store
    entry = next(one for one in final_hull(store).stable if min(one.counts) > 0)
    found = structure_data(store, entry.structure_index)
    assert found["state"] == "relaxed with DFT"
    np.testing.assert_allclose(found["cell"], entry.result.geometry.cell)
    assert sorted(found["symbols"]) == sorted(entry.symbols)
    facts = facts_of(found)
    assert facts["formation energy"] == (
        f"{1e3 * entry.formation_energy_per_atom:.1f} meV/atom".replace("-", "−")
    )
    assert facts["volume"] == f"{entry.volume:.2f} Å³"
    assert entry.symmetry["symbol"] in facts["space group"]
    assert any("stable" in sentence for sentence in found["story"])
    json.dumps(found, allow_nan=False)


def test_what_screening_dropped_is_shown_as_the_potential_relaxed_it(small_campaign):
    store = small_campaign.store
    (document,) = store.search(
        {"dropped.stage": 1, "relaxed.outcome": "converged"}, ["index"], sort=["index"], limit=1
    )
    found = structure_data(store, document["index"])
    assert found["state"] == "relaxed with the potential"
    assert any("left it behind" in sentence for sentence in found["story"])


def test_a_prototype_is_shown_as_it_begins(make_campaign):
    from hullscreen.workflows.campaign import add_prototypes

    campaign = make_campaign()
    add_prototypes(campaign)
    found = structure_data(campaign.store, 0)
    assert found["state"] == "prototype, not relaxed yet"
    assert len(found["positions"]) == len(found["symbols"]) == found["nsites"]


def test_a_person_names_a_structure_by_number_or_formula(small_campaign):
    store = small_campaign.store
    entries = hull_data(store)["entries"]
    first = entries[0]
    assert structure_named(store, "12", entries) == 12
    assert structure_named(store, first["formula"], entries) == first["index"]
    # Spelt otherwise, and before DFT has relaxed anything: the lowest of those with a height.
    (lowest,) = store.search(
        {"formula_pretty": "CuPd", "energy_above_hull": {"$gte": 0.0}},
        ["index"], sort=["energy_above_hull", "index"], limit=1,
    )  # fmt: skip
    assert structure_named(store, "Pd2Cu2", []) == lowest["index"]
    with pytest.raises(InputError, match="no structure of the composition Cu97Pd"):
        structure_named(store, "Cu97Pd", entries)


def test_a_number_that_is_not_there(small_campaign):
    with pytest.raises(InputError, match="has no structure 100000"):
        structure_data(small_campaign.store, 100_000)


@pytest.mark.parametrize(
    "change",
    [
        {"$unset": {"species": ""}},
        {"$set": {"species": "text"}},
        {"$set": {"relaxed.geometry": {"cell": b"123"}}},
        {"$unset": {"start": "", "relaxed": ""}},
    ],
)
def test_a_damaged_document_is_a_sentence(copied_campaign, mongo, change):
    mongo.database.structures.update_one({"index": 0}, {"$unset": {"final": ""}})
    mongo.database.structures.update_one({"index": 0}, change)
    with pytest.raises(InputError, match="cannot be read"):
        structure_data(copied_campaign, 0)


def test_numbers_that_are_none_are_left_out(copied_campaign, mongo):
    hostile = {
        "energy_above_hull": "<b>high</b>", "density": math.nan, "volume": True,
        "symmetry": "cubic", "prototype": "<script>alert(1)</script>",
    }  # fmt: skip
    mongo.database.structures.update_one({"index": 0}, {"$set": hostile})
    found = structure_data(copied_campaign, 0)
    assert (
        facts_of(found)
        .keys()
        .isdisjoint({"energy above the hull", "density", "volume", "space group"})
    )
    # Text it is; the page shows it as text.
    assert found["prototype"] == hostile["prototype"]


def test_atoms_are_moved_into_the_cell():
    cell = np.diag([2.0, 3.0, 4.0])
    positions = np.array([[-0.5, 3.0, 9.0], [2.0 - 1e-9, 0.0, 0.0]])
    np.testing.assert_allclose(wrapped(cell, positions), [[1.5, 0, 1], [-1e-9, 0, 0]], atol=1e-12)
