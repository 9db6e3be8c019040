"""``hullscreen db dump`` and ``restore``: a campaign as files, and from files into a database."""

from pathlib import Path

import click

from hullscreen.launch.options import database_option

DIRECTORY = click.Path(file_okay=False, path_type=Path)

DUMP_EPILOG = """
\b
Example:
  hullscreen db dump cu-pd cu-pd-dump
  tar czf cu-pd-dump.tar.gz cu-pd-dump
"""
RESTORE_EPILOG = """
\b
Example, on another machine, where cu-pd/hullscreen.toml names another server:
  hullscreen db restore cu-pd cu-pd-dump
  hullscreen run cu-pd
"""


@click.command("dump", short_help="Write a campaign into a folder.", epilog=DUMP_EPILOG)
@click.argument("directory", type=DIRECTORY)
@click.argument("target", type=click.Path(path_type=Path))
@database_option
def dump(directory: Path, target: Path, database_uri: str | None) -> None:
    """Write the campaign in DIRECTORY into the new folder TARGET.

    With it go its Fireworks and the DFT results of its elements, whoever computed them. It must be
    at rest: no `run`, no `launch`, no worker and no job in a queue, or paused and its steps done.
    The files are laid out as those of `mongodump --gzip`. A user who may only read is enough.
    """
    from hullscreen.database.dump import dump_campaign
    from hullscreen.launch.campaign_session import open_started
    from hullscreen.launch.directory_lock import refuse_supervised
    from hullscreen.launch.progress import progress_board

    with open_started(directory, database_uri) as session, progress_board() as board:
        if not session.store.campaign().get("paused"):
            refuse_supervised(session.directory, "a dump")
        counts = dump_campaign(session.connection, session.store.name, target, progress=board.show)
    click.echo(f"{target}: {sum(counts.values()):,} documents")


@click.command("restore", short_help="Write such a folder into a database.", epilog=RESTORE_EPILOG)
@click.argument("directory", type=DIRECTORY)
@click.argument("source", type=click.Path(path_type=Path, exists=True, file_okay=False))
@database_option
def restore(directory: Path, source: Path, database_uri: str | None) -> None:
    """Write the dump in the folder SOURCE into the database of the campaign in DIRECTORY.

    Other campaigns there stay as they are, DFT results that are there count. hullscreen.toml must
    name the same campaign as the dump. Interrupted, the same command completes it; then
    `hullscreen run` goes on where the campaign was.
    """
    from hullscreen.database.dump_files import open_dump
    from hullscreen.database.restore import restore_campaign
    from hullscreen.launch.campaign_session import open_session
    from hullscreen.launch.going_on import going_on
    from hullscreen.launch.progress import progress_board
    from hullscreen.launch.settings import FILE_NAME, load
    from hullscreen.potentials.errors import InputError
    from hullscreen.workflows.publishing import publish_hull

    found = open_dump(source)
    name = load(directory).campaign.name
    if found.name != name:
        raise InputError(
            f"{source} holds the campaign {found.name!r}, and {directory / FILE_NAME} is of "
            f"{name!r}: give the name of the dump under [campaign]"
        )
    with open_session(directory, database_uri) as session, progress_board() as board:
        restore_campaign(session.connection, found, progress=board.show)
        publish_hull(session.store)
        to_go_on = going_on(session.store.campaign(), directory)
    click.echo(f"campaign {name!r} is restored; `{to_go_on}` goes on with it")
