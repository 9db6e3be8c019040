"""`hullscreen worker`: one of the processes of `hullscreen run`."""

from pathlib import Path

import click

from hullscreen.launch.options import directory_argument


@click.command(hidden=True)
@directory_argument
@click.option("--parent", type=int, default=None, help="Process with which this one ends.")
def command(directory: Path, parent: int | None) -> None:
    """Work on the Fireworks of the campaign in DIRECTORY until its hull is there."""
    import faulthandler
    import os
    import signal

    from hullscreen.dft_adapters.guardian import die_with_parent
    from hullscreen.launch.campaign_session import open_session
    from hullscreen.workflows.worker import launchpad_on, work

    # A Ctrl-C in the terminal is for `run`, which then ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    faulthandler.enable()
    if parent is not None:
        die_with_parent(signal.SIGTERM, parent)
    uri = os.environ.pop("HULLSCREEN_WORKER_DB_URI", None)
    with open_session(directory, uri) as session:
        os.chdir(session.directory / "logs")
        launchpad = launchpad_on(session.connection.uri, session.connection.name)
        work(launchpad, session.store)
