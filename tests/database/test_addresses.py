"""Addresses come from where nobody else reads them, and are shown without their secrets."""

import os
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymongo.uri_parser import parse_uri

from hullscreen.database.addresses import (
    URI_VARIABLE,
    has_secret,
    host_of,
    read_uri,
    redact,
    resolve,
    with_login,
)
from hullscreen.potentials.errors import InputError


@pytest.fixture(autouse=True)
def no_variable(monkeypatch):
    monkeypatch.delenv(URI_VARIABLE, raising=False)


def uri_file(path, text, mode=0o600):
    path.write_text(text)
    path.chmod(mode)
    return path


def test_sources_of_the_uri_and_their_order(tmp_path, monkeypatch):
    assert resolve(tmp_path) is None
    assert resolve(tmp_path, "") is None
    monkeypatch.setenv(URI_VARIABLE, "mongodb://variable")
    assert resolve(tmp_path) == "mongodb://variable"
    uri_file(tmp_path / "uri", "mongodb://file\n")
    assert resolve(tmp_path, "", (tmp_path / "uri").relative_to(tmp_path)) == "mongodb://file"
    assert resolve(tmp_path, "mongodb://argument", tmp_path / "uri") == "mongodb://argument"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o620])
def test_uri_file_must_be_private(tmp_path, mode):
    path = uri_file(tmp_path / "uri", "mongodb://ann:s3cret@host\n", mode)
    with pytest.raises(InputError, match=rf"mode is {mode:04o}.*chmod 600") as caught:
        resolve(tmp_path, None, path)
    assert "s3cret" not in str(caught.value)


def test_uri_file_may_be_read_only(tmp_path):
    path = uri_file(tmp_path / "uri", "  mongodb://host  \n", 0o400)
    assert resolve(tmp_path, None, path) == "mongodb://host"


@pytest.mark.parametrize(
    ("content", "message"), [("\nmongodb://host", "first line, which is empty"), (None, "No such")]
)
def test_useless_uri_file_is_named(tmp_path, content, message):
    if content is not None:
        uri_file(tmp_path / "uri", content)
    with pytest.raises(InputError, match=message):
        resolve(tmp_path, None, tmp_path / "uri")


@given(
    st.text(
        st.characters(
            codec="ascii", exclude_characters="\"'<> \n\r\t@", categories=("L", "N", "P")
        ),
        min_size=6,
        max_size=20,
    ),
    st.sampled_from(["mongodb", "mongodb+srv"]),
)
def test_no_password_survives_redaction(password, scheme):
    secret = f"Zq{password}qZ"
    uri = f"{scheme}://ann:{secret}@db.example.org:27017/?tls=true"
    for text in (uri, f"could not reach '{uri}' twice", f"{uri} and {uri}"):
        assert secret not in redact(text)
    assert redact(uri) == f"{scheme}://***@db.example.org:27017/?tls=true"
    assert host_of(uri) == "db.example.org:27017"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mongodb://host/?tls=true", "mongodb://host/?tls=true"),
        ("mongodb://a:p@ss@host/", "mongodb://***@host/"),
        (
            "mongodb://host/?tlsCertificateKeyFilePassword=pw&tls=true",
            "mongodb://host/?tlsCertificateKeyFilePassword=***&tls=true",
        ),
        (
            "mongodb://host/?authMechanismProperties=AWS_SESSION_TOKEN:abc",
            "mongodb://host/?authMechanismProperties=***",
        ),
        ("nothing secret: a@b", "nothing secret: a@b"),
    ],
)
def test_redaction(text, expected):
    assert redact(text) == expected


@pytest.mark.parametrize(
    ("uri", "host"),
    [
        ("mongodb://one:1,two:2/db?x=y", "one:1,two:2"),
        ("mongodb://%2Frun%2Fa.sock/?directConnection=true", "/run/a.sock"),
        ("mongodb://host?tls=true", "host"),
        ("mongodb+srv://ann:pw@cluster.example.org", "cluster.example.org"),
    ],
)
def test_host_of_a_uri(uri, host):
    assert host_of(uri) == host


def test_only_a_file_is_read(tmp_path):
    os.mkfifo(tmp_path / "fifo", 0o600)
    found = []

    def read():
        with pytest.raises(InputError, match="it is no file") as caught:
            read_uri(tmp_path / "fifo")
        found.append(caught)

    # Reading a FIFO waits for a writer, of whom there is none.
    reading = threading.Thread(target=read, daemon=True)
    reading.start()
    reading.join(timeout=60)
    assert found
    with pytest.raises(InputError, match="it is no file"):
        read_uri(tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_the_file_must_be_ones_own(tmp_path):
    path = uri_file(tmp_path / "uri", "mongodb://ann:s3cret@host\n")
    os.chown(path, 12345, -1)
    with pytest.raises(InputError, match="belongs to user 12345, not to you") as caught:
        read_uri(path)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("mongodb://host", False),
        ("mongodb://host:27017,other:27018/?tls=true", False),
        ("mongodb://ann@host:27017/", False),
        ("mongodb://ann:pw@host", True),
        ("mongodb+srv://ann:pw@host/?tls=true", True),
        ("mongodb://ann:p/w@host", True),
        ("mongodb://ann:p@w@host", True),
        ("mongodb://host/?tls=true&tlsCertificateKeyFilePassword=pw", True),
        ("mongodb://host/?authMechanismProperties=AWS_SESSION_TOKEN:abc", True),
    ],
)
def test_what_must_not_be_seen_on_a_command_line(uri, expected):
    assert has_secret(uri) is expected


passwords = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), min_size=1)


@given(passwords)
def test_any_password_comes_through_an_address(password):
    admin = "mongodb://root:x%2Fy@one:1,two:2/admin?tls=true&tlsCAFile=/a/b.pem&authSource=admin"
    parsed = parse_uri(with_login(admin, "ann", password, "alloys"), validate=False)
    assert (parsed["username"], parsed["password"]) == ("ann", password)
    assert parsed["nodelist"] == [("one", 1), ("two", 2)]
    assert parsed["options"]["authSource"] == "alloys"
    assert parsed["options"]["tls"] == "true"


def test_a_login_replaces_everything_about_the_other_one():
    admin = (
        "mongodb+srv://host/?authMechanism=MONGODB-X509&tlsCertificateKeyFile=a.pem&replicaSet=rs"
    )
    assert with_login(admin, "ann", "pw", "cu") == (
        "mongodb+srv://ann:pw@host/?replicaSet=rs&authSource=cu"
    )


@pytest.mark.parametrize(
    "line",
    [
        "mongo://w:S3cret@host/",
        '"mongodb://w:S3cret@host/"',
        "uri = mongodb://w:S3cret@host/",
        "mongo://w:S3cret",
        "S3cret",
    ],
)
def test_what_is_no_address_is_told_without_its_password(tmp_path, monkeypatch, line):
    path = uri_file(tmp_path / "uri", f"{line}\n")
    with pytest.raises(InputError, match=r"\*\*\*.*first line of .*uri does not begin") as caught:
        resolve(tmp_path, None, path)
    assert "S3cret" not in str(caught.value)
    monkeypatch.setenv(URI_VARIABLE, line)
    with pytest.raises(InputError, match=rf"{URI_VARIABLE} does not begin with") as caught:
        resolve(tmp_path)
    assert "S3cret" not in str(caught.value)
