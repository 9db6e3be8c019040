"""``hullscreen status``: how far a campaign is."""

from __future__ import annotations

import contextlib
import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

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

    if watch and as_json:
        raise click.UsageError("--watch and --json are both given; expected one of them")
    with open_started(directory, database_uri) as session:
        if watch:
            _watch(session, directory)
            return
        status = _status(session, directory)
    if as_json:
        click.echo(json.dumps(status))
        return
    from hullscreen.launch.result_tables import result_console
    from hullscreen.launch.status_display import status_display

    console = result_console()
    console.print(status_display(status, directory, folds=console.is_terminal))


def _watch(session: Session, directory: Path) -> None:
    """Draw the status again and again; on a terminal each over the last one.

    A server that goes away is waited for, and said to have gone.
    """
    from rich.console import Group, RenderableType
    from rich.live import Live
    from rich.text import Text

    from hullscreen.database.connection import SERVER_AWAY
    from hullscreen.launch.result_tables import clock, result_console
    from hullscreen.launch.status_display import status_display
    from hullscreen.potentials.errors import DatabaseError

    console = result_console()
    with Live(console=console, auto_refresh=False) as live:
        shown: RenderableType = Text()
        silent_since: datetime | None = None

        def draw(*lines: RenderableType) -> None:
            if console.is_terminal:
                live.update(Group(*lines), refresh=True)
            else:
                console.print(lines[-1])

        def tell(since: datetime) -> None:
            nonlocal silent_since
            if silent_since is None:
                silent_since = since
                said = f"The database has not answered since {clock(since)}; waiting."
                draw(shown, Text(said, style="bold yellow"))

        session.connection.silence.tell = tell
        while True:
            began, now = time.monotonic(), datetime.now(UTC)
            try:
                status = _status(session, directory)
            except (*SERVER_AWAY, DatabaseError):
                tell(now)
                time.sleep(REDRAWN_EVERY_S)
                continue
            silent_since = None
            seen_at = datetime.now(UTC)
            shown = status_display(status, directory, folds=console.is_terminal, seen_at=seen_at)
            draw(shown)
            if not console.is_terminal:
                console.print()
            if status["finished"]:
                return
            looked_s = time.monotonic() - began
            time.sleep(max(REDRAWN_EVERY_S, REST_AFTER_LOOKING * looked_s))


def _status(session: Session, directory: Path) -> dict[str, Any]:
    """How things stand; of a finished campaign how many phases are stable, and what is due."""
    from hullscreen.launch.going_on import what_is_due
    from hullscreen.potentials.errors import CampaignError
    from hullscreen.workflows.campaign_status import campaign_status

    status = campaign_status(session.store, session.connection)
    status |= {"n_stable": None, "due": what_is_due(session.store, directory)}
    if status["finished"]:
        from hullscreen.workflows.results import final_hull

        # An element that could not be relaxed leaves no hull.
        with contextlib.suppress(CampaignError):
            status["n_stable"] = len(final_hull(session.store).stable)
    return status
