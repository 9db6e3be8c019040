"""The version of a database: written once, respected, and brought up to date."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from pymongo.collection import Collection

from hullscreen.database.campaign_store import CampaignStore
from hullscreen.database.collections import ascending
from hullscreen.database.documents import SCHEMA_VERSION, CampaignDocument
from hullscreen.database.indexes import INDEXES
from hullscreen.database.schema import check_schema, ensure_schema, migrate, stored_version
from hullscreen.potentials.errors import DatabaseError


def campaign(name="c"):
    return CampaignDocument(
        name=name, chemsys="Cu-Pd", elements=("Cu", "Pd"), settings={}, engine={}, directory="d"
    )


@pytest.fixture
def old(mongo):
    """A database of a time without versions, with an index that was replaced since."""
    database = mongo.database
    for collection, indexes in INDEXES.items():
        for fields, unique in indexes[:1]:
            database[collection].create_index(ascending(fields), unique=unique)
    database["structures"].create_index([("campaign", 1), ("stage", 1), ("order", 1)])
    # The same fields as today's, once without the promise that there is only one.
    database["selected"].drop_indexes()
    database["selected"].create_index([("campaign", 1), ("round", 1), ("number", 1)])
    database["structures"].create_index([("nsites", 1)], name="one of my own")
    database["campaigns"].insert_one({"name": "old"})
    return mongo


def indexes_of(mongo):
    return {
        collection: {
            (tuple(field for field, _ in index["key"]), index.get("unique", False))
            for name, index in mongo.database[collection].index_information().items()
            if name not in ("_id_", "one of my own")
        }
        for collection in INDEXES
    }


WANTED = {
    collection: {(tuple(fields), unique) for fields, unique in indexes}
    for collection, indexes in INDEXES.items()
}


def test_the_first_campaign_brings_the_version(mongo):
    assert stored_version(mongo) is None
    check_schema(mongo)
    assert mongo.database.list_collection_names() == []
    CampaignStore(mongo, "c").create(campaign())
    document = mongo.database["schema"].find_one()
    assert (document["_id"], document["version"]) == ("schema", SCHEMA_VERSION)
    assert document["hullscreen"]
    CampaignStore(mongo, "d").create(campaign("d"))
    assert mongo.database["schema"].find_one() == document


def test_many_may_register_at_once(mongo):
    names = [f"c{i}" for i in range(16)]
    with ThreadPoolExecutor(len(names)) as pool:
        registered = [pool.submit(CampaignStore(mongo, n).create, campaign(n)) for n in names]
        assert [future.result() for future in registered] == [None] * len(names)
    assert mongo.database["schema"].count_documents({}) == 1
    assert mongo.database["campaigns"].count_documents({}) == len(names)


def test_a_newer_database_is_left_alone(mongo):
    newer = {"_id": "schema", "version": SCHEMA_VERSION + 1, "hullscreen": "9.1"}
    mongo.database["schema"].insert_one(newer)
    for action in (check_schema, ensure_schema, lambda connection: list(migrate(connection))):
        with pytest.raises(DatabaseError, match=r"by hullscreen 9\.1 .*update hullscreen"):
            action(mongo)
    with pytest.raises(DatabaseError, match="update hullscreen"):
        CampaignStore(mongo, "c").create(campaign())
    assert mongo.database.list_collection_names() == ["schema"]
    assert list(mongo.database["schema"].find()) == [newer]


def test_an_old_database_is_read_and_not_written_before_it_is_migrated(old):
    check_schema(old)
    with pytest.raises(DatabaseError, match=r"has schema 0.*run `hullscreen db migrate"):
        CampaignStore(old, "c").create(campaign())
    assert old.database["campaigns"].count_documents({}) == 1
    assert len(list(migrate(old))) == SCHEMA_VERSION
    assert stored_version(old) == SCHEMA_VERSION
    CampaignStore(old, "c").create(campaign())
    assert list(migrate(old)) == []


def test_indexes_that_nothing_uses_go_and_those_of_users_stay(old):
    sentences = list(migrate(old))
    assert "2 indexes" in sentences[0]
    assert indexes_of(old) == WANTED
    assert "one of my own" in old.database["structures"].index_information()


class KilledError(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("lives", [0, 1, 2, 10])
def test_a_migration_that_is_killed_goes_on(old, monkeypatch, lives):
    calls = []

    def dying(original):
        def write(*args, **options):
            if len(calls) == lives:
                raise KilledError
            calls.append(original)
            return original(*args, **options)

        return write

    with monkeypatch.context() as patch:
        for name in ("drop_index", "create_index", "update_one"):
            patch.setattr(Collection, name, dying(getattr(Collection, name)))
        with pytest.raises(KilledError):
            list(migrate(old))
    assert stored_version(old) == 0
    list(migrate(old))
    assert stored_version(old) == SCHEMA_VERSION
    assert indexes_of(old) == WANTED
