"""Copies of a campaign: complete, in mongodump's layout, and at home in any other database."""

import contextlib
import errno
import gzip
import os
import signal
import subprocess
import sys
import tracemalloc

import bson
import pytest
from bson import json_util
from fireworks import FWorker

from hullscreen.database.campaign_parts import own_parts
from hullscreen.database.campaign_store import CampaignStore
from hullscreen.database.claims import Claims
from hullscreen.database.connection import Connection, connect
from hullscreen.database.documents import SCHEMA_VERSION, CampaignDocument
from hullscreen.database.dump import dump_campaign
from hullscreen.database.dump_files import open_dump
from hullscreen.database.queue_jobs import QueueJobs
from hullscreen.database.removal import remove_campaign
from hullscreen.database.restore import restore_campaign
from hullscreen.potentials.errors import CampaignError, FileFormatError
from hullscreen.workflows.flows import prepare_launchpad, submit_campaign
from hullscreen.workflows.worker import launchpad_on

NAME = "cu-pd"
FIREWORKS = ("fireworks", "launches", "workflows")


def silent(_name, _done, _total):
    """No progress."""


@pytest.fixture(scope="session")
def dumped(small_campaign, tmp_path_factory):
    """The finished small campaign as a folder, which tests only read."""
    target = tmp_path_factory.mktemp("dumps") / "dump"
    dump_campaign(small_campaign.connection, NAME, target, progress=silent)
    return target


def everything(connection):
    """All documents by collection and ``_id``."""
    database = connection.database
    return {
        name: {document["_id"]: document for document in database[name].find()}
        for name in database.list_collection_names()
    }


def as_bytes(documents):
    """The same, comparable also with NaN in it."""
    return {key: bson.encode(document) for key, document in documents.items()}


def decoded(folder, collection):
    (path,) = folder.glob(f"*/{collection}.bson.gz")
    return bson.decode_all(gzip.decompress(path.read_bytes()), bson.CodecOptions(tz_aware=True))


def test_a_dump_is_what_mongodump_writes(small_campaign, dumped):
    database = small_campaign.connection.database
    (inside,) = dumped.iterdir()
    assert inside.name == database.name
    for collection in ("structures", "rounds", "dft_results", *FIREWORKS, "campaigns", "schema"):
        stored = list(database[collection].find().sort("_id", 1))
        assert stored
        # As bytes, for NaN differs from itself.
        packed = (inside / f"{collection}.bson.gz").read_bytes()
        assert gzip.decompress(packed) == b"".join(map(bson.encode, stored))
        text = gzip.decompress((inside / f"{collection}.metadata.json.gz").read_bytes())
        indexes = json_util.loads(text)["indexes"]
        assert {index["name"] for index in indexes} == set(database[collection].index_information())
    assert not list(dumped.parent.glob(".*"))


def test_progress_tells_how_much_there_is(small_campaign, tmp_path):
    told = []
    counts = dump_campaign(
        small_campaign.connection, NAME, tmp_path / "d", progress=lambda *one: told.append(one)
    )
    total = sum(counts.values())
    assert counts["structures"] == small_campaign.store.count()
    assert told[-1] == ("documents dumped", total, total)
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)
    assert {n for _, _, n in told} == {total}


@pytest.fixture
def shared(mongo, make_campaign):
    """A database in which another campaign has begun, with Fireworks of its own."""
    launchpad = launchpad_on(mongo.uri, mongo.name)
    prepare_launchpad(launchpad)
    submit_campaign(launchpad, make_campaign("other"))
    launchpad.checkout_fw(FWorker(), "/")
    launchpad.connection.close()
    return mongo


def shifted(document, fw, launch):
    """A document of FireWorks with other numbers, written once more and differently."""
    if "links" in document:

        def renumbered(links):
            return {str(int(n) + fw): [m + fw for m in others] for n, others in links.items()}

        return document | {
            "nodes": [n + fw for n in document["nodes"]],
            "links": renumbered(document["links"]),
            "parent_links": renumbered(document["parent_links"]),
            "fw_states": {str(int(n) + fw): state for n, state in document["fw_states"].items()},
        }  # fmt: skip
    new = {"fw_id": document["fw_id"] + fw}
    if "launch_id" in document:
        return document | new | {"launch_id": document["launch_id"] + launch}
    launches = [n + launch for n in document["launches"]]
    return document | new | {"launches": launches, "archived_launches": []}


def test_a_campaign_moves_into_a_database_that_others_use(small_campaign, dumped, shared):
    before = everything(shared)
    restore_campaign(shared, open_dump(dumped), progress=silent)
    after, source = everything(shared), everything(small_campaign.connection)
    for collection in ("structures", "rounds", "selected", "potentials", "dft_results"):
        new = {k: d for k, d in after[collection].items() if k not in before.get(collection, {})}
        assert as_bytes(new) == as_bytes(source[collection])
    fw = max(d["fw_id"] for d in before["fireworks"].values())
    launch = max(d["launch_id"] for d in before["launches"].values())
    for collection in FIREWORKS:
        new = {k: d for k, d in after[collection].items() if k not in before[collection]}
        assert new == {k: shifted(d, fw, launch) for k, d in source[collection].items()}
    # The other campaign is as it was.
    for collection, documents in before.items():
        if collection != "fw_id_assigner":
            assert documents.items() <= after[collection].items()
    # Its next Firework takes a number that is free.
    launchpad = launchpad_on(shared.uri, shared.name)
    assert launchpad.get_new_fw_id() > max(d["fw_id"] for d in after["fireworks"].values())
    assert launchpad.get_new_launch_id() > max(d["launch_id"] for d in after["launches"].values())
    for workflow in after["workflows"].values():
        launchpad.get_wf_by_fw_id(workflow["nodes"][0])
    launchpad.connection.close()
    indexes = small_campaign.connection.database["launches"].index_information()
    assert shared.database["launches"].index_information().keys() == indexes.keys()
    with pytest.raises(CampaignError, match="holds a campaign 'cu-pd' already: restore into"):
        restore_campaign(shared, open_dump(dumped), progress=silent)
    assert everything(shared)["structures"] == after["structures"]


def test_an_empty_database_becomes_like_the_old_one(small_campaign, dumped, mongo):
    restore_campaign(mongo, open_dump(dumped), progress=silent)
    old, new = small_campaign.connection.database, mongo.database
    for collection in ("structures", "rounds", "dft_results", *FIREWORKS):
        assert new[collection].index_information() == old[collection].index_information()
    # What every `run` does, and what FireWorks asks for.
    launchpad = launchpad_on(mongo.uri, mongo.name)
    prepare_launchpad(launchpad)
    launchpad.connection.close()
    CampaignStore(mongo, NAME).ensure_indexes()


def test_what_is_there_of_dft_stays(dumped, shared):
    results = decoded(dumped, "dft_results")
    there = {**results[0], "_id": "mine", "state": "quarantined"}
    shared.database["dft_results"].insert_one(there)
    restore_campaign(shared, open_dump(dumped), progress=silent)
    assert list(shared.database["dft_results"].find({"key": there["key"]})) == [there]
    assert shared.database["dft_results"].count_documents({}) == len(results)


@pytest.mark.parametrize("lives", [0, 1, 2, 3, 5, 8, 12, 15, 20, 23, 26, 30, 40])
def test_a_restore_that_is_killed_is_completed(small_campaign, dumped, shared, mortal, lives):
    before = everything(shared)
    with mortal(lives) as fate:
        restore_campaign(shared, open_dump(dumped), progress=silent)
    store = CampaignStore(shared, NAME)
    if shared.database["restores"].count_documents({}):
        # Nobody begins it anew meanwhile.
        document = CampaignDocument(NAME, "Cu-Pd", ("Cu", "Pd"), {}, {}, "d")
        with pytest.raises(CampaignError, match="was interrupted: run `hullscreen db restore"):
            store.create(document)
    if fate.dead:
        restore_campaign(shared, open_dump(dumped), progress=silent)
    after, source = everything(shared), everything(small_campaign.connection)
    for collection in ("structures", "rounds", "selected", "potentials", "dft_results"):
        assert as_bytes(source[collection]).items() <= as_bytes(after[collection]).items()
    for collection in FIREWORKS:
        new = after[collection].keys() - before[collection].keys()
        assert new == source[collection].keys()
    numbers = [d["fw_id"] for d in after["fireworks"].values()]
    assert len(set(numbers)) == len(numbers)
    assert not shared.database["restores"].count_documents({})


def test_another_dump_does_not_complete_a_restore(small_campaign, dumped, shared, mortal, tmp_path):
    with mortal(8) as fate:
        restore_campaign(shared, open_dump(dumped), progress=silent)
    assert fate.dead
    other = tmp_path / "other"
    subprocess.run(["cp", "-r", dumped, other], check=True)
    (path,) = other.glob("*/rounds.bson.gz")
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:-1] + b"\0\0"))
    with pytest.raises(CampaignError, match="another dump of a campaign 'cu-pd' was partly"):
        restore_campaign(shared, open_dump(other), progress=silent)
    # Given up, nothing of it remains but results that anybody may use.
    remove_campaign(shared, NAME)
    assert all(
        shared.database[p.collection].find_one(p.query) is None for p in own_parts(shared, NAME)
    )
    assert shared.database["restores"].find_one() is None


def test_steps_in_hand_are_ready_elsewhere(mongo, make_campaign, tmp_path, start_mongod):
    launchpad = launchpad_on(mongo.uri, mongo.name)
    prepare_launchpad(launchpad)
    submit_campaign(launchpad, make_campaign())
    firework, _ = launchpad.checkout_fw(FWorker(), "/")
    launchpad.connection.close()
    dump_campaign(mongo, "tiny", tmp_path / "dump", progress=silent)
    uri = start_mongod().uri()
    with contextlib.closing(connect(uri, "elsewhere").client) as client:
        other = Connection(client.get_database("elsewhere"), uri, "elsewhere", embedded=False)
        restore_campaign(other, open_dump(tmp_path / "dump"), progress=silent)
        launchpad = launchpad_on(uri, "elsewhere")
        found = launchpad.get_fw_by_id(firework.fw_id)
        assert (found.state, found.launches, len(found.archived_launches)) == ("READY", [], 1)
        assert launchpad.get_wf_by_fw_id(firework.fw_id).fw_states == {firework.fw_id: "READY"}
        assert launchpad.detect_lostruns(expiration_secs=-10)[0] == []
        again, launch_id = launchpad.checkout_fw(FWorker(), "/")
        assert (again.fw_id, launch_id) == (firework.fw_id, 2)
        launchpad.connection.close()


def test_a_campaign_whose_workers_rarely_give_signs_of_life_is_at_work(mongo, make_campaign):
    campaign = make_campaign()
    campaign.store.set_campaign(heartbeat_s=600.0)
    Claims(mongo, "tiny").take(7, category="dft", holder="h|n|1|1", host="node1", job_id="")
    since = {"$dateSubtract": {"startDate": "$$NOW", "unit": "minute", "amount": 9}}
    mongo.database.claims.update_one({"_id": 7}, [{"$set": {"seen_at": since}}])
    with pytest.raises(CampaignError, match=r"at work \(on node1.*its removal needs it at rest"):
        remove_campaign(mongo, "tiny")
    assert campaign.store.find_campaign() is not None


def test_a_campaign_with_jobs_in_a_queue_is_at_work(mongo, make_campaign, tmp_path):
    campaign = make_campaign()
    jobs = QueueJobs(mongo, "tiny")
    jobs.add("/home/ann/tiny", "41", "relax", "/home/ann/tiny/queue/relax/launcher_1")
    said = r"jobs in a queue, such as 41 \(relax\).* needs it at rest: `hullscreen cancel /home/ann"
    for paused in (False, True):
        campaign.store.set_campaign(paused=paused)
        with pytest.raises(CampaignError, match=said):
            remove_campaign(mongo, "tiny")
    # Nothing changes in a paused one, nor in one that is finished.
    assert dump_campaign(mongo, "tiny", tmp_path / "paused", progress=silent)
    campaign.store.set_campaign(paused=False)
    with pytest.raises(CampaignError, match=said):
        dump_campaign(mongo, "tiny", tmp_path / "dump", progress=silent)
    campaign.store.set_campaign(finished=True)
    assert dump_campaign(mongo, "tiny", tmp_path / "finished", progress=silent)
    campaign.store.set_campaign(finished=False)
    jobs.end(jobs.in_queue("/home/ann/tiny"))
    assert remove_campaign(mongo, "tiny")["campaigns"] == 1


def test_a_campaign_at_work_is_not_dumped(mongo, make_campaign, tmp_path):
    make_campaign()
    claims = Claims(mongo, "tiny")
    token = claims.take(7, category="dft", holder="h|n|1|1", host="node1", job_id="")
    with pytest.raises(CampaignError, match=r"at work \(on node1.*a dump needs it at rest"):
        dump_campaign(mongo, "tiny", tmp_path / "dump", progress=silent)
    with pytest.raises(CampaignError, match="its removal needs it at rest"):
        remove_campaign(mongo, "tiny")
    claims.release(7, token)

    def meddle(_what, done, _total):
        if done > 1:
            mine.append(claims.take(7, category="dft", holder="me", host="node1", job_id=""))

    mine = []

    with pytest.raises(CampaignError, match="began to work on campaign 'tiny' while"):
        dump_campaign(mongo, "tiny", tmp_path / "dump", progress=meddle)
    assert list(tmp_path.iterdir()) == []
    # A `run` that waits charges its campaign with the server's time.
    claims.release(7, mine[-1])
    store = CampaignStore(mongo, "tiny")
    dump_campaign(
        mongo, "tiny", tmp_path / "first", progress=lambda *_: store.add_cpu_seconds("mongod", 1.0)
    )
    claims.take(7, category="dft", holder="me", host="node1", job_id="")
    # Who was killed is known to be gone after a while.
    mongo.database["claims"].update_many(
        {}, [{"$set": {"seen_at": {"$subtract": ["$seen_at", 120_000]}}}]
    )
    dump_campaign(mongo, "tiny", tmp_path / "dump", progress=silent)


@pytest.mark.parametrize("what", ["cut", "flipped", "not gzip"])
def test_a_damaged_dump_is_named(dumped, shared, tmp_path, what):
    target = tmp_path / "dump"
    subprocess.run(["cp", "-r", dumped, target], check=True)
    (path,) = target.glob("*/structures.bson.gz")
    data = bytearray(path.read_bytes())
    if what == "cut":
        del data[len(data) // 2 :]
    elif what == "flipped":
        data[len(data) // 2] ^= 0xFF
    else:
        data = bytearray(b"no gzip")
    path.write_bytes(data)
    with pytest.raises(FileFormatError, match=r"structures\.bson\.gz is damaged after document"):
        restore_campaign(shared, open_dump(target), progress=silent)
    assert CampaignStore(shared, NAME).find_campaign() is None


def test_only_what_is_a_campaigns_is_restored(dumped, shared, tmp_path):
    target = tmp_path / "dump"
    subprocess.run(["cp", "-r", dumped, target], check=True)
    (inside,) = target.iterdir()
    # As mongodump writes the whole database.
    for name in ("fw_id_assigner", "claims", "attempts", "offline_runs"):
        (inside / f"{name}.bson.gz").write_bytes(gzip.compress(bson.encode({"next_fw_id": 1})))
    before = everything(shared)
    restore_campaign(shared, open_dump(target), progress=silent)
    after = everything(shared)
    assert after["fw_id_assigner"].keys() == before["fw_id_assigner"].keys()
    for name in ("claims", "attempts"):
        assert after.get(name, {}) == before.get(name, {})
    assert "offline_runs" not in after


@pytest.mark.parametrize("lives", range(8))
def test_a_removal_that_is_killed_is_completed(dumped, shared, mortal, lives):
    before = everything(shared)
    restore_campaign(shared, open_dump(dumped), progress=silent)
    with mortal(lives) as fate:
        remove_campaign(shared, NAME)
    assert fate.dead
    remove_campaign(shared, NAME)
    after = everything(shared)
    for collection, documents in before.items():
        if collection not in ("fw_id_assigner", "dft_results"):
            assert after[collection] == documents
    assert not any(after[c] for c in after.keys() - before.keys() - {"dft_results"})


def test_what_is_no_dump_is_named(tmp_path, dumped):
    with pytest.raises(FileFormatError, match="is no dump of a campaign: expected one folder"):
        open_dump(tmp_path)
    target = tmp_path / "dump"
    subprocess.run(["cp", "-r", dumped, target], check=True)
    (path,) = target.glob("*/schema.bson.gz")
    newer = {"_id": "schema", "version": SCHEMA_VERSION + 1, "hullscreen": "9.1"}
    path.write_bytes(gzip.compress(bson.encode(newer)))
    with pytest.raises(CampaignError, match=r"written by hullscreen 9\.1 .*update hullscreen"):
        open_dump(target)


DUMP_WITH_LITTLE_ROOM = """
import resource, sys
from pathlib import Path
from hullscreen.database.connection import open_database
from hullscreen.database.dump import dump_campaign
from hullscreen.database.dump_files import open_dump
from hullscreen.database.queue_jobs import QueueJobs
uri, name, target = sys.argv[1:]
with open_database(Path(target).parent, uri=uri, name=name) as connection:
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
    try:
        dump_campaign(connection, "cu-pd", Path(target), progress=lambda *_: None)
    except OSError as error:
        print(error.errno, error.filename)
"""


def test_a_full_disk_leaves_nothing(small_campaign, tmp_path):
    connection = small_campaign.connection
    target = tmp_path / "dump"
    done = subprocess.run(
        [sys.executable, "-c", DUMP_WITH_LITTLE_ROOM, connection.uri, connection.name, target],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    assert done.stdout == f"{errno.EFBIG} {target}\n"
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "dump").mkdir()
    with pytest.raises(FileExistsError) as caught:
        dump_campaign(connection, NAME, target, progress=silent)
    assert caught.value.filename == str(target)


def test_memory_does_not_grow_with_the_campaign(mongo, make_campaign, tmp_path):
    make_campaign()
    n, size = 6000, 10_000
    for first in range(0, n, 1000):
        mongo.database["structures"].insert_many(
            {"campaign": "tiny", "index": first + i, "order": i, "start": os.urandom(size)}
            for i in range(1000)
        )
    tracemalloc.start()
    try:
        dump_campaign(mongo, "tiny", tmp_path / "dump", progress=silent)
        _, of_dump = tracemalloc.get_traced_memory()
        remove_campaign(mongo, "tiny")
        tracemalloc.reset_peak()
        restore_campaign(mongo, open_dump(tmp_path / "dump"), progress=silent)
        _, of_restore = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert mongo.database["structures"].count_documents({"campaign": "tiny"}) == n
    # 60 MB of documents, of which some hundred are in memory at once, in several copies.
    assert of_dump < 30e6
    assert of_restore < 30e6


def test_reading_goes_on_when_the_server_was_away(start_mongod, make_campaign, tmp_path):
    server = start_mongod()
    with contextlib.closing(connect(server.uri(), "c").client) as client:
        connection = Connection(client.get_database("c"), server.uri(), "c", embedded=False)
        make_campaign(connection=connection)
        structures = connection.database["structures"]
        structures.insert_many(
            {"campaign": "tiny", "index": i, "order": i, "padding": os.urandom(5000)}
            for i in range(8000)
        )

        def restart_once(_what, done, _total):
            if done > 4000 and not killed:
                killed.append(True)
                server.kill(signal.SIGKILL)
                server.start()

        killed = []
        dump_campaign(connection, "tiny", tmp_path / "dump", progress=restart_once)
        assert killed
    indices = [document["index"] for document in decoded(tmp_path / "dump", "structures")]
    assert indices == list(range(8000))


def test_a_campaign_is_removed_and_others_stay(small_campaign, dumped, shared):
    before = everything(shared)
    restore_campaign(shared, open_dump(dumped), progress=silent)
    removed = remove_campaign(shared, NAME)
    assert removed["structures"] == small_campaign.store.count()
    after = everything(shared)
    results = after.pop("dft_results")
    assert results.keys() == everything(small_campaign.connection)["dft_results"].keys()
    for collection, documents in before.items():
        if collection not in ("fw_id_assigner", "dft_results"):
            assert after[collection] == documents
    assert not any(after[c] for c in after.keys() - before.keys())
    with pytest.raises(CampaignError, match="has no campaign 'cu-pd'"):
        remove_campaign(shared, NAME)
