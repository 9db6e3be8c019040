"""``hullscreen relax``: cells and positions of structures in a file, with a potential."""

from __future__ import annotations

import json
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hullscreen.launch.options import ManyValues, json_option

if TYPE_CHECKING:
    from hullscreen.potentials.cfg_files import Configuration
    from hullscreen.potentials.moment_tensor_potential import MomentTensorPotential
    from hullscreen.potentials.relaxation import Relaxed

# Structures relaxed between two looks at the clock.
CHUNK = 50


@click.command(epilog="Example: hullscreen relax CuAu.mtp prototypes.xyz --output relaxed.xyz")
@click.argument("potential", metavar="POT", type=click.Path(path_type=Path))
@click.argument("source", metavar="IN", type=click.Path(path_type=Path))
@click.option(
    "--output",
    "-o",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help=".cfg or extended XYZ file to write, with energies, forces, stresses and outcomes.",
)
@click.option(
    "--force-tolerance",
    type=click.FloatRange(min=0.0, min_open=True),
    default=1e-4,
    show_default=True,
    help="Converged when the longest force is below, in eV/Å ...",
)
@click.option(
    "--stress-tolerance",
    type=click.FloatRange(min=0.0, min_open=True),
    default=1e-3,
    show_default=True,
    help="... and every component of the stress, in GPa.",
)
@click.option(
    "--max-evaluations",
    type=click.IntRange(min=1),
    default=500,
    show_default=True,
    help="Evaluations of one structure, at most.",
)
@click.option(
    "--break-grade",
    type=click.FloatRange(min=0.0, min_open=True),
    help="Extrapolation grade at which a relaxation stops; needs an .almtp file.",
)
@click.option(
    "--shortest-distance",
    type=click.FloatRange(min=0.0),
    default=1.0,
    show_default=True,
    help="Distance of atoms in Å that counts as a collapse.",
)
@click.option(
    "--species",
    cls=ManyValues,
    metavar="SYMBOL...",
    help="Elements of the potential's species in order; by default those that its file names.",
)
@json_option
def command(
    *,
    potential: Path,
    source: Path,
    output: Path,
    force_tolerance: float,
    stress_tolerance: float,
    max_evaluations: int,
    break_grade: float | None,
    shortest_distance: float,
    species: tuple[str, ...],
    as_json: bool,
) -> None:
    """Relax cells and positions of the structures in a file.

    Structures end on their own: converged, step_limit, extrapolating (grade above --break-grade),
    too_close, volume_limit, energy_limit, or stalled. All are written in their order, each
    with its outcome, at the last geometry that was accepted. POT is .mtp or .almtp, IN is .cfg or
    extended XYZ.
    """
    from hullscreen.launch.progress import progress_board
    from hullscreen.potentials.data_files import (
        check_writable,
        read_frames_for,
        read_potential,
        write_frames,
    )
    from hullscreen.potentials.errors import InputError
    from hullscreen.potentials.relaxation import RelaxationLimits, relax

    check_writable(output)
    model, selection = read_potential(potential, species or None)
    if break_grade is not None and selection is None:
        raise InputError(f"--break-grade needs an active set, which {potential} does not hold")
    if break_grade is not None and selection is not None and selection.by_neighbourhood:
        raise InputError(
            f"--break-grade works with grades of whole structures, but the active set of "
            f"{potential} is one of neighbourhoods"
        )
    active = None
    if selection is not None and not selection.by_neighbourhood:
        active = selection.active_set
    structures = read_frames_for(model, source).structures
    limits = RelaxationLimits(
        force_tolerance=force_tolerance,
        stress_tolerance_gpa=stress_tolerance,
        max_evaluations=max_evaluations,
        break_grade=float("inf") if break_grade is None else break_grade,
        shortest_distance=shortest_distance,
    )
    outcomes: Counter[str] = Counter()
    evaluations = 0
    relaxed: list[Configuration] = []
    started = time.process_time()
    with progress_board() as board:
        for begin in range(0, len(structures), CHUNK):
            part = structures.take(range(begin, min(begin + CHUNK, len(structures))))
            result = relax(model, part, limits, active)
            outcomes.update(result.outcome_counts())
            evaluations += int(result.evaluations.sum())
            relaxed += _labelled(model, result, with_grade=active is not None)
            if len(structures) > CHUNK:
                board.show("structures relaxed", len(relaxed), len(structures))
    report = {
        "structures": len(structures),
        "outcomes": dict(outcomes),
        "evaluations": evaluations,
        "cpu_seconds": time.process_time() - started,
    }
    write_frames(output, relaxed, model.elements)
    if as_json:
        click.echo(json.dumps(report))
        return
    for name, count in sorted(outcomes.items()):
        click.echo(f"{name:14}{count:>10,}")
    click.echo(f"{evaluations:,} evaluations, {report['cpu_seconds']:.2f} CPU s")


def _labelled(
    potential: MomentTensorPotential, result: Relaxed, *, with_grade: bool
) -> list[Configuration]:
    """Final geometries with energy, forces, stress and outcome; without labels if unevaluated."""
    from hullscreen.potentials.cfg_files import from_structures
    from hullscreen.potentials.relaxation import Outcome

    structures = result.structures
    labels = potential.evaluate(structures)
    volumes = structures.volumes
    labelled = []
    for i, one in enumerate(from_structures(structures)):
        features = {"outcome": [Outcome(result.outcomes[i]).name.lower()]}
        if with_grade:
            features["MV_grade"] = [f"{result.grades[i]:.17g}"]
        if result.evaluations[i] == 0:
            labelled.append(replace(one, features=features))
            continue
        atoms = slice(structures.offsets[i], structures.offsets[i + 1])
        labelled.append(
            replace(
                one,
                energy=float(labels.energies[i]),
                forces=labels.forces[atoms],
                plus_stress=-volumes[i] * labels.stresses[i],
                features=features,
            )
        )
    return labelled
