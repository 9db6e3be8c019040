"""``hullscreen errors``: how far a potential is from labelled structures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import reduce
from math import gcd
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hullscreen.launch.options import ManyValues, json_option

if TYPE_CHECKING:
    from hullscreen.potentials.data_files import Frames
    from hullscreen.potentials.labels import TrainingSet
    from hullscreen.potentials.moment_tensor_potential import MomentTensorPotential

# Names under which files say what kind of structure a frame is.
GROUP_LABELS = ("group", "config_group", "config_type", "tag")
QUANTITIES = (("energy", "mev_per_atom"), ("force", "mev_per_angstrom"), ("stress", "gpa"))
UNITS = {"mev_per_atom": "meV/atom", "mev_per_angstrom": "meV/Å", "gpa": "GPa"}


@click.command(epilog="Example: hullscreen errors CuAu.mtp test.cfg --by-group")
@click.argument("potential", metavar="POT", type=click.Path(path_type=Path))
@click.argument("data", metavar="DATA", type=click.Path(path_type=Path))
@click.option(
    "--species",
    cls=ManyValues,
    metavar="SYMBOL...",
    help="Elements of the potential's species in order; by default those that its file names.",
)
@click.option(
    "--by-group",
    is_flag=True,
    help="Also for each group: what the file calls the structures' group, config_group, "
    "config_type or tag, else their formula.",
)
@json_option
def command(
    *, potential: Path, data: Path, species: tuple[str, ...], by_group: bool, as_json: bool
) -> None:
    """Compare a potential with structures whose energies are known.

    DATA is a .cfg or extended XYZ file with energies, and forces and stresses where they are
    known. Root mean squares are over structures (energy per atom), force components and stress
    components; maxima are of energies per atom, lengths of force vectors, and stress components.
    """
    from hullscreen.potentials.data_files import read_frames_for, read_potential
    from hullscreen.potentials.fit import errors

    model, _ = read_potential(potential, species or None)
    frames = read_frames_for(model, data)
    labelled = frames.training_set(data)
    found: dict[str, object] = {**errors(model, labelled).known()}
    groups = grouped_errors(model, labelled, group_names(frames)) if by_group else {}
    if by_group:
        found["by_group"] = groups
    if as_json:
        click.echo(json.dumps(found))
        return
    click.echo(describe(found))
    if by_group:
        click.echo(describe_groups({"": groups}))


def group_names(frames: Frames) -> list[str]:
    """The group of each structure: its label in the file, else its reduced formula."""
    return [
        next(
            (
                " ".join(one.features[label])
                for label in GROUP_LABELS
                if one.features.get(label) and " ".join(one.features[label])
            ),
            _formula(one.types.tolist(), frames.elements),
        )
        for one in frames.configurations
    ]


def grouped_errors(
    potential: MomentTensorPotential, labelled: TrainingSet, groups: Sequence[str]
) -> dict[str, dict[str, float | int | None]]:
    """Errors of each group by name, and how many structures it has; names in order."""
    from hullscreen.potentials.fit import errors_by_group

    found = errors_by_group(potential, labelled, groups)
    return {
        name: {"structures": groups.count(name), **found[name].known()} for name in sorted(found)
    }


def describe(found: Mapping[str, object]) -> str:
    """A table of errors, a row for each quantity."""
    lines = [f"{'':8}{'RMSE':>12}{'maximum':>12}"]
    for name, unit in QUANTITIES:
        cells = "".join(
            f"{_number(found[f'{name}_{kind}_{unit}']):>12}" for kind in ("rmse", "max")
        )
        lines.append(f"{name:8}{cells}  {UNITS[unit]}")
    return "\n".join(lines)


def describe_groups(parts: Mapping[str, Mapping[str, Mapping[str, float | int | None]]]) -> str:
    """A table with a row for each group, its root mean squares in columns.

    Parameters
    ----------
    parts
        Grouped errors by what they are of, such as "fitted" and "held out"; side by side.
    """
    names = sorted({name for groups in parts.values() for name in groups})
    width = max([len(name) for name in names] + [len("RMSE by group")])
    titles = "".join(f"{title:>46}" for title in parts)
    head = f"{'structures':>12}" + "".join(f"{UNITS[unit]:>{w}}" for (_, unit), w in _COLUMNS)
    lines = [f"{'RMSE by group':{width}}{head * len(parts)}"]
    if titles.strip():
        lines.insert(0, f"{'':{width}}{titles}")
    for name in names:
        line = f"{name:{width}}"
        for groups in parts.values():
            one = groups.get(name)
            if one is None:
                line += f"{0:>12}" + "".join(f"{'':>{w}}" for _, w in _COLUMNS)
                continue
            line += f"{one['structures']:>12}" + "".join(
                f"{_number(one[f'{quantity}_rmse_{unit}']):>{w}}"
                for (quantity, unit), w in _COLUMNS
            )
        lines.append(line.rstrip())
    return "\n".join(lines)


_COLUMNS = tuple(zip(QUANTITIES, (12, 11, 11), strict=True))


def _number(value: object) -> str:
    return "no labels" if value is None else f"{value:.4g}"


def _formula(types: Sequence[int], elements: Sequence[str]) -> str:
    """Reduced formula in the order of ``elements``, such as CuAu3."""
    counts = [types.count(kind) for kind in range(len(elements))]
    divisor = reduce(gcd, counts)
    return "".join(
        f"{name}{count // divisor if count > divisor else ''}"
        for name, count in zip(elements, counts, strict=True)
        if count
    )
