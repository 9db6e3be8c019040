"""Which calculations tell what others will cost."""

import datetime as dt

import numpy as np
import pytest

from hullscreen.database import cost_queries
from hullscreen.database.campaign_store import CampaignStore
from hullscreen.database.dft_documents import DFTDocument
from hullscreen.database.documents import Geometry

NOON = dt.datetime(2026, 11, 21, 12, tzinfo=dt.UTC)


@pytest.fixture
def store(mongo):
    store = CampaignStore(mongo, "mine")
    store.ensure_indexes()
    return store


def save(store, key, *, minutes=0, **changes):
    values = {
        "kind": "single_point", "state": "done", "campaign": "theirs", "purpose": "learn",
        "structure_index": 0, "chemsys": "Al-Ni", "engine": "qe", "numbers": (13, 28),
        "geometry": Geometry(3.0 * np.eye(3), np.zeros((2, 3))), "energy": -1.0,
        "cpu_seconds": 5.0, "created_at": NOON + dt.timedelta(minutes=minutes),
    }  # fmt: skip
    store.save_dft(DFTDocument(**{"key": key, **values, **changes}))


def test_calculations_of_the_same_engine_and_of_some_of_the_elements(store):
    save(store, "binary")
    save(store, "element", chemsys="Ni", minutes=2)
    save(store, "another engine", engine="vasp")
    save(store, "another element", chemsys="Al-Ti")
    save(store, "failed", state="failed")
    save(store, "read from a file", cpu_seconds=0.0)
    save(store, "relaxation", kind="relaxation")
    # Whoever paid; the newest first.
    found = store.costs_of(["qe"], ("Ni", "Al"), "single_point")
    assert [document.key for document in found] == ["element", "binary"]
    assert [d.key for d in store.costs_of(["qe"], ("Ni", "Al"), "relaxation")] == ["relaxation"]
    ternary = store.costs_of(["qe"], ("Ti", "Al", "Ni"), "single_point")
    assert {document.key for document in ternary} == {"element", "binary", "another element"}


def test_the_newest_are_enough(store, monkeypatch):
    monkeypatch.setattr(cost_queries, "NEWEST", 2)
    for minutes in (3, 1, 2):
        save(store, str(minutes), minutes=minutes)
    found = store.costs_of(["qe"], ("Al", "Ni"), "single_point")
    assert [document.key for document in found] == ["3", "2"]


def test_an_index_gives_them_in_their_order(store, mongo):
    save(store, "one")
    plan = mongo.database.command(
        "explain",
        {
            "find": "dft_results",
            "filter": {"engine": "qe", "kind": "single_point", "state": "done"},
            "sort": {"created_at": -1},
        },
    )
    stages = str(plan["queryPlanner"]["winningPlan"])
    assert "IXSCAN" in stages
    assert "'SORT'" not in stages
