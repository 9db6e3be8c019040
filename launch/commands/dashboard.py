"""``hullscreen dashboard``: a live web page of campaigns, on this machine."""

from __future__ import annotations

from pathlib import Path

import click

from hullscreen.launch.options import database_option

EPILOG = """
\b
Examples:
  hullscreen dashboard cu-pd
  hullscreen dashboard cu-pd cu-ni-pt --allow-actions
  ssh -L 8050:127.0.0.1:8050 cluster       # then there: hullscreen dashboard cu-pd --port 8050
"""
NEEDED = ("dash", "waitress")


@click.command(epilog=EPILOG)
@click.argument(
    "directories",
    type=click.Path(file_okay=False, path_type=Path),
    nargs=-1,
    required=True,
    metavar="DIRECTORY...",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    help="Port of 127.0.0.1; by default any that is free.",
)
@click.option(
    "--allow-actions",
    is_flag=True,
    help="Let the page rerun failed jobs, pause and resume; otherwise it only shows.",
)
@click.option("--no-browser", is_flag=True, help="Only print the address.")
@database_option
def command(
    *,
    directories: tuple[Path, ...],
    port: int,
    allow_actions: bool,
    no_browser: bool,
    database_uri: str | None,
) -> None:
    """Show the campaigns in DIRECTORY... on a web page that lives, until Ctrl-C.

    The page is there for this machine alone, and for whoever has the address that is printed: it
    holds a token that changes with every start. From another machine, look through a tunnel
    (`ssh -L`). A user of the database who may only read suffices without --allow-actions.
    """
    import importlib.util

    from hullscreen.potentials.errors import InputError

    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(
            f"the dashboard needs {' and '.join(missing)}, which this Python does not have: "
            "in a clone of hullscreen, pip install '.[dashboard]'"
        )
    from contextlib import ExitStack, closing, nullcontext

    from hullscreen.launch.campaign_session import only_reading, open_started
    from hullscreen.launch.dashboard.app import make_app
    from hullscreen.launch.dashboard.reader import CampaignReaders
    from hullscreen.launch.dashboard.security import Keys, guard
    from hullscreen.launch.dashboard.serving import (
        HOST,
        add_endpoints,
        listening,
        names_of,
        serve,
        shown_in_browser,
    )

    with listening(port) as opened, ExitStack() as stack:
        different = dict.fromkeys(directory.resolve() for directory in directories)
        sessions = [stack.enter_context(open_started(one, database_uri)) for one in different]
        if not allow_actions:
            sessions = [only_reading(session) for session in sessions]
        by_name = names_of(sessions)
        sources = [(one.store, one.connection, one.directory) for one in sessions]
        readers = stack.enter_context(closing(CampaignReaders(sources)))
        app = make_app(readers, allow_actions=allow_actions)
        add_endpoints(app.server, by_name, allow_actions=allow_actions)
        keys, taken = Keys(), opened.getsockname()[1]
        guard(app.server, keys, port=taken, script_hashes=app.csp_hashes())
        address = f"http://{HOST}:{taken}/?token={keys.token}"
        click.echo(f"Dashboard of {', '.join(by_name)}, until Ctrl-C: {address}")
        stack.enter_context(nullcontext() if no_browser else shown_in_browser(address))
        serve(app.server, opened)
