"""``hullscreen db migrate`` and ``remove-campaign``: what a database needs now and then."""

from pathlib import Path

import click

from hullscreen.launch.options import database_option, directory_argument


@click.command("migrate", short_help="Bring a database to the schema of this hullscreen.")
@directory_argument
@database_option
def migrate(directory: Path, database_uri: str | None) -> None:
    """Bring the database of the campaign in DIRECTORY to the schema of this hullscreen.

    All campaigns in it are brought along; results stay as they are. Interrupted, the same command
    goes on.
    """
    from hullscreen.database import schema
    from hullscreen.database.campaign_store import CampaignStore
    from hullscreen.launch.campaign_session import open_session
    from hullscreen.workflows.publishing import publish_hull

    with open_session(directory, database_uri) as session:
        done = False
        for sentence in schema.migrate(session.connection):
            done = True
            click.echo(sentence)
        for name in schema.campaign_names(session.connection):
            # Also after a migration that was interrupted here.
            if n_changed := publish_hull(CampaignStore(session.connection, name)):
                done = True
                click.echo(f"campaign {name!r}: {n_changed} structures say where the hull is")
    if not done:
        click.echo("the schema is up to date; nothing was changed")


@click.command(
    "remove-campaign",
    short_help="Remove a campaign from its database.",
    epilog="Example: hullscreen db remove-campaign cu-pd --yes",
)
@directory_argument
@click.option("--yes", is_flag=True, help="Do it; without this, only say what would go.")
@database_option
def remove_campaign(directory: Path, yes: bool, database_uri: str | None) -> None:
    """Remove the campaign in DIRECTORY from its database; its files stay.

    Its structures, rounds, potentials and Fireworks go. Other campaigns stay, and so do all DFT
    results, which campaigns share. Nobody may be working on it: no `run`, no `launch`, no worker
    and no job in a queue; `hullscreen cancel` ends them. A restore that was interrupted is given
    up with this.
    """
    from hullscreen.database import removal
    from hullscreen.launch.campaign_session import open_session
    from hullscreen.launch.directory_lock import only_one, refuse_supervised
    from hullscreen.potentials.errors import InputError

    with open_session(directory, database_uri) as session:
        name = session.store.name
        if not yes:
            raise InputError(
                f"this removes campaign {name!r} with its {session.store.count():,} structures "
                f"from the database {session.connection.name!r}, for good: `hullscreen db dump` "
                "keeps a copy; repeat with --yes to do it"
            )
        refuse_supervised(session.directory, "its removal")
        # Nor does anybody begin meanwhile.
        with only_one(session.directory, "db"):
            removed = removal.remove_campaign(session.connection, name)
    click.echo(f"campaign {name!r} is removed: {sum(removed.values()):,} documents")
