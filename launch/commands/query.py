"""``hullscreen query``: structures of a campaign, found by composition, energy, stage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from hullscreen.launch.json_text import json_text
from hullscreen.launch.options import database_option, directory_argument, json_option

STAGES = {"1": 1, "2": 2, "final": 3}
# The same as in the modules that search, which take long to import; a test compares them.
REASONS = ("kept", "height", "unconverged", "single-point", "failed", "quarantined", "twin")
JOB_STATES = ("waiting", "done", "failed", "quarantined")
OUTCOMES = (
    "converged", "step_limit", "extrapolating", "too_close", "volume_limit", "energy_limit",
    "stalled",
)  # fmt: skip
# With - before it as well, but for the grade, which is quick only so.
QUICK_TO_SORT = (
    "structure_index", "energy_above_hull", "-highest_grade", "space_group", "space_group_number",
    "crystal_system", "volume", "density", "is_stable",
)  # fmt: skip
EPILOG = f"""
\b
Why structures were dropped:
  height        too far above the hull of a screen's potential
  unconverged   relaxations with a potential that found no minimum
  single-point  a DFT single point lay too far above the hull for a relaxation to mend
  failed        DFT could not compute the single point
  quarantined   the single point cannot be right
  twin          relaxed into the same crystal as another one

\b
Fields, in eV/atom, Å³ of the cell and g/cm³:
  structure_index prototype formula_pretty chemsys nelements nsites composition
  energy_per_atom formation_energy_per_atom energy_above_hull
  energy_above_hull_from is_stable decomposes_to space_group space_group_number
  crystal_system volume density stage outcome potential evaluations grade
  highest_grade dropped dropped_in_round job_state last_updated

Orders that are quick in a pool of any size: {", ".join(QUICK_TO_SORT)}. By another field, all that
match are read first, which takes seconds among 400,000: filter as well.

\b
Examples:
  hullscreen query cu-pd --formula CuPd --max-energy-above-hull 0.01
  hullscreen query cu-pd --number 37 --json
  hullscreen query cu-pd --stable --fields formula_pretty,space_group,volume --csv
  hullscreen query cu-pd --sort -highest_grade --limit 10
"""


def _height(name: str, what: str) -> Any:
    return click.option(
        name, type=click.FloatRange(min=0.0), metavar="EV_PER_ATOM", help=f"{what}, in eV/atom."
    )


@click.command(epilog=EPILOG)
@directory_argument
@click.option("--chemsys", metavar="SYSTEM", help="Only this chemical system, such as Cu-Pd.")
@click.option("--formula", metavar="FORMULA", help="Only this composition, such as CuPd3.")
@click.option("--nelements", type=click.IntRange(1, 20), help="Only so many different elements.")
@click.option("--number", type=click.IntRange(0, 10**9), help="Only the structure of this number.")
@click.option("--prototype", metavar="NAME", help="Only this prototype, or names that hold NAME.")
@click.option("--stable", is_flag=True, help="Only what is on the hull of DFT energies.")
@_height("--min-energy-above-hull", "Only structures at least so far above the hull")
@_height("--max-energy-above-hull", "Only structures at most so far above the hull")
@click.option(
    "--space-group",
    metavar="SYMBOL_OR_NUMBER",
    help="Only what DFT has relaxed into this space group, such as Fm-3m or 225.",
)
@click.option(
    "--stage",
    type=click.Choice(list(STAGES)),
    help="Only structures that entered this stage and no later one, dropped there or not.",
)
@click.option(
    "--outcome",
    type=click.Choice(OUTCOMES),
    help="Only structures whose last relaxation with a potential ended so.",
)
@click.option(
    "--min-grade", type=float, help="Only structures whose extrapolation grade reached this."
)
@click.option("--max-grade", type=float, help="Only structures whose grade never exceeded this.")
@click.option(
    "--dropped",
    type=click.Choice(REASONS),
    help="Only structures that were left behind for this reason; kept: those that were not.",
)
@click.option(
    "--job-state",
    type=click.Choice(JOB_STATES),
    help="Only structures whose last DFT job stands so.",
)
@click.option(
    "--sort", metavar="FIELD", help="Order by a field; with - before it, the largest first."
)
@click.option(
    "--limit",
    type=click.IntRange(0, 10**9),
    default=50,
    show_default=True,
    help="Structures to show, at most; 0 for all.",
)
@click.option("--fields", metavar="A,B,C", help="Show these fields only.")
@click.option("--table", "as_table", is_flag=True, help="Print a table, as is done anyway.")
@click.option("--csv", "as_csv", is_flag=True, help="Print comma-separated values.")
@database_option
@json_option
def command(
    *,
    directory: Path,
    stage: str | None,
    number: int | None,
    stable: bool,
    limit: int,
    sort: str | None,
    fields: str | None,
    as_table: bool,
    as_csv: bool,
    database_uri: str | None,
    as_json: bool,
    **filters: Any,
) -> None:
    """List structures of the campaign in DIRECTORY, also those that were dropped, and why.

    DFT-relaxed structures come first, then the others by their height above the hull. A height is
    that of the best energy known, and the column "by" says whose it is: DFT's, DFT's single
    point where the potential relaxed it to, or that of the first or second potential (MTP).
    """
    from hullscreen.database.schema import require_current
    from hullscreen.launch.campaign_session import open_started
    from hullscreen.launch.query_output import csv_text, show
    from hullscreen.potentials.errors import CampaignError, InputError
    from hullscreen.workflows.results import final_hull
    from hullscreen.workflows.structure_filters import Wanted
    from hullscreen.workflows.structure_rows import (
        CSV_FIELDS,
        checked_fields,
        chosen_fields,
        sort_path,
    )
    from hullscreen.workflows.structure_search import search

    if as_table + as_csv + as_json > 1:
        raise InputError("--table, --csv and --json exclude one another: choose one of them")
    names = None if fields is None else checked_fields(fields)
    sort_path(sort or "structure_index")
    wanted = Wanted(
        structure_index=number,
        stage=STAGES[stage] if stage else None,
        stable_only=stable,
        **filters,
    )
    with open_started(directory, database_uri) as session:
        require_current(session.connection)
        try:
            result = final_hull(session.store)
        except CampaignError:
            # Before the elements are relaxed with DFT there is no hull; only --stable needs one.
            if stable:
                raise
            result = None
        found = search(session.store, result, wanted, limit=limit, sort=sort or "")
        rows = found.rows
        if names is not None or as_csv:
            rows = chosen_fields(session.store, rows, names or CSV_FIELDS)
    if as_json:
        click.echo(json_text({"total": found.total, "structures": rows}))
    elif as_csv:
        click.echo(csv_text(names or CSV_FIELDS, rows), nl=False)
    else:
        show(rows, found.total, names, None if sort is None else sort.removeprefix("-"))
