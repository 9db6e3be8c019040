"""``hullscreen hull``: the stable alloys of a campaign."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from hullscreen.launch.json_text import json_text
from hullscreen.launch.options import database_option, directory_argument, json_option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hullscreen.database.campaign_store import CampaignStore
    from hullscreen.workflows.hull_entries import Entry
    from hullscreen.workflows.results import HullResult

EPILOG = """
\b
Examples:
  hullscreen hull cu-pd --picture cu-pd.png
  hullscreen hull cu-pd --json | jq '.stable[].formula_pretty'
"""


@click.command(epilog=EPILOG)
@directory_argument
@click.option(
    "--picture",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Draw the hull into FILE, which ends in .png or .svg.",
)
@click.option(
    "--all",
    "everything",
    is_flag=True,
    help="Every structure that DFT relaxed, not only stable ones.",
)
@database_option
@json_option
def command(
    *,
    directory: Path,
    picture: Path | None,
    everything: bool,
    database_uri: str | None,
    as_json: bool,
) -> None:
    """Show the stable alloys of the campaign in DIRECTORY.

    Every energy is one of a DFT relaxation, elements included; none comes from a potential.
    Phases within 0.5 meV/atom of the hull are shown as ties: DFT hardly tells them apart. While
    the campaign goes on, the hull of what is relaxed so far is shown, and said to be provisional.
    """
    from hullscreen.launch.campaign_session import open_started
    from hullscreen.launch.going_on import what_is_due
    from hullscreen.workflows.results import final_hull

    if picture is not None:
        _check_suffix(picture)
    with open_started(directory, database_uri) as session:
        result = final_hull(session.store)
        due = what_is_due(session.store, directory)
        if picture is not None:
            _draw(session.store, result, picture)
    if as_json:
        click.echo(json_text(result.to_dict(everything=everything)))
        return
    show_hull(result, everything=everything)
    if due:
        click.echo(due)
    if picture is not None:
        click.echo(f"The picture is in {picture}.")


def show_hull(result: HullResult, *, everything: bool = False) -> None:
    """Print the tables of a hull."""
    from hullscreen.launch.result_tables import print_table, result_console

    console = result_console()
    system = "–".join(result.elements)
    state = "" if result.finished else "provisional: the campaign goes on, "
    count = _plural(len(result.stable), "stable phase")
    print_table(
        console,
        f"{system}: {count} ({state}energies by {result.engine}, "
        f"{_plural(len(result.entries), 'structure')} relaxed with it)",
        ["formula", "prototype", "space group", "atoms>", "formation energy\neV/atom>",
         "above hull\nmeV/atom>", "volume\nÅ³/atom>", "number>"],
        _rows(result.stable),
    )  # fmt: skip
    if result.ties:
        print_table(
            console,
            "Ties, within 0.5 meV/atom of the hull",
            ["formula", "prototype", "space group", "atoms>", "above hull\nmeV/atom>", "number>",
             ""],
            [
                (e.formula_pretty, e.prototype, e.symmetry["symbol"], e.nsites,
                 f"{1e3 * e.energy_above_hull:.3f}", str(e.structure_index), _tie(result, e))
                for e in result.ties
            ],
        )  # fmt: skip
    if everything and result.unstable:
        print_table(
            console,
            "Not stable",
            ["formula", "prototype", "space group", "atoms>", "formation energy\neV/atom>",
             "above hull\nmeV/atom>", "number>", "decomposes to"],
            [
                (e.formula_pretty, e.prototype, e.symmetry["symbol"], e.nsites,
                 f"{e.formation_energy_per_atom:z.4f}", f"{1e3 * e.energy_above_hull:.2f}",
                 str(e.structure_index), _products(result, e))
                for e in result.unstable
            ],
        )  # fmt: skip
    left_out = [
        (result.n_labels_failed, "failed DFT single point"),
        (result.n_unconverged, "unconverged relaxation"),
    ]
    said = [_plural(n, what) for n, what in left_out if n]
    if said:
        console.print(f"Left out: {', '.join(said)}; `hullscreen report` says more.")
    if result.n_labels_quarantined:
        console.print(
            f"{_plural(result.n_labels_quarantined, 'DFT single point')} cannot be right and "
            "taught nothing; `hullscreen labels DIR --quarantined` says why, and how to let one "
            "count."
        )
    if result.n_pending:
        console.print(f"{result.n_pending} more structures wait for their DFT relaxation.")
    if result.failed:
        first = result.failed[0]
        console.print(
            f"DFT could not relax {_plural(len(result.failed), 'structure')}, and the hull lacks "
            f"them; the first, {first['formula_pretty']} number {first['structure_index']}: "
            f"{first['reason']}"
        )


def _rows(entries: Sequence[Entry]) -> list[tuple[object, ...]]:
    return [
        (
            e.formula_pretty,
            e.prototype,
            e.symmetry["symbol"],
            e.nsites,
            f"{e.formation_energy_per_atom:z.4f}",
            f"{1e3 * e.energy_above_hull:.2f}",
            f"{e.volume / e.nsites:.2f}",
            str(e.structure_index),
        )
        for e in entries
    ]


def _tie(result: HullResult, entry: Entry) -> str:
    stable = result.tied_with(entry)
    if stable is None:
        return "with " + _products(result, entry)
    what = "the same crystal as" if result.is_same_crystal(entry, stable) else "with"
    return f"{what} number {stable.structure_index}"


def _products(result: HullResult, entry: Entry) -> str:
    return " + ".join(
        f"{share:.2f} {product.formula_pretty}" for product, share in result.products(entry)
    )


def _plural(n: int, noun: str) -> str:
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def _check_suffix(picture: Path) -> None:
    """Refuse before the database is asked."""
    from hullscreen.potentials.errors import InputError

    if picture.suffix.lower() not in {".png", ".svg"}:
        raise InputError(f"--picture {picture} should end in .png or .svg")
    if not picture.resolve().parent.is_dir():
        raise InputError(f"--picture {picture}: {picture.parent} is no directory; make it first")


def _draw(store: CampaignStore, result: HullResult, path: Path) -> None:
    from hullscreen.launch.campaign_picture import campaign_picture
    from hullscreen.launch.screen_pictures import draw_hull

    draw_hull(campaign_picture(store, result), path)
