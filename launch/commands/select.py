"""``hullscreen select``: which structures would teach a potential most."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hullscreen.launch.formulas import reduced_formula
from hullscreen.launch.options import FileToRead, json_option, species_option

if TYPE_CHECKING:
    from hullscreen.potentials.active_set import ActiveSet
    from hullscreen.potentials.almtp_files import Selection


@click.command(
    epilog="Example: hullscreen select CuAu.mtp pool.xyz --training train.xyz --output chosen.xyz"
)
@click.argument("potential", metavar="POT", type=FileToRead())
@click.argument("candidates", metavar="CANDIDATES", type=FileToRead())
@click.option(
    "--training",
    type=FileToRead(),
    help="Structures that the potential has learnt; by default the active set of an .almtp file.",
)
@click.option(
    "--output",
    "-o",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help=".cfg or extended XYZ file for the chosen structures.",
)
@click.option(
    "--threshold",
    type=click.FloatRange(min=1.0, min_open=True),
    default=1.001,
    show_default=True,
    help="Factor by which a structure must enlarge the volume of the active set.",
)
@species_option
@json_option
def command(
    *,
    potential: Path,
    candidates: Path,
    training: Path | None,
    output: Path,
    threshold: float,
    species: tuple[str, ...],
    as_json: bool,
) -> None:
    """Choose the candidates that would teach a potential most (D-optimality, MaxVol).

    Chosen are those that enlarge the active set, which is made from --training. They are
    written by falling extrapolation grade. A grade below one is interpolation; from about two a
    structure is worth a DFT calculation, from about ten the potential should not be trusted.
    """
    import numpy as np

    from hullscreen.launch.output_files import check_structures_file
    from hullscreen.potentials.active_set import select_active_set, select_candidates
    from hullscreen.potentials.data_files import read_frames_for, read_potential, write_frames
    from hullscreen.potentials.gradient_rows import GradientRows

    check_structures_file(output)
    model, selection = read_potential(potential, species or None)
    check_structures_file(output, model.elements)
    frames = read_frames_for(model, candidates)
    active: ActiveSet
    if training is not None:
        learnt = read_frames_for(model, training).structures
        active = select_active_set(GradientRows(model, learnt), threshold=threshold)
    else:
        active = _stored(potential, selection)
    rows = GradientRows(model, frames.structures)
    chosen = select_candidates(active, rows, threshold=threshold)
    grades = np.concatenate([active.grades(block) for block in rows])
    if chosen.size:
        write_frames(output, [frames.configurations[i] for i in chosen], model.elements)
    report = {
        "candidates": len(frames.structures),
        "selected": len(chosen),
        "indices": chosen.tolist(),
        "grades": grades[chosen].tolist(),
        "highest_grade": float(np.max(grades)),
        "output": str(output) if chosen.size else None,
    }
    if as_json:
        click.echo(json.dumps(report))
        return
    click.echo(
        f"{len(chosen)} of {len(frames.structures)} candidates chosen; highest grade "
        f"{report['highest_grade']:.3g}"
    )
    if not chosen.size:
        click.echo(f"there is nothing new to learn from them: {output} was not written")
        return
    formulas = [
        reduced_formula(one.types.tolist(), frames.elements) for one in frames.configurations
    ]
    width = max(len("formula"), *(len(formulas[i]) for i in chosen))
    click.echo(f"   no.  {'formula':{width}}  atoms  grade")
    for i in chosen:
        n_atoms = frames.structures.n_atoms[i]
        click.echo(f"{i:6d}  {formulas[i]:{width}}  {n_atoms:5d}  {grades[i]:.3g}")


def _stored(potential: Path, selection: Selection | None) -> ActiveSet:
    """The active set that came with the potential."""
    from hullscreen.potentials.errors import InputError

    if selection is None:
        raise InputError(f"{potential} holds no active set; give --training DATA to make one")
    if selection.by_neighbourhood:
        raise InputError(
            f"the active set of {potential} is one of neighbourhoods, and structures are chosen "
            f"as a whole; give --training DATA"
        )
    return selection.active_set
