import contextlib
import copy
import re
import shlex
import shutil
import signal
import socket
import subprocess
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path

import pymongo
import pymongo.collection
import pytest

from hullscreen.database.connection import Connection, connect
from hullscreen.database.embedded_server import acquire, stop


def pytest_collection_modifyitems(items):
    """Files with slow tests first: processes that share the work end at about the same time."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


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
    from hullscreen.workflows import dft_steps, potential_steps

    everything = (0, 10**9)
    dft_steps.label(campaign, round_, *everything)
    if round_.fits:
        potential_steps.fit_potential(campaign, round_)
    if round_.purpose in ("seed", "learn", "refine"):
        potential_steps.relax_structures(campaign, round_, *everything)
    dft_steps.relax_with_dft(campaign, round_, *everything)


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
    from hullscreen.launch.campaign_start import prepare
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


# Servers of the tests' own, with what a shared one has: logins, TLS

START_PATIENCE_S = 60


@dataclass
class OwnServer:
    """A mongod on a port of this host that a test may kill."""

    folder: Path
    options: tuple[str, ...]
    port: int
    process: subprocess.Popen | None = None

    def start(self):
        """Start it, and return when it listens."""
        from hullscreen.database.mongod import find_mongod

        self.process = subprocess.Popen(
            [
                str(find_mongod()), "--dbpath", str(self.folder / "data"),
                "--port", str(self.port), "--bind_ip", "127.0.0.1",
                "--unixSocketPrefix", str(self.folder), "--logpath", str(self.folder / "log"),
                "--logappend", "--wiredTigerCacheSizeGB", "0.25", *self.options,
            ],
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        deadline = time.monotonic() + START_PATIENCE_S
        while True:
            assert self.process.poll() is None, (self.folder / "log").read_text()[-3000:]
            assert time.monotonic() < deadline, "mongod did not start in time"
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                return
            time.sleep(0.02)

    def kill(self, number=signal.SIGKILL):
        """End it in a way."""
        self.process.send_signal(number)
        self.process.wait()

    def uri(self, login="", **options):
        """Address for a login such as ``ann:secret``."""
        query = "&".join(f"{name}={value}" for name, value in options.items())
        return f"mongodb://{login}{'@' if login else ''}localhost:{self.port}/?{query}"


@pytest.fixture(scope="session")
def start_mongod(tmp_path_factory):
    """Function that starts a server with options of its own; all are ended after the tests."""
    servers = []

    def start(*options):
        folder = tmp_path_factory.mktemp("mongod")
        (folder / "data").mkdir()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        servers.append(OwnServer(folder, options, port))
        servers[-1].start()
        return servers[-1]

    yield start
    for server in servers:
        server.kill()


ADMIN = "admin:Zq7-adm1n"


@pytest.fixture(scope="session")
def server_with_users(start_mongod):
    """A server that asks for a login; `ADMIN` may do everything."""
    server = start_mongod("--auth")
    user, _, password = ADMIN.partition(":")
    # The first user may be made without a login, from this host.
    with pymongo.MongoClient(server.uri()) as client:
        client["admin"].command("createUser", user, pwd=password, roles=["root"])
    return server


@pytest.fixture
def admin_uri(server_with_users):
    """Address of the server with users for its administrator."""
    return server_with_users.uri(ADMIN)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory):
    """Folder with two authorities, ca.pem and other.pem, and server.pem of localhost by the first.

    client.pem is a client's, by the first authority too.
    """
    if shutil.which("openssl") is None:
        pytest.skip("the program openssl is not there, which makes certificates")
    folder = tmp_path_factory.mktemp("certificates")

    def openssl(*words):
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)

    new = ("-newkey", "rsa:2048", "-nodes", "-days", "2")
    authority = ("-addext", "keyUsage=critical,keyCertSign")
    for name in ("ca", "other"):
        subject = ("-subj", f"/CN=authority-{name}")
        files = ("-keyout", f"{name}.key", "-out", f"{name}.pem")
        openssl("req", "-x509", *new, *subject, *authority, *files)
    (folder / "names").write_text("subjectAltName=DNS:localhost\n")
    for name in ("server", "client"):
        files = ("-keyout", f"{name}.key", "-out", f"{name}.request")
        openssl("req", *new[:3], "-subj", f"/CN={name}", *files)
        openssl(
            "x509", "-req", "-in", f"{name}.request", "-CA", "ca.pem", "-CAkey", "ca.key",
            "-CAcreateserial", "-days", "2", "-extfile", "names", "-out", f"{name}.crt",
        )  # fmt: skip
        parts = [(folder / f"{name}.{kind}").read_text() for kind in ("key", "crt")]
        (folder / f"{name}.pem").write_text("".join(parts))
    return folder


@pytest.fixture(scope="session")
def server_with_tls(start_mongod, certificates):
    """A server that speaks TLS and nothing else."""
    return start_mongod(
        "--tlsMode", "requireTLS", "--tlsCertificateKeyFile", str(certificates / "server.pem")
    )


# The page of questions


@dataclass(frozen=True)
class Question:
    """One question of the page: the words of its command, and lines of plain pymongo."""

    title: str
    command: tuple[str, ...]
    code: str

    def plainly(self, structures):
        """What the lines find in a collection."""
        return eval(self.code, {"structures": structures})  # noqa: S307 -- lines of our own page


@pytest.fixture(scope="session")
def questions():
    """The questions of ``database/QUERIES.md``, in their order."""
    page = (Path(__file__).parents[1] / "database" / "QUERIES.md").read_text(encoding="utf-8")
    answer = r"```sh\nhullscreen (.+)\n```\n\n```python\n([^`]*)\n```"
    found = re.findall(rf"^## \d+\. (.+)\n\n{answer}", page, re.MULTILINE)
    return [Question(title, tuple(shlex.split(line)), code) for title, line, code in found]
