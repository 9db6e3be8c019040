"""`hullscreen dashboard` as a process: how it begins, what it listens at, how it ends."""

import contextlib
import importlib.util
import json
import re
import shutil
import signal
import socket
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pymongo
import pytest

from hullscreen.database.connection import Connection, connect
from hullscreen.database.embedded_server import status
from hullscreen.database.users import logins, make_user, new_address
from hullscreen.launch.campaign_session import open_session
from hullscreen.launch.command_line import main
from hullscreen.launch.dashboard import serving

pytestmark = pytest.mark.slow

HALF_OPEN = 300
PARTS = ("/", "/_dash-layout", "/_dash-dependencies", "/assets/page.js", "/assets/page.css")
CALLBACK = "/_dash-update-component"


@pytest.fixture(scope="module")
def dashboard(small_campaign, open_dashboard, tmp_path_factory):
    """One of a finished campaign, which all tests here share."""
    errors = tmp_path_factory.mktemp("dashboard") / "errors"
    with open_dashboard(small_campaign.directory, errors=errors) as dashboard:
        yield dashboard
        # Whatever was asked of it, no traceback and no token was written anywhere.
        assert "Traceback" not in errors.read_text()
        assert dashboard.token not in errors.read_text()
        assert dashboard.process.poll() is None


# How it begins


def test_it_listens_on_loopback_alone(dashboard):
    listening = [
        line.split()[1]
        for name in ("tcp", "tcp6")
        for line in Path(f"/proc/{dashboard.process.pid}/net/{name}").read_text().splitlines()[1:]
        if line.split()[3] == "0A" and line.split()[1].endswith(f":{dashboard.port:04X}")
    ]
    assert listening == [f"0100007F:{dashboard.port:04X}"]


def test_the_token_is_on_no_command_line_and_in_no_file(dashboard, small_campaign):
    commands = [
        path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if can_be_read(path)
    ]
    assert not any(dashboard.token.encode() in command for command in commands)
    for path in small_campaign.directory.rglob("*"):
        if path.is_file():
            assert dashboard.token.encode() not in path.read_bytes()


def can_be_read(path):
    try:
        path.read_bytes()
    except OSError:
        return False
    return True


def test_the_browser_gets_the_address_in_a_file_of_its_users(monkeypatch):
    opened, seen = [], []

    def open_in_browser(address):
        path = Path(address.removeprefix("file://"))
        seen.append((path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777))
        opened.append(path)

    monkeypatch.setattr(serving.webbrowser, "open", open_in_browser)
    monkeypatch.setenv("DISPLAY", ":0")
    with serving.shown_in_browser("http://127.0.0.1:1/?token=abc"):
        while not opened:
            time.sleep(0.01)
        assert "url=http://127.0.0.1:1/?token=abc" in opened[0].read_text()
    assert seen == [(0o600, 0o700)]
    assert not opened[0].exists()
    monkeypatch.delenv("DISPLAY")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    # A text browser would take the terminal over.
    with serving.shown_in_browser("http://127.0.0.1:1/"):
        assert len(opened) == 1


def test_a_port_that_is_taken(dashboard, small_campaign, capsys):
    assert main(["dashboard", str(small_campaign.directory), "--port", str(dashboard.port)]) == 2
    assert capsys.readouterr().err == (
        f"hullscreen: port {dashboard.port} of 127.0.0.1 is taken: choose another with --port; "
        "0 takes a free one\n"
    )


def test_campaigns_of_one_name(small_campaign, tmp_path, capsys):
    copy = tmp_path / "copy"
    copy.mkdir()
    shutil.copy(small_campaign.directory / "hullscreen.toml", copy)
    assert main(["dashboard", str(small_campaign.directory), str(copy)]) == 2
    assert "expected campaigns of different names, got 'cu-pd' in " in capsys.readouterr().err


def test_what_was_not_started_has_no_dashboard(tmp_path, capsys):
    assert main(["dashboard", str(tmp_path)]) == 2
    assert "hullscreen.toml does not exist" in capsys.readouterr().err
    assert main(["init", str(tmp_path / "new"), "--elements", "Cu", "Pd"]) == 0
    assert main(["dashboard", str(tmp_path / "new")]) == 6
    assert "has not been started" in capsys.readouterr().err
    assert not (tmp_path / "new" / "database").exists()


@pytest.mark.parametrize("name", ["dash", "waitress"])
def test_without_its_packages_it_says_what_to_install(name, tmp_path, capsys, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda one: None if one == name else found(one)
    )
    assert main(["dashboard", str(tmp_path)]) == 2
    assert f"needs {name}, which" in capsys.readouterr().err


# What it answers


def test_everything_needs_the_cookie(dashboard):
    _, _, page = dashboard.ask("/")
    scripts = re.findall(r'(?:src|href)="(/[^"]+)"', page)
    assert len(scripts) > 5
    for path in (*PARTS, *scripts, "/campaigns/cu-pd/log?structure=0"):
        path = path.replace("&amp;", "&")  # noqa: PLW2901
        assert dashboard.ask(path)[0] == 200, path
        code, _, text = dashboard.ask(path, signed=False)
        assert (code, list(json.loads(text))) == (401, ["message"]), path


def test_no_answer_names_a_program_or_its_version(dashboard):
    raw = [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"NONSENSE\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n"]
    raw += [b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n", b"GET /" + b"a" * 10**5 + b"\r\n\r\n"]
    for request in raw:
        with socket.create_connection(("127.0.0.1", dashboard.port), timeout=20) as connection:
            connection.sendall(request)
            answer = connection.recv(65536).lower()
        assert answer.startswith(b"http/1")
        for name in (b"\nserver:", b"waitress", b"werkzeug", b"python", b"flask"):
            assert name not in answer


@pytest.mark.parametrize("kind", ["nothing", "half a request", "half a body"])
def test_half_open_connections_keep_nobody_out(dashboard, kind):
    begun = {
        "nothing": b"",
        "half a request": b"GET / HTTP/1.1\r\nHost: 127",
        "half a body": b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\n\r\n{",
    }[kind]
    with contextlib.ExitStack() as stack:
        for _ in range(HALF_OPEN):
            connection = socket.create_connection(("127.0.0.1", dashboard.port), timeout=20)
            stack.enter_context(connection)
            connection.sendall(begun)
        assert dashboard.ask("/")[0] == 200


def test_several_viewers_at_once_get_what_one_gets(dashboard):
    with ThreadPoolExecutor(10) as viewers:
        found = list(viewers.map(lambda _: dashboard.ask("/_dash-layout")[2], range(30)))
    assert len(set(found)) == 1


# How it ends


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_when_it_is_asked_to(small_campaign, open_dashboard, tmp_path, number):
    errors = tmp_path / "errors"
    with open_dashboard(small_campaign.directory, errors=errors) as dashboard:
        # Also in the middle of a request.
        with socket.create_connection(("127.0.0.1", dashboard.port)) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\n")
            assert dashboard.ask("/")[0] == 200
            assert dashboard.end(number) == 0
        assert errors.read_text() == ""
        # The port is free at once.
        with serving.listening(dashboard.port):
            pass


def test_it_answers_and_ends_also_while_the_database_is_away(
    small_campaign, start_mongod, open_dashboard, tmp_path
):
    server, name = start_mongod(), "away"
    source = small_campaign.connection.database
    with pymongo.MongoClient(server.uri()) as client:
        for collection in source.list_collection_names():
            if documents := list(source[collection].find()):
                client[name][collection].insert_many(documents)
    directory = tmp_path / "away"
    directory.mkdir()
    text = (small_campaign.directory / "hullscreen.toml").read_text().partition("[database]")[0]
    (directory / "hullscreen.toml").write_text(
        f'{text}[database]\nuri = "{server.uri()}"\nname = "{name}"\n'
    )
    errors = tmp_path / "errors"
    with open_dashboard(directory, errors=errors) as dashboard, contextlib.ExitStack() as stack:
        cookie = dashboard.log_in()
        server.kill()
        # As many as want to wait for it; the page does not.
        for _ in range(2 * serving.THREADS):
            connection = socket.create_connection(("127.0.0.1", dashboard.port))
            stack.enter_context(connection)
            connection.sendall(
                b"GET /campaigns/cu-pd/log?structure=0 HTTP/1.1\r\n"
                + f"Host: 127.0.0.1:{dashboard.port}\r\nCookie: {cookie}\r\n\r\n".encode()
            )
        assert dashboard.ask("/")[0] == 200
        assert status_line(dashboard)
        assert dashboard.end(signal.SIGTERM) == 0
    assert "Traceback" not in errors.read_text()


# Databases


@pytest.fixture
def embedded(small_campaign, tmp_path):
    """A directory with a server of its own that holds the small campaign."""
    directory = tmp_path / "own"
    directory.mkdir()
    text = (small_campaign.directory / "hullscreen.toml").read_text()
    (directory / "hullscreen.toml").write_text(
        text.partition("[database]")[0].replace('"cu-pd"', '"own"')
    )
    source = small_campaign.connection.database
    with open_session(directory) as session:
        for name in ("campaigns", "structures", "rounds", "dft_results", "fireworks"):
            documents = list(source[name].find())
            for document in documents:
                for key in ("name", "campaign"):
                    if document.get(key) == "cu-pd":
                        document[key] = "own"
            session.connection.database[name].insert_many(documents)
    return directory


def test_several_campaigns_and_a_server_that_lives_as_long(
    embedded, small_campaign, open_dashboard, tmp_path, wait_for
):
    # The same directory twice is one campaign.
    directories = (small_campaign.directory, embedded, embedded)
    with open_dashboard(*directories, errors=tmp_path / "errors") as dashboard:
        for name in ("cu-pd", "own"):
            assert dashboard.ask(f"/campaigns/{name}/log?structure=0")[0] == 200
            assert f'"{name}"' in dashboard.ask("/_dash-layout")[2]
        # Another command comes and goes, and the server stays.
        assert main(["status", str(embedded), "--json"]) == 0
        assert status(embedded).running
        assert status(embedded).clients == 1
        assert dashboard.ask("/campaigns/own/log?structure=0")[0] == 200
        assert dashboard.end(signal.SIGTERM) == 0
    wait_for(lambda: not status(embedded).running)


def test_a_user_who_may_only_read_suffices(
    admin_uri, small_campaign, open_dashboard, tmp_path, wait_for
):
    name = f"test_{uuid.uuid4().hex[:12]}"
    database = connect(admin_uri, name)
    admin = Connection(database, admin_uri, name, embedded=False)
    source = small_campaign.connection.database
    try:
        for collection in source.list_collection_names():
            if documents := list(source[collection].find()):
                database[collection].insert_many(documents)
        login = logins("ann")[1]
        address = new_address(admin, login)
        make_user(admin, login, address)
        directory = tmp_path / "read"
        directory.mkdir()
        text = (small_campaign.directory / "hullscreen.toml").read_text()
        (directory / "hullscreen.toml").write_text(
            text.partition("[database]")[0] + f'[database]\nuri_file = "uri"\nname = "{name}"\n'
        )
        (directory / "uri").write_text(address)
        (directory / "uri").chmod(0o600)
        before = everything(database)
        password = pymongo.uri_parser.parse_uri(address)["password"]
        errors = tmp_path / "errors"
        with open_dashboard(directory, "--allow-actions", errors=errors) as dashboard:
            assert dashboard.ask("/campaigns/cu-pd/log?structure=0")[0] == 200
            wait_for(lambda: "finished" in status_line(dashboard))
            code, _, text = dashboard.ask("/campaigns/cu-pd/resume", method="POST", body={})
            assert code in {409, 503}
            assert password not in text
            database["campaigns"].update_one({}, {"$set": {"paused": True}})
            code, _, text = dashboard.ask("/campaigns/cu-pd/resume", method="POST", body={})
            assert code == 503
            assert "may not do `update`" in text
            database["campaigns"].update_one({}, {"$unset": {"paused": ""}})
        assert everything(database) == before
        assert password not in errors.read_text()
    finally:
        database.command("dropAllUsersFromDatabase")
        database.command("dropAllRolesFromDatabase")
        database.client.drop_database(name)
        database.client.close()


def everything(database):
    """All documents and all indexes."""
    return {
        name: (list(database[name].find()), database[name].index_information())
        for name in sorted(database.list_collection_names())
    }


def status_line(dashboard):
    """What the page's first question brings."""
    dependencies = json.loads(dashboard.ask("/_dash-dependencies")[2])
    (refresh,) = [one for one in dependencies if "status-line.children" in one["output"]]
    places = [place.rsplit(".", 1) for place in refresh["output"].strip(".").split("...")]
    body = {
        "output": refresh["output"],
        "outputs": [{"id": place, "property": name} for place, name in places],
        "inputs": [{**one, "value": None} for one in refresh["inputs"]],
        "state": [{**one, "value": None} for one in refresh["state"]],
        "changedPropIds": [],
    }
    code, _, text = dashboard.ask(CALLBACK, method="POST", body=body)
    assert code == 200, text
    return json.loads(text)["response"]["status-line"]["children"]
