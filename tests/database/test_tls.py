"""Connections with TLS, and the sentence where one does not come about."""

import contextlib

import pytest
from fireworks import LaunchPad

from hullscreen.database.addresses import resolve
from hullscreen.database.connection import connect, open_database
from hullscreen.launch.launchpad_file import write_launchpad_file
from hullscreen.potentials.errors import DatabaseError, InputError
from hullscreen.workflows.flows import prepare_launchpad
from hullscreen.workflows.settings_tree import Database
from hullscreen.workflows.worker import launchpad_on

# A refusal comes at the first attempt; pymongo goes on trying until the time is over.
QUICKLY_S = 2.0


@pytest.fixture
def address(server_with_tls, certificates):
    return server_with_tls.uri(tls="true", tlsCAFile=certificates / "ca.pem")


@pytest.fixture
def project(tmp_path, certificates):
    """A directory with the authority's certificate in it."""
    (tmp_path / "ca.pem").write_bytes((certificates / "ca.pem").read_bytes())
    return tmp_path


def test_everything_speaks_tls(server_with_tls, project, monkeypatch):
    uri = server_with_tls.uri(tls="true", tlsCAFile="ca.pem")
    with open_database(project, uri=uri, name="tls") as connection:
        connection.database["numbers"].insert_one({"_id": 1})
        # Workers stand in other directories than the one that a certificate is named from.
        (project / "logs").mkdir()
        monkeypatch.chdir(project / "logs")
        launchpad = launchpad_on(connection.uri, connection.name)
    prepare_launchpad(launchpad)
    assert launchpad.get_new_fw_id() == 1
    assert launchpad.db["numbers"].count_documents({}) == 1
    launchpad.connection.close()
    write_launchpad_file(project, Database(uri=uri, name="tls"))
    launchpad = LaunchPad.from_file(str(project / "my_launchpad.yaml"))
    assert launchpad.get_new_fw_id() == 2
    launchpad.connection.drop_database("tls")
    launchpad.connection.close()


def test_certificate_files_are_named_from_the_project(tmp_path):
    uri = "mongodb://h/?tls=true&tlsCAFile=a/b.pem;tlsCertificateKeyFile=%2Fetc%2Fc.pem&x=tlsCAFile"
    assert resolve(tmp_path, uri) == (
        f"mongodb://h/?tls=true&tlsCAFile={tmp_path}/a/b.pem;tlsCertificateKeyFile=/etc/c.pem"
        "&x=tlsCAFile"
    )


def refusal(uri):
    """What is said of a server that cannot be reached."""
    with pytest.raises(DatabaseError) as caught:
        connect(uri, "tls", timeout_s=QUICKLY_S)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert "s3cret" not in sentence
    return sentence


def test_a_server_that_asks_for_tls_is_told_from_one_that_is_away(server_with_tls):
    sentence = refusal(server_with_tls.uri("ann:s3cret"))
    assert f"at localhost:{server_with_tls.port} closed the connection" in sentence
    assert "asks for TLS: add tls=true" in sentence


def test_an_authority_that_is_not_trusted(server_with_tls, certificates):
    for options in ({"tlsCAFile": certificates / "other.pem"}, {}):
        sentence = refusal(server_with_tls.uri("ann:s3cret", tls="true", **options))
        assert "signed by nobody who is trusted here: give tlsCAFile=FILE" in sentence


def test_a_certificate_of_another_host(address):
    sentence = refusal(address.replace("localhost", "127.0.0.1"))
    assert "127.0.0.1" in sentence
    assert "is another host's: name the server in the URI as its certificate does" in sentence


def test_a_server_without_tls(start_mongod, certificates):
    server = start_mongod()
    sentence = refusal(server.uri("ann:s3cret", tls="true", tlsCAFile=certificates / "ca.pem"))
    assert "speaks no TLS, which the URI asks for: check its port, or remove tls=true" in sentence


def test_a_server_that_asks_for_a_certificate(start_mongod, certificates):
    server = start_mongod(
        "--tlsMode", "requireTLS", "--tlsCertificateKeyFile", str(certificates / "server.pem"),
        "--tlsCAFile", str(certificates / "ca.pem"),
    )  # fmt: skip
    options = {"tls": "true", "tlsCAFile": certificates / "ca.pem"}
    assert "a client's certificate: give tlsCertificateKeyFile" in refusal(server.uri(**options))
    uri = server.uri(**options, tlsCertificateKeyFile=certificates / "client.pem")
    with contextlib.closing(connect(uri, "tls").client) as client:
        assert client.admin.command("ping")


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_useless_certificate_file_is_named(tmp_path, content):
    if content is not None:
        (tmp_path / "ca.pem").write_text(content)
    uri = f"mongodb://ann:s3cret@localhost/?tls=true&tlsCAFile={tmp_path}/ca.pem"
    with pytest.raises(InputError, match=r"ca\.pem names cannot be used") as caught:
        connect(uri, "tls")
    assert "s3cret" not in str(caught.value)
