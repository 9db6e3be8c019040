"""The embedded server's processor time and memory in a campaign's costs."""

import dataclasses
from types import SimpleNamespace

import pytest

from hullscreen.database.campaign_store import CampaignStore
from hullscreen.database.documents import CampaignDocument
from hullscreen.launch.server_costs import ServerCosts


@pytest.fixture
def session(mongo):
    """What an open campaign has of database and documents."""
    store = CampaignStore(mongo, "costs")
    store.ensure_indexes()
    store.create(
        CampaignDocument(
            name="costs", chemsys="Cu-Pd", elements=("Cu", "Pd"), settings={}, engine={},
            directory="",
        )
    )  # fmt: skip
    return SimpleNamespace(connection=mongo, store=store)


def keep_the_server_busy(session):
    for number in range(300):
        session.store.set_campaign(number=number)


def test_what_the_server_spends_is_charged_once(session):
    costs = ServerCosts(session)
    before, _ = session.connection.server_usage()
    costs.charge(now=True)
    # What it spent before belongs to nobody here.
    assert session.store.campaign()["cpu_seconds"] == {}
    keep_the_server_busy(session)
    costs.charge(now=True)
    keep_the_server_busy(session)
    costs.charge(now=True)
    after, peak = session.connection.server_usage()
    document = session.store.campaign()
    assert 0.0 < document["cpu_seconds"]["mongod"] <= after - before
    # A server with its caches; the test machine has no terabyte.
    assert 20 * 2**20 < document["peak_memory_bytes"]["mongod"] <= peak < 2**40


def test_a_server_that_was_started_anew_counts_from_zero(session):
    costs = ServerCosts(session, charged=1e9)
    costs.charge(now=True)
    spent, _ = session.connection.server_usage()
    assert 0.0 < session.store.campaign()["cpu_seconds"]["mongod"] <= spent


def test_it_is_asked_every_few_seconds_only(session):
    costs = ServerCosts(session)
    costs.charge()
    charged_at = costs.charged_at
    costs.charge()
    assert costs.charged_at == charged_at


def test_the_server_of_others_is_not_charged(session):
    theirs = SimpleNamespace(
        connection=dataclasses.replace(session.connection, embedded=False), store=session.store
    )
    costs = ServerCosts(theirs)
    costs.charge(now=True)
    costs.charge(now=True)
    assert session.store.campaign()["cpu_seconds"] == {}


def test_the_largest_memory_stays(session):
    for n_bytes in (5, 9, 7):
        session.store.note_peak_memory("worker", n_bytes)
    assert session.store.campaign()["peak_memory_bytes"] == {"worker": 9}
