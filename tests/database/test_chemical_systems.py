"""Databases of the schema before this one get the fields that people ask for."""

import pytest

from hullscreen.database.campaign_store import CampaignStore
from hullscreen.database.chemical_systems import add_missing_fields
from hullscreen.database.documents import DFT_RELAXED
from hullscreen.database.schema import migrate, require_current, stored_version
from hullscreen.database.structure_queries import HULL_FIELDS, KNOWN_FIELDS
from hullscreen.potentials.errors import DatabaseError
from hullscreen.workflows.publishing import publish_hull

SYSTEM = ("chemsys", "elements", "nelements", "composition")
NEW = (*SYSTEM, "last_updated", "relaxations", *KNOWN_FIELDS, *HULL_FIELDS)


def structures_in(store):
    found = store.connection.database["structures"].find({}, {"_id": 0}).sort("index", 1)
    return list(found)


@pytest.fixture
def old(copied_campaign, mongo):
    """The small campaign as the version before has left it, and its structures as they are now."""
    now = structures_in(copied_campaign)
    mongo.database.structures.update_many({}, {"$unset": dict.fromkeys(NEW, "")})
    mongo.database.rounds.update_many({}, {"$unset": {"predicted_hull": "", "labelled_hull": ""}})
    mongo.database["schema"].update_one({}, {"$set": {"version": 1}}, upsert=True)
    return copied_campaign, now


def same_as_now(store, now):
    """Whether migrated structures say what new ones say, as far as anybody has kept it."""
    for one, other in zip(structures_in(store), now, strict=True):
        assert {name: one[name] for name in SYSTEM} == {name: other[name] for name in SYSTEM}
        assert one["last_updated"]
        assert one["relaxations"] == other["relaxations"][-1:]
        if other["energy_from"] == DFT_RELAXED:
            assert {n: one[n] for n in (*KNOWN_FIELDS, *HULL_FIELDS)} == {
                n: other[n] for n in (*KNOWN_FIELDS, *HULL_FIELDS)
            }
        elif "energy_above_hull" in other["dropped"]:
            for name in ("energy_above_hull", "energy_from"):
                assert one[name] == other[name]


def test_a_migrated_database_answers_as_a_new_one(old, mongo):
    store, now = old
    with pytest.raises(DatabaseError, match=r"has schema 1.*db migrate"):
        require_current(mongo)
    (sentence,) = migrate(mongo)
    assert f"{len(now)} structures" in sentence
    assert stored_version(mongo) == 2
    publish_hull(store)
    same_as_now(store, now)
    # Rounds of that time are read as well.
    assert store.last_round().predicted_hull == ()


def test_killed_anywhere_it_goes_on(old, mongo, mortal, put_back, monkeypatch):
    from hullscreen.database import chemical_systems

    monkeypatch.setattr(chemical_systems, "PLACES_AT_ONCE", 10)
    store, now = old
    before = {name: list(mongo.database[name].find()) for name in ("structures", "schema")}
    rest = {
        name: list(mongo.database[name].find())
        for name in mongo.database.list_collection_names()
        if name not in before
    }
    for lives in range(20):
        put_back(mongo, before | rest)
        with mortal(lives) as fate:
            list(migrate(mongo))
        list(migrate(mongo))
        publish_hull(store)
        same_as_now(store, now)
        if not fate.dead:
            break
    assert lives > 3


def test_it_changes_nothing_that_is_there(copied_campaign, mongo):
    before = structures_in(copied_campaign)
    assert add_missing_fields(mongo, copied_campaign.name) == 0
    assert add_missing_fields(mongo, "another") == 0
    assert structures_in(copied_campaign) == before


def test_structures_that_nobody_has_relaxed_have_a_system_only(old, mongo):
    store, now = old
    changes = {"relaxed": "", "dropped": "", "final": ""}
    mongo.database.structures.update_many({}, {"$unset": changes, "$set": {"stage": 1}})
    list(migrate(mongo))
    for one, other in zip(structures_in(store), now, strict=True):
        assert one["chemsys"] == other["chemsys"]
        assert not one.keys() & {"relaxations", *KNOWN_FIELDS, *HULL_FIELDS}


def test_campaigns_are_migrated_one_by_one(old, mongo):
    store, _ = old
    structure = mongo.database.structures.find_one({}, {"_id": 0})
    mongo.database.structures.insert_one({**structure, "campaign": "other", "counts": [0, 3, 1]})
    campaign = mongo.database.campaigns.find_one({}, {"_id": 0})
    mongo.database.campaigns.insert_one(
        {**campaign, "name": "other", "elements": ["Cu", "Pd", "Au"]}
    )
    list(migrate(mongo))
    other = CampaignStore(mongo, "other").search({}, ["composition", "chemsys"], sort=["index"])
    assert other == [{"composition": {"Au": 1, "Pd": 3}, "chemsys": "Au-Pd"}]
    assert store.count(chemsys={"$in": ["Cu", "Pd", "Cu-Pd"]}) == store.count()
