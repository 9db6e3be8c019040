"""Campaigns on a shared server: with users, side by side, and moved from one to another."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import bson
import pymongo
import pytest

from hullscreen.database.addresses import URI_VARIABLE
from hullscreen.launch.command_line import main

CALCULATORS = Path(__file__).parent / "calculators"
PATIENCE_S = 600
SETTINGS = """
[campaign]
name = "{name}"
elements = ["Cu", "Pd"]
seed = {seed}
[prototypes]
max_atoms = 3
lattices = ["fcc", "bcc"]
aflow = false
[potential]
level_first = 4
level_second = 6
cutoff_angstrom = 4.5
[learning]
first_wave = 6
[dft]
calculator = "counting_emt:CountingEMT"
structures_per_job = 3
[database]
name = "{database}"
{address}
"""
# Everything that a URI, a shell, a log or JSON would change.
ODD_PASSWORD = "Zq7 /@:?#&%+'\"$\\é"  # noqa: S105 - it is to be found


def campaign_directory(directory, database, address, name="shared", seed=3):
    directory.mkdir()
    text = SETTINGS.format(name=name, database=database, address=address, seed=seed)
    (directory / "hullscreen.toml").write_text(text)
    return directory


def environment(directory):
    paths = [str(CALCULATORS), *[path for path in sys.path if path]]
    log = {"COUNTING_EMT_LOG": str(directory / "evaluations.txt")}
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)} | log


def start(*words):
    """`hullscreen` in a process of its own, for a campaign directory, the last word."""
    directory = words[-1]
    with (directory / "output.txt").open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "hullscreen.launch", *map(str, words)],
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment(directory),
        )  # fmt: skip


def finish(process, directory):
    assert process.wait(timeout=PATIENCE_S) == 0, (directory / "output.txt").read_text()[-3000:]


def wait_for(condition, process):
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert process.poll() is None, "the run ended before"
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.05)


def call(capsys, *words):
    code = main([str(word) for word in words])
    out, err = capsys.readouterr()
    return code, out, err


def as_json(capsys, *words):
    code, out, err = call(capsys, *words, "--json")
    assert code == 0, err
    return json.loads(out)


@pytest.fixture(autouse=True)
def calculators_known(monkeypatch, tmp_path):
    monkeypatch.delenv(URI_VARIABLE, raising=False)
    monkeypatch.syspath_prepend(str(CALCULATORS))
    monkeypatch.setenv("COUNTING_EMT_LOG", str(tmp_path / "here.txt"))
    yield
    sys.modules.pop("counting_emt", None)


# With users


@dataclass
class Guarded:
    """A campaign with users of `hullscreen db users`, run while its server was killed twice."""

    directory: Path
    reader: Path
    database: object


@pytest.fixture(scope="module")
def guarded(tmp_path_factory, start_mongod):
    server = start_mongod("--auth")
    admin = "admin:s3cret"
    with pymongo.MongoClient(server.uri()) as client:
        client["admin"].command("createUser", "admin", pwd="s3cret", roles=["root"])  # noqa: S106
    folder = tmp_path_factory.mktemp("guarded")
    address = 'uri_file = "hullscreen-write.uri"'
    directory = campaign_directory(folder / "campaign", "guarded", address)
    admin_file = folder / "admin.uri"
    files = {"write": directory / "hullscreen-write.uri", "read": directory / "hullscreen-read.uri"}
    for who, path in files.items():
        # A file that is there says which password its user gets.
        login = f"hullscreen-{who}:{quote(ODD_PASSWORD + who, safe='')}"
        path.write_text(server.uri(login, authSource="guarded"))
        path.chmod(0o600)
    admin_file.write_text(server.uri(admin))
    admin_file.chmod(0o600)
    words = ["db", "users", str(directory), "--admin-uri-file", str(admin_file)]
    assert main(words) == 0

    with pymongo.MongoClient(server.uri(admin)) as client:
        database = client["guarded"]
        with start("run", directory) as process:
            results, running = database["dft_results"], {"state": "RUNNING"}
            for n_results in (1, 15):
                wait_for(lambda n=n_results: results.count_documents({}) >= n, process)
                wait_for(lambda: database["fireworks"].count_documents(running), process)
                server.kill(signal.SIGKILL)
                time.sleep(1.0)
                server.start()
            finish(process, directory)
        reader = folder / "reader"
        reader.mkdir()
        text = (directory / "hullscreen.toml").read_text()
        (reader / "hullscreen.toml").write_text(text.replace("hullscreen-write", "reading"))
        (reader / "reading.uri").write_text(files["read"].read_text())
        (reader / "reading.uri").chmod(0o600)
        yield Guarded(directory, reader, database)


@pytest.mark.slow
def test_the_writing_user_brings_a_campaign_to_its_hull(guarded, capsys):
    hull = as_json(capsys, "hull", guarded.directory)
    assert hull["finished"]
    assert {"Cu", "Pd"} <= {entry["formula_pretty"] for entry in hull["stable"]}


@pytest.mark.slow
def test_the_writing_user_may_use_fireworks_own_commands(guarded):
    lpad = Path(sys.executable).with_name("lpad")
    for words in (
        ("get_wflows", "-d", "count"),
        ("admin", "tuneup", "--full"),
        ("detect_lostruns",),
    ):
        done = subprocess.run(
            [lpad, "-l", "my_launchpad.yaml", *words],
            cwd=guarded.directory, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
        assert not any(
            text in (done.stdout + done.stderr).encode() for text in spellings(ODD_PASSWORD)
        )


def spellings(password):
    """The password as it might be written down."""
    plain = [password, quote(password, safe=""), quote(password), json.dumps(password)[1:-1]]
    return {text.encode() for text in (*plain, repr(password)[1:-1], password.partition("é")[0])}


@pytest.mark.slow
def test_no_password_in_any_file_or_document(guarded):
    expected = {
        guarded.directory / name
        for name in ("hullscreen-write.uri", "hullscreen-read.uri", "my_launchpad.yaml")
    }
    holding = {}
    for path in guarded.directory.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            for who in ("write", "read"):
                if any(text in content for text in spellings(ODD_PASSWORD + who)):
                    holding[path] = path.stat().st_mode & 0o777
    assert holding == dict.fromkeys(expected, 0o600)
    assert (guarded.directory / "logs").is_dir()
    # The server was killed twice, and workers said so, or steps failed.
    output = "".join(path.read_text(errors="replace") for path in guarded.directory.rglob("*.log"))
    assert output
    for name in guarded.database.list_collection_names():
        for document in guarded.database[name].find():
            packed = bson.encode(document)
            assert not any(text in packed for text in spellings(ODD_PASSWORD)), (name, document)


@pytest.mark.slow
def test_the_reading_user_sees_everything_and_changes_nothing(guarded, capsys, tmp_path):
    def state():
        database = guarded.database
        return {
            name: (
                sorted(map(bson.encode, database[name].find())),
                database[name].index_information(),
            )
            for name in database.list_collection_names()
        }

    before = state()
    reader = guarded.reader
    assert as_json(capsys, "hull", reader) == as_json(capsys, "hull", guarded.directory)
    assert as_json(capsys, "status", reader)["finished"]
    assert as_json(capsys, "report", reader)
    assert as_json(capsys, "query", reader)
    assert as_json(capsys, "labels", reader)
    assert as_json(capsys, "forecast", reader)
    for command in ("hull", "status", "report", "query", "labels"):
        code, out, err = call(capsys, command, reader)
        assert (code, err) == (0, "")
        assert out
    code, _, err = call(capsys, "export", reader, "--format", "cif", "-o", tmp_path / "cif")
    assert code == 0, err
    code, _, err = call(capsys, "db", "dump", reader, tmp_path / "dump")
    assert code == 0, err
    for words in (("run",), ("submit",), ("db", "remove-campaign", "--yes")):
        code, out, err = call(capsys, *words, reader)
        assert (code, out) == (5, "")
        assert err.count("\n") == 1
        assert "The user of the URI may not do `" in err
        assert "use the URI of a user who may (a reading user writes nothing)" in err
    assert state() == before


# Side by side


@pytest.fixture
def plain_server(start_mongod):
    return start_mongod()


@pytest.mark.slow
def test_two_campaigns_in_one_database_do_not_meet(plain_server, tmp_path, capsys):
    address = f'uri = "{plain_server.uri()}"'
    names = {"one": 3, "two": 4}
    directories = {
        name: campaign_directory(tmp_path / name, "both", address, name, seed)
        for name, seed in names.items()
    }
    processes = {name: start("run", directory) for name, directory in directories.items()}
    for name, process in processes.items():
        finish(process, directories[name])
    with pymongo.MongoClient(plain_server.uri()) as client:
        database = client["both"]
        of = {}
        for name in names:
            hull = as_json(capsys, "hull", directories[name])
            assert hull["finished"]
            of[name] = [(e["formula_pretty"], e["energy_per_atom"]) for e in hull["stable"]]
            fireworks = list(database["fireworks"].find({"spec.campaign": name}))
            assert {f["state"] for f in fireworks} == {"COMPLETED"}
            # Each was done by processes of its own, in its own directory.
            ids = [f["fw_id"] for f in fireworks]
            launches = list(database["launches"].find({"fw_id": {"$in": ids}}))
            assert all(str(directories[name]) in one["launch_dir"] for one in launches)
            numbers = [r["number"] for r in database["rounds"].find({"campaign": name})]
            assert sorted(numbers) == list(range(len(numbers)))
            for workflow in database["workflows"].find({"metadata.campaign": name}):
                assert set(workflow["nodes"]) <= set(ids)
        holders = list(database["claims"].find({}, {"campaign": 1, "holder": 1}))
        assert not any(claim["holder"] for claim in holders)
        # Chosen differently, they end on the same hull, for EMT is the same.
        for (formula, energy), (same, other) in zip(of["one"], of["two"], strict=True):
            assert formula == same
            # Relaxed from other starts to 0.01 eV/Å: a meV per atom apart at most.
            assert energy == pytest.approx(other, abs=1e-3)
        # What one has computed the other need not.
        shared = [set(database["selected"].distinct("key", {"campaign": n})) for n in names]
        assert shared[0] & shared[1]
        computed = Counter(r["key"] for r in database["dft_results"].find({}, {"key": 1}))
        assert set(computed.values()) == {1}

        two = {
            name: sorted(map(bson.encode, database[name].find({"campaign": "two"})))
            for name in ("structures", "selected", "rounds", "potentials")
        }
        n_results = database["dft_results"].count_documents({})
        assert call(capsys, "db", "remove-campaign", directories["one"], "--yes")[0] == 0
        assert database["dft_results"].count_documents({}) == n_results
        for name, documents in two.items():
            assert sorted(map(bson.encode, database[name].find())) == documents
        assert database["fireworks"].distinct("spec.campaign") == ["two"]
        hull = as_json(capsys, "hull", directories["two"])
        assert [(e["formula_pretty"], e["energy_per_atom"]) for e in hull["stable"]] == of["two"]


# Moved


def evaluations(*directories):
    return [
        line
        for directory in directories
        if (directory / "evaluations.txt").exists()
        for line in (directory / "evaluations.txt").read_text().split()
    ]


@pytest.mark.slow
def test_a_half_done_campaign_goes_on_elsewhere(plain_server, start_mongod, tmp_path, capsys):
    calm = campaign_directory(tmp_path / "calm", "calm", f'uri = "{plain_server.uri()}"')
    finish(start("run", calm), calm)

    here = campaign_directory(tmp_path / "here", "here", f'uri = "{plain_server.uri()}"')
    with pymongo.MongoClient(plain_server.uri()) as client:
        database = client["here"]
        with start("run", here) as process:
            wait_for(lambda: database["rounds"].count_documents({"number": {"$gte": 2}}), process)
            process.send_signal(signal.SIGINT)
            process.wait(timeout=PATIENCE_S)
        assert not database["campaigns"].find_one()["finished"]
    code, _, err = call(capsys, "db", "dump", here, tmp_path / "dump")
    assert code == 0, err

    # On another server, in whose database another campaign has begun.
    elsewhere = start_mongod()
    address = f'uri = "{elsewhere.uri()}"'
    other = campaign_directory(tmp_path / "other", "group", address, "other", seed=5)
    with pymongo.MongoClient(elsewhere.uri()) as client:
        with start("run", other) as process:
            wait_for(client["group"]["rounds"].find_one, process)
            process.send_signal(signal.SIGINT)
            process.wait(timeout=PATIENCE_S)
        there = campaign_directory(tmp_path / "there", "group", address)
        # What the other one has computed counts for this one, but shall not be counted here.
        client["group"]["dft_results"].delete_many({})
        code, _, err = call(capsys, "db", "restore", there, tmp_path / "dump")
        assert code == 0, err
        finish(start("run", there), there)
        fireworks = client["group"]["fireworks"].find({"spec.campaign": "shared"})
        assert {firework["state"] for firework in fireworks} == {"COMPLETED"}
    ours, theirs = (as_json(capsys, "hull", directory) for directory in (there, calm))
    assert ours["finished"]
    for mine, its in zip(ours["stable"], theirs["stable"], strict=True):
        assert mine["formula_pretty"] == its["formula_pretty"]
        # The same code at the same geometry: equal to rounding.
        assert mine["energy_per_atom"] == pytest.approx(its["energy_per_atom"], abs=1e-9)
    # Each was computed once, on either side; but for what was under way when `run` was stopped.
    counted = Counter(evaluations(here, there))
    assert set(counted) == set(evaluations(calm))
    stopped = [one for one, n in counted.items() if n > 1]
    assert len(stopped) <= os.cpu_count()


@pytest.mark.slow
def test_a_lost_index_does_not_need_a_writer(guarded, capsys):
    wanted = as_json(capsys, "query", guarded.reader)
    guarded.database["structures"].drop_indexes()
    try:
        assert as_json(capsys, "query", guarded.reader) == wanted
        assert as_json(capsys, "hull", guarded.reader)["stable"]
    finally:
        assert as_json(capsys, "query", guarded.directory) == wanted
