"""`hullscreen run`: a campaign on this machine, to its hull."""

from pathlib import Path

import click

from hullscreen.launch.options import database_option, directory_argument

EPILOG = """
\b
Example:
  hullscreen run cu-pd
  hullscreen hull cu-pd
"""


@click.command(epilog=EPILOG)
@directory_argument
@click.option(
    "--workers",
    type=click.IntRange(min=0),
    default=None,
    help="Processes to work with; 0: one per core.  [default: from hullscreen.toml]",
)
@database_option
def command(directory: Path, workers: int | None, database_uri: str | None) -> None:
    """Run the campaign in DIRECTORY here, to its hull; run again, it continues.

    Generates the prototypes, relaxes them with a potential that learns on the way, computes with
    DFT what the potential would have to extrapolate, and relaxes the few survivors with DFT.
    Anything may be killed at any time: the same command goes on where it was.
    """
    import signal

    from hullscreen.launch.campaign_session import open_session
    from hullscreen.launch.local_run import run
    from hullscreen.launch.progress import progress_board
    from hullscreen.launch.worker_numbers import worker_numbers

    # A batch system's or a person's `kill` ends this like Ctrl-C: workers first, then a sentence.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with open_session(directory, database_uri) as session, progress_board() as board:
        numbers = worker_numbers(session.settings, workers)
        if numbers.warning:
            board.note(numbers.warning)
        run(session, board, numbers.workers, numbers.dft_workers)
    click.echo(f"The hull is there: hullscreen hull {directory}", err=True)
