"""``hullscreen errors``: how far a potential is from labelled structures."""

from __future__ import annotations

import json
from pathlib import Path

import click

from hullscreen.launch.options import ManyValues, json_option


@click.command(epilog="Example: hullscreen errors CuAu.mtp test.cfg")
@click.argument("potential", metavar="POT", type=click.Path(path_type=Path))
@click.argument("data", metavar="DATA", type=click.Path(path_type=Path))
@click.option(
    "--species",
    cls=ManyValues,
    metavar="SYMBOL...",
    help="Elements of the potential's species in order; by default those that its file names.",
)
@json_option
def command(*, potential: Path, data: Path, species: tuple[str, ...], as_json: bool) -> None:
    """Compare a potential with structures whose energies are known.

    DATA is a .cfg or extended XYZ file with energies, and forces and stresses where they are
    known. Root mean squares are over structures (energy per atom), force components and stress
    components; maxima are of energies per atom, lengths of force vectors, and stress components.
    """
    from hullscreen.potentials.data_files import read_frames_for, read_potential
    from hullscreen.potentials.fit import errors

    model, _ = read_potential(potential, species or None)
    found = errors(model, read_frames_for(model, data).training_set(data)).known()
    click.echo(json.dumps(found) if as_json else describe(found))


def describe(found: dict[str, float | None]) -> str:
    """A table of errors, a row for each quantity."""
    rows = (("energy", "mev_per_atom"), ("force", "mev_per_angstrom"), ("stress", "gpa"))
    units = {"mev_per_atom": "meV/atom", "mev_per_angstrom": "meV/Å", "gpa": "GPa"}
    lines = [f"{'':8}{'RMSE':>12}{'maximum':>12}"]
    for name, unit in rows:
        numbers = [found[f"{name}_{kind}_{unit}"] for kind in ("rmse", "max")]
        cells = "".join(f"{'no labels' if x is None else f'{x:.4g}':>12}" for x in numbers)
        lines.append(f"{name:8}{cells}  {units[unit]}")
    return "\n".join(lines)
