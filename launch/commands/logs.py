"""``hullscreen logs``: the calculations of a structure, and the ends of their files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from hullscreen.launch.options import database_option, json_option

KEY_SHOWN = 12
# FireWorks' states in the words of `hullscreen status`; others are shown as they are.
STATES = {"COMPLETED": "done", "FIZZLED": "failed"}
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
        return
    _show(log, verbose=verbose)


def _show(log: dict[str, Any], *, verbose: bool) -> None:
    from rich.text import Text

    from hullscreen.launch.result_tables import result_console

    console = result_console()
    if "structure_index" in log:
        for line in _structure(log):
            console.print(line)
    for calculation in log["calculations"]:
        console.print()
        console.print(Text(_title(calculation), style="bold"))
        for line in _calculation(calculation):
            console.print(Text(f"  {line}"))
        for file in calculation["files"]:
            console.print(Text(f"  {file['path']} ({file['size']:,} bytes), its end:"))
            for line in file["lines"]:
                console.print(Text(f"    {line}", style="dim"))
    if not log["calculations"]:
        console.print("No DFT was asked for.")
    for job in log["jobs"]:
        console.print()
        console.print(Text(_job_title(job), style="bold"))
        for line in _job(job):
            console.print(Text(f"  {line}"))
        for line in job["trace"] if verbose else ():
            console.print(Text(f"    {line}", style="dim"))
        if job["trace"] and not verbose:
            console.print("  --verbose shows the traceback.")


def _structure(log: dict[str, Any]) -> Iterator[str]:
    stage = {1: "screen 1", 2: "screen 2", 3: "final"}[log["stage"]]
    yield (
        f"Structure {log['structure_index']}: {log['formula_pretty']}, {log['nsites']} "
        f"atom{'s' * (log['nsites'] > 1)}, {log['prototype']}; it has reached {stage}"
    )
    if relaxed := log["relaxed"]:
        energy = relaxed["energy_per_atom"]
        at = "" if energy is None else f", {energy:.4f} eV/atom"
        yield (
            f"  relaxed with potential {relaxed['potential']}: "
            f"{relaxed['outcome'].replace('_', ' ')} after {relaxed['evaluations']} steps{at}, "
            f"highest grade {relaxed['highest_grade']:.2f}"
        )
    if dropped := log["dropped"]:
        yield f"  dropped: {str(dropped.get('reason', '')).replace('_', ' ')}"
    if n := log["n_stored_evaluations"]:
        yield f"  energies on the way of its DFT relaxation that are stored: {n}"


def _title(calculation: dict[str, Any]) -> str:
    key = calculation["key"][:KEY_SHOWN]
    if "kind" not in calculation:
        return f"DFT {key}: nothing is stored; it is to come or under way"
    kind = calculation["kind"].replace("_", " ")
    return (
        f"DFT {kind} {key} of structure {calculation['structure_index']} to "
        f"{calculation['purpose']}: {calculation['state']}"
    )


def _calculation(calculation: dict[str, Any]) -> Iterator[str]:
    if "kind" in calculation:
        n, seconds = calculation["n_evaluations"], calculation["cpu_seconds"]
        energy = calculation["energy_per_atom"]
        at = "" if energy is None else f"{energy:.4f} eV/atom; "
        ended = _time(calculation["last_updated"])
        yield f"{at}{n} evaluation{'s' * (n != 1)}, {seconds:.1f} CPU s; ended {ended}"
        if calculation["reason"]:
            yield f"reason: {calculation['reason']}"
        for correction in calculation["corrections"]:
            yield f"mended: {correction}"
    if calculation["is_here"]:
        yield f"folder: {calculation['folder']}"
    elif calculation["writes_files"]:
        yield "no files of it are on this machine"


def _job_title(job: dict[str, Any]) -> str:
    state = STATES.get(job["state"], job["state"].lower())
    return f"Step {job['fw_id']} ({job['name']}): {state}"


def _job(job: dict[str, Any]) -> Iterator[str]:
    if job["began_at"]:
        ended = _time(job["ended_at"]) if job["ended_at"] else "not ended"
        yield f"on {job['host']} from {_time(job['began_at'])} to {ended}"
    if job["queue_job"]:
        files = job["queue_job_files"]
        yield f"in job {job['queue_job']} of the queue" + (f": {', '.join(files)}" if files else "")
    if job["reason"]:
        yield f"reason: {job['reason']}"


def _time(text: str) -> str:
    """A time in UTC, to the second."""
    return f"{datetime.fromisoformat(text):%Y-%m-%d %H:%M:%S} UTC"
