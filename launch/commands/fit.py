"""``hullscreen fit``: a moment tensor potential from structures with energies."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hullscreen.launch.commands.errors import (
    describe,
    describe_groups,
    group_names,
    grouped_errors,
)
from hullscreen.launch.options import FileToRead, ManyValues, json_option, known_symbols

if TYPE_CHECKING:
    from hullscreen.potentials.data_files import Frames
    from hullscreen.potentials.fit import TrainingSet
    from hullscreen.potentials.moment_tensor_potential import MomentTensorPotential
    from hullscreen.potentials.structures import IndexArray

DEFAULT_LEVEL = 16
DEFAULT_CUTOFF = 5.0
DEFAULT_RADIAL_BASIS_SIZE = 8
# Small potentials end in a poor minimum from about one start in three, larger ones hardly ever.
STARTS, STARTS_OF_LARGE, LARGE_LEVEL = 6, 2, 14


@click.command(epilog="Example: hullscreen fit train.xyz --level 16 --cutoff 5.0 --output CuAu.mtp")
@click.argument("data", metavar="DATA", type=FileToRead())
@click.option(
    "--level",
    type=click.IntRange(min=2),
    help=f"Even level of the basis: more functions, more cost.  [default: {DEFAULT_LEVEL}]",
)
@click.option(
    "--cutoff",
    type=click.FloatRange(min=0.0, min_open=True),
    help=f"Reach of the interactions in Å.  [default: {DEFAULT_CUTOFF}]",
)
@click.option(
    "--min-distance",
    type=click.FloatRange(min=0.0),
    help="Where the radial functions' interval begins, in Å.  [default: the data's shortest]",
)
@click.option(
    "--radial-basis-size",
    type=click.IntRange(min=1),
    help=f"Polynomials of each radial function.  [default: {DEFAULT_RADIAL_BASIS_SIZE}]",
)
@click.option(
    "--species",
    cls=ManyValues,
    metavar="SYMBOL...",
    callback=known_symbols,
    help="Elements in the order of species; by default those of the data in alphabetical order, "
    "or of a .cfg file X0, X1, ...",
)
@click.option(
    "--start",
    type=FileToRead(),
    help="Potential to go on from; its level, distances and elements are kept.",
)
@click.option(
    "--starts",
    type=click.IntRange(min=1),
    help="Random beginnings, of which the most promising one is fitted to the end.  "
    f"[default: {STARTS}; {STARTS_OF_LARGE} from level {LARGE_LEVEL} on]",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Of the random radial functions at the start, and of --validation-fraction.",
)
@click.option(
    "--max-iterations",
    type=click.IntRange(min=1),
    default=50,
    show_default=True,
    help="Steps, at most.",
)
@click.option(
    "--ridge",
    type=click.FloatRange(min=0.0),
    default=1e-10,
    show_default=True,
    help="Penalty on linear coefficients, relative to their part in the data; more for few data.",
)
@click.option(
    "--energy-weight",
    type=click.FloatRange(min=0.0),
    default=1.0,
    show_default=True,
    help="Of energies in the loss (w_E above); ...",
)
@click.option(
    "--force-weight",
    type=click.FloatRange(min=0.0),
    default=0.01,
    show_default=True,
    help="... of forces (w_F, in Å²); ...",
)
@click.option(
    "--stress-weight",
    type=click.FloatRange(min=0.0),
    default=0.001,
    show_default=True,
    help="... of stresses (w_S).",
)
@click.option(
    "--validation-fraction",
    type=click.FloatRange(min=0.0, max=1.0, max_open=True),
    default=0.0,
    show_default=True,
    help="Part of the structures, drawn by the seed, kept out of the fit to measure errors on.",
)
@click.option(
    "--output",
    "-o",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help=".mtp file to write, or .almtp to store the active set with it.",
)
@json_option
def command(
    *,
    data: Path,
    level: int | None,
    cutoff: float | None,
    min_distance: float | None,
    radial_basis_size: int | None,
    species: tuple[str, ...],
    start: Path | None,
    starts: int | None,
    seed: int,
    max_iterations: int,
    ridge: float,
    energy_weight: float,
    force_weight: float,
    stress_weight: float,
    validation_fraction: float,
    output: Path,
    as_json: bool,
) -> None:
    """Fit a moment tensor potential to structures with energies, forces and stresses.

    DATA is a .cfg or extended XYZ file; every structure needs an energy. The loss is
    the mean over structures of w_E ΔE²/N + w_F Σ|ΔF|² + w_S |V Δσ|²/N. The same data, options and
    seed give the same potential. Structures held out are reported on by group as well: what the
    file calls their group, config_group, config_type or tag, else their formula.
    """
    import numpy as np

    from hullscreen.launch.output_files import check_ending
    from hullscreen.launch.progress import progress_board
    from hullscreen.potentials.data_files import (
        ALMTP,
        MTP,
        check_writable,
        read_frames,
        read_frames_for,
        read_potential,
    )
    from hullscreen.potentials.errors import InputError
    from hullscreen.potentials.fit import Weights, best_start, compile_fit, errors, fit

    check_ending(output, (MTP, ALMTP))
    check_writable(output)
    if start is not None:
        if any(x is not None for x in (level, cutoff, min_distance, radial_basis_size, starts)):
            raise InputError(
                "--start brings the level, the distances and the radial basis with it; leave out "
                "--level, --cutoff, --min-distance, --radial-basis-size and --starts"
            )
        beginnings = [read_potential(start, species or None)[0]]
        frames = read_frames_for(beginnings[0], data)
    else:
        frames = read_frames(data, species or None)
        beginnings = _untrained(
            frames,
            level=level,
            cutoff=cutoff,
            min_distance=min_distance,
            radial_basis_size=radial_basis_size,
            starts=starts,
            seed=seed,
        )
    labelled = frames.training_set(data)
    training, held_out = _split(labelled, validation_fraction, seed)
    chosen = np.setdiff1d(np.arange(len(labelled)), held_out)
    weights = Weights(energy_weight, force_weight, stress_weight)
    n_starts = 0 if start is not None else len(beginnings)
    compile_fit()
    started = time.process_time()
    with progress_board() as board:
        promising = best_start(
            beginnings,
            training,
            weights=weights,
            ridge=ridge,
            progress=lambda done, total: board.show("random starts tried", done, total),
        )
        board.show("steps of the fit", 0, max_iterations)
        result = fit(
            promising,
            training,
            weights=weights,
            max_iterations=max_iterations,
            ridge=ridge,
            progress=lambda step, _loss: board.show("steps of the fit", step, max_iterations),
        )
        n_steps = len(result.losses) - 1
        if n_steps < max_iterations:
            board.note(f"the fit came to rest after {_counted(n_steps, 'step')}")
            board.show("steps of the fit", n_steps, n_steps)
    cpu_seconds = time.process_time() - started
    numbers = errors(result.potential, training).known()
    report: dict[str, object] = {
        **numbers,
        "cpu_seconds": cpu_seconds,
        "condition": float(result.condition) if np.isfinite(result.condition) else None,
        "loss": result.losses[-1],
        "starts": n_starts,
        "iterations": n_steps,
        "converged": result.converged,
        "structures": len(training),
        "parameters": int(result.potential.parameters.size),
    }
    groups = group_names(frames)
    parts = {}
    if held_out.size:
        rest = labelled.take(held_out)
        parts = {
            "fitted": grouped_errors(result.potential, training, [groups[i] for i in chosen]),
            "held out": grouped_errors(result.potential, rest, [groups[i] for i in held_out]),
        }
        test = errors(result.potential, rest).known()
        report["by_group"] = parts["fitted"]
        report["validation"] = {
            **test,
            "structures": int(held_out.size),
            "by_group": parts["held out"],
        }
    # The last of all work: whoever interrupts it finds nothing written.
    _write(output, result.potential, frames, chosen)
    if as_json:
        click.echo(json.dumps(report))
        return
    tried = f"the best of {n_starts} random starts" if n_starts > 1 else "one start"
    click.echo(f"{tried}, {_counted(n_steps, 'step')}, {cpu_seconds:.1f} CPU s")
    click.echo(f"fitted: {_counted(len(training), 'structure')}\n{describe(numbers)}")
    if held_out.size:
        click.echo(f"held out: {_counted(held_out.size, 'structure')}\n{describe(test)}")
        click.echo(describe_groups(parts))


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _untrained(
    frames: Frames,
    *,
    level: int | None,
    cutoff: float | None,
    min_distance: float | None,
    radial_basis_size: int | None,
    starts: int | None,
    seed: int,
) -> list[MomentTensorPotential]:
    """Potentials to start from, their interval beginning at the shortest distance of the data."""
    from hullscreen.potentials.errors import InputError
    from hullscreen.potentials.moment_tensor_potential import untrained

    reach = cutoff or DEFAULT_CUTOFF
    if min_distance is None:
        probe = untrained(2, frames.elements, cutoff=reach, min_distance=0.0)
        min_distance = float(probe.evaluate(frames.structures).shortest_distances.min())
        if not min_distance < reach:
            raise InputError(
                f"no two atoms are closer than the cutoff of {reach:g} Å; give a larger --cutoff"
            )
    level = level or DEFAULT_LEVEL
    return [
        untrained(
            level,
            frames.elements,
            cutoff=reach,
            min_distance=min_distance,
            radial_basis_size=radial_basis_size or DEFAULT_RADIAL_BASIS_SIZE,
            seed=seed + i,
        )
        for i in range(starts or (STARTS if level < LARGE_LEVEL else STARTS_OF_LARGE))
    ]


def _split(labelled: TrainingSet, fraction: float, seed: int) -> tuple[TrainingSet, IndexArray]:
    """Structures to fit, and the indices of those held out."""
    import numpy as np

    from hullscreen.potentials.errors import InputError

    n = len(labelled)
    n_held_out = round(fraction * n)
    if fraction > 0.0 and not 0 < n_held_out < n:
        raise InputError(
            f"a fraction of {fraction:g} of {n} structures leaves none to fit or none to test"
        )
    if not n_held_out:
        return labelled, np.zeros(0, dtype=np.int64)
    order = np.random.default_rng(seed).permutation(n)
    held_out = np.sort(order[:n_held_out])
    return labelled.take(np.sort(order[n_held_out:])), held_out


def _write(
    output: Path, potential: MomentTensorPotential, frames: Frames, chosen: IndexArray
) -> None:
    """Write the potential, with the active set of the fitted structures if it is an ``.almtp``."""
    from hullscreen.potentials.active_set import select_active_set
    from hullscreen.potentials.almtp_files import almtp_bytes, selection_by_configuration
    from hullscreen.potentials.data_files import ALMTP, complete_or_absent
    from hullscreen.potentials.gradient_rows import energy_rows
    from hullscreen.potentials.mtp_files import mtp_text

    if output.suffix == ALMTP:
        structures = frames.structures.take(chosen)
        active = select_active_set(energy_rows(potential, structures))
        kept = [frames.configurations[i] for i in chosen]
        content = almtp_bytes(potential, selection_by_configuration(active, kept))
    else:
        content = mtp_text(potential).encode()
    with complete_or_absent(output) as temporary:
        temporary.write_bytes(content)
