"""``hullscreen rerun``: failed DFT jobs once more."""

from __future__ import annotations

from pathlib import Path

import click

from hullscreen.launch.options import ManyValues, database_option

EPILOG = """
\b
Examples:
  hullscreen rerun cu-pd --failed
  hullscreen rerun cu-pd 41 57              # jobs of these structures
  hullscreen rerun cu-pd --firework 142
"""


@click.command(epilog=EPILOG)
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path))
@click.argument("structures", type=click.IntRange(min=0), nargs=-1, metavar="[STRUCTURE]...")
@click.option("--failed", is_flag=True, help="All DFT jobs that failed.")
@click.option(
    "--firework",
    "fireworks",
    cls=ManyValues,
    type=click.IntRange(min=1),
    metavar="ID...",
    help="Steps by the ids that `hullscreen status` and `lpad` show.",
)
@database_option
def command(
    *,
    directory: Path,
    structures: tuple[int, ...],
    failed: bool,
    fireworks: tuple[int, ...],
    database_uri: str | None,
) -> None:
    """Let failed DFT jobs of the campaign in DIRECTORY run once more.

    Otherwise their structures stay left out. Of a job that computes several structures only those
    are computed again that failed: what is done is never removed or repeated. Labels that come this
    way are learnt by the next fit; a finished campaign is screened once more by the next
    `hullscreen run` or `launch`.
    """
    from contextlib import closing

    from hullscreen.launch.campaign_session import open_started
    from hullscreen.potentials.errors import InputError

    if failed + bool(structures) + bool(fireworks) != 1:
        raise InputError(
            "expected one of --failed, --firework ID and numbers of structures: which jobs are to "
            "run once more?"
        )
    with open_started(directory, database_uri) as session:
        from hullscreen.launch.rerun_said import next_step, what_was_done
        from hullscreen.workflows import rerun
        from hullscreen.workflows.worker import launchpad_on

        if failed:
            jobs = rerun.failed_jobs(session.store)
        elif structures:
            jobs = rerun.failed_jobs_of(session.store, structures)
        else:
            jobs = rerun.failed_fireworks_of(session.store, fireworks)
        launchpad = launchpad_on(session.connection.uri, session.connection.name)
        with closing(launchpad.connection):
            result = rerun.run_again(launchpad, session.store, jobs)
        for sentence in what_was_done(result, directory):
            click.echo(sentence)
        if result.again:
            click.echo(next_step(session, directory))
