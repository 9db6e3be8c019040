"""``hullscreen query``: structures of a campaign, found by composition, energy, stage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hullscreen.launch.options import database_option, directory_argument, json_option

if TYPE_CHECKING:
    from hullscreen.workflows.structure_search import Found

STAGE_NAMES = {1: "screen 1", 2: "screen 2", 3: "final"}
STAGES = {"1": 1, "2": 2, "final": 3}
# Short forms for the table; the JSON has the whole words.
SOURCES = {
    "DFT, relaxed": "DFT",
    "DFT single point": "DFT point",
    "MTP of screen 1": "MTP 1",
    "MTP of screen 2": "MTP 2",
}
EPILOG = """
\b
Examples:
  hullscreen query cu-pd --formula CuPd --max-energy-above-hull 0.01
  hullscreen query cu-pd --number 37 --json
"""


@click.command(epilog=EPILOG)
@directory_argument
@click.option("--formula", metavar="FORMULA", help="Only this composition, such as CuPd3.")
@click.option("--number", type=click.IntRange(min=0), help="Only the structure of this number.")
@click.option("--stable", is_flag=True, help="Only what is on the hull of DFT energies.")
@click.option(
    "--max-energy-above-hull",
    type=click.FloatRange(min=0.0),
    metavar="EV_PER_ATOM",
    help="Only structures at most so far above the hull, in eV/atom.",
)
@click.option(
    "--stage",
    type=click.Choice(list(STAGES)),
    help="Only structures that entered this stage and no later one, dropped there or not.",
)
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    default=50,
    show_default=True,
    help="Structures to show, at most; 0 for all.",
)
@database_option
@json_option
def command(
    *,
    directory: Path,
    formula: str | None,
    number: int | None,
    stable: bool,
    max_energy_above_hull: float | None,
    stage: str | None,
    limit: int,
    database_uri: str | None,
    as_json: bool,
) -> None:
    """List structures of the campaign in DIRECTORY, also those that were dropped, and why.

    DFT-relaxed structures come first, then the others by their height above the hull. A height is
    that of the best energy known, and the column "by" says whose it is: DFT's, DFT's single
    point where the potential relaxed it to, or that of the first or second potential (MTP).
    """
    from hullscreen.launch.campaign_session import open_started
    from hullscreen.potentials.errors import CampaignError
    from hullscreen.workflows.results import final_hull
    from hullscreen.workflows.structure_search import Wanted, search

    wanted = Wanted(
        formula, number, max_energy_above_hull, STAGES[stage] if stage else None, stable
    )
    with open_started(directory, database_uri) as session:
        try:
            result = final_hull(session.store)
        except CampaignError:
            # Before the elements are relaxed with DFT there is no hull; only --stable needs one.
            if stable:
                raise
            result = None
        found = search(session.store, result, wanted, limit=limit)
    if as_json:
        click.echo(json.dumps({"total": found.total, "structures": found.rows}))
        return
    _show(found)


def _show(found: Found) -> None:
    from hullscreen.launch.result_tables import print_table, result_console

    console = result_console()
    if not found.rows:
        console.print("No structure matches.")
        return
    print_table(
        console,
        f"{found.total:,} structure{'s' * (found.total != 1)}"
        + (f", {len(found.rows):,} of them shown" if len(found.rows) < found.total else ""),
        ["number>", "formula", "prototype", "atoms>", "above hull\nmeV/atom>", "by",
         "MTP\neV/atom>", "DFT\neV/atom>", "fate"],
        [_row(row) for row in found.rows],
    )  # fmt: skip
    if len(found.rows) < found.total:
        console.print("`--limit 0` shows all.")


def _row(row: dict[str, Any]) -> tuple[Any, ...]:
    mtp, dft, height = row["mtp"] or {}, row["dft"] or {}, row["energy_above_hull"]
    return (
        row["structure_index"],
        row["formula_pretty"],
        row["prototype"],
        row["nsites"],
        None if height is None else f"{1e3 * height:.2f}",
        SOURCES.get(row["energy_above_hull_from"]),
        _energy(mtp.get("energy_per_atom")),
        _energy(dft.get("energy_per_atom")),
        _fate(row),
    )


def _energy(value: float | None) -> str | None:
    return None if value is None else f"{value:.4f}"


def _fate(row: dict[str, Any]) -> str:
    if row["is_stable"]:
        return "stable"
    if row["dft"]:
        failed = row["dft"]["state"] != "done"
        return f"DFT failed: {row['dft']['reason']}" if failed else "relaxed with DFT"
    if row["dropped"]:
        return _dropped(row["dropped"])
    if row["mtp"] is None:
        return "not relaxed yet"
    return f"in {row['stage']}, {row['mtp']['outcome'].replace('_', ' ')}"


def _dropped(dropped: dict[str, Any]) -> str:
    if "same_as" in dropped:
        return f"the same as number {dropped['same_as']}"
    if "outcome" in dropped:
        return f"not converged: {dropped['outcome'].replace('_', ' ')}"
    return f"dropped, {STAGE_NAMES[dropped['stage']]}"
