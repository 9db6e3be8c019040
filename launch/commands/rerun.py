"""``hullscreen rerun``: failed DFT jobs once more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hullscreen.launch.options import ManyValues, database_option

if TYPE_CHECKING:
    from hullscreen.launch.campaign_session import Session
    from hullscreen.workflows.rerun import Rerun
    from hullscreen.workflows.structure_jobs import Job

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

    Without it their structures are left out. Of a job that computes several structures only those
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
        for sentence in _sentences(result, directory):
            click.echo(sentence)
        if result.again:
            click.echo(_next(session, directory))


def _sentences(result: Rerun, directory: Path) -> list[str]:
    """What was done with the jobs."""
    sentences = []
    if result.again:
        sentences.append(f"Ready to run once more: {_listed(result.again)}.")
    if result.too_early:
        sentences.append(
            f"Left as they are, because later steps of their round are under way without them: "
            f"{_listed(result.too_early)}; ask again when that round is over "
            f"(`hullscreen status {directory}`)."
        )
    if result.superseded:
        sentences.append(
            f"Left as they are, because everything was screened again since: "
            f"{_listed(result.superseded)}."
        )
    return sentences or ["No DFT job failed: there is nothing to run once more."]


def _listed(jobs: Sequence[Job]) -> str:
    """Jobs by round; of a few their ids."""
    if len(jobs) <= 5:
        # Names of jobs say the round.
        return ", ".join(f"{job.fw_id} ({job.name})" for job in jobs)
    rounds = Counter(job.round for job in jobs)
    parts = ", ".join(f"{n} of round {number}" for number, n in sorted(rounds.items()))
    return f"{len(jobs):,} jobs, {parts}"


def _next(session: Session, directory: Path) -> str:
    """Who computes them."""
    from hullscreen.launch.going_on import going_on
    from hullscreen.workflows.campaign_status import activity_of

    campaign = session.store.campaign()
    if campaign.get("paused") or campaign.get("cancelled"):
        return f"The campaign rests: `hullscreen resume {directory}` lets workers take them."
    to_go_on = going_on(campaign, directory)
    if campaign["finished"]:
        return (
            f"Next: `{to_go_on}` computes them; with what it learns "
            "from them it screens everything once more. No other DFT is repeated."
        )
    if activity_of(session.connection, campaign).alive:
        return "Workers at it take them up; the next fit learns from them."
    return f"Next: `{to_go_on}` computes them and goes on."
