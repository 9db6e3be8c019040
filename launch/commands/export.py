"""``hullscreen export``: results of a campaign for other programs, and for print."""

from __future__ import annotations

from pathlib import Path

import click

from hullscreen.launch.exports.formats import FORMATS, format_name
from hullscreen.launch.options import database_option, directory_argument

# Rounds are numbered from zero, structures of a pool too; no 64-bit number of MongoDB is exceeded.
NUMBER = click.IntRange(0, 2**31 - 1)
_LINES = "\n".join(f"  {name:14}{form.summary}" for name, form in FORMATS.items())
EPILOG = f"""
\b
Formats:
{_LINES}

\b
Examples:
  hullscreen export cu-pd --format entries --output entries.json
  hullscreen export cu-pd --stable --format cif --output stable-cifs.zip
  hullscreen export cu-pd --output cu-pd.pdf
"""


@click.command(epilog=EPILOG)
@directory_argument
@click.option(
    "--format",
    "form_name",
    type=click.Choice(list(FORMATS)),
    help="One of those below; by default what the name of the output tells.",
    metavar="FORMAT",
)
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path, allow_dash=True),
    default=Path("-"),
    help="File; of formats with several a folder or FILE.zip; by default standard output.",
)
@click.option(
    "--stable/--all",
    "stable_only",
    help="Only what is on the hull; by default every structure that DFT relaxed.",
)
@click.option(
    "--max-energy-above-hull",
    "-e",
    type=click.FloatRange(min=0.0),
    metavar="EV",
    help="Only structures up to this far above the hull, eV/atom.",
)
@click.option("--formula", "-f", help="Only structures of this composition, such as CuPd3.")
@click.option(
    "--number", "-n", type=NUMBER, metavar="NUMBER", help="Only the structure of this number."
)
@click.option(
    "--stage",
    type=click.IntRange(1, 2),
    metavar="1|2",
    help="Of potential and training-set: the screening; both by default.",
)
@click.option(
    "--potential",
    type=NUMBER,
    metavar="ROUND",
    help="Of potential and training-set: the round that fitted it; the newest by default.",
)
@click.option(
    "--width",
    type=click.Choice(["single", "double"]),
    default="single",
    help="Of hull-figure: one column of a journal, 86 mm, or two, 178 mm.",
)
@click.option("--force", "--overwrite", "force", is_flag=True, help="Replace files that exist.")
@database_option
def command(
    *,
    directory: Path,
    form_name: str | None,
    output: Path,
    stable_only: bool,
    max_energy_above_hull: float | None,
    formula: str | None,
    number: int | None,
    stage: int | None,
    potential: int | None,
    width: str,
    force: bool,
    database_uri: str | None,
) -> None:
    """Write results of the campaign in DIRECTORY for other programs, or its hull for a paper.

    Structures are those that DFT relaxed, with its energies, forces and stresses. Every export says
    where it comes from: campaign, settings, versions, seed. While the campaign goes on, its hull is
    provisional, and the export says so.
    """
    name = format_name(form_name, output)
    form = FORMATS[name]

    from hullscreen.launch.exports.writing import check_output

    check_output(form, output, replace=force)

    from hullscreen.launch.campaign_session import open_started
    from hullscreen.launch.exports.contents import Wanted, check_wanted, collect
    from hullscreen.launch.exports.writing import STANDARD_OUTPUT, write_export

    wanted = Wanted(stable_only, max_energy_above_hull, formula, number, stage, potential, width)
    check_wanted(wanted, name, of_hull=form.of_hull)
    with open_started(directory, database_uri) as session:
        contents = collect(session.store, wanted, of_hull=form.of_hull)
        write_export(form, contents, output, replace=force)
    state = "" if contents.provenance["finished"] else ", provisional: the campaign goes on"
    n = len(contents.entries)
    what = f"{n:,} structure{' is' if n == 1 else 's are'}" if form.of_hull else f"The {name} is"
    if output != STANDARD_OUTPUT:
        click.echo(f"{what} in {output}{state}.", err=True)
    elif state:
        click.echo(f"{what} written{state}.", err=True)
