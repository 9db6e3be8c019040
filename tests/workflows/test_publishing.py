"""What is known of energies stands in the structures' documents: whose, and on which hull."""

import numpy as np
import pytest

from hullscreen.database.documents import DFT_RELAXED, ENERGY_SOURCES, SCREEN_1, SCREEN_2
from hullscreen.database.structure_queries import HULL_FIELDS, KNOWN_FIELDS
from hullscreen.workflows.hull import convex_hull
from hullscreen.workflows.publishing import publish_hull
from hullscreen.workflows.results import final_hull
from hullscreen.workflows.rounds import fractions

# Sums of the same numbers in another order, eV/atom.
ROUNDING = 1e-9


def structures_in(store):
    return {one["index"]: one for one in store.connection.database["structures"].find()}


def test_documents_say_what_the_hull_says(small_campaign):
    result = final_hull(small_campaign.store)
    documents = structures_in(small_campaign.store)
    assert {i for i, one in documents.items() if "is_stable" in one} == {
        entry.structure_index for entry in result.entries
    }
    for entry in result.entries:
        said, published = result.document(entry), documents[entry.structure_index]
        said["symmetry"].pop("symprec")
        assert published["energy_from"] == DFT_RELAXED
        for name in (*KNOWN_FIELDS[:3], *HULL_FIELDS, "chemsys", "composition", "nelements"):
            assert published[name] == said[name], name
        assert published["elements"] == sorted(said["composition"])


def test_every_structure_that_a_potential_relaxed_has_a_height(small_campaign):
    documents = structures_in(small_campaign.store).values()
    sources = {one["energy_from"] for one in documents}
    assert {SCREEN_1, DFT_RELAXED} <= sources <= set(ENERGY_SOURCES)
    for one in documents:
        assert one["relaxed"]["outcome"] == "converged"
        assert one["energy_above_hull"] >= 0
        assert one["relaxations"][-1]["energy_per_atom"] == one["relaxed"]["energy_per_atom"]
        if "energy_above_hull" in one.get("dropped", {}):
            assert one["energy_above_hull"] == one["dropped"]["energy_above_hull"]


@pytest.mark.parametrize("source", [SCREEN_1, SCREEN_2])
def test_heights_are_those_above_the_corners_that_a_round_has_kept(small_campaign, source):
    store = small_campaign.store
    documents = structures_in(store)
    found = [d for d in documents.values() if d["energy_from"] == source]
    assert found
    for one in found:
        corners = store.round(one["dropped"]["round"]).predicted_hull
        counts = np.array([documents[c["structure_index"]]["counts"] for c in corners])
        energies = np.array([c["energy_per_atom"] for c in corners])
        for corner in corners:
            structure = documents[corner["structure_index"]]
            assert corner["formula_pretty"] == structure["formula_pretty"]
        shares = fractions(np.array([one["counts"]]))
        elements = [energies[counts[:, k] == counts.sum(axis=1)].min() for k in range(2)]
        formation = one["energy_per_atom"] - shares[0] @ elements
        assert one["formation_energy_per_atom"] == pytest.approx(formation, abs=ROUNDING)
        hull = convex_hull(fractions(counts), energies).hull_energy_at(shares)[0]
        assert one["energy_above_hull"] == pytest.approx(formation - hull, abs=ROUNDING)


def test_what_is_published_again_changes_nothing(copied_campaign):
    before = structures_in(copied_campaign)
    assert publish_hull(copied_campaign) == 0
    assert structures_in(copied_campaign) == before


def test_what_is_no_longer_relaxed_is_taken_back(copied_campaign):
    before = structures_in(copied_campaign)
    entry = next(e for e in final_hull(copied_campaign).stable if len(set(e.symbols)) == 2)
    index = entry.structure_index
    copied_campaign.save_final(index, {"state": "failed", "reason": "scf", "key": entry.result.key})
    assert publish_hull(copied_campaign) >= 1
    after = structures_in(copied_campaign)
    assert not after[index].keys() & {*HULL_FIELDS, *KNOWN_FIELDS}
    for other in final_hull(copied_campaign).entries:
        assert after[other.structure_index]["energy_above_hull"] == other.energy_above_hull
    # As it was, it is again.
    copied_campaign.save_final(index, before[index]["final"])
    publish_hull(copied_campaign)
    again = structures_in(copied_campaign)
    for one in (*before.values(), *again.values()):
        del one["last_updated"]
    assert again == before


def test_without_the_elements_there_is_no_hull(copied_campaign):
    for entry in final_hull(copied_campaign).stable:
        if entry.formula_pretty == "Cu":
            copied_campaign.save_final(entry.structure_index, {"state": "failed", "reason": "scf"})
    publish_hull(copied_campaign)
    assert not [one for one in structures_in(copied_campaign).values() if "is_stable" in one]
