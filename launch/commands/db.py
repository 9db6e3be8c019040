"""``hullscreen db``: the server of a campaign, and what its database needs: users, copies, care."""

import dataclasses
import json
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hullscreen.launch.commands.db_copies import dump, restore
from hullscreen.launch.commands.db_upkeep import migrate, remove_campaign
from hullscreen.launch.commands.db_users import users
from hullscreen.launch.options import directory_argument, json_option

if TYPE_CHECKING:
    from hullscreen.database.server_report import ServerReport

# A server that does not answer within so long is told, s.
ANSWER_S = 10.0
CAMPAIGNS_SHOWN = 20


@click.group()
def command() -> None:
    """Start, stop or show a campaign's MongoDB server; users, copies and care of a database.

    Commands that need the campaign's own server start it, and it stops when nobody uses it any
    more; `start` keeps it until `stop`, for lpad, rlaunch, or your own queries. The other commands
    also serve a database on a server of yours.
    """


for subcommand in (users, dump, restore, migrate, remove_campaign):
    command.add_command(subcommand)


@command.command()
@directory_argument
@json_option
def start(directory: Path, as_json: bool) -> None:
    """Start the server and keep it until `hullscreen db stop`."""
    from hullscreen.database.embedded_server import keep_running

    if not _tell_other_server(directory, as_json=as_json):
        keep_running(directory)
        _show_status(directory, as_json=as_json)


@command.command()
@directory_argument
@json_option
@click.option(
    "--force", is_flag=True, help="Stop it even while processes use it, such as hanging ones."
)
def stop(directory: Path, as_json: bool, force: bool) -> None:
    """Stop the server, or let it stop as soon as nobody uses it."""
    from hullscreen.database import embedded_server

    if _tell_other_server(directory, as_json=as_json):
        return
    stopped = embedded_server.stop(directory, force=force)
    if as_json or not stopped:
        _show_status(directory, as_json=as_json)
    else:
        click.echo("the server is stopped")
    if not stopped and not as_json:
        click.echo("it stops when the last of them ends; `--force` stops it now")


@command.command()
@directory_argument
@json_option
def status(directory: Path, as_json: bool) -> None:
    """Show whether the server runs or answers, and what can be said about it.

    Of the campaign's own: its address, its users and the size of its data. Of one of yours: its
    version, what its user may do, the version of the schema and the campaigns of the database.
    """
    if not _show_other_server(directory, as_json=as_json):
        _show_status(directory, as_json=as_json)


def _tell_other_server(directory: Path, *, as_json: bool) -> bool:
    """Name the server that the campaign was given, if any; nothing is to be started then."""
    from hullscreen.database.addresses import host_of, without_login
    from hullscreen.launch.launchpad_file import given_uri
    from hullscreen.launch.settings import load

    uri = given_uri(load(directory).database, directory)
    if uri is None:
        return False
    if as_json:
        click.echo(json.dumps({"embedded": False, "uri": without_login(uri)}))
    else:
        click.echo(
            f"this campaign uses the MongoDB server at {host_of(uri)}, which hullscreen neither "
            "starts nor stops"
        )
    return True


def _show_other_server(directory: Path, *, as_json: bool) -> bool:
    """Ask the server that the campaign was given, if any, how things stand there."""
    from hullscreen.database.addresses import without_login
    from hullscreen.database.connection import open_database
    from hullscreen.database.server_report import server_report
    from hullscreen.launch.launchpad_file import given_uri
    from hullscreen.launch.settings import load

    settings = load(directory).database
    uri = given_uri(settings, directory)
    if uri is None:
        return False
    with open_database(directory, uri=uri, name=settings.name, timeout_s=ANSWER_S) as connection:
        found = server_report(connection)
    if as_json:
        shown = {"embedded": False, "uri": without_login(uri), **dataclasses.asdict(found)}
        click.echo(json.dumps(shown, default=datetime.isoformat))
        return True
    click.echo(f"MongoDB {found.version} answers at {found.host}")
    click.echo(f"  database   {found.database}, {_schema_said(found.schema, directory)}")
    click.echo(f"  user       {_rights_said(found)}")
    click.echo(f"  campaigns  {len(found.campaigns)}")
    width = max((len(one.name) for one in found.campaigns), default=0)
    for one in found.campaigns[:CAMPAIGNS_SHOWN]:
        moment = f"{one.last_updated:%Y-%m-%d %H:%M} UTC"
        click.echo(f"    {one.name:{width}}  {one.chemsys}  {one.state}, last changed {moment}")
    if len(found.campaigns) > CAMPAIGNS_SHOWN:
        click.echo(f"    and {len(found.campaigns) - CAMPAIGNS_SHOWN} more")
    return True


def _schema_said(schema: int | None, directory: Path) -> str:
    from hullscreen.database.documents import SCHEMA_VERSION

    if schema is None:
        return "without a campaign yet"
    if schema > SCHEMA_VERSION:
        return f"schema {schema}, and this hullscreen knows schemas up to {SCHEMA_VERSION}"
    if schema < SCHEMA_VERSION:
        return f"schema {schema}, which `hullscreen db migrate {directory}` brings up to date"
    return f"schema {schema}"


def _rights_said(found: "ServerReport") -> str:
    rights = [word for word, may in (("read", found.may_read), ("write", found.may_write)) if may]
    if not found.user:
        return "none: this server asks for no login, and everybody may read and write"
    return f"{found.user}, who may {' and '.join(rights) or 'do nothing in this database'}"


def _show_status(directory: Path, *, as_json: bool) -> None:
    from hullscreen.database import embedded_server

    found = embedded_server.status(directory)
    if as_json:
        click.echo(json.dumps({"embedded": True} | dataclasses.asdict(found)))
        return
    if found.running:
        stays = "until `hullscreen db stop`" if found.kept else "while it is used"
        click.echo(f"MongoDB {found.version} runs {stays} (process {found.mongod_pid})")
        click.echo(f"  address  {found.uri}")
        click.echo(f"  users    {found.clients} process{'es' if found.clients != 1 else ''}")
    else:
        click.echo("the server does not run; commands that need it start it")
        if found.reason:
            click.echo(f"  last     {found.reason}")
    click.echo(f"  data     {found.data_bytes / 1e6:.0f} MB on disk")
