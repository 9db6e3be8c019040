"""``hullscreen why``: what happened to a structure, and why."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from hullscreen.launch.json_text import json_text
from hullscreen.launch.options import database_option, json_option

EPILOG = """
\b
Examples:
  hullscreen why cu-pd 37
  hullscreen why cu-pd 37 --json | jq .dropped
"""


@click.command(epilog=EPILOG)
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path))
@click.argument("structure", type=click.IntRange(0, 10**9))
@database_option
@json_option
def command(*, directory: Path, structure: int, database_uri: str | None, as_json: bool) -> None:
    """Tell the story of STRUCTURE, a number that `hullscreen query` shows.

    Its prototype; each relaxation with a potential, with outcome, energy and extrapolation grade;
    its DFT calculations; where it was left behind, by what margin and against which competitors,
    or its place on the hull.
    """
    from hullscreen.database.schema import require_current
    from hullscreen.launch.campaign_session import open_started
    from hullscreen.workflows.story import story

    with open_started(directory, database_uri) as session:
        require_current(session.connection)
        told = story(session.store, structure)
    if as_json:
        click.echo(json_text(told))
        return
    _show(told)


def _show(told: Mapping[str, Any]) -> None:
    from hullscreen.launch.result_tables import print_table, result_console
    from hullscreen.launch.story_text import sentences

    console = result_console()
    for sentence in sentences(told):
        console.print(sentence)
    console.print()
    if told["relaxations"]:
        print_table(
            console,
            "Relaxations with a potential",
            ["round>", "stage", "level>", "labels>", "outcome", "energy\neV/atom>",
             "evaluations>", "grade at the end>", "highest grade>"],
            [
                (one["potential"], one["stage"], one["level"], one["n_training"],
                 one["outcome"].replace("_", " "), _decimals(one["energy_per_atom"], 4),
                 one["evaluations"], _decimals(one["grade"], 2),
                 _decimals(one["highest_grade"], 2))
                for one in told["relaxations"]
            ],
        )  # fmt: skip
    if told["single_points"]:
        print_table(
            console,
            "DFT single points",
            ["round>", "purpose", "state", "DFT\neV/atom>", "predicted\neV/atom>", "reason"],
            [
                (one["round"], one["purpose"], one["state"], _decimals(one["energy_per_atom"], 4),
                 _decimals(one["predicted_energy_per_atom"], 4), one["reason"])
                for one in told["single_points"]
            ],
        )  # fmt: skip


def _decimals(value: float | None, n: int) -> str | None:
    return None if value is None else f"{value:.{n}f}"
