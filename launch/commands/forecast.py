"""``hullscreen forecast``: what a campaign will cost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hullscreen.launch.options import database_option, directory_argument, json_option

if TYPE_CHECKING:
    from hullscreen.launch.campaign_session import Session

PURPOSES = {
    "seed": "first training structures",
    "learn": "learning",
    "validate": "measuring the error",
    "refine": "the most promising structures",
    "single_points": "single points",
    "relaxations": "final relaxations",
}
PARTS = {
    "labels": "DFT single points",
    "final_relaxations": "final DFT relaxations",
    "potential": "everything else",
    "total": "total",
}
EPILOG = """
\b
Example:
  hullscreen init al-ni --elements Al Ni --engine quantum_espresso
  hullscreen forecast al-ni
"""


@click.command(epilog=EPILOG)
@directory_argument
@click.option(
    "--measure/--no-measure",
    default=True,
    help="Compute a few of the campaign's first structures if nothing is known of such "
    "calculations and it has not begun; it does not compute them again.  [default: --measure]",
)
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    help="Workers that do DFT, wherever they are.  [default: those of `hullscreen run`]",
)
@click.option(
    "--inputs",
    "inputs_folder",
    metavar="FOLDER",
    type=click.Path(file_okay=False, path_type=Path),
    help="Only write the DFT input files of one single point and one relaxation into FOLDER; the "
    "DFT code need not be installed.",
)
@database_option
@json_option
def command(
    *,
    directory: Path,
    measure: bool,
    workers: int | None,
    inputs_folder: Path | None,
    database_uri: str | None,
    as_json: bool,
) -> int:
    """Say what the campaign in DIRECTORY will cost: DFT calculations, time and disk.

    The number of calculations comes from the pool and from what finished campaigns have asked
    for; the cost of each from calculations with the same engine and elements in the database.
    """
    from hullscreen.launch.campaign_session import open_session
    from hullscreen.launch.going_on import going_on
    from hullscreen.potentials.errors import DFTError

    with open_session(directory, database_uri) as session:
        if inputs_folder is not None:
            _write_inputs(session, inputs_folder, as_json=as_json)
            return 0
        made = _forecast(session, measure=measure, workers=workers)
        to_go_on = going_on(session.store.find_campaign() or {}, directory)
    measured = made["measured"]
    in_vain = bool(measured["failures"]) and not measured["calculations"]
    if as_json:
        click.echo(json.dumps(made))
    else:
        _show(made)
        what_next = "mend this first, then" if in_vain else "Next:"
        click.echo(f"{what_next} {to_go_on}")
    return DFTError.exit_code if in_vain else 0


def _write_inputs(session: Session, folder: Path, *, as_json: bool) -> None:
    """Example inputs of the campaign's calculations, and where they are."""
    from hullscreen.workflows import pool_survey
    from hullscreen.workflows.campaign import Campaign

    campaign = Campaign(session.settings, session.store, session.directory / "calculations")
    files = pool_survey.write_examples(campaign, pool_survey.survey(campaign), folder)
    if as_json:
        click.echo(json.dumps({"inputs": [str(file) for file in files]}))
        return
    click.echo(f"Inputs of a single point and of a relaxation are in {folder}:")
    for file in files:
        click.echo(f"  {file.relative_to(folder)}")


def _forecast(session: Session, *, measure: bool, workers: int | None) -> dict[str, Any]:
    """The forecast of a campaign directory; ``failures`` are those of measurements."""
    from hullscreen.launch.progress import progress_board
    from hullscreen.launch.worker_numbers import n_cores, worker_numbers
    from hullscreen.workflows import pool_survey
    from hullscreen.workflows.campaign import Campaign
    from hullscreen.workflows.forecast import cost_model, forecast

    campaign = Campaign(session.settings, session.store, session.directory / "calculations")
    found = pool_survey.survey(campaign)
    measured = pool_survey.Measured(0, [], None)
    # Once it has begun its workers compute the same ones, in the same folders.
    begun = session.store.find_campaign() is not None
    if measure and not begun and cost_model(campaign) is None:
        with progress_board() as board:
            measured = pool_survey.measure(
                campaign,
                found,
                lambda done, total: board.show("DFT single points measured", done, total),
            )
    made = forecast(
        campaign,
        found,
        n_workers=workers or worker_numbers(session.settings).at_dft,
        parallel=measured.parallel,
        n_cores=None if workers else n_cores(),
    )
    made["measured"] = {"calculations": measured.n_computed, "failures": measured.failures}
    return made


def _show(made: dict[str, Any]) -> None:
    from hullscreen.launch.forecast_summary import span, time_span
    from hullscreen.launch.result_tables import duration, print_table, result_console

    console = result_console()
    pool = made["pool"]
    console.print(f"{made['campaign']} ({'–'.join(made['elements'])}, {made['engine']})\n")
    lattices = ", ".join(f"{n:,} {name}" for name, n in pool["by_lattice"].items() if n)
    console.print(f"Pool: {pool['total']:,} structures, {lattices}")
    sizes = ", ".join(
        f"{n} atom{'' if n == '1' else 's'}: {number:,}" for n, number in pool["by_atoms"].items()
    )
    console.print(f"By the size of their cells: {sizes}\n")
    print_table(
        console,
        "DFT calculations",
        ["for", "expected"],
        [(name, span(made["calculations"][key])) for key, name in PURPOSES.items()],
    )
    rows = [
        (
            name,
            time_span(made["cpu_seconds"][part]) if made["cpu_seconds"][part] else "not known",
            time_span(made["wall_seconds"][part]) if made["wall_seconds"][part] else "not known",
        )
        for part, name in PARTS.items()
    ]
    workers = "worker" if made["workers"] == 1 else "workers"
    print_table(
        console,
        "Time",
        ["", "processors", f"wall, {made['workers']} DFT {workers}"],
        rows,
    )
    console.print(f"Disk: {made['disk_bytes'] / 1e9:.1f} GB")
    console.print(_costs(made))
    for failure in made["measured"]["failures"]:
        console.print(f"A measurement failed: {failure}")
    done = made["done"]
    if done["single_points"] or done["relaxations"]:
        console.print(
            f"Spent so far: {done['single_points']:,.0f} single points, "
            f"{done['relaxations']:,.0f} relaxations, {duration(done['cpu_seconds'])} of processor "
            "time."
        )


def _costs(made: dict[str, Any]) -> str:
    from hullscreen.launch.forecast_summary import basis
    from hullscreen.launch.result_tables import duration

    numbers = (
        "Numbers of calculations follow those of finished campaigns with EMT, of two to four "
        "elements and 66 to 400,653 structures."
    )
    cost = made["cost"]
    if cost is None:
        return (
            f"{numbers} What one costs is not known: no calculation with this engine and these "
            "elements is stored, and none was measured."
        )
    each = duration(cost["cpu_seconds_of_a_single_point"])
    return (
        f"{numbers} A single point of the pool takes {each} of processor time, a relaxation "
        f"{cost['single_points_of_a_relaxation']:.2g} times that; {basis(cost)}."
    )
