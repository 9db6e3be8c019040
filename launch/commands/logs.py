"""``hullscreen logs``: the calculations of a structure, and the ends of their files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from hullscreen.launch.log_text import (
    about_calculation,
    about_job,
    about_structure,
    title_of_calculation,
    title_of_job,
)
from hullscreen.launch.options import database_option, json_option

EPILOG = """
\b
Examples:
  hullscreen logs cu-pd 41
  hullscreen logs cu-pd --firework 142 --verbose
"""


@click.command(epilog=EPILOG)
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path))
@click.argument("structure", type=click.IntRange(min=0), required=False)
@click.option("--firework", type=click.IntRange(min=1), metavar="ID", help="A step by its id.")
@click.option(
    "--lines",
    type=click.IntRange(min=0),
    default=15,
    show_default=True,
    help="Lines of the end of each file.",
)
@click.option("--verbose", is_flag=True, help="Also the traceback of steps that failed.")
@database_option
@json_option
def command(
    *,
    directory: Path,
    structure: int | None,
    firework: int | None,
    lines: int,
    verbose: bool,
    database_uri: str | None,
    as_json: bool,
) -> None:
    """Show what was computed for STRUCTURE of the campaign in DIRECTORY, or by a step.

    Its DFT calculations with their state, what was mended on the way, their folders, and the ends
    of what the DFT code wrote there; the steps that ran them, where and when, and why they failed.
    STRUCTURE is the number that `hullscreen query` shows.
    """
    from hullscreen.launch.campaign_session import open_started
    from hullscreen.potentials.errors import InputError
    from hullscreen.workflows.calculation_logs import firework_log, structure_log

    with open_started(directory, database_uri) as session:
        if structure is not None and firework is None:
            log = structure_log(session.store, structure, n_lines=lines)
        elif firework is not None and structure is None:
            log = firework_log(session.store, firework, n_lines=lines)
        else:
            raise InputError("expected either the number of a structure or --firework ID")
        if as_json:
            click.echo(json.dumps(log))
        else:
            _show(log, verbose=verbose)


def _show(log: dict[str, Any], *, verbose: bool) -> None:
    from rich.text import Text

    from hullscreen.launch.result_tables import result_console

    console = result_console()
    if "structure_index" in log:
        for line in about_structure(log):
            console.print(line)
    for calculation in log["calculations"]:
        console.print()
        console.print(Text(title_of_calculation(calculation), style="bold"))
        for line in about_calculation(calculation):
            console.print(Text(f"  {line}"))
        for file in calculation["files"]:
            console.print(Text(f"  {file['path']} ({file['size']:,} bytes), its end:"))
            for line in file["lines"]:
                console.print(Text(f"    {line}", style="dim"))
    if not log["calculations"]:
        console.print("No DFT was asked for.")
    for job in log["jobs"]:
        console.print()
        console.print(Text(title_of_job(job), style="bold"))
        for line in about_job(job):
            console.print(Text(f"  {line}"))
        for line in job["trace"] if verbose else ():
            console.print(Text(f"    {line}", style="dim"))
        if job["trace"] and not verbose:
            console.print("  --verbose shows the traceback.")
