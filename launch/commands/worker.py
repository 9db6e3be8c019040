"""`hullscreen worker`: one more process for a campaign, or one of those of `hullscreen run`."""

from pathlib import Path

import click

from hullscreen.launch.options import ManyValues, directory_argument

# Those of the Fireworks, said here so that the help is quick.
CATEGORIES = ("dft", "relax", "train")


@click.command(epilog="Example: hullscreen worker cu-pd --category relax train")
@directory_argument
@click.option(
    "--category",
    "categories",
    cls=ManyValues,
    type=click.Choice(CATEGORIES),
    metavar="KIND...",
    help="Kinds of steps to take: dft, relax (with the potential), train (fits and decisions); by "
    "default all.",
)
@click.option("--parent", type=int, default=None, hidden=True)
def command(directory: Path, categories: tuple[str, ...], parent: int | None) -> None:
    """Work on the steps of the campaign in DIRECTORY until its hull is there.

    The campaign must have been started by `hullscreen run`, which this one helps, or by
    `hullscreen submit`. Killed at any time, it leaves its step to the others.
    """
    import faulthandler
    import os
    import signal

    from hullscreen.dft_adapters.guardian import die_with_parent
    from hullscreen.launch.campaign_session import open_session
    from hullscreen.workflows.worker import launchpad_on, work

    faulthandler.enable()
    if parent is None:
        # FireWorks would take an exception for the step's failure, and go on.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    else:
        # A Ctrl-C in the terminal is for `run`, which then ends its workers.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        die_with_parent(signal.SIGTERM, parent)
    uri = os.environ.pop("HULLSCREEN_WORKER_DB_URI", None)
    with open_session(directory, uri) as session:
        # One that was never started ends here, with a sentence.
        session.store.campaign()
        logs = session.directory / "logs"
        logs.mkdir(exist_ok=True)
        os.chdir(logs)
        launchpad = launchpad_on(session.connection.uri, session.connection.name)
        work(launchpad, session.store, categories=categories)
