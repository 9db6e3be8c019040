"""my_launchpad.yaml, as FireWorks reads it."""

import os
import stat
import subprocess
import sys

import pytest

from hullscreen.launch.launchpad_file import FILE_NAME, given_uri, write_launchpad_file
from hullscreen.potentials.errors import InputError
from hullscreen.workflows.settings_tree import Database

URI = "mongodb://me:pass%40word@host:27017/?tls=true"


def launchpad_document(directory):
    from ruamel.yaml import YAML

    return YAML(typ="safe").load((directory / FILE_NAME).read_text())


def test_embedded_server_by_its_socket(tmp_path):
    assert write_launchpad_file(tmp_path, Database())
    document = launchpad_document(tmp_path)
    assert document["uri_mode"] is True
    assert document["name"] == "hullscreen"
    assert document["host"].startswith("mongodb://%2F")


def test_fireworks_reads_it(tmp_path):
    from fireworks import LaunchPad

    write_launchpad_file(tmp_path, Database(uri=URI, name="alloys"))
    launchpad = LaunchPad.from_file(str(tmp_path / FILE_NAME))
    assert launchpad.db.name == "alloys"
    assert launchpad.host == URI
    launchpad.connection.close()


def test_only_the_owner_reads_a_password(tmp_path):
    write_launchpad_file(tmp_path, Database(uri=URI))
    assert stat.S_IMODE((tmp_path / FILE_NAME).stat().st_mode) == 0o600


def test_ours_is_renewed_and_the_users_own_is_kept(tmp_path):
    path = tmp_path / FILE_NAME
    write_launchpad_file(tmp_path, Database())
    assert write_launchpad_file(tmp_path, Database(uri=URI))
    assert launchpad_document(tmp_path)["host"] == URI
    path.write_text("host: mine\n")
    assert not write_launchpad_file(tmp_path, Database(uri=URI))
    assert path.read_text() == "host: mine\n"


def test_fireworks_own_commands_do_not_wait_for_locks_of_lost_processes(tmp_path):
    write_launchpad_file(tmp_path, Database())
    ask = "from fireworks import fw_config as f; print(f.WFLOCK_EXPIRATION_SECS)"
    environment = {k: v for k, v in os.environ.items() if k != "FW_CONFIG_FILE"}
    answer = subprocess.run(
        [sys.executable, "-c", ask],
        cwd=tmp_path, env=environment, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    assert answer.strip() == "15"
    # The user's own stay.
    (tmp_path / "FW_config.yaml").write_text("WFLOCK_EXPIRATION_SECS: 60\n")
    write_launchpad_file(tmp_path, Database())
    assert "60" in (tmp_path / "FW_config.yaml").read_text()


def test_uri_file(tmp_path):
    database = Database(uri_file="secret.txt")
    with pytest.raises(InputError, match=r"secret\.txt"):
        given_uri(database, tmp_path)
    (tmp_path / "secret.txt").write_text(f"{URI}\nsecond line\n")
    (tmp_path / "secret.txt").chmod(0o600)
    assert given_uri(database, tmp_path) == URI


def test_no_address_means_the_embedded_server(tmp_path, monkeypatch):
    monkeypatch.delenv("HULLSCREEN_DB_URI", raising=False)
    assert given_uri(Database(), tmp_path) is None
