"""``hullscreen pause``: let a campaign come to rest."""

from __future__ import annotations

from pathlib import Path

import click

from hullscreen.launch.options import database_option, directory_argument

EPILOG = """
\b
Example:
  hullscreen pause cu-pd
  hullscreen resume cu-pd
"""


@click.command(epilog=EPILOG)
@directory_argument
@database_option
def command(directory: Path, database_uri: str | None) -> None:
    """Let the workers of the campaign in DIRECTORY finish what they hold and take nothing new.

    The workers stay and wait; nothing is lost. `hullscreen cancel` also ends them.
    """
    from hullscreen.launch.campaign_session import open_started
    from hullscreen.launch.steps_said import under_way
    from hullscreen.workflows.campaign_control import pause

    with open_started(directory, database_uri) as session:
        working = pause(session.store)
    click.echo(f"Paused: {under_way(working)}. To go on: hullscreen resume {directory}")
