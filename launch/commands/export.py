"""``hullscreen export``: structures of a campaign for other programs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hullscreen.launch.options import database_option, directory_argument

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hullscreen.workflows.hull_entries import Entry
    from hullscreen.workflows.results import HullResult

FORMATS = ("cif", "poscar", "extxyz", "entries", "json")
SUFFIXES = {"cif": ".cif", "poscar": ".vasp"}
EPILOG = """
\b
Examples:
  hullscreen export cu-pd --format cif --output stable-cifs
  hullscreen export cu-pd --format entries --all --output entries.json
  python -c "from monty.serialization import loadfn
  from pymatgen.analysis.phase_diagram import PhaseDiagram
  print(PhaseDiagram(loadfn('entries.json')))"
"""


@click.command(epilog=EPILOG)
@directory_argument
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    required=True,
    help="cif, poscar: a file for each structure; extxyz, entries (pymatgen), json: one file.",
)
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path),
    required=True,
    help="Directory for cif and poscar, file for the others.",
)
@click.option(
    "--all",
    "everything",
    is_flag=True,
    help="Every structure that DFT relaxed, not only stable ones.",
)
@click.option("--force", is_flag=True, help="Replace files that exist.")
@database_option
def command(
    *,
    directory: Path,
    form: str,
    output: Path,
    everything: bool,
    force: bool,
    database_uri: str | None,
) -> None:
    """Write the stable structures of the campaign in DIRECTORY, as DFT relaxed them.

    extxyz holds energies, forces and stresses too; entries are pymatgen's ComputedStructureEntry,
    whose PhaseDiagram is this hull; json is what `hullscreen hull --json` prints.
    """
    from hullscreen.launch.atomic_files import write_atomically
    from hullscreen.launch.campaign_session import open_started
    from hullscreen.potentials.errors import InputError
    from hullscreen.workflows.results import final_hull

    if form not in SUFFIXES and not output.resolve().parent.is_dir():
        raise InputError(f"--output {output}: {output.parent} is no directory; make it first")
    if form not in SUFFIXES and output.is_dir():
        raise InputError(f"--output {output} is a directory; {form} is written to one file")
    if form in SUFFIXES and output.exists() and not output.is_dir():
        raise InputError(f"--output {output} is a file; {form} files are written to a directory")
    with open_started(directory, database_uri) as session:
        result = final_hull(session.store)
    entries = result.entries if everything else result.stable
    files = _files(result, entries, form, output, everything=everything)
    taken = [path for path in files if path.exists()]
    if taken and not force:
        more = f" and {len(taken) - 1} more files exist" if len(taken) > 1 else " exists"
        raise InputError(f"{taken[0]}{more}; --force replaces, or choose another --output")
    if form in SUFFIXES:
        output.mkdir(parents=True, exist_ok=True)
    for path, text in files.items():
        write_atomically(path, text)
    state = "" if result.finished else ", provisional: the campaign goes on"
    click.echo(f"{len(entries):,} structures are in {output}{state}.", err=True)


def _files(
    result: HullResult, entries: Sequence[Entry], form: str, output: Path, *, everything: bool
) -> dict[Path, str]:
    """Content of each file to write."""
    from hullscreen.workflows import exports

    if form in SUFFIXES:
        text = exports.cif_text if form == "cif" else exports.poscar_text
        return {output / f"{exports.file_stem(e)}{SUFFIXES[form]}": text(e) for e in entries}
    if form == "extxyz":
        return {output: exports.extxyz_text(result, entries)}
    if form == "entries":
        return {output: exports.entries_text(result, entries)}
    return {output: json.dumps(result.to_dict(everything=everything), indent=1) + "\n"}
