import contextlib
import copy
import uuid
from dataclasses import dataclass, field

import pymongo
import pymongo.collection
import pytest

from hullscreen.database.connection import Connection, connect
from hullscreen.database.embedded_server import acquire, stop


@pytest.fixture(scope="session")
def mongo_server(tmp_path_factory):
    """One embedded server for all tests that only need a database."""
    project = tmp_path_factory.mktemp("mongo")
    with acquire(project, cache_gb=0.25) as server:
        yield server
    stop(project)


@contextlib.contextmanager
def database_of_its_own(server):
    name = f"test_{uuid.uuid4().hex[:12]}"
    database = connect(server.uri, name)
    try:
        yield Connection(database, server.uri, name, embedded=True, server=server)
        database.client.drop_database(name)
    finally:
        database.client.close()


@pytest.fixture
def mongo(mongo_server):
    """Connection to a database of the test's own, removed afterwards."""
    with database_of_its_own(mongo_server) as connection:
        yield connection


@pytest.fixture
def launchpad(mongo):
    """FireWorks' view of the test's database."""
    from hullscreen.workflows.flows import prepare_launchpad
    from hullscreen.workflows.worker import launchpad_on

    launchpad = launchpad_on(mongo.uri, mongo.name)
    prepare_launchpad(launchpad)
    yield launchpad
    launchpad.connection.close()


# Campaigns in this process, without FireWorks

# Small enough to end in seconds, and yet with every kind of round and of decision.
TINY = {
    "prototypes": {"max_atoms": 3, "aflow": False, "lattices": ["fcc", "bcc"]},
    "potential": {"level_first": 4, "level_second": 6, "cutoff_angstrom": 4.5},
    "learning": {"first_wave": 8, "max_selected_per_wave": 6},
    "dft": {"structures_per_job": 5},
    "relaxation": {"batch_size": 7},
    "screening": {"validation_structures": 4, "sigma_multiple": 2.0},
}


def tiny_campaign(connection, directory, name="tiny", **tables):
    """A registered Cu-Pd campaign; ``tables`` overrule settings, table by table."""
    from hullscreen.database.campaign_store import CampaignStore
    from hullscreen.launch.settings import from_tables
    from hullscreen.workflows.campaign import Campaign, register

    # The seed of random numbers with which it takes every kind of decision.
    merged = {"campaign": {"name": name, "elements": ["Cu", "Pd"], "seed": 3}}
    for table in {**TINY, **tables}:
        merged[table] = {
            **merged.get(table, {}),
            **TINY.get(table, {}),
            **tables.get(table, {}),
        }
    store = CampaignStore(connection, name)
    campaign = Campaign(from_tables(merged), store, directory / "calculations")
    register(campaign)
    return campaign


def work_off(campaign, round_):
    """Every step of a round but its decision, as its workflow would do them."""
    from hullscreen.workflows import steps

    everything = (0, 10**9)
    steps.label(campaign, round_, *everything)
    if round_.fits:
        steps.fit_potential(campaign, round_)
    if round_.purpose in ("seed", "learn", "refine"):
        steps.relax_structures(campaign, round_, *everything)
    steps.relax_with_dft(campaign, round_, *everything)


@dataclass(frozen=True)
class Decided:
    """A decision of a campaign that nobody disturbed: all documents before it and after it."""

    round: object
    next_round: object
    before: dict = field(repr=False)
    after: dict = field(repr=False)


@pytest.fixture
def make_campaign(mongo, tmp_path):
    """Function that registers a tiny campaign in the test's database."""
    return lambda name="tiny", connection=mongo, **tables: tiny_campaign(
        connection, tmp_path, name, **tables
    )


@pytest.fixture
def work_off_round():
    """Function that does every step of a round but its decision."""
    return work_off


@pytest.fixture(scope="session")
def tiny_history(mongo_server, tmp_path_factory):
    """All decisions of an undisturbed tiny campaign; the first one's round is None."""
    from hullscreen.workflows import decisions
    from hullscreen.workflows.campaign import add_prototypes

    history = []
    with database_of_its_own(mongo_server) as connection:
        campaign = tiny_campaign(connection, tmp_path_factory.mktemp("tiny"))
        store = campaign.store
        add_prototypes(campaign)
        before = documents_in(connection.database)
        decisions.first_round(campaign)
        history.append(Decided(None, store.last_round(), before, documents_in(connection.database)))
        while not store.campaign()["finished"]:
            round_ = store.last_round()
            work_off(campaign, round_)
            before = documents_in(connection.database)
            decisions.decide(campaign, round_)
            after = documents_in(connection.database)
            assert len(history) < 60, "the tiny campaign has no end"
            history.append(Decided(round_, store.find_round(round_.number + 1), before, after))
    return history


def documents_in(database):
    return {
        name: list(database[name].find({}).sort("_id", 1))
        for name in database.list_collection_names()
    }


@pytest.fixture
def put_back():
    """Function that replaces everything in a database by the documents of an earlier moment."""

    def restore(connection, documents):
        # The server of the tests is not killed here, so nothing waits for its journal.
        database = connection.database.with_options(write_concern=pymongo.WriteConcern(w=1))
        for name in set(database.list_collection_names()) | set(documents):
            database[name].delete_many({})
            if documents.get(name):
                database[name].insert_many(copy.deepcopy(documents[name]))

    return restore


class KilledError(BaseException):
    """The process ends here; nothing catches it."""


@dataclass
class Mortality:
    """Which write a process does not survive.

    Attributes
    ----------
    lives
        Writes that still come through.
    """

    lives: int
    dead: bool = False

    def spend(self, wanted):
        """How many of ``wanted`` writes come through."""
        if self.dead:
            return 0
        allowed = min(wanted, self.lives)
        self.lives -= allowed
        self.dead = allowed < wanted
        return allowed


SINGLE_WRITES = (
    "insert_one", "update_one", "update_many", "replace_one", "delete_one", "delete_many",
    "find_one_and_update", "find_one_and_replace", "find_one_and_delete",
)  # fmt: skip
MANY_WRITES = ("bulk_write", "insert_many")


@pytest.fixture
def mortal(monkeypatch):
    """Context in which the process dies after a number of writes: ``with mortal(3): ...``.

    Every write to MongoDB counts, ours and FireWorks'; one of many documents counts twice, for it
    may end in the middle.
    Once dead, nothing more is written, whoever catches the exception. Yields an object whose
    ``dead`` tells whether it came to that.
    """
    collection = pymongo.collection.Collection

    def single(original, fate):
        def write(self, *args, **options):
            if fate.spend(1) == 0:
                raise KilledError
            return original(self, *args, **options)

        return write

    def many(original, fate):
        def write(self, items, *args, **options):
            items = list(items)
            allowed = fate.spend(2)
            if allowed == 1:
                original(self, items[: (len(items) + 1) // 2], *args, **options)
            if allowed < 2:
                raise KilledError
            return original(self, items, *args, **options)

        return write

    @contextlib.contextmanager
    def dying(lives):
        fate = Mortality(lives)
        with monkeypatch.context() as patch:
            for names, wrap in ((SINGLE_WRITES, single), (MANY_WRITES, many)):
                for name in names:
                    patch.setattr(collection, name, wrap(getattr(collection, name), fate))
            try:
                yield fate
            except KilledError:
                assert fate.dead
        fate.lives = 0

    return dying


@dataclass(frozen=True)
class SmallCampaign:
    """A finished campaign: directory, database, LaunchPad and documents; tests only read them."""

    directory: object
    connection: object
    launchpad: object
    store: object


@pytest.fixture(scope="session")
def small_campaign(mongo_server, tmp_path_factory):
    """Cu-Pd up to three atoms, from element names to the hull, by FireWorks in this process."""
    import logging

    from fireworks import FWorker
    from fireworks.core.rocket_launcher import launch_rocket

    from hullscreen.launch.campaign_session import open_session
    from hullscreen.launch.local_run import prepare
    from hullscreen.workflows import recovery

    directory = tmp_path_factory.mktemp("campaigns") / "cu-pd"
    directory.mkdir()
    with database_of_its_own(mongo_server) as own:
        (directory / "hullscreen.toml").write_text(
            '[campaign]\nname = "cu-pd"\nelements = ["Cu", "Pd"]\n'
            "[prototypes]\nmax_atoms = 3\naflow = false\n"
            "[potential]\nlevel_first = 6\nlevel_second = 8\n"
            f'[database]\nuri = "{own.uri}"\nname = "{own.name}"\n'
        )
        with open_session(directory) as session:
            campaign, launchpad = prepare(session)
            recovery.resubmit(launchpad, campaign)
            before = logging.root.manager.disable
            logging.disable(logging.INFO)
            with contextlib.chdir(directory):
                while launch_rocket(launchpad, FWorker(name="test"), strm_lvl="CRITICAL"):
                    pass
            logging.disable(before)
            assert session.store.campaign()["finished"], recovery.failures(launchpad, campaign)
            yield SmallCampaign(directory, session.connection, launchpad, session.store)
            launchpad.connection.close()


@pytest.fixture
def copied_campaign(small_campaign, mongo, put_back):
    """The small campaign in a database of the test's own, which may be changed."""
    from hullscreen.database.campaign_store import CampaignStore

    put_back(mongo, documents_in(small_campaign.connection.database))
    return CampaignStore(mongo, "cu-pd")
