"""`hullscreen submit`: a campaign into the LaunchPad."""

from pathlib import Path

import click

from hullscreen.launch.options import database_option, directory_argument

EPILOG = """
\b
Example:
  hullscreen submit cu-pd
  hullscreen db start cu-pd        # unless hullscreen.toml names a server of yours
  cd cu-pd && rlaunch rapidfire
"""


@click.command(epilog=EPILOG)
@directory_argument
@database_option
def command(directory: Path, database_uri: str | None) -> None:
    """Put the campaign in DIRECTORY into the LaunchPad, for workers elsewhere.

    Any FireWorks worker that reaches the database does the work; each round puts the next one into
    the LaunchPad. Without an address under [database] the campaign's own server must be kept
    running with `hullscreen db start`. Submitted again when nothing is left to do, it repeats what
    failed for want of an engine, a file or room, and what the campaign cannot do without; and it
    learns and screens once more after `hullscreen labels` has changed what counts.
    """
    from contextlib import closing

    from hullscreen.launch.campaign_session import open_session
    from hullscreen.launch.campaign_start import prepare
    from hullscreen.workflows import decisions, recovery

    with open_session(directory, database_uri) as session:
        campaign, launchpad = prepare(session)
        with closing(launchpad.connection):
            lost = recovery.release_lost(launchpad, campaign)
            # Workers elsewhere are left alone while they have something to do.
            idle, again = recovery.is_idle(launchpad, session.store), 0
            if idle:
                again = recovery.retry_failed(launchpad, campaign, all_steps=True)
            finished = session.store.campaign()["finished"] and not again
            if idle and finished and session.store.new_labels() > 0:
                decisions.reopen(campaign)
                finished = False
            recovery.resubmit(launchpad, campaign)
        own_server = session.connection.embedded
    if lost:
        click.echo(f"{lost} steps are free again whose workers are gone.", err=True)
    if not idle or finished:
        click.echo("Already submitted; nothing changed.", err=True)
        return
    if again:
        click.echo(f"{again} failed steps are run again.", err=True)
    server = f"hullscreen db start {directory} && " if own_server else ""
    click.echo(f"Submitted. Next: {server}cd {directory} && rlaunch rapidfire", err=True)
