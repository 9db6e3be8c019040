"""`hullscreen submit`: a campaign into the LaunchPad."""

from pathlib import Path

import click

from hullscreen.launch.options import database_option, directory_argument


@click.command()
@directory_argument
@database_option
def command(directory: Path, database_uri: str | None) -> None:
    r"""Put the campaign in DIRECTORY into the LaunchPad, for workers elsewhere.

    Any FireWorks worker that reaches the database does the work; each round puts the next one into
    the LaunchPad. Without an address under [database] the campaign's own server must be kept
    running with `hullscreen db start`.

    \b
    Example:
      hullscreen submit cu-pd
      cd cu-pd && rlaunch rapidfire
    """
    from hullscreen.launch.campaign_session import open_session
    from hullscreen.launch.local_run import prepare
    from hullscreen.workflows import recovery

    with open_session(directory, database_uri) as session:
        campaign, launchpad = prepare(session)
        recovery.resubmit(launchpad, campaign)
    click.echo(f"Submitted; `lpad -l {directory}/my_launchpad.yaml get_wflows` shows it.", err=True)
