"""The two users of a database can do what they are for, and nothing else."""

import contextlib
import uuid

import pymongo
import pytest
from pymongo.errors import OperationFailure

from hullscreen.database.connection import Connection, connect
from hullscreen.database.users import check_login, logins, make_user, new_address, user_exists
from hullscreen.potentials.errors import DatabaseError, InputError

NOT_AUTHORIZED = 13


@pytest.fixture
def admin(admin_uri):
    """The administrator's connection to a database of the test's own."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    database = connect(admin_uri, name)
    yield Connection(database, admin_uri, name, embedded=False)
    database.command("dropAllUsersFromDatabase")
    database.command("dropAllRolesFromDatabase")
    database.client.drop_database(name)
    database.client.close()


@pytest.fixture
def addresses(admin):
    """Addresses of the writing and of the reading user, who are there."""
    found = []
    for login in logins("ann"):
        assert not user_exists(admin, login)
        found.append(new_address(admin, login))
        make_user(admin, login, found[-1])
        assert user_exists(admin, login)
    return found


@contextlib.contextmanager
def opened(address, name):
    database = connect(address, name)
    try:
        yield database
    finally:
        database.client.close()


def refused(operation):
    with pytest.raises(OperationFailure) as caught:
        operation()
    assert caught.value.code == NOT_AUTHORIZED
    return True


def test_the_writing_user_does_what_fireworks_and_campaigns_do(admin, addresses):
    with opened(addresses[0], admin.name) as database:
        numbers = database["numbers"]
        numbers.create_index("a")
        numbers.insert_one({"_id": 1, "a": 1})
        numbers.find_one_and_update({"_id": 1}, {"$set": {"a": 2}})
        assert list(numbers.aggregate([{"$group": {"_id": "$a"}}])) == [{"_id": 2}]
        assert set(numbers.index_information()) == {"_id_", "a_1"}
        numbers.drop_index("a_1")
        database.command({"compact": "numbers"})
        numbers.delete_many({})
        numbers.drop()
        assert database.list_collection_names() == []


def test_the_reading_user_reads_and_writes_nothing(admin, addresses):
    admin.database["numbers"].insert_one({"_id": 1, "a": 1})
    with opened(addresses[1], admin.name) as database:
        numbers = database["numbers"]
        assert numbers.find_one({"a": 1}) == {"_id": 1, "a": 1}
        assert numbers.count_documents({}) == 1
        assert list(numbers.aggregate([{"$match": {"a": 1}}])) == [{"_id": 1, "a": 1}]
        assert database.list_collection_names() == ["numbers"]
        assert set(numbers.index_information()) == {"_id_"}
        assert refused(lambda: numbers.insert_one({"a": 2}))
        assert refused(lambda: numbers.update_many({}, {"$set": {"a": 2}}))
        assert refused(lambda: numbers.delete_many({}))
        assert refused(lambda: numbers.create_index("a"))
        assert refused(lambda: database.create_collection("more"))
        assert refused(numbers.drop)
        assert refused(lambda: list(numbers.aggregate([{"$out": "more"}])))
        assert refused(lambda: list(numbers.aggregate([{"$merge": "numbers"}])))
        assert refused(lambda: database.client.drop_database(admin.name))
    assert list(admin.database["numbers"].find()) == [{"_id": 1, "a": 1}]


@pytest.mark.parametrize("who", [0, 1])
def test_nobody_sees_anything_outside_the_database(admin, addresses, who):
    other = f"{admin.name}_other"
    admin.database["numbers"].insert_one({"a": 1})
    client = admin.database.client
    client[other]["numbers"].insert_one({"a": 1})
    try:
        with opened(addresses[who], admin.name) as database:
            assert database.client.list_database_names() == [admin.name]
            for name in (other, "admin", "local", "config"):
                elsewhere = database.client[name]
                assert refused(lambda one=elsewhere: one["numbers"].find_one())
                assert refused(lambda one=elsewhere: one["numbers"].insert_one({"a": 2}))
                assert refused(lambda one=elsewhere: one.list_collection_names())
            # Nor may they become more than they are.
            roles = [{"role": "root", "db": "admin"}]
            assert refused(lambda: database.command("createUser", "eve", pwd="p", roles=roles))  # noqa: S106
            assert refused(lambda: database.command("grantRolesToUser", "ann-read", roles=roles))
            assert refused(lambda: database.client.admin.command("getCmdLineOpts"))
    finally:
        client.drop_database(other)


def test_a_new_password_replaces_the_old_one_and_roles_become_as_they_should(admin, addresses):
    writing, reading = logins("ann")
    admin.database.command("updateRole", reading.role, privileges=[], roles=["readWrite"])
    # Not asked to change anything, it leaves the role alone.
    make_user(admin, reading, addresses[1])
    with opened(addresses[1], admin.name) as database:
        database["numbers"].insert_one({"_id": 1})
    new = new_address(admin, reading)
    make_user(admin, reading, new, again=True)
    with pytest.raises(DatabaseError, match="refused the login"):
        check_login(addresses[1], admin.name)
    with opened(new, admin.name) as database:
        assert refused(lambda: database["numbers"].insert_one({"_id": 2}))
    check_login(addresses[0], admin.name)
    with pytest.raises(InputError, match=r"user 'ann-write' of .*found that of 'ann-read' of"):
        make_user(admin, writing, new)
    with pytest.raises(InputError, match=r"found that of 'ann-read' of 'elsewhere'"):
        make_user(admin, reading, new.replace(admin.name, "elsewhere"))


def test_who_may_not_make_users_is_told_so(admin, addresses):
    with opened(addresses[0], admin.name) as database:
        nobody = Connection(database, addresses[0], admin.name, embedded=False)
        login = logins("bob")[0]
        with pytest.raises(DatabaseError, match=r"may not do `\w+` in the database") as caught:
            make_user(nobody, login, new_address(nobody, login))
    assert pymongo.uri_parser.parse_uri(addresses[0])["password"] not in str(caught.value)


def test_who_makes_users_need_not_read_anything(admin, admin_uri):
    name = f"{admin.name}-users"
    admin.database.client.admin.command(
        "createUser",
        name,
        pwd="p",  # noqa: S106
        roles=["userAdminAnyDatabase"],
    )
    uri = admin_uri.replace(admin_uri.partition("//")[2].rpartition("@")[0], f"{name}:p")
    try:
        with opened(uri, admin.name) as database:
            keeper = Connection(database, uri, admin.name, embedded=False)
            login = logins("ann")[1]
            address = new_address(keeper, login)
            make_user(keeper, login, address)
            check_login(address, admin.name)
    finally:
        admin.database.client.admin.command("dropUser", name)
