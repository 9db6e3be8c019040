"""What it costs to store a pool, write its relaxations and read it back, beside plain pymongo.

With ``HULLSCREEN_FULL_BENCHMARKS=1`` the pool is the whole one of a ternary, 380,613 structures.
"""

import contextlib
import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from pymongo import ASCENDING, InsertOne, UpdateOne, WriteConcern

from hullscreen.database.campaign_store import CampaignStore
from hullscreen.database.connection import Connection, connect
from hullscreen.database.documents import Geometry, Relaxed
from hullscreen.database.embedded_server import acquire, status, stop
from hullscreen.database.round_documents import RoundDocument
from hullscreen.launch.settings import from_tables
from hullscreen.potentials.structures import Structures
from hullscreen.workflows.campaign import Campaign, add_prototypes, register
from hullscreen.workflows.potential_steps import SAVED_TOGETHER

pytestmark = [pytest.mark.benchmark, pytest.mark.slow]

FULL = os.environ.get("HULLSCREEN_FULL_BENCHMARKS") == "1"
ATOMS = 11 if FULL else 8
# What the plain reference stores: enough for a rate.
PLAIN = 20_000 if FULL else 10_000
MEGABYTE = 2**20
# Factors by which ours may be slower than the reference, which keeps one index instead of a dozen
# and documents that exist already; a busy machine needs the room.
MOST_INSERTING, MOST_WRITING, MOST_READING = 5.0, 4.0, 1.0


@dataclass
class Meter:
    """Seconds of wall clock, and of processor time here and in mongod."""

    mongod: int
    wall: float = 0.0
    own: float = 0.0
    server: float = 0.0

    @contextlib.contextmanager
    def running(self):
        before = time.perf_counter(), time.process_time(), cpu_seconds(self.mongod)
        yield
        self.wall += time.perf_counter() - before[0]
        self.own += time.process_time() - before[1]
        self.server += cpu_seconds(self.mongod) - before[2]

    def told(self, what, n):
        return (
            f"\n{what}: {n} in {self.wall:.1f} s, {n / self.wall:.0f}/s; processor time here "
            f"{self.own:.1f} s, of mongod {self.server:.1f} s"
        )


def cpu_seconds(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory(pid, what):
    """``VmRSS`` or its peak ``VmHWM`` of a process in bytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(what))


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Connection to an embedded server as campaigns have it, and mongod's process."""
    project = tmp_path_factory.mktemp("database")
    with acquire(project) as handle:
        database = connect(handle.uri, "hullscreen")
        connection = Connection(database, handle.uri, "hullscreen", embedded=True, server=handle)
        yield connection, status(project).mongod_pid, project
        database.client.close()
    stop(project)


@pytest.fixture(scope="module")
def plain(server):
    """Rates of plain pymongo, structures a second: inserting, writing results, reading."""
    connection, mongod, _ = server
    durable = WriteConcern(w="majority", j=True)
    collection = connection.database.get_collection("plain", write_concern=durable)
    collection.create_index([("campaign", ASCENDING), ("index", ASCENDING)], unique=True)
    rng = np.random.default_rng(0)
    geometries = [
        {"cell": rng.random((3, 3)).tolist(), "positions": rng.random((10, 3)).tolist()}
        for _ in range(PLAIN)
    ]
    meters = [Meter(mongod) for _ in range(3)]
    with meters[0].running():
        for start in range(0, PLAIN, 2000):
            collection.bulk_write(
                [
                    InsertOne(
                        {
                            "campaign": "c", "index": i, "order": i, "prototype": f"fcc-10-7-{i}",
                            "nsites": 10, "counts": [3, 3, 4], "formula_pretty": "Cu3Ni3Pt4",
                            "species": [0] * 3 + [1] * 3 + [2] * 4, "start": geometries[i],
                            "stage": 1,
                        }
                    )
                    for i in range(start, min(start + 2000, PLAIN))
                ],
                ordered=False,
            )  # fmt: skip
    with meters[1].running():
        for start in range(0, PLAIN, SAVED_TOGETHER):
            collection.bulk_write(
                [
                    UpdateOne(
                        {"campaign": "c", "index": i},
                        {
                            "$set": {
                                "relaxed": {
                                    "stage": 1, "potential": 1, "outcome": "converged",
                                    "energy_per_atom": -3.5, "evaluations": 26, "grade": 1.5,
                                    "highest_grade": 1.7, "geometry": geometries[i],
                                    "snapshot": None,
                                }
                            }
                        },
                    )
                    for i in range(start, min(start + SAVED_TOGETHER, PLAIN))
                ],
                ordered=False,
            )  # fmt: skip
    with meters[2].running():
        found = [
            tuple(np.array(document["relaxed"]["geometry"][name]) for name in ("cell", "positions"))
            for document in collection.find({"campaign": "c"}).sort("index", ASCENDING)
        ]
    assert len(found) == PLAIN
    return [PLAIN / meter.wall for meter in meters]


def round_document(**changes):
    values = {
        "campaign": "pool", "number": 1, "stage": 1, "purpose": "learn", "potential": 1,
        "fits": True, "wave": 10**9,
    }  # fmt: skip
    return RoundDocument(**{**values, **changes})


def results_of(batch):
    """What relaxations of a batch leave: a twentieth extrapolates, and keeps a snapshot."""
    structures: Structures = batch.structures
    results = {}
    for i, index in enumerate(batch.indices.tolist()):
        geometry = Geometry(*structures.one(i)[:2])
        far = index % 20 == 0
        results[index] = Relaxed(
            stage=1, potential=1, outcome="extrapolating" if far else "converged",
            energy_per_atom=-3.0 - 1e-6 * index, evaluations=26, grade=1.0,
            highest_grade=11.0 if far else 1.5, geometry=geometry,
            snapshot=geometry if far else None,
        )  # fmt: skip
    return results


def parts_of(items, size):
    names = list(items)
    for start in range(0, len(names), size):
        yield {name: items[name] for name in names[start : start + size]}


def test_a_pool_in_the_database(server, plain, tmp_path):
    connection, mongod, _ = server
    tables = {
        "campaign": {"name": "pool", "elements": ["Cu", "Ni", "Pt"]},
        "prototypes": {"max_atoms": ATOMS, "aflow": False, "lattices": ["fcc", "bcc", "hcp"]},
    }
    campaign = Campaign(from_tables(tables), CampaignStore(connection, "pool"), tmp_path)
    register(campaign)
    store = campaign.store
    # Compiles the generation.
    next(campaign.pool.batches(10))
    Path("/proc/self/clear_refs").write_text("5")  # The peak counts from here on.
    at_first = memory("self", "VmRSS")

    inserting = Meter(mongod)
    with inserting.running():
        n = add_prototypes(campaign)["total"]
    assert store.count() == n
    print(
        inserting.told("prototypes generated and inserted", n),
        f"{n / inserting.wall / plain[0]:.2f} times plain pymongo's rate with one index",
    )

    writing = Meter(mongod)
    for batch in store.batches({}, geometry="start"):
        for part in parts_of(results_of(batch), SAVED_TOGETHER):
            with writing.running():
                store.save_relaxed(part)
    assert store.count(**{"relaxed.potential": 1}) == n
    print(writing.told("relaxations written", n), f"{n / writing.wall / plain[1]:.2f} times")

    reading = Meter(mongod)
    with reading.running():
        found = [len(batch) for batch in store.batches({"relaxed.stage": 1})]
    assert sum(found) == n
    print(reading.told("read back as arrays", n), f"{n / reading.wall / plain[2]:.2f} times")

    waiting = Meter(mongod)
    with waiting.running():
        left = store.waiting_orders(round_document(potential=2, number=2))
    assert len(left) == store.count(**{"relaxed.outcome": "extrapolating"})
    print(waiting.told("places still to relax", n))

    dropping = Meter(mongod)
    reason = {"stage": 1, "reason": "too far above the hull of its stage", "window": 0.1}
    with dropping.running():
        store.drop(
            (i, {**reason, "energy_above_hull": 0.1 + 1e-6 * i, "sigma": 0.025})
            for i in range(0, n, 2)
        )
    print(dropping.told("reasons for dropping written", (n + 1) // 2))

    counting = Meter(mongod)
    with counting.running():
        store.tally("stage")
        store.tally("dropped.stage", "dropped.reason")
        store.tally("relaxed.stage", "relaxed.outcome")
        store.count(**{"relaxed.stage": 1, "relaxed.potential": 1})
    print(counting.told("counts of a report", n))

    ours, theirs = memory("self", "VmHWM"), memory(mongod, "VmHWM")
    size = connection.database.command("collStats", "structures")
    print(
        f"\nmemory at most {ours / MEGABYTE:.0f} MB here ({at_first / MEGABYTE:.0f} at first), "
        f"{theirs / MEGABYTE:.0f} MB in mongod; on disk {size['storageSize'] / MEGABYTE:.0f} MB "
        f"and {size['totalIndexSize'] / MEGABYTE:.0f} MB of indexes"
    )
    assert n / inserting.wall * MOST_INSERTING > plain[0]
    assert n / writing.wall * MOST_WRITING > plain[1]
    assert n / reading.wall * MOST_READING > plain[2]
    assert ours - at_first < 512 * MEGABYTE
    assert theirs < 4096 * MEGABYTE
