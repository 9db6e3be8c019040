"""``hullscreen relax``: cells and positions of structures in a file, with a potential."""

from __future__ import annotations

import json
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hullscreen.launch.options import FileToRead, json_option, species_option

if TYPE_CHECKING:
    from hullscreen.potentials.cfg_files import Configuration
    from hullscreen.potentials.moment_tensor_potential import MomentTensorPotential
    from hullscreen.potentials.relaxation import Relaxed
    from hullscreen.potentials.structures import FloatArray, Structures

# Structures relaxed between two looks at the clock.
CHUNK = 50
# The way out for structures that did not converge.
HINTS = {
    "step_limit": "raise --max-evaluations",
    "extrapolating": "the potential must learn these: `select`, DFT, `fit`",
    "too_close": "look at the cells, or lower --shortest-distance",
    "volume_limit": "look at the cells; else the potential must learn these",
    "energy_limit": "a hole in the potential: it must learn these",
    "stalled": "raise --force-tolerance or --stress-tolerance",
}


@click.command(epilog="Example: hullscreen relax CuAu.mtp prototypes.xyz --output relaxed.xyz")
@click.argument("potential", metavar="POT", type=FileToRead())
@click.argument("source", metavar="IN", type=FileToRead())
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
@species_option
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
    with its outcome, at the last geometry that was accepted; mean changes of energy and volume are
    those of the structures that converged. POT is .mtp or .almtp, IN is .cfg or
    extended XYZ.
    """
    import numpy as np

    from hullscreen.launch.output_files import check_structures_file
    from hullscreen.launch.progress import progress_board
    from hullscreen.potentials.data_files import read_frames_for, read_potential, write_frames
    from hullscreen.potentials.errors import InputError
    from hullscreen.potentials.relaxation import RelaxationLimits, relax

    check_structures_file(output)
    model, selection = read_potential(potential, species or None)
    check_structures_file(output, model.elements)
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
    changes: list[FloatArray] = []
    started = time.process_time()
    with progress_board() as board:
        for begin in range(0, len(structures), CHUNK):
            part = structures.take(range(begin, min(begin + CHUNK, len(structures))))
            result = relax(model, part, limits, active)
            outcomes.update(result.outcome_counts())
            evaluations += int(result.evaluations.sum())
            relaxed += _labelled(model, result, with_grade=active is not None)
            changes.append(_changes(model, part, result))
            if len(structures) > CHUNK:
                board.show("structures relaxed", len(relaxed), len(structures))
    cpu_seconds = time.process_time() - started
    of_all = np.concatenate(changes)
    mean = of_all.mean(axis=0).tolist() if len(of_all) else [None, None]
    report = {
        "structures": len(structures),
        "outcomes": dict(outcomes),
        "evaluations": evaluations,
        "cpu_seconds": cpu_seconds,
        "mean_energy_change_mev_per_atom": mean[0],
        "mean_volume_change_percent": mean[1],
    }
    write_frames(output, relaxed, model.elements)
    if as_json:
        click.echo(json.dumps(report))
        return
    for name, count in sorted(outcomes.items()):
        click.echo(f"{name:14}{count:>10,}{f'  {HINTS[name]}' if name in HINTS else ''}")
    if len(of_all):
        click.echo(
            f"mean change of those converged: {mean[0]:+.2f} meV/atom, volume {mean[1]:+.2f} %"
        )
    click.echo(f"{evaluations:,} evaluations, {cpu_seconds:.2f} CPU s")


def _changes(potential: MomentTensorPotential, before: Structures, result: Relaxed) -> FloatArray:
    """Changes of energies in meV/atom and of volumes in per cent, of the structures that converged.

    Returns
    -------
    Shape (n_converged, 2).
    """
    import numpy as np

    from hullscreen.potentials.relaxation import Outcome

    converged = np.flatnonzero(result.outcomes == Outcome.CONVERGED)
    begun = before.take(converged)
    energies = result.energies[converged] - potential.evaluate(begun).energies
    ratios = result.structures.volumes[converged] / begun.volumes
    return np.stack([1e3 * energies / begun.n_atoms, 100.0 * (ratios - 1.0)], axis=1)


def _labelled(
    potential: MomentTensorPotential, result: Relaxed, *, with_grade: bool
) -> list[Configuration]:
    """Final geometries with energy, forces, stress and outcome; the labels only where known."""
    import numpy as np

    from hullscreen.potentials.cfg_files import from_structures
    from hullscreen.potentials.relaxation import Outcome

    known = np.flatnonzero(np.isfinite(result.energies))
    structures = result.structures.take(known)
    labels = potential.evaluate(structures)
    volumes = structures.volumes
    places = {int(i): k for k, i in enumerate(known)}
    labelled = []
    for i, one in enumerate(from_structures(result.structures)):
        features = {"outcome": [Outcome(result.outcomes[i]).name.lower()]}
        if with_grade:
            features["MV_grade"] = [f"{result.grades[i]:.17g}"]
        if i not in places:
            labelled.append(replace(one, features=features))
            continue
        k = places[i]
        atoms = slice(structures.offsets[k], structures.offsets[k + 1])
        labelled.append(
            replace(
                one,
                energy=float(labels.energies[k]),
                forces=labels.forces[atoms],
                plus_stress=-volumes[k] * labels.stresses[k],
                features=features,
            )
        )
    return labelled
