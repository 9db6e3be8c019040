"""`hullscreen db` on a database that is shared: users, copies, care, and where passwords may be."""

import json
import re
import stat
import uuid

import pymongo
import pytest
from pymongo.uri_parser import parse_uri

from hullscreen.database.addresses import URI_VARIABLE
from hullscreen.database.connection import Connection
from hullscreen.database.documents import SCHEMA_VERSION
from hullscreen.launch.command_line import main
from hullscreen.launch.commands import db
from hullscreen.launch.directory_lock import only_one
from hullscreen.launch.launchpad_file import write_launchpad_file
from hullscreen.launch.settings import load
from hullscreen.workflows.settings_tree import Database

SETTINGS = '[campaign]\nname = "{name}"\nelements = ["Cu", "Pd"]\n[database]\n{database}\n'


@pytest.fixture(autouse=True)
def no_variable(monkeypatch):
    monkeypatch.delenv(URI_VARIABLE, raising=False)


def call(capsys, *words):
    code = main([str(word) for word in words])
    out, err = capsys.readouterr()
    return code, out, err


def campaign_directory(directory, database, name="cu-pd"):
    directory.mkdir()
    text = SETTINGS.format(name=name, database=database)
    (directory / "hullscreen.toml").write_text(text)
    return directory


# Users


@pytest.fixture
def guarded(tmp_path, server_with_users, admin_uri):
    """A campaign directory whose database is on the server with users, and the admin's file."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    directory = campaign_directory(
        tmp_path / "cu-pd", f'name = "{name}"\nuri_file = "hullscreen-write.uri"'
    )
    admin = tmp_path / "admin.uri"
    admin.write_text(f"{admin_uri}\n")
    admin.chmod(0o600)
    yield directory, admin
    with pymongo.MongoClient(admin_uri) as client:
        client[name].command("dropAllUsersFromDatabase")
        client[name].command("dropAllRolesFromDatabase")
        client.drop_database(name)


def passwords_in(directory):
    return [
        parse_uri((directory / f"hullscreen-{who}.uri").read_text().strip())["password"]
        for who in ("write", "read")
    ]


def test_two_users_are_made_once(guarded, capsys):
    directory, admin = guarded
    code, out, err = call(capsys, "db", "users", directory, "--admin-uri-file", admin)
    assert (code, err) == (0, "")
    assert "hullscreen-write.uri is written" in out
    assert 'uri_file = "hullscreen-write.uri" under [database]' in out
    passwords = passwords_in(directory)
    assert len(set(passwords)) == 2
    assert not any(password in out for password in passwords)
    for who in ("write", "read"):
        path = directory / f"hullscreen-{who}.uri"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    # Again: nothing is changed.
    code, out, err = call(capsys, "db", "users", directory, "--admin-uri-file", admin)
    assert (code, err) == (0, "")
    assert "hullscreen-write.uri was there, and its user too" in out
    assert passwords_in(directory) == passwords
    # The writing user's address works, and finds no campaign yet.
    code, _, err = call(capsys, "status", directory)
    assert code == 6
    assert "has not been started" in err


def test_files_of_another_database_are_not_taken(guarded, capsys):
    directory, admin = guarded
    assert call(capsys, "db", "users", directory, "--admin-uri-file", admin)[0] == 0
    settings = directory / "hullscreen.toml"
    settings.write_text(settings.read_text().replace('name = "test_', 'name = "other_'))
    code, _, err = call(capsys, "db", "users", directory, "--admin-uri-file", admin)
    assert code == 2
    assert "of the database 'other_" in err
    assert "move the file away" in err
    # Nor do they let anybody into that one.
    code, _, err = call(capsys, "status", directory)
    assert code == 5
    assert "may not do `listCollections` in the database 'other_" in err
    assert "or correct [database] name" in err


def test_a_lost_file_needs_new_passwords(guarded, capsys):
    directory, admin = guarded
    words = ("db", "users", directory, "--admin-uri-file", admin)
    assert call(capsys, *words)[0] == 0
    before = passwords_in(directory)
    (directory / "hullscreen-read.uri").unlink()
    code, out, err = call(capsys, *words)
    assert (code, out) == (2, "")
    assert "has the user 'hullscreen-read'" in err
    assert "with --force" in err
    assert call(capsys, *words, "--force")[0] == 0
    after = passwords_in(directory)
    assert len({*before, *after}) == 4
    # One that is wrong is noticed.
    path = directory / "hullscreen-read.uri"
    path.write_text(path.read_text().replace(after[1], "wr0ng"))
    code, _, err = call(capsys, *words)
    assert code == 5
    assert "hullscreen-read.uri does not let its user in" in err
    assert "--force gives new passwords" in err
    assert "wr0ng" not in err


def test_a_call_that_was_interrupted_is_completed(guarded, capsys):
    directory, admin = guarded
    words = ("db", "users", directory, "--admin-uri-file", admin)
    assert call(capsys, *words)[0] == 0
    passwords = passwords_in(directory)
    # As if it had ended between the file and the user.
    with pymongo.MongoClient(admin.read_text().strip()) as client:
        (name,) = {
            user["db"]
            for user in client.admin["system.users"].find({"user": "hullscreen-read"})
            if user["db"] in (directory / "hullscreen.toml").read_text()
        }
        client[name].command("dropUser", "hullscreen-read")
    code, out, err = call(capsys, *words)
    assert (code, err) == (0, "")
    assert "hullscreen-read.uri was there, and its user is made" in out
    assert passwords_in(directory) == passwords
    assert call(capsys, *words)[1].count("was there, and its user too") == 2


@pytest.fixture
def read_only(guarded, small_campaign, admin_uri, put_back, capsys):
    """The directory of `guarded` with a finished campaign, and the reading user's address."""
    directory, admin = guarded
    call(capsys, "db", "users", directory, "--admin-uri-file", admin)
    path = directory / "hullscreen.toml"
    path.write_text(path.read_text().replace("hullscreen-write", "hullscreen-read"))
    name = load(directory).database.name
    documents = {
        collection: list(small_campaign.connection.database[collection].find({}))
        for collection in small_campaign.connection.database.list_collection_names()
    }
    with pymongo.MongoClient(admin_uri) as client:
        put_back(Connection(client[name], admin_uri, name, embedded=False), documents)
        dft = {"spec._category": "dft"}
        client[name]["fireworks"].update_one(dft, {"$set": {"state": "FIZZLED"}})
    return directory


def test_the_reading_user_is_told_what_it_may_not_do_also_by_fireworks(read_only, capsys):
    refused = {("rerun", "--failed"): "findAndModify", ("run",): "createIndexes"}
    for words, operation in refused.items():
        code, out, err = call(capsys, words[0], read_only, *words[1:])
        assert (code, out, err.count("\n")) == (5, "", 1)
        assert f"The user of the URI may not do `{operation}` in the database 'test_" in err
        assert "a reading user writes nothing" in err


def test_the_status_of_a_shared_server_tells_whose_it_is(read_only, capsys, server_with_users):
    code, out, err = call(capsys, "db", "status", read_only)
    assert (code, err) == (0, "")
    name = load(read_only).database.name
    assert re.match(rf"MongoDB \d+\.\d+\.\d+ answers at localhost:{server_with_users.port}\n", out)
    assert f"database   {name}, schema {SCHEMA_VERSION}\n" in out
    assert f"user       hullscreen-read@{name}, who may read\n" in out
    assert "campaigns  1\n    cu-pd  Cu-Pd  finished, last changed 20" in out
    # The other one, with the login of whoever writes.
    path = read_only / "hullscreen.toml"
    path.write_text(path.read_text().replace("hullscreen-read", "hullscreen-write"))
    code, out, err = call(capsys, "db", "status", read_only, "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert found["uri"].startswith("mongodb://***@localhost:")
    assert (found["user"], found["may_read"], found["may_write"]) == (
        f"hullscreen-write@{name}", True, True,
    )  # fmt: skip
    assert [(one["name"], one["state"]) for one in found["campaigns"]] == [("cu-pd", "finished")]
    assert not any(password in out for password in passwords_in(read_only))


def test_the_status_of_a_server_that_was_killed_is_told(
    tmp_path, start_mongod, capsys, monkeypatch
):
    server = start_mongod()
    directory = campaign_directory(tmp_path / "cu-pd", f'uri = "{server.uri()}"')
    code, out, _ = call(capsys, "db", "status", directory)
    assert code == 0
    assert "user       none: this server asks for no login" in out
    assert "without a campaign yet\n" in out
    server.kill()
    # It does not come back, however long one waits.
    monkeypatch.setattr(db, "ANSWER_S", 0.5)
    code, out, err = call(capsys, "db", "status", directory)
    assert (code, out) == (5, "")
    assert f"No MongoDB server answers at localhost:{server.port}" in err


def test_several_people_have_logins_of_their_own(guarded, capsys):
    directory, admin = guarded
    for name in ("hullscreen", "ann"):
        words = ("db", "users", directory, "--admin-uri-file", admin, "--name", name)
        assert call(capsys, *words)[0] == 0
    assert "ann-write:" in (directory / "ann-write.uri").read_text()
    code, _, err = call(
        capsys, "db", "users", directory, "--admin-uri-file", admin, "--name", "a/b"
    )
    assert code == 2
    assert "expected letters" in err


def test_the_admins_file_must_be_private_and_right(guarded, capsys):
    directory, admin = guarded
    words = ("db", "users", directory, "--admin-uri-file", admin)
    admin.chmod(0o644)
    code, _, err = call(capsys, *words)
    assert code == 2
    assert "chmod 600" in err
    admin.chmod(0o600)
    admin.write_text(admin.read_text().replace("Zq7-adm1n", "wr0ng"))
    code, _, err = call(capsys, *words)
    assert code == 5
    assert "refused the login" in err
    assert "wr0ng" not in err
    assert not list(directory.glob("*.uri"))


# Where a password may be


@pytest.mark.parametrize("command", ["status", "run", "hull", "init"])
def test_no_password_on_a_command_line(tmp_path, capsys, command):
    uri = "mongodb://ann:s3cret@localhost:1/"
    words = ("--elements", "Cu", "Pd") if command == "init" else ()
    code, out, err = call(capsys, command, tmp_path / "new", *words, "--db", uri)
    assert (code, out) == (2, "")
    assert "holds a password, which others can read on a command line" in err
    assert URI_VARIABLE in err
    assert "s3cret" not in err
    assert not (tmp_path / "new").exists()


def test_no_password_in_the_settings(tmp_path, capsys):
    directory = campaign_directory(tmp_path / "d", 'uri = "mongodb://ann:s3cret@localhost:1/"')
    code, out, err = call(capsys, "status", directory)
    assert (code, out) == (2, "")
    assert "hullscreen.toml, line 5: [database] uri holds a password" in err
    assert "name that as uri_file" in err
    assert "s3cret" not in err


def complaint(capsys, directory, uri, mode=0o600, commands=("run", "status")):
    """What commands say of an address in a file: one sentence, without its password."""
    path = directory / "mongo.uri"
    path.write_text(f"{uri}\n")
    path.chmod(mode)
    said = set()
    for command in commands:
        code, out, err = call(capsys, command, directory)
        assert (code, out) == (2 if mode != 0o600 else 5, "")
        assert err.count("\n") == 1
        assert "wr0ng" not in err
        said.add(err)
    (sentence,) = said
    return sentence


@pytest.fixture
def with_file(tmp_path):
    return campaign_directory(tmp_path / "d", 'uri_file = "mongo.uri"')


def test_a_wrong_login_is_one_sentence(with_file, server_with_users, capsys):
    uri = server_with_users.uri("admin:wr0ng")
    assert "refused the login: check user, password and" in complaint(capsys, with_file, uri)
    uri = server_with_users.uri()
    assert "asks for a user, a password" in complaint(capsys, with_file, uri)


def test_a_file_that_others_may_read_is_one_sentence(with_file, server_with_users, capsys):
    uri = server_with_users.uri("admin:wr0ng")
    assert "so others may read the password: run `chmod 600" in complaint(
        capsys, with_file, uri, mode=0o644
    )


@pytest.mark.slow
def test_no_tls_where_it_is_asked_for_is_one_sentence(with_file, server_with_tls, capsys):
    uri = server_with_tls.uri("ann:wr0ng")
    said = complaint(capsys, with_file, uri, commands=["status"])
    assert "asks for TLS: add tls=true to the URI" in said


# Copies and care


@pytest.fixture
def directory_of(tmp_path, mongo):
    """Function that makes a directory of a campaign in the test's database."""
    database = f'uri = "{mongo.uri}"\nname = "{mongo.name}"'
    return lambda name: campaign_directory(tmp_path / name, database, name)


def test_a_campaign_is_dumped_removed_and_restored(copied_campaign, directory_of, tmp_path, capsys):
    directory, target = directory_of("cu-pd"), tmp_path / "dump"
    hull = call(capsys, "hull", directory, "--json")
    assert json.loads(hull[1])["stable"]
    code, out, err = call(capsys, "db", "dump", directory, target)
    assert code == 0
    assert "documents" in out
    assert "documents dumped: " in err
    code, _, err = call(capsys, "db", "dump", directory, target)
    assert code == 7
    assert "dump exists already: choose another name" in err
    code, _, err = call(capsys, "db", "restore", directory, target)
    assert code == 6
    assert "holds a campaign 'cu-pd' already" in err
    code, _, err = call(capsys, "db", "remove-campaign", directory)
    assert code == 2
    assert f"{copied_campaign.count()} structures" in err
    assert "repeat with --yes" in err
    code, out, err = call(capsys, "db", "remove-campaign", directory, "--yes")
    assert (code, err) == (0, "")
    assert call(capsys, "hull", directory)[0] == 6
    code, out, err = call(capsys, "db", "restore", directory, target)
    assert code == 0
    assert "`hullscreen run" in out
    assert "kB of the dump restored" in err
    assert call(capsys, "hull", directory, "--json") == hull


def test_a_directory_with_a_database_of_its_own_names_it_where_another_is_given(
    mongo, tmp_path, capsys
):
    directory = campaign_directory(
        tmp_path / "cu-pd", f'uri = "{mongo.uri}"\nname = "{mongo.name}"'
    )
    assert call(capsys, "hull", directory)[2].endswith("starts it\n")
    (directory / "database" / "data").mkdir(parents=True)
    code, _, err = call(capsys, "hull", directory)
    assert (code, err.count("\n")) == (6, 1)
    assert f"has not been started in the database '{mongo.name}' at" in err
    assert f"{directory}/database holds a database of the directory's own" in err
    assert f"`hullscreen db dump {directory} DUMP` as before the address was given" in err


def test_a_directory_whose_address_was_forgotten_names_the_server(tmp_path, capsys):
    directory = campaign_directory(tmp_path / "cu-pd", "")
    uri = "mongodb://ann:s3cret@db.example.org:27017/"
    write_launchpad_file(directory, Database(uri=uri))
    code, _, err = call(capsys, "hull", directory)
    assert (code, err.count("\n")) == (6, 1)
    assert "was last worked on at db.example.org:27017: give that address again" in err
    assert "s3cret" not in err
    # That of a server of the directory's own says nothing new.
    write_launchpad_file(directory, Database())
    assert "last worked on" not in call(capsys, "hull", directory)[2]


def test_a_campaign_with_a_living_supervisor_stays(copied_campaign, directory_of, tmp_path, capsys):
    # Between two steps nobody holds a claim.
    directory = directory_of("cu-pd")
    with only_one(directory, "launch"):
        for words in (("remove-campaign", directory, "--yes"), ("dump", directory, tmp_path / "d")):
            code, _, err = call(capsys, "db", *words)
            assert code == 6
            assert "`hullscreen launch` is at work in" in err
            assert f"at rest: `hullscreen cancel {directory}` ends the work first" in err
        copied_campaign.set_campaign(paused=True)
        assert call(capsys, "db", "dump", directory, tmp_path / "d")[0] == 0
    assert copied_campaign.find_campaign()


def test_a_dump_is_of_the_campaign_of_its_name(copied_campaign, directory_of, tmp_path, capsys):
    assert call(capsys, "db", "dump", directory_of("cu-pd"), tmp_path / "dump")[0] == 0
    code, _, err = call(capsys, "db", "restore", directory_of("other"), tmp_path / "dump")
    assert code == 2
    assert "holds the campaign 'cu-pd', and" in err
    assert "is of 'other': give the name of the dump under [campaign]" in err
    assert copied_campaign.find_campaign()


def test_schemas_are_told_and_migrated(copied_campaign, mongo, directory_of, capsys):
    directory = directory_of("cu-pd")
    mongo.database["schema"].delete_many({})
    # Reading an old one needs nothing.
    assert call(capsys, "hull", directory)[0] == 0
    assert call(capsys, "db", "dump", directory, directory / "dump")[0] == 0
    code, _, err = call(capsys, "run", directory)
    assert code == 5
    assert "run `hullscreen db migrate" in err
    code, out, err = call(capsys, "db", "migrate", directory)
    assert (code, err) == (0, "")
    assert out.startswith("schema 1: ")
    assert call(capsys, "db", "migrate", directory)[1] == (
        "the schema is up to date; nothing was changed\n"
    )
    mongo.database["schema"].update_one({}, {"$set": {"version": 99, "hullscreen": "9.1"}})
    for words in (("hull",), ("run",), ("db", "migrate"), ("status",)):
        code, _, err = call(capsys, *words, directory)
        assert code == 5
        assert "was written by hullscreen 9.1 (schema 99)" in err
