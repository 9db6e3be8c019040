"""``hullscreen brute-force``: the whole pool relaxed with DFT, and the campaign against it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from hullscreen.launch.options import database_option, directory_argument, json_option


@click.command(epilog="Example: hullscreen brute-force cu-pd --json")
@directory_argument
@click.option(
    "--workers",
    type=click.IntRange(min=0),
    default=None,
    help="Processes to work with; 0: one per core.  [default: from hullscreen.toml]",
)
@click.option(
    "--retry-failed", is_flag=True, help="Relax again what failed before, not only what is new."
)
@database_option
@json_option
def command(
    *,
    directory: Path,
    workers: int | None,
    retry_failed: bool,
    database_uri: str | None,
    as_json: bool,
) -> None:
    """Relax the whole pool of the campaign in DIRECTORY with DFT and compare the hulls.

    Every prototype is relaxed from its start geometry, without a potential, with the engine and the
    tolerances of [dft]. Results are kept in the database: an interrupted pool continues, and
    campaigns with the same pool share it. Then the hulls are compared at every composition,
    and each stable structure of brute force is looked for among the campaign's, unless the campaign
    found something lower there: recall 1 means that all were found. For large pools and slow
    engines this takes as long as it sounds.
    """
    import os

    from hullscreen.launch.campaign_session import open_session
    from hullscreen.launch.progress import progress_board
    from hullscreen.potentials.errors import CampaignError
    from hullscreen.workflows.brute_force import campaign_to_compare, reference_report, report
    from hullscreen.workflows.campaign import Campaign
    from hullscreen.workflows.reference_relaxations import relax_pool

    with open_session(directory, database_uri) as session:
        campaign = campaign_to_compare(
            Campaign(session.settings, session.store, session.directory / "calculations")
        )
        wanted = session.settings.launch.workers if workers is None else workers
        with progress_board() as board:
            relaxed = relax_pool(
                campaign,
                wanted or len(os.sched_getaffinity(0)),
                lambda done, total: board.show("brute force: DFT relaxations", done, total),
                retry_failed=retry_failed,
            )
        try:
            document = report(campaign, relaxed)
        except CampaignError:
            # Without a hull to compare with, what brute force found is still worth showing.
            document = {
                "chemsys": "-".join(sorted(campaign.elements)),
                "structures": len(relaxed.relaxations),
                "brute_force": reference_report(campaign, relaxed),
                "campaign": None,
            }
            _show(document, as_json=as_json)
            raise
    _show(document, as_json=as_json)


def _show(document: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(document, ensure_ascii=False))
        return
    _show_table(document)
    for sentence in sentences(document):
        click.echo(sentence)


def _show_table(document: Mapping[str, Any]) -> None:
    """The stable structures of brute force, and how the campaign found each."""
    from hullscreen.launch.result_tables import print_table, result_console

    compared = document["campaign"] is not None
    columns = ["formula", "prototype", "atoms>", "energy\neV/atom>", "formation energy\neV/atom>"]
    rows = [
        [
            entry["formula_pretty"],
            entry["prototype"],
            entry["nsites"],
            f"{entry['energy_per_atom']:.5f}",
            f"{entry['formation_energy_per_atom']:.4f}",
            *([entry["found_as"] or "missed"] if compared else []),
        ]
        for entry in document["brute_force"]["stable"]
    ]
    print_table(
        result_console(),
        f"Stable in {document['chemsys']} by brute force",
        [*columns, *(["in the campaign"] if compared else [])],
        rows,
    )


def sentences(document: Mapping[str, Any]) -> list[str]:
    """What a person wants to know of the comparison."""
    from hullscreen.workflows.hull_comparison import UNDERCUT

    brute, ours = document["brute_force"], document["campaign"]
    failures = ", ".join(f"{n} {reason}" for reason, n in brute["failures"].items())
    effort = (
        f"Brute force relaxed {document['structures']:,} structures in {brute['evaluations']:,} "
        f"evaluations and {brute['cpu_seconds']:,.0f} CPU s"
        + (f"; {brute['failed']:,} failed ({failures})" if failures else "")
    )
    doubts = [
        f"{entry['prototype']} did not converge ({entry['reason']}) and lies "
        f"{entry['below_hull_mev_per_atom']:.2f} meV/atom below the hull at "
        f"{entry['formula_pretty']}: brute force itself is in doubt there; raise max_steps under "
        "[dft]."
        for entry in brute["unconverged_below_hull"]
    ]
    if ours is None:
        return [f"{effort}.", *doubts]
    difference = document["hull_difference_mev_per_atom"]
    n_undercut = sum(entry["found_as"] == UNDERCUT for entry in brute["stable"])
    n_stable, n_missed = len(brute["stable"]) - n_undercut, len(document["missed"])
    more = f", something lower than {n_undercut} more," if n_undercut else ""
    agreement = (
        f"The campaign found {n_stable - n_missed} of {n_stable} stable structures{more} and its "
        f"hull differs by at most {difference['largest']:.3f} meV/atom (at {difference['at']}; "
        f"{difference['lowest']:+.3f} to {difference['highest']:+.3f} overall)."
    )
    saving = (
        f"{effort}; the campaign took {ours['evaluations']:,} evaluations and "
        f"{ours['cpu_seconds']:,.0f} CPU s: {document['evaluation_ratio']:.1f} times fewer "
        "evaluations."
    )
    return [
        agreement,
        saving,
        *(
            f"Missed: {entry['formula_pretty']} ({entry['prototype']}), "
            f"{entry['below_campaign_hull_mev_per_atom']:.2f} meV/atom below the campaign's hull: "
            f"{entry['reason']}."
            for entry in document["missed"]
        ),
        *doubts,
    ]
