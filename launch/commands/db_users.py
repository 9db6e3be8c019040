"""``hullscreen db users``: a writing and a reading user of a campaign's database."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from hullscreen.launch.options import directory_argument

if TYPE_CHECKING:
    from hullscreen.database.connection import Connection
    from hullscreen.database.users import Login

EPILOG = """
\b
Example: the users are those of one database; in cu-pd/hullscreen.toml, before the call:
  [database]
  name = "alloys"
Then, by somebody who may make users on the server; admin.uri has mode 0600 and the line
mongodb://admin:PASSWORD@db.example.org/?tls=true
  hullscreen db users cu-pd --admin-uri-file admin.uri
And below the name:
  uri_file = "hullscreen-write.uri"
"""
UNCHANGED = "was there, and its user too"
NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,40}$"


def _known_form(_ctx: click.Context, _parameter: click.Parameter, name: str) -> str:
    import re

    if not re.match(NAME, name):
        raise click.BadParameter("expected letters, digits, '-', '_' and '.'")
    return name


@click.command(
    "users", short_help="Make two users of a database: one writes, one reads.", epilog=EPILOG
)
@directory_argument
@click.option(
    "--admin-uri-file",
    required=True,
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File whose first line is the address of the server with the login of a user who may make "
    "others (userAdmin); readable by its owner alone.",
)
@click.option(
    "--name",
    default="hullscreen",
    show_default=True,
    callback=_known_form,
    help="The users are called NAME-write and NAME-read; several people take several names.",
)
@click.option(
    "--force", is_flag=True, help="Give users that are there new passwords, and write new files."
)
def users(directory: Path, admin_uri_file: Path, name: str, force: bool) -> None:
    """Make two users of the database that hullscreen.toml in DIRECTORY names.

    NAME-write may do what workers, `run`, `launch` and FireWorks' commands need, NAME-read what
    status, hull, query, report, export, `db dump` and a dashboard need; both nothing outside the
    database. Their addresses, with new passwords, go into the files NAME-write.uri and
    NAME-read.uri in DIRECTORY, which only you may read. Called again, it changes nothing.
    """
    from hullscreen.database.addresses import read_uri, resolve
    from hullscreen.database.connection import open_database
    from hullscreen.database.users import logins
    from hullscreen.launch.settings import load

    database = load(directory).database
    uri = resolve(directory, read_uri(admin_uri_file.expanduser())) or ""
    with open_database(directory, uri=uri, name=database.name) as admin:
        wanted = {login: directory / f"{login.user}.uri" for login in logins(name)}
        new = [login for login, path in wanted.items() if _is_new(admin, login, path, force=force)]
        for login, path in wanted.items():
            done = _make(admin, login, path, force=force) if login in new else UNCHANGED
            click.echo(f"{path} {done}.")
    writing, reading = wanted.values()
    click.echo(
        f'Next: uri_file = "{writing.name}" under [database] in {directory / "hullscreen.toml"}; '
        f"whoever only looks at results takes {reading.name}."
    )


def _is_new(admin: "Connection", login: "Login", path: Path, *, force: bool) -> bool:
    """Whether a login is to be made; refuses one whose password nobody knows any more."""
    from hullscreen.database.addresses import read_uri
    from hullscreen.database.users import check_login, user_exists
    from hullscreen.potentials.errors import DatabaseError, InputError

    there = user_exists(admin, login)
    if force or not there:
        return True
    if not path.exists():
        raise InputError(
            f"the database {admin.name!r} has the user {login.user!r}, and {path} is not there: "
            "copy the file to its place, choose another --name, or give the user a new password "
            "with --force"
        )
    try:
        check_login(read_uri(path), admin.name)
    except DatabaseError as error:
        raise DatabaseError(
            f"the address in {path} does not let its user in ({error}); --force gives new passwords"
        ) from error
    return False


def _make(admin: "Connection", login: "Login", path: Path, *, force: bool) -> str:
    """Make the file first, for a user whose password is nowhere is of no use; what was done."""
    from hullscreen.database.addresses import read_uri
    from hullscreen.database.users import make_user, new_address
    from hullscreen.launch.atomic_files import write_atomically

    known = path.exists() and not force
    if not known:
        write_atomically(path, f"{new_address(admin, login)}\n", mode=0o600)
    make_user(admin, login, read_uri(path), again=force)
    return "was there, and its user is made" if known else "is written, and its user is made"
