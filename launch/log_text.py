"""What is known of calculations and their Fireworks, in lines of text."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

KEY_SHOWN = 12
# FireWorks' states in the words of `hullscreen status`; others are shown as they are.
STATES = {"COMPLETED": "done", "FIZZLED": "failed"}


def about_structure(log: dict[str, Any]) -> Iterator[str]:
    """What it is, how far it came, and how it was relaxed last.

    Parameters
    ----------
    log
        As `hullscreen.workflows.calculation_logs.structure_log` gives it.
    """
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


def title_of_calculation(calculation: dict[str, Any]) -> str:
    """Which calculation it is, and its state."""
    key = calculation["key"][:KEY_SHOWN]
    if "kind" not in calculation:
        return f"DFT {key}: nothing is stored; it is to come or under way"
    kind = calculation["kind"].replace("_", " ")
    return (
        f"DFT {kind} {key} of structure {calculation['structure_index']} to "
        f"{calculation['purpose']}: {calculation['state']}"
    )


def about_calculation(calculation: dict[str, Any]) -> Iterator[str]:
    """What came of it, why it failed, and where its files are."""
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


def title_of_job(job: dict[str, Any]) -> str:
    """Which Firework it is, and its state."""
    state = STATES.get(job["state"], job["state"].lower())
    return f"Step {job['fw_id']} ({job['name']}): {state}"


def about_job(job: dict[str, Any]) -> Iterator[str]:
    """Where and when it ran, and why it failed."""
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
