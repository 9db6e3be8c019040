"""``hullscreen evaluate``: energies, forces, stresses and grades of structures in a file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hullscreen.launch.formulas import reduced_formula
from hullscreen.launch.options import FileToRead, json_option, output_option, species_option

if TYPE_CHECKING:
    from hullscreen.potentials.almtp_files import Selection
    from hullscreen.potentials.data_files import Frames
    from hullscreen.potentials.moment_tensor_potential import MomentTensorPotential

# Structures evaluated between two looks at the clock.
CHUNK = 500


@click.command(epilog="Example: hullscreen evaluate CuAu.mtp structures.xyz --json")
@click.argument("potential", metavar="POT", type=FileToRead())
@click.argument("source", metavar="IN", type=FileToRead())
@species_option
@output_option
@json_option
def command(
    *,
    potential: Path,
    source: Path,
    species: tuple[str, ...],
    output: Path | None,
    as_json: bool,
) -> None:
    """Compute energies, forces and stresses of the structures in a file.

    POT is a .mtp file, or an .almtp file: with its active set comes an extrapolation grade for
    each structure. IN is a .cfg file, whose species are numbers, or extended XYZ (also .gz), whose
    species are symbols. Energies are in eV, forces in eV/Å, stresses in eV/Å³ in ASE's sign
    (tension is positive). The table has the longest force and the pressure in GPa: minus a third
    of the stress's trace, positive where the cell would expand. --output writes the structures
    with these results, as .cfg or extended XYZ.
    """
    from hullscreen.launch.output_files import check_structures_file
    from hullscreen.potentials.data_files import read_frames_for, read_potential, write_frames

    if output is not None:
        check_structures_file(output)
    model, selection = read_potential(potential, species or None)
    if output is not None:
        check_structures_file(output, model.elements)
    frames = read_frames_for(model, source)
    results = list(_evaluate(model, selection, frames))
    text = ""
    if as_json:
        plain = [
            {name: getattr(value, "tolist", lambda v=value: v)() for name, value in result.items()}
            for result in results
        ]
        text = json.dumps(plain)
    elif output is None:
        text = _table(results, frames)
    if output is not None:
        labelled = [
            replace(
                one,
                energy=result["energy"],
                forces=result["forces"],
                plus_stress=-volume * result["stress"],
                features={"MV_grade": [f"{result['grade']:.17g}"]} if "grade" in result else {},
            )
            for one, result, volume in zip(
                frames.configurations, results, frames.structures.volumes, strict=True
            )
        ]
        write_frames(output, labelled, model.elements)
    if text:
        click.echo(text)


def _evaluate(
    potential: MomentTensorPotential, selection: Selection | None, frames: Frames
) -> Iterator[dict[str, Any]]:
    """Results of each structure: numbers and arrays by name."""
    import numpy as np

    from hullscreen.launch.progress import progress_board

    structures = frames.structures
    with progress_board() as board:
        for begin in range(0, len(structures), CHUNK):
            part = structures.take(range(begin, min(begin + CHUNK, len(structures))))
            found = potential.evaluate(part)
            forces = np.split(found.forces, part.offsets[1:-1])
            grades = None if selection is None else selection.grades(potential, part)
            for i in range(len(part)):
                result: dict[str, Any] = {
                    "energy": float(found.energies[i]),
                    "forces": forces[i],
                    "stress": found.stresses[i],
                }
                if grades is not None:
                    result["grade"] = float(grades[i])
                yield result
            if len(structures) > CHUNK:
                board.show("structures evaluated", begin + len(part), len(structures))


def _table(results: list[dict[str, Any]], frames: Frames) -> str:
    """A line for each structure."""
    import numpy as np

    from hullscreen.potentials.labels import EV_PER_CUBIC_ANGSTROM_IN_GPA

    formulas = [
        reduced_formula(one.types.tolist(), frames.elements) for one in frames.configurations
    ]
    width = max(len(text) for text in ("formula", *formulas))
    lines = [
        f"   no.  {'formula':{width}}  atoms  energy, eV/atom  force, eV/Å  pressure, GPa  grade"
    ]
    for i, (result, n_atoms) in enumerate(zip(results, frames.structures.n_atoms, strict=True)):
        largest = np.linalg.norm(result["forces"], axis=1).max()
        pressure = -np.trace(result["stress"]) / 3.0 * EV_PER_CUBIC_ANGSTROM_IN_GPA
        grade = f"{result['grade']:.3g}" if "grade" in result else "–"
        lines.append(
            f"{i:6d}  {formulas[i]:{width}}  {n_atoms:5d}  {result['energy'] / n_atoms:15.5f}  "
            f"{largest:11.5f}  {pressure:13.4f}  {grade:>5}"
        )
    return "\n".join(lines)
