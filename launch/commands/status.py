"""``hullscreen status``: how far a campaign is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from hullscreen.launch.options import database_option, directory_argument, json_option

# FireWorks' states, and the words of a person; the order of the columns.
STATES = {
    "WAITING": "waiting",
    "READY": "ready",
    "RESERVED": "in queue",
    "RUNNING": "running",
    "COMPLETED": "done",
    "FIZZLED": "failed",
    "PAUSED": "paused",
    "DEFUSED": "defused",
    "ARCHIVED": "archived",
}
ALWAYS_SHOWN = ("WAITING", "READY", "RUNNING", "COMPLETED", "FIZZLED")
WORK = {
    "prototypes": "prototypes written",
    "dft_single_points": "DFT single points",
    "relaxations": "structures relaxed with the potential",
    "dft_relaxations": "DFT relaxations",
}
PURPOSES = {
    "seed": "first training structures and first wave",
    "learn": "learning while it relaxes",
    "validate": "measuring the potential's error",
    "refine": "labelling the most promising structures",
    "final": "DFT relaxations of what may be stable",
}


@click.command(epilog="Example: hullscreen status cu-pd")
@directory_argument
@database_option
@json_option
def command(*, directory: Path, database_uri: str | None, as_json: bool) -> None:
    """Show how far the campaign in DIRECTORY is, and what failed and why.

    Steps are counted by the kind of worker that takes them: relax (batches of structures with the
    potential), train (fits and decisions) and dft.
    """
    from hullscreen.launch.campaign_session import open_started
    from hullscreen.workflows.campaign_status import campaign_status

    with open_started(directory, database_uri) as session:
        status = campaign_status(session.store, session.connection)
    if as_json:
        click.echo(json.dumps(status))
        return
    _show(status, directory)


def _show(status: dict[str, Any], directory: Path) -> None:
    from hullscreen.launch.result_tables import print_table, result_console

    console = result_console()
    name = f"{status['campaign']} ({'–'.join(status['elements'])})"
    if status["finished"]:
        console.print(f"{name}: finished")
    elif status["round"] is None:
        console.print(f"{name}: generating prototypes")
    else:
        stage = status["stage"].replace("_", " ")
        console.print(f"{name}: {stage}, round {status['round']}, {PURPOSES[status['purpose']]}")
    if not status["finished"]:
        for kind, counts in status["progress"].items():
            of = f" of {counts['total']:,}" if counts["total"] is not None else ""
            console.print(f"  {WORK[kind]}: {counts['done']:,}{of}{_extrapolating(counts)}")
    used = {state for counts in status["fireworks"].values() for state in counts}
    shown = [state for state in STATES if state in used or state in ALWAYS_SHOWN]
    if status["fireworks"]:
        print_table(
            console,
            "Steps by kind of worker",
            ["", *(f"{STATES[state]}>" for state in shown)],
            [
                (category, *(counts.get(state, 0) for state in shown))
                for category, counts in sorted(status["fireworks"].items())
            ],
        )
    if status["failures"]:
        console.print("Failed steps, the newest first")
        for failed in status["failures"]:
            reason = failed["reason"] or "no reason is recorded"
            console.print(f"  {failed['fw_id']}  {failed['name']}: {reason}")
        console.print("`lpad rerun_fws -i ID` repeats one of them.")
    if status["n_quarantined"]:
        console.print(
            f"DFT results that cannot be right and were put aside: {status['n_quarantined']}; "
            f"`hullscreen labels {directory} --quarantined` lists them."
        )
    for number, doubt in status["doubts"].items():
        console.print(f"Round {number}: {doubt}.")
    console.print(_next(status, directory))


def _extrapolating(counts: dict[str, Any]) -> str:
    waiting = counts.get("extrapolating", 0)
    return f", {waiting:,} of them wait for the next potential" if waiting else ""


def _next(status: dict[str, Any], directory: Path) -> str:
    if status["finished"]:
        return f"The hull: hullscreen hull {directory}"
    at_work = any(
        counts.get(state)
        for counts in status["fireworks"].values()
        for state in ("RUNNING", "RESERVED")
    )
    if at_work and status["stage"] == "final":
        return f"Workers are at it; the hull so far: hullscreen hull {directory}"
    if at_work:
        return "Workers are at it."
    return f"No worker is at it: hullscreen run {directory} continues"
