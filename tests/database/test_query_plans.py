"""No query reads a whole collection, or sorts what an index could give it in order."""

import copy
import json

import pytest
from pymongo import MongoClient, monitoring

from hullscreen.database.connection import Connection
from hullscreen.database.indexes import BY_INDEX, INDEXES
from hullscreen.launch.commands.query import QUICK_TO_SORT

CHANGES = ("$set", "$unset", "$inc", "$setOnInsert")
OPERATORS = {"find", "aggregate", "findAndModify", "count", "distinct"}
# Times that a tiny campaign's structures are there, so that plans are those of a large one.
COPIES = 40

# FireWorks' own, which a campaign's tasks and reports ask as well.
FIREWORKS = ("fireworks", "launches", "workflows")

# What is sorted in memory after all, by collection and the fields sorted by, and why it may be.
SORTED = {
    ("structures", "index"): "a batch: at most a few thousand in the order of waves, or the "
    "candidates of one round, are put in the order of the pool",
    ("dft_results", "_id"): "costs by purpose, a handful of groups",
}


class Commands(monitoring.CommandListener):
    """Every shape of command that reads or changes documents, once; the first of each."""

    def __init__(self):
        self.seen = {}

    def started(self, event):
        for command in self.singles(event.command_name, event.command):
            plain = {
                key: copy.deepcopy(value)
                for key, value in command.items()
                if key not in {"lsid", "txnNumber", "writeConcern", "ordered", "batchSize"}
                and not key.startswith("$")
            }
            self.seen.setdefault(json.dumps(shape(plain), sort_keys=True), plain)

    def singles(self, name, command):
        if name in OPERATORS:
            return [command]
        if name in {"update", "delete"}:
            return [{name: command[name], f"{name}s": [one]} for one in command[f"{name}s"]]
        return []

    def succeeded(self, event):
        pass

    def failed(self, event):
        pass


def shape(value):
    """A command without its values: fields, operators, and the collection."""
    if isinstance(value, dict):
        if any(name in value for name in CHANGES):
            return "change"
        return {key: shape(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [shape(inner) for inner in value]
    return value if value in {*INDEXES, *FIREWORKS} else "value"


def collection_of(command):
    return next(iter(command.values()))


def nodes(plan):
    """Every stage of the plan that was chosen."""
    if isinstance(plan, dict):
        if "stage" in plan:
            yield plan
        if "$sort" in plan:
            yield {"stage": "SORT", "sortPattern": plan["$sort"].get("sortKey", {})}
        for key, value in plan.items():
            if key not in {"rejectedPlans", "command", "serverInfo"}:
                yield from nodes(value)
    elif isinstance(plan, list):
        for value in plan:
            yield from nodes(value)


def complaints(database, command):
    """What a plan does that it should not: COLLSCAN, or the collection and field it sorts by."""
    collection = collection_of(command)
    explained = {**command, "cursor": {}} if "aggregate" in command else command
    plan = database.command({"explain": explained, "verbosity": "queryPlanner"})
    for node in nodes(plan):
        if node["stage"] == "COLLSCAN":
            yield collection, "COLLSCAN"
        if node["stage"] == "SORT":
            yield collection, next(iter(node["sortPattern"]))


@pytest.fixture
def recorded(mongo, make_campaign, work_off_round):
    """Every command of a tiny campaign from its prototypes to its hull, and of what reports it."""
    from hullscreen.workflows import decisions, flows
    from hullscreen.workflows.brute_force import campaign_costs, finished_hull
    from hullscreen.workflows.campaign import add_prototypes
    from hullscreen.workflows.campaign_status import campaign_status
    from hullscreen.workflows.reference_relaxations import pool_of
    from hullscreen.workflows.report import campaign_report
    from hullscreen.workflows.results import final_hull, screened_background
    from hullscreen.workflows.structure_filters import Wanted
    from hullscreen.workflows.structure_search import search

    commands = Commands()
    with MongoClient(mongo.uri, event_listeners=[commands], tz_aware=True) as client:
        connection = Connection(client[mongo.name], mongo.uri, mongo.name, embedded=True)
        campaign = make_campaign(connection=connection)
        store = campaign.store
        campaign_status(store, connection)
        add_prototypes(campaign)
        campaign_status(store, connection)
        decisions.first_round(campaign)
        while not store.campaign()["finished"]:
            round_ = store.last_round()
            assert round_.number < 60, "the tiny campaign has no end"
            flows.round_workflow(campaign, round_)
            store.set_submitted(round_.number)
            store.count_attempt("key", "run")
            campaign_status(store, connection)
            work_off_round(campaign, round_)
            campaign_status(store, connection)
            decisions.decide(campaign, round_)
        result = final_hull(store)
        screened_background(store, result)
        finished_hull(campaign)
        campaign_costs(campaign)
        campaign_report(store)
        pool_of(campaign)
        for known in (None, result):
            for wanted in (
                Wanted(), Wanted(formula="CuPd"), Wanted(structure_index=3), Wanted(stage=1),
                Wanted(max_energy_above_hull=0.1), Wanted(stable_only=True),
                Wanted(formula="CuPd", stage=2, max_energy_above_hull=0.1),
            ):  # fmt: skip
                search(store, known, wanted, limit=20)
        # What the progress of `hullscreen run` and the comparison with brute force ask for.
        store.count(stage={"$gte": 1}, order={"$lt": 9})
        store.count(**{"relaxed.stage": {"$gte": 1}})
        store.count(final={"$exists": True})
        store.count_dft()
        store.borrowed_evaluations([one.key for one in store.selected()])
        store.reference_relaxations(["none"])
        store.save_reference_relaxations([])
        list(store.documents({"index": {"$in": [1, 2]}}, ["stage", "dropped"]))
    return commands


def enlarge(database):
    """The campaign's structures many times over, so that a scan and an index differ."""
    structures = list(database.structures.find({}, {"_id": 0}))
    n = len(structures)
    for number in range(1, COPIES):
        database.structures.insert_many(
            [
                {**one, "index": one["index"] + number * n, "order": one["order"] + number * n}
                for one in structures
            ]
        )


def test_an_index_serves_every_query_of_a_campaign(mongo, recorded):
    enlarge(mongo.database)
    asked = [one for one in recorded.seen.values() if collection_of(one) in INDEXES]
    assert {collection_of(one) for one in asked} == set(INDEXES)
    found: dict[tuple[str, str], list] = {}
    for command in asked:
        for wrong in complaints(mongo.database, command):
            found.setdefault(wrong, []).append(command)
    assert {wrong: found[wrong] for wrong in found.keys() - SORTED.keys()} == {}
    # Nothing is excused that does not happen.
    assert found.keys() == SORTED.keys()


@pytest.fixture
def pool(mongo, make_campaign):
    """Store of a campaign whose prototypes are there, and that many times."""
    from hullscreen.workflows.campaign import add_prototypes

    campaign = make_campaign()
    add_prototypes(campaign)
    enlarge(mongo.database)
    return campaign.store


def test_what_would_be_seen(mongo, pool):
    def wrong(command):
        return list(complaints(mongo.database, command))

    unknown = {"find": "structures", "filter": {"nsites": 3}}
    assert wrong(unknown) == [("structures", "COLLSCAN")]
    ours = {"campaign": "tiny"}
    unsorted = {"find": "structures", "filter": ours, "sort": {"nsites": 1}}
    assert wrong(unsorted) == [("structures", "nsites")]
    assert wrong({**unsorted, "sort": {"index": 1}}) == []
    for grouping in ([], [{"$group": {"_id": "$stage", "n": {"$sum": 1}}}]):
        pipeline = [{"$match": ours}, *grouping, {"$sort": {"n": 1}}]
        assert wrong({"aggregate": "structures", "pipeline": pipeline}) == [("structures", "n")]
    # Shapes are told apart by fields and operators, not by values.
    assert shape({"a": {"$in": [1, 2]}}) == shape({"a": {"$in": [3, 4]}})
    assert shape({"a": {"$in": [1, 2]}}) != shape({"a": {"$lt": 1}})


def documents_read(mongo):
    return mongo.database.command("serverStatus")["metrics"]["queryExecutor"]["scannedObjects"]


def test_a_pool_is_read_once_however_many_parts_it_takes(mongo, pool, monkeypatch):
    # A plan that sorts would read all for every part.
    from hullscreen.database import structure_queries

    relaxed = {"stage": 1, "potential": 0, "outcome": "converged", "geometry": "$start"}
    mongo.database.structures.update_many({}, [{"$set": {"relaxed": relaxed}}])
    monkeypatch.setattr(structure_queries, "READ_AT_ONCE", 100)

    n = pool.count()
    before = documents_read(mongo)
    assert sum(len(batch) for batch in pool.batches({"relaxed.stage": 1})) == n > 500
    # Room for what the server itself reads.
    assert documents_read(mongo) - before < 1.2 * n


@pytest.mark.parametrize("sort", QUICK_TO_SORT)
def test_orders_that_are_said_to_be_quick_read_what_they_show(mongo, pool, sort):
    from hullscreen.workflows.structure_filters import Wanted
    from hullscreen.workflows.structure_search import search

    screened = {"relaxed": {"highest_grade": 3.0}, "energy_above_hull": 0.1}
    mongo.database.structures.update_many({}, {"$set": screened})
    mongo.database.structures.update_many(
        {"index": {"$lt": 9}}, {"$set": {"is_stable": True, "volume": 1.0, "density": 1.0}}
    )
    before = documents_read(mongo)
    assert len(search(pool, None, Wanted(), limit=5, sort=sort).rows) == 5
    assert documents_read(mongo) - before < 50


@pytest.mark.parametrize("lost", ["structures", "everything"])
def test_indexes_that_a_copy_lacks_come_back(mongo, make_campaign, lost):
    from hullscreen.workflows.campaign import add_prototypes

    campaign = make_campaign()
    store = campaign.store
    add_prototypes(campaign)
    names = ["structures"] if lost == "structures" else list(INDEXES)
    for name in names:
        mongo.database[name].drop_indexes()
    assert len(list(store.documents({}, []))) == store.count()
    for name in names:
        mongo.database[name].drop_indexes()
    store.drop([(3, {"stage": 1, "reason": "test"}), (4, {"stage": 1, "reason": "test"})])
    assert store.count(**{"dropped.reason": "test"}) == 2
    keys = [list(one["key"]) for one in mongo.database.structures.list_indexes()]
    assert BY_INDEX in keys


@pytest.fixture
def run_campaign(mongo, make_campaign, tmp_path, monkeypatch):
    """Function: a tiny campaign by FireWorks, all its reports, a listener on every client."""
    from fireworks import FWorker, LaunchPad
    from fireworks.core.rocket_launcher import launch_rocket

    from hullscreen.launch.dashboard.reader import seen_now
    from hullscreen.workflows import recovery
    from hullscreen.workflows.campaign_status import campaign_status
    from hullscreen.workflows.dft_jobs import RUN_VARIABLE
    from hullscreen.workflows.flows import prepare_launchpad
    from hullscreen.workflows.report import campaign_report
    from hullscreen.workflows.results import final_hull, screened_background

    def run(listener):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv(RUN_VARIABLE, "this run")
        with MongoClient(mongo.uri, event_listeners=[listener], tz_aware=True) as client:
            connection = Connection(client[mongo.name], mongo.uri, mongo.name, embedded=True)
            launchpad = LaunchPad(
                host=mongo.uri, name=mongo.name, uri_mode=True, strm_lvl="CRITICAL",
                mongoclient_kwargs={"event_listeners": [listener]},
            )  # fmt: skip
            campaign = make_campaign(connection=connection)
            store = campaign.store
            prepare_launchpad(launchpad)
            recovery.unlock(launchpad, campaign)
            recovery.resubmit(launchpad, campaign)
            while launch_rocket(launchpad, FWorker(), strm_lvl="CRITICAL"):
                recovery.release_lost(launchpad, campaign)
                recovery.retry_failed(launchpad, campaign, all_steps=False)
            assert store.campaign()["finished"]
            recovery.is_idle(launchpad, store)
            screened_background(store, final_hull(store))
            campaign_report(store)
            campaign_status(store, connection)
            shown = seen_now(store, connection)
            assert {
                name: panel.trouble for name, panel in shown.panels.items() if panel.trouble
            } == {}
            store.borrowed_evaluations([one.key for one in store.selected()])
            store.reference_relaxations(["none"])
            store.count_attempt("key", "run")
            store.count_dft()
            store.return_to_first_stage()
            launchpad.connection.close()

    return run


def scans(database, command):
    """Whether MongoDB would read a whole collection for a command."""
    return "COLLSCAN" in {wrong for _, wrong in complaints(database, command)}


def test_an_index_serves_every_query_of_a_campaign_run_by_fireworks(mongo, run_campaign):
    commands = Commands()
    run_campaign(commands)
    collections = {*INDEXES, *FIREWORKS}
    asked = [c for c in commands.seen.values() if collection_of(c) in collections]
    assert {collection_of(command) for command in asked} == collections
    assert [command for command in asked if scans(mongo.database, command)] == []
    # This is what would be seen.
    assert scans(mongo.database, {"find": "structures", "filter": {"nsites": 3}})
