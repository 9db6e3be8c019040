"""``hullscreen status``: how far a campaign is."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hullscreen.launch.options import database_option, directory_argument, json_option

if TYPE_CHECKING:
    from hullscreen.launch.campaign_session import Session

REDRAWN_EVERY_S = 3.0
# The server has better things to do for so many times as long as a look took.
REST_AFTER_LOOKING = 10.0


@click.command(epilog="Example: hullscreen status cu-pd --watch")
@directory_argument
@click.option("--watch", is_flag=True, help="Look again every few seconds until it is finished.")
@database_option
@json_option
def command(*, directory: Path, watch: bool, database_uri: str | None, as_json: bool) -> None:
    """Show how far the campaign in DIRECTORY is, who is at it, and what failed and why.

    Steps are counted by the kind of worker that takes them: relax (batches of structures with the
    potential), train (fits and decisions) and dft. A step is running while its worker gives signs
    of life, and lost otherwise. What is left of a round is reckoned from the speed so far.
    """
    from hullscreen.launch.campaign_session import open_started
    from hullscreen.workflows.campaign_status import campaign_status

    if watch and as_json:
        raise click.UsageError("--watch and --json are both given; expected one of them")
    with open_started(directory, database_uri) as session:
        if watch:
            _watch(session, directory)
            return
        status = campaign_status(session.store, session.connection)
    if as_json:
        click.echo(json.dumps(status))
        return
    from hullscreen.launch.result_tables import result_console
    from hullscreen.launch.status_display import status_display

    console = result_console()
    console.print(status_display(status, directory, folds=console.is_terminal))


def _watch(session: Session, directory: Path) -> None:
    """Draw the status again and again; on a terminal each over the last one."""
    from rich.live import Live

    from hullscreen.launch.result_tables import result_console
    from hullscreen.launch.status_display import status_display
    from hullscreen.workflows.campaign_status import campaign_status

    console = result_console()
    with Live(console=console, auto_refresh=False) as live:
        while True:
            began = time.monotonic()
            status = campaign_status(session.store, session.connection)
            shown = status_display(status, directory, folds=console.is_terminal)
            if console.is_terminal:
                live.update(shown, refresh=True)
            else:
                console.print(shown)
                console.print()
            if status["finished"]:
                return
            looked_s = time.monotonic() - began
            time.sleep(max(REDRAWN_EVERY_S, REST_AFTER_LOOKING * looked_s))
