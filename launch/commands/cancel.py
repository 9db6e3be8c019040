"""``hullscreen cancel``: end the work on a campaign, and keep what it has computed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hullscreen.launch.options import database_option, directory_argument

if TYPE_CHECKING:
    from hullscreen.launch.campaign_session import Session

EPILOG = """
\b
Example:
  hullscreen cancel cu-pd --yes
  hullscreen run cu-pd            # goes on where it was
"""


@click.command(epilog=EPILOG)
@directory_argument
@click.option("--yes", is_flag=True, help="Do not ask.")
@database_option
def command(*, directory: Path, yes: bool, database_uri: str | None) -> None:
    """End the workers of the campaign in DIRECTORY and cancel its jobs in the queue.

    Everything that was computed is kept: `hullscreen run` or `launch` goes on with it, and after
    `resume` so do workers that you start yourself.
    """
    from hullscreen.launch.campaign_session import open_started
    from hullscreen.launch.going_on import going_on
    from hullscreen.launch.steps_said import under_way
    from hullscreen.potentials.errors import InputError
    from hullscreen.workflows.campaign_control import cancel

    with open_started(directory, database_uri) as session:
        name = session.store.name
        if not yes and not sys.stdin.isatty():
            raise InputError(f"cancelling {name!r} needs a yes: add --yes where nobody can answer")
        if not yes:
            click.confirm(f"Cancel {name!r}, its workers and its jobs in the queue?", abort=True)
        working = cancel(session.store)
        click.echo(f"Cancelled: {under_way(working)}, and workers end. What was computed is kept.")
        cancelled = _cancel_jobs(session)
        to_go_on = going_on(session.store.campaign(), directory)
    if cancelled:
        jobs = "job is" if cancelled == 1 else "jobs are"
        click.echo(f"{cancelled} {jobs} cancelled in the queue.")
    click.echo(f"To go on: {to_go_on}")


def _cancel_jobs(session: Session) -> int:
    """Cancel the campaign's jobs in the queue, and say how many there were."""
    from hullscreen.database.queue_jobs import QueueJobs

    stored = QueueJobs(session.connection, session.store.name)
    jobs = stored.in_queue(str(session.directory))
    if not jobs:
        return 0
    from hullscreen.launch.cancelled_jobs import cancel_jobs
    from hullscreen.launch.queue_commands import QUEUES, require_programs
    from hullscreen.launch.queue_files import adapter_of

    # Jobs lie in folders of their own beside the launch files that they were submitted with.
    kind = adapter_of(Path(jobs[-1].folder).parent).q_type.lower()
    queue = QUEUES[kind]
    require_programs(queue)
    # Workers that notice that the campaign is cancelled may end before their jobs are.
    list(cancel_jobs(queue, stored, str(session.directory)))
    return len(jobs)
