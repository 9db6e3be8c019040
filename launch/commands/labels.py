"""``hullscreen labels``: DFT results of a campaign, and what to do about wrong ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from hullscreen.launch.options import database_option, directory_argument, json_option

KEY_SHOWN = 12
EPILOG = """
\b
Examples:
  hullscreen labels cu-pd --quarantined
  hullscreen labels cu-pd --release 3f09c2d41ab7
  hullscreen labels cu-pd --recompute 3f09c2d41ab7
"""


@click.command(epilog=EPILOG)
@directory_argument
@click.option("--quarantined", is_flag=True, help="Only results that were put aside as wrong.")
@click.option("--failed", is_flag=True, help="Only calculations that failed.")
@click.option(
    "--release", metavar="KEY", help="Let a quarantined result count; it is not judged again."
)
@click.option(
    "--recompute", metavar="KEY", help="Remove a result, so that the next run computes it again."
)
@database_option
@json_option
def command(
    *,
    directory: Path,
    quarantined: bool,
    failed: bool,
    release: str | None,
    recompute: str | None,
    database_uri: str | None,
    as_json: bool,
) -> None:
    """List the DFT results of the campaign in DIRECTORY, or change what counts.

    A result that cannot be right (an energy that no crystal has, or that contradicts all others; a
    relaxation that went uphill) is quarantined with its reason: nothing is learnt from it and it is
    on no hull. A key may be shortened to its first letters. After --release or --recompute the next
    `hullscreen run`, `launch` or `submit` learns and screens everything once more; no other DFT is
    repeated, and what failed only if it is asked for like this or by `lpad rerun_fws`.
    """
    from hullscreen.launch.campaign_session import open_started
    from hullscreen.launch.going_on import learning_again
    from hullscreen.potentials.errors import InputError
    from hullscreen.workflows import label_list

    if release and recompute:
        raise InputError("--release and --recompute are both given; expected one of them")
    with open_started(directory, database_uri) as session:
        if release or recompute:
            change = label_list.release if release else label_list.recompute
            result = change(session.store, release or recompute or "")
            rows = [label_list.label_row(result)]
        else:
            rows = [label_list.label_row(r) for r in label_list.dft_results_of(session.store)]
        campaign = session.store.campaign()
    doubts = campaign.get("doubts", {})
    wanted = {s for s, chosen in (("quarantined", quarantined), ("failed", failed)) if chosen}
    shown = [row for row in rows if not wanted or row["state"] in wanted or release or recompute]
    if as_json:
        click.echo(json.dumps({"total": len(shown), "labels": shown, "doubts": doubts}))
    elif release or recompute:
        what = "counts again" if release else "is removed"
        click.echo(f"{_name(shown[0])} {what}; {learning_again(campaign, directory)}")
    else:
        _show(shown, doubts, directory)


def _show(rows: list[dict[str, Any]], doubts: dict[str, str], directory: Path) -> None:
    from hullscreen.launch.result_tables import print_table, result_console

    console = result_console()
    if not rows:
        console.print("No DFT result matches.")
    else:
        print_table(
            console,
            f"{len(rows):,} DFT result{'s' * (len(rows) != 1)}",
            ["key", "formula", "atoms>", "for", "kind", "energy\neV/atom>", "state", "mended>"],
            [
                (
                    row["key"][:KEY_SHOWN], row["formula_pretty"], row["nsites"], row["purpose"],
                    row["kind"].replace("_", " "),
                    None if row["energy_per_atom"] is None else f"{row['energy_per_atom']:.4f}",
                    _state(row), len(row["corrections"]) or None,
                )
                for row in rows
            ],
        )  # fmt: skip
    for row in rows:
        if row["reason"]:
            console.print(f"{row['key'][:KEY_SHOWN]} {row['state']}: {row['reason']}")
    if any(row["state"] == "quarantined" for row in rows):
        console.print(
            f"`hullscreen labels {directory} --release KEY` lets one count, `--recompute KEY` "
            "computes it again."
        )
    for number, doubt in doubts.items():
        console.print(f"Round {number}: {doubt}.")


def _state(row: dict[str, Any]) -> str:
    by_hand = row["state"] == "done" and row["judged"] == "by hand"
    return "done, released by hand" if by_hand else str(row["state"])


def _name(row: dict[str, Any]) -> str:
    kind = row["kind"].replace("_", " ")
    return f"The {kind} {row['key'][:KEY_SHOWN]} of {row['formula_pretty']}"
