"""Two users of a campaign's database: one who may write, for workers, and one who may only read.

Roles and users belong to that database, so they cannot be given anything outside it.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any

from pymongo.errors import OperationFailure
from pymongo.uri_parser import parse_uri

from hullscreen.database.addresses import host_of, with_login
from hullscreen.database.connection import Connection, connect, reconnecting
from hullscreen.potentials.errors import DatabaseError, InputError

# Names of MongoDB's privileges, on every collection of the database and on the database itself.
READING = ("find", "listCollections", "listIndexes", "collStats", "dbStats")
# Also what FireWorks' commands do: `lpad tuneup` makes indexes and compacts, `reset` empties.
WRITING = (
    *READING,
    "insert",
    "update",
    "remove",
    "createCollection",
    "createIndex",
    "dropIndex",
    "dropCollection",
    "compact",
)
PASSWORD_BYTES = 24

Document = dict[str, Any]


@dataclass(frozen=True)
class Login:
    """A user to be, or that is.

    Attributes
    ----------
    user, role
        Their names in the database.
    actions
        What the role may do.
    """

    user: str
    role: str
    actions: tuple[str, ...]


def logins(prefix: str) -> tuple[Login, Login]:
    """The user who writes and the one who reads."""
    return (
        Login(f"{prefix}-write", "hullscreen-write", WRITING),
        Login(f"{prefix}-read", "hullscreen-read", READING),
    )


def new_address(admin: Connection, login: Login) -> str:
    """The administrator's server for a user with a new password."""
    return with_login(admin.uri, login.user, secrets.token_urlsafe(PASSWORD_BYTES), admin.name)


def user_exists(admin: Connection, login: Login) -> bool:
    """Whether the database has the user.

    Raises
    ------
    DatabaseError
        The administrator may not look at users.
    """
    return bool(_command(admin, {"usersInfo": login.user})["users"])


def make_user(admin: Connection, login: Login, address: str, *, again: bool = False) -> None:
    """Make a user with its role, so that the address lets it in.

    Parameters
    ----------
    address
        Holds the user's name and password.
    again
        Give a user and a role that are there this password and these privileges, and no others.

    Raises
    ------
    DatabaseError
        The administrator may not make users or roles.
    InputError
        The address is another user's, or that of another database.
    """
    parsed = parse_uri(address, validate=False)
    whose = (parsed["username"], parsed["options"].get("authSource"))
    if whose != (login.user, admin.name):
        raise InputError(
            f"expected the address of the user {login.user!r} of the database {admin.name!r} in "
            f"the file, found that of {whose[0]!r} of {whose[1]!r}: move the file away"
        )
    found = _command(admin, {"rolesInfo": login.role})["roles"]
    privileges = [
        {"resource": {"db": admin.name, "collection": ""}, "actions": list(login.actions)}
    ]
    if again or not found:
        command = "updateRole" if found else "createRole"
        _command(admin, {command: login.role, "privileges": privileges, "roles": []})
    command = "updateUser" if user_exists(admin, login) else "createUser"
    roles = [{"role": login.role, "db": admin.name}]
    _command(admin, {command: login.user, "pwd": parsed["password"], "roles": roles})


def check_login(address: str, database_name: str) -> None:
    """Find out whether an address lets its user in.

    Raises
    ------
    DatabaseError
        It does not, or the server is away.
    """
    connect(address, database_name).client.close()


def _command(admin: Connection, command: Document) -> Document:
    try:
        return dict(reconnecting(admin, lambda: admin.database.command(command)))
    except OperationFailure as error:
        # The chain would show the command, and that may hold a password.
        name = next(iter(command))
        host = host_of(admin.uri)
        raise DatabaseError(
            f"The MongoDB server at {host} refused `{name}` ({_code_name(error)}): use the "
            "address of a user who may make users and roles, such as one with userAdmin"
        ) from None


def _code_name(error: OperationFailure) -> str:
    return str((error.details or {}).get("codeName", error.code))
