"""``hullscreen errors``: how far a potential is from labelled structures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hullscreen.launch.formulas import reduced_formula
from hullscreen.launch.options import FileToRead, json_option, species_option

if TYPE_CHECKING:
    from hullscreen.potentials.data_files import Frames
    from hullscreen.potentials.labels import TrainingSet
    from hullscreen.potentials.moment_tensor_potential import MomentTensorPotential

# Names under which files say what kind of structure a frame is.
GROUP_LABELS = ("group", "config_group", "config_type", "tag")
QUANTITIES = (("energy", "mev_per_atom"), ("force", "mev_per_angstrom"), ("stress", "gpa"))
# Groups that a table shows, and how wide it is.
MOST_GROUPS = 12
TABLE_WIDTH = 80
UNITS = {"mev_per_atom": "meV/atom", "mev_per_angstrom": "meV/Å", "gpa": "GPa"}


@click.command(epilog="Example: hullscreen errors CuAu.mtp test.cfg --by-group")
@click.argument("potential", metavar="POT", type=FileToRead())
@click.argument("data", metavar="DATA", type=FileToRead())
@species_option
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
            reduced_formula(one.types.tolist(), frames.elements),
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
    """A table with a row for each group, its root mean squares in columns; 80 columns wide at most.

    Of many groups those with the largest errors of energies are shown.

    Parameters
    ----------
    parts
        Grouped errors by what they are of, such as "fitted" and "held out"; side by side.
    """
    names = sorted({name for groups in parts.values() for name in groups})
    shown = names
    if len(names) > MOST_GROUPS:
        shown = sorted(names, key=lambda name: -_energy_error(name, parts))[:MOST_GROUPS]
    side = sum(width for _, width in _COLUMNS)
    room = TABLE_WIDTH - side * len(parts) - 1
    shown_as = {name: _shortened(name, room) for name in shown}
    width = max(len(text) for text in ("RMSE by group", *shown_as.values()))
    titles = "".join(f"{title:>{side}}" for title in parts)
    head = "".join(f"{title:>{width}}" for title, width in _COLUMNS)
    lines = [f"{'RMSE by group':{width}} {head * len(parts)}"]
    if titles.strip():
        lines.insert(0, f"{'':{width}} {titles}")
    for name in shown:
        cells = "".join(_cells(groups.get(name)) for groups in parts.values())
        lines.append(f"{shown_as[name]:{width}} {cells}")
    if len(shown) < len(names):
        lines.append(
            f"and {len(names) - len(shown)} more groups, whose errors of energies are smaller: "
            f"--json has all"
        )
    return "\n".join(lines)


def _energy_error(
    name: str, parts: Mapping[str, Mapping[str, Mapping[str, float | int | None]]]
) -> float:
    """The largest error of a group's energies among the parts that have it."""
    return max(
        float(groups[name]["energy_rmse_mev_per_atom"] or 0.0)
        for groups in parts.values()
        if name in groups
    )


def _cells(one: Mapping[str, float | int | None] | None) -> str:
    """Numbers of a group in one part; dashes for what it has none of."""
    values = ["–"] * len(_COLUMNS)
    if one is not None:
        found = [one[f"{quantity}_rmse_{unit}"] for quantity, unit in QUANTITIES]
        values = [str(one["structures"]), *map(_short_number, found)]
    return "".join(f"{value:>{width}}" for value, (_, width) in zip(values, _COLUMNS, strict=True))


def _short_number(value: float | None) -> str:
    """Three digits in at most six characters."""
    if value is None:
        return "–"
    if value >= 999.5:
        return f"{value:.0f}" if value < 999999.5 else f"{value:.0e}"
    return f"{value:.3g}" if value >= 0.01 else f"{value:.4f}"


def _shortened(name: str, room: int) -> str:
    """The name, its middle left out if it is too long."""
    if len(name) <= room:
        return name
    end = (room - 1) // 2
    return f"{name[: room - 1 - end]}…{name[-end:]}"


# Beside the count no number has more than six characters, so that a blank is left.
_COLUMNS = (
    ("count", 6),
    *((UNITS[unit], width) for (_, unit), width in zip(QUANTITIES, (9, 7, 7), strict=True)),
)


def _number(value: object) -> str:
    return "no labels" if value is None else f"{value:.4g}"
