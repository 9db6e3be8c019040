"""Who gets in: every check of a request, and the headers of every answer."""

import json

import pytest
from flask import Flask

from hullscreen.launch.dashboard.answers import answer_failures
from hullscreen.launch.dashboard.security import GUESSES, LARGEST_BODY, Keys, guard

PORT = 8050
HOST = f"127.0.0.1:{PORT}"
OWN = {"Host": HOST, "Sec-Fetch-Site": "same-origin"}
ADDRESS = "mongodb://ann:hunter2@host/"


@pytest.fixture
def keys():
    return Keys()


@pytest.fixture
def server(keys):
    """A server with a page, a callback and something that fails."""
    server = Flask(__name__)
    server.add_url_rule("/", "page", lambda: "<p>the page</p>")
    server.add_url_rule("/echo", "echo", lambda: {"ok": True}, methods=["POST"])

    def fail():
        raise RuntimeError(f"no connection to {ADDRESS}")

    server.add_url_rule("/fail", "fail", fail)
    answer_failures(server)
    guard(server, keys, port=PORT, script_hashes=["'sha256-abc'"])
    return server


@pytest.fixture
def stranger(server):
    return server.test_client()


@pytest.fixture
def client(server, keys):
    """A client with the cookie."""
    client = server.test_client()
    assert client.get(f"/?token={keys.token}", headers={"Host": HOST}).status_code == 303
    return client


def post(client, body=b"{}", **headers):
    headers = {"Content-Type": "application/json", **OWN, **headers}
    return client.post("/echo", data=body, headers=headers)


# The token and the cookie


def test_the_token_brings_a_cookie_and_leaves_the_address(stranger, keys):
    answer = stranger.get(f"/?token={keys.token}", headers={"Host": HOST})
    assert answer.status_code == 303
    assert answer.headers["Location"] == "/"
    cookie = answer.headers["Set-Cookie"]
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(cookie.split("; "))
    # Whoever finds the address in the browser's history does not have the cookie, nor the reverse.
    assert keys.token not in cookie
    assert stranger.get("/", headers=OWN).text == "<p>the page</p>"


def test_a_link_in_another_page_leads_in_by_a_page_of_ours(stranger, keys):
    headers = {"Host": HOST, "Sec-Fetch-Site": "cross-site"}
    answer = stranger.get(f"/?token={keys.token}", headers=headers)
    assert answer.status_code == 200
    assert 'content="0; url=/"' in answer.text
    assert "Set-Cookie" in answer.headers
    assert stranger.get(f"/?token=x{keys.token}", headers=headers).status_code == 403


def test_nobody_else_gets_anything(stranger, keys):
    said = set()
    for path in ("/", "/echo", "/fail", "/nothing", "/?token=", f"/?token={keys.token[:-1]}"):
        answer = stranger.get(path, headers=OWN)
        assert answer.status_code == 401
        said.add(answer.text)
    stranger.set_cookie(f"hullscreen-{PORT}", keys.token, domain="127.0.0.1")
    answer = stranger.get("/", headers=OWN)
    assert answer.status_code == 401
    # The same words whatever was tried.
    assert said == {answer.text}
    assert post(stranger).status_code == 401


@pytest.mark.parametrize("token", ["é", "\x00", "x" * 10_000, "None", "%ff"])
def test_odd_tokens_are_wrong_tokens(stranger, token):
    assert stranger.get("/", query_string={"token": token}, headers=OWN).status_code == 401
    # Bytes that are no UTF-8.
    assert stranger.get("/?token=%ff%fe", headers=OWN).status_code == 401


def test_a_thousand_guesses_are_slowed_down_and_lock_nobody_out(stranger, client, keys):
    codes = [stranger.get(f"/?token={n}", headers=OWN).status_code for n in range(1000)]
    assert set(codes) == {401, 429}
    # A few more come with the time that this takes.
    assert GUESSES <= codes.count(401) <= GUESSES + 30
    assert client.get("/", headers=OWN).status_code == 200
    assert stranger.get(f"/?token={keys.token}", headers=OWN).status_code == 303


def test_each_start_has_other_keys():
    keys = [Keys(), Keys()]
    values = {value for one in keys for value in (one.token, one.session)}
    assert len(values) == 4
    # 32 bytes in base 64.
    assert all(len(value) >= 43 for value in values)
    assert not any(value in repr(keys) for value in values)


# Other pages and other names


@pytest.mark.parametrize("host", [HOST, f"localhost:{PORT}", "localhost:9999", "LOCALHOST"])
def test_names_of_this_machine(client, stranger, keys, host):
    answer = stranger.get(f"/?token={keys.token}", headers={"Host": host})
    assert answer.status_code == 303


@pytest.mark.parametrize(
    "host",
    [
        f"evil.example:{PORT}",
        f"127.0.0.1.evil.example:{PORT}",
        "127.0.0.2",
        "[::1",
        "127.0.0.1x",
        "",
    ],
)
def test_other_names_are_refused_even_with_the_token(client, keys, host):
    for path in ("/", f"/?token={keys.token}"):
        answer = client.get(path, headers={**OWN, "Host": host})
        assert answer.status_code == 403
        assert "Set-Cookie" not in answer.headers


@pytest.mark.parametrize("site", ["cross-site", "same-site", "", "nonsense"])
def test_other_pages_are_refused(client, site):
    assert client.get("/", headers={**OWN, "Sec-Fetch-Site": site}).status_code == 403
    assert post(client, **{"Sec-Fetch-Site": site}).status_code == 403


@pytest.mark.parametrize(
    ("origin", "code"),
    [
        (f"http://{HOST}", 200),
        (f"http://localhost:{PORT}", 403),
        (f"https://{HOST}", 403),
        ("http://127.0.0.1:9999", 403),
        ("http://evil.example", 403),
        ("null", 403),
        (None, 403),
    ],
)
def test_browsers_that_tell_only_the_origin(client, origin, code):
    headers = {"Host": HOST, "Content-Type": "application/json"}
    if origin is not None:
        headers["Origin"] = origin
    assert client.post("/echo", data="{}", headers=headers).status_code == code
    # Programs without either may read.
    if origin is None:
        assert client.get("/", headers={"Host": HOST}).status_code == 200


# What is posted


def test_a_small_json_object_comes_through(client):
    assert post(client).get_json() == {"ok": True}
    assert post(client, **{"Content-Type": "application/json; charset=utf-8"}).status_code == 200


@pytest.mark.parametrize(
    "kind", ["application/x-www-form-urlencoded", "text/plain", "multipart/form-data", ""]
)
def test_forms_are_refused(client, kind):
    assert post(client, **{"Content-Type": kind}).status_code == 415


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b"3", b"null", b"\xff\xfe", b'{"a":' * 9, b"[" * 100_000,
        b'{"a":' + b"[" * 50_000 + b"]" * 50_000 + b"}", b'{"a": ' + b"9" * 10_000 + b"}",
    ],
)  # fmt: skip
def test_what_is_no_json_object(client, body):
    answer = post(client, body)
    assert answer.status_code == 400
    assert "expected a JSON object" in answer.get_json()["message"]


def test_large_bodies_are_not_read(client):
    assert post(client, b" " * (LARGEST_BODY - 2) + b"{}").status_code == 200
    assert post(client, b" " * LARGEST_BODY + b"{}").status_code == 413


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"])
def test_other_methods_are_refused(client, method):
    assert client.open("/", method=method, headers=OWN).status_code == 405


# What is answered


def test_every_answer_carries_the_headers(client, stranger):
    answers = [
        client.get("/", headers=OWN),
        client.get("/fail", headers=OWN),
        client.get("/nothing", headers=OWN),
        stranger.get("/", headers=OWN),
        stranger.get("/", headers={"Host": "evil.example"}),
    ]
    assert [answer.status_code for answer in answers] == [200, 500, 404, 401, 403]
    for answer in answers:
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'self'; script-src 'self' 'sha256-abc';" in policy
        assert "frame-ancestors 'none'; base-uri 'none'; form-action 'none'" in policy
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["Cross-Origin-Opener-Policy"] == "same-origin"
        assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert "Access-Control-Allow-Origin" not in answer.headers


def test_failures_tell_nothing_of_the_inside(client, caplog):
    answer = client.get("/fail?token=abc", headers=OWN)
    assert json.loads(answer.text).keys() == {"message"}
    for inside in ("Traceback", "RuntimeError", "hunter2", "File", "no connection"):
        assert inside not in answer.text
    assert "RuntimeError" in caplog.text
    assert "hunter2" not in caplog.text
    assert "abc" not in caplog.text
