"""One look serves all viewers, rests long, and outlives its server."""

import math
import threading
import time
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from hullscreen.database.campaign_store import CampaignStore
from hullscreen.database.connection import Connection, connect
from hullscreen.database.round_documents import RoundDocument
from hullscreen.database.structure_queries import HULL_FIELDS, KNOWN_FIELDS
from hullscreen.launch.dashboard import reader
from hullscreen.launch.dashboard.learning_data import learning_curves
from hullscreen.launch.dashboard.reader import (
    CampaignReader,
    CampaignReaders,
    Snapshot,
    panel_of,
    seen_now,
)
from hullscreen.launch.dashboard.status_words import status_sentence
from hullscreen.potentials.errors import CampaignError, DatabaseError
from hullscreen.workflows.results import final_hull

PANELS = {"jobs", "funnel", "hull", "learning", "grades", "cpu", "failures", "stable", "quick"}


def troubles(snapshot):
    return {name: panel.trouble for name, panel in snapshot.panels.items() if panel.trouble}


def asked_for(snapshot):
    return datetime.now(UTC) - (snapshot.asked_at or datetime.now(UTC))


def wait_until(holds):
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.02)


def test_a_look_fills_every_panel(small_campaign):
    snapshot = seen_now(small_campaign.store, small_campaign.connection)
    assert snapshot.panels.keys() >= PANELS
    assert troubles(snapshot) == {}
    assert status_sentence(snapshot, snapshot.seen_at) == "cu-pd (Cu–Pd): finished."


def test_what_did_not_change_stays_the_same_object(small_campaign):
    looking = CampaignReader(small_campaign.store, small_campaign.connection, Path())
    looking.look(everything=True)
    before = looking.snapshot.panels
    looking.look(everything=True)
    after = looking.snapshot.panels
    assert {name for name in PANELS if after[name] is not before[name]} == set()


def test_what_changes_has_another_version(copied_campaign, mongo):
    looking = CampaignReader(copied_campaign, mongo, Path())
    looking.look(everything=True)
    before = looking.snapshot.panels
    copied_campaign.add_cpu_seconds("training", 1000.0)
    looking.look(everything=True)
    after = looking.snapshot.panels
    changed = {name for name in PANELS if after[name].version != before[name].version}
    assert changed == {"cpu"}


def test_the_slow_part_rests_many_times_as_long_as_it_took(small_campaign, monkeypatch):
    looking = CampaignReader(small_campaign.store, small_campaign.connection, Path())
    looked = []
    slowly = looking._look_slowly

    def counted():
        began = time.monotonic()
        found = slowly()
        looked.append(time.monotonic() - began)
        return found

    monkeypatch.setattr(looking, "_look_slowly", counted)
    looking.look()
    ended = time.monotonic()
    looking.look()
    assert len(looked) == 1
    assert looking._next_slow - ended > (reader.REST_AFTER_LOOKING - 2) * looked[0]
    # When it has rested, it looks again.
    looking._next_slow = 0.0
    looking.look()
    assert len(looked) == 2


def test_readers_read_in_the_background_and_end(small_campaign):
    source = (small_campaign.store, small_campaign.connection, small_campaign.directory)
    before = threading.active_count()
    with closing(CampaignReaders([source])) as readers:
        assert readers.names == ["cu-pd"]
        wait_until(lambda: readers.by_name["cu-pd"].snapshot.seen_at is not None)
    wait_until(lambda: threading.active_count() <= before)


def test_a_dead_server_leaves_what_was_seen(start_mongod, small_campaign, put_back, monkeypatch):
    # The patience of a query with a server that is away; the page waits for none of it.
    monkeypatch.setattr(reader, "QUICK_REST_S", 0.05)
    server = start_mongod()
    database = connect(server.uri(), "campaigns", timeout_s=1.0)
    connection = Connection(database, server.uri(), "campaigns", embedded=False)
    names = small_campaign.connection.database.list_collection_names()
    everything = {name: list(small_campaign.connection.database[name].find({})) for name in names}
    put_back(connection, everything)
    store = CampaignStore(connection, "cu-pd")
    store.ensure_indexes()
    looking = CampaignReader(store, connection, Path())
    looking.look(everything=True)
    looking.start()
    with closing(looking):
        server.kill()
        # Longer than any look that the server has still answered.
        wait_until(lambda: asked_for(looking.snapshot) > timedelta(seconds=1))
        seen = looking.snapshot
        assert troubles(seen) == {}
        assert not seen.is_old(seen.seen_at)
        later = seen.seen_at + timedelta(minutes=5)
        assert seen.is_old(later)
        said = status_sentence(seen, later)
        assert said.startswith("cu-pd (Cu–Pd): finished.")
        assert f"last seen at {seen.seen_at:%Y-%m-%d %H:%M:%S} UTC" in said
        server.start()
        wait_until(lambda: looking.snapshot.seen_at > seen.seen_at)
    database.client.close()


def test_a_rest_is_no_silence(small_campaign):
    """However long the thread rests after a slow look, the database is not said to be away."""
    seen = seen_now(small_campaign.store, small_campaign.connection)
    assert not seen.is_old(seen.seen_at + timedelta(hours=1))


def test_before_the_first_answer_the_page_says_so():
    now = datetime.now(UTC)
    assert status_sentence(Snapshot("x"), now) == "Reading the database …"
    assert status_sentence(Snapshot("x", trouble="no server"), now) == "no server"


@pytest.mark.parametrize("error", [KeyError("counts"), TypeError("str"), ValueError("NaN")])
def test_a_malformed_document_spoils_one_panel(error):
    def read():
        raise error

    assert "holds something unexpected" in panel_of(read).trouble


def test_a_panel_says_what_a_campaign_lacks():
    def read():
        raise CampaignError("there is no hull yet")

    assert panel_of(read).trouble == "there is no hull yet"


def test_a_server_that_is_away_is_not_a_panel():
    def read():
        raise DatabaseError("away")

    with pytest.raises(DatabaseError):
        panel_of(read)


HOSTILE = {
    "structures": {
        "prototype": "<script>alert(1)</script>", "formula_pretty": 7,
        "energy_above_hull": math.nan, "final": {"state": "done"}, "counts": "many",
    },
    "potentials": {"loss": "small", "energy_rmse": "none", "stage": None},
    "rounds": {"sigma": {"sigma": "wide"}},
    "campaigns": {"cpu_seconds": {"training": "long"}},
    "fireworks": {"spec._category": "<img src=x>"},
    "dft_results": {"reason": 3, "state": "failed"},
}  # fmt: skip


@pytest.mark.parametrize("collection", HOSTILE)
def test_malformed_documents_leave_the_other_panels(copied_campaign, mongo, collection):
    """Whatever a collection holds, there is a page, and a figure or a sentence in each panel."""
    from hullscreen.launch.dashboard.figures import FIGURES, figure_of

    mongo.database[collection].update_one({}, {"$set": HOSTILE[collection]})
    snapshot = seen_now(copied_campaign, mongo)
    assert snapshot.panels.keys() >= PANELS
    assert len(troubles(snapshot)) < len(snapshot.panels) / 2
    assert snapshot.panels["jobs"].trouble == ""
    for name in FIGURES:
        figure_of(name, snapshot.panels[name], "light")


def test_sigma_is_of_the_stage_that_measured_it(copied_campaign, mongo):
    """Also where everything was screened a second time."""
    mongo.database.rounds.delete_many({})
    first, second = ({"sigma": s, "uncertainty": 0.001, "n_structures": 9} for s in (0.02, 0.009))
    stages = [(1, None), (2, first), (2, first), (2, second), (3, second)]
    for number, (stage, sigma) in enumerate([*stages, *stages]):
        copied_campaign.insert_round(
            RoundDocument(
                "cu-pd", number, stage=stage, purpose="learn", potential=0, fits=False, wave=0,
                sigma=sigma,
            ),
            [],
        )  # fmt: skip
    found = learning_curves(copied_campaign)["sigmas"]
    assert [(one["round"], one["stage"], one["sigma"]) for one in found] == [
        (1, 1, 0.02), (3, 2, 0.009), (6, 1, 0.02), (8, 2, 0.009),
    ]  # fmt: skip


def test_a_database_of_an_earlier_version_is_shown_and_left_as_it_is(copied_campaign, mongo):
    database = mongo.database
    fields = (*HULL_FIELDS, *KNOWN_FIELDS, "chemsys", "relaxations", "last_updated")
    database.structures.update_many({}, {"$unset": dict.fromkeys(fields, "")})
    database.rounds.update_many({}, {"$unset": {"predicted_hull": "", "labelled_hull": ""}})
    database.structures.drop_indexes()
    database["schema"].update_one({}, {"$set": {"version": 1}}, upsert=True)
    reading = replace(mongo, read_only=True)
    snapshot = seen_now(CampaignStore(reading, copied_campaign.name), reading)
    assert troubles(snapshot) == {}
    assert len(list(database.structures.list_indexes())) == 1
    assert len(snapshot.panels["stable"].data["rows"]) == len(final_hull(copied_campaign).stable)
