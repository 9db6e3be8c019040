"""What is known of energies stands in the structures' documents: whose, and on which hull."""

from datetime import timedelta

import numpy as np
import pytest

from hullscreen.database.campaign_store import CampaignStore
from hullscreen.database.documents import DFT_RELAXED, ENERGY_SOURCES, SCREEN_1, SCREEN_2
from hullscreen.database.publications import BEGAN_AT, PUBLICATION
from hullscreen.database.structure_queries import HULL_FIELDS, KNOWN_FIELDS
from hullscreen.workflows import decisions, label_list, quarantine
from hullscreen.workflows.campaign import open_campaign
from hullscreen.workflows.hull import convex_hull
from hullscreen.workflows.publishing import publish_hull, publish_hulls_of
from hullscreen.workflows.results import final_hull
from hullscreen.workflows.rounds import fractions
from hullscreen.workflows.tending import Tender

# Sums of the same numbers in another order, eV/atom.
ROUNDING = 1e-9


def structures_in(store):
    """Documents of its campaign by index, without the number of whoever came by last."""
    found = store.connection.database["structures"].find({"campaign": store.name})
    return {one["index"]: {k: v for k, v in one.items() if k != PUBLICATION} for one in found}


def said_of(store):
    """What the documents say of the hull: height and stability by index."""
    return {
        index: (one["energy_above_hull"], one["is_stable"])
        for index, one in structures_in(store).items()
        if "is_stable" in one
    }


def found_of(store):
    """The same, as the hull has it."""
    return {
        entry.structure_index: (entry.energy_above_hull, entry.is_stable)
        for entry in final_hull(store).entries
    }


def compound(store):
    """A stable structure of two elements."""
    return next(entry for entry in final_hull(store).stable if len(set(entry.symbols)) == 2)


def put_aside(store, key):
    store.quarantine(key, reason="wrong", judged="range", judged_by="somebody")


@pytest.fixture
def another(copied_campaign, mongo):
    """Another campaign of the database that has found the same."""
    for name in ("campaigns", "structures", "rounds", "selected"):
        field = "name" if name == "campaigns" else "campaign"
        copies = [{**one, field: "another"} for one in mongo.database[name].find({}, {"_id": 0})]
        mongo.database[name].insert_many(copies)
    return CampaignStore(mongo, "another")


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
    entry = compound(copied_campaign)
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


class Stopped(CampaignStore):
    """Stands still between what it has read and what it writes, while ``meanwhile`` happens."""

    def publish(self, *given, **named):
        self.meanwhile()
        super().publish(*given, **named)


def test_whoever_was_stopped_writes_nothing_over_what_was_read_later(copied_campaign, mongo):
    key, stopped = compound(copied_campaign).result.key, Stopped(mongo, "cu-pd")
    seen = []

    def put_aside_and_publish():
        copied_campaign.release_dft(key)
        publish_hull(copied_campaign)
        seen.append(said_of(copied_campaign))

    put_aside(copied_campaign, key)
    stopped.meanwhile = put_aside_and_publish
    # It has found that the result does not count, and comes too late.
    assert publish_hull(stopped) > 0
    assert said_of(copied_campaign) == seen[0] == found_of(copied_campaign)


def test_nothing_is_said_of_a_relaxation_that_was_not_read(copied_campaign, mongo):
    entry, stopped = compound(copied_campaign), Stopped(mongo, "cu-pd")
    failed = {"state": "failed", "reason": "scf", "key": entry.result.key}
    put_aside(copied_campaign, entry.result.key)
    publish_hull(copied_campaign)
    copied_campaign.release_dft(entry.result.key)
    stopped.meanwhile = lambda: copied_campaign.save_final(entry.structure_index, failed)
    publish_hull(stopped)
    assert entry.structure_index not in said_of(copied_campaign)


def test_whoever_was_killed_is_followed_by_somebody(copied_campaign, mortal, mongo):
    result = {"key": compound(copied_campaign).result.key}
    for lives in range(20):
        state = "done" if lives % 2 else "quarantined"
        mongo.database["dft_results"].update_one(result, {"$set": {"state": state}})
        copied_campaign.note_hull_change()
        with mortal(lives) as fate:
            publish_hull(copied_campaign)
        if not fate.dead:
            break
        publish_hull(copied_campaign, if_older_s=0)
        assert said_of(copied_campaign) == found_of(copied_campaign)
    assert lives > 4
    # Nothing lags.
    assert copied_campaign.begin_publication(if_older_s=0) is None


def test_relaxations_that_end_soon_after_one_another_wait_to_be_written(copied_campaign):
    entry = compound(copied_campaign)
    publish_hull(copied_campaign)
    put_aside(copied_campaign, entry.result.key)
    copied_campaign.note_hull_change()
    before = said_of(copied_campaign)
    assert publish_hull(copied_campaign, if_older_s=3600) == 0
    assert said_of(copied_campaign) == before
    began_at = copied_campaign.campaign()[BEGAN_AT]
    copied_campaign.set_campaign(**{BEGAN_AT: began_at - timedelta(hours=1)})
    assert publish_hull(copied_campaign, if_older_s=3600) > 0
    assert said_of(copied_campaign) == found_of(copied_campaign) != before


def judge_wrong(store, key):
    round_ = store.last_round()
    verdicts = quarantine.Verdicts({key: (quarantine.RELAXATION, "it went uphill")})
    quarantine.note(open_campaign(store), round_, verdicts)


def test_campaigns_that_share_a_result_say_the_same_of_it(copied_campaign, another):
    entry = compound(copied_campaign)
    for change in (judge_wrong, label_list.release):
        before = said_of(another)
        change(copied_campaign, entry.result.key)
        for store in (copied_campaign, another):
            assert said_of(store) == found_of(store) != before


def test_what_another_campaign_removes_is_claimed_no_longer_until_it_is_there_again(
    copied_campaign, another
):
    entry, before = compound(copied_campaign), said_of(another)
    label_list.recompute(copied_campaign, entry.result.key)
    assert not said_of(copied_campaign)
    assert not said_of(another)
    copied_campaign.save_dft(entry.result)
    decisions.decide(open_campaign(copied_campaign), copied_campaign.last_round())
    assert said_of(copied_campaign) == said_of(another) == before


def test_campaigns_with_other_results_are_left_alone(copied_campaign, another):
    key = compound(copied_campaign).result.key
    another.connection.database["structures"].update_many(
        {"campaign": "another"}, {"$unset": {"final": ""}}
    )
    before = another.campaign()
    publish_hulls_of(copied_campaign, [key])
    assert another.campaign() == before


def test_damage_of_another_campaign_hinders_none(copied_campaign, another, mongo):
    mongo.database["structures"].update_many({"campaign": "another"}, {"$unset": {"counts": ""}})
    judge_wrong(copied_campaign, compound(copied_campaign).result.key)
    assert said_of(copied_campaign) == found_of(copied_campaign)
    mongo.database["structures"].update_many({}, {"$unset": {"counts": ""}})
    with pytest.raises(KeyError):
        publish_hulls_of(copied_campaign, copied_campaign.final_keys())


def test_who_looks_after_a_damaged_campaign_goes_on(copied_campaign, launchpad, mongo):
    mongo.database["structures"].update_many({}, {"$unset": {"counts": ""}})
    mongo.database["campaigns"].update_one({}, {"$unset": {BEGAN_AT: ""}})
    copied_campaign.note_hull_change()
    Tender(launchpad, open_campaign(copied_campaign)).look()
    assert BEGAN_AT in copied_campaign.campaign(), "nobody has tried"
