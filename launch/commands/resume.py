"""``hullscreen resume``: let a campaign go on after `pause` or `cancel`."""

from __future__ import annotations

from pathlib import Path

import click

from hullscreen.launch.options import database_option, directory_argument


@click.command(epilog="Example: hullscreen resume cu-pd")
@directory_argument
@database_option
def command(directory: Path, database_uri: str | None) -> None:
    """Let workers of the campaign in DIRECTORY take steps again, after `pause` or `cancel`.

    It starts none: those that `pause` has left waiting go on by themselves.
    """
    from hullscreen.launch.campaign_session import open_started
    from hullscreen.launch.steps_said import resumed
    from hullscreen.workflows.campaign_control import resume

    with open_started(directory, database_uri) as session:
        before = session.store.campaign()
        resume(session.store)
    click.echo(resumed(before, directory))
