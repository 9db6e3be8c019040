"""``hullscreen init``: a campaign directory with a commented ``hullscreen.toml``."""

import re
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from hullscreen.launch.options import ManyValues, database_option

if TYPE_CHECKING:
    from hullscreen.launch.settings import Settings


# What people call the engines.
OTHER_NAMES = {
    **dict.fromkeys(("qe", "espresso", "pw", "pw.x", "pwscf"), "quantum_espresso"),
    **dict.fromkeys(("vasp_std", "vasp6"), "vasp"),
    "emt": "ase",
}
EPILOG = """
\b
Examples:
  hullscreen init cu-ni-pt --elements Cu Ni Pt --max-atoms 5
  hullscreen init al-ni --elements Al Ni --engine quantum_espresso --preset debian-lda
"""


@click.command(epilog=EPILOG)
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--elements",
    cls=ManyValues,
    required=True,
    metavar="SYMBOL...",
    help="Two to four element symbols.",
)
@click.option(
    "--lattices",
    cls=ManyValues,
    metavar="LATTICE...",
    help="Parent lattices: fcc bcc hcp dhcp 9R sc; by default the first three.",
)
@click.option(
    "--max-atoms",
    type=click.IntRange(min=1),
    help="Atoms per cell, at most; by default 8, 6 or 4 for two, three or four elements.",
)
@click.option(
    "--aflow-max-atoms",
    type=click.IntRange(min=1),
    help="Atoms per cell, at most, of the AFLOW prototypes; by default 12.",
)
@click.option(
    "--engine",
    metavar="NAME",
    help="DFT engine: quantum_espresso, vasp, or ase (any ASE calculator), which is the default.",
)
@click.option(
    "--preset", metavar="NAME", help="Preset of the engine: pseudopotentials, functional, cutoffs."
)
@partial(
    database_option,
    said="Address of a MongoDB server; by default the campaign has its own",
)
def command(
    directory: Path,
    elements: tuple[str, ...],
    lattices: tuple[str, ...],
    max_atoms: int | None,
    aflow_max_atoms: int | None,
    engine: str | None,
    preset: str | None,
    database_uri: str | None,
) -> None:
    """Make DIRECTORY with a commented hullscreen.toml, and say what to do next."""
    from hullscreen.launch.atomic_files import write_atomically
    from hullscreen.launch.launchpad_file import write_launchpad_file
    from hullscreen.launch.settings import FILE_NAME, from_tables
    from hullscreen.launch.settings_template import render
    from hullscreen.potentials.errors import InputError
    from hullscreen.workflows.elements import check_elements

    settings_file = directory / FILE_NAME
    if settings_file.exists():
        raise InputError(
            f"{settings_file} exists already and is not overwritten; edit it, or choose another "
            "directory"
        )
    check_elements(elements)
    prototypes: dict[str, Any] = {}
    if lattices:
        prototypes["lattices"] = _known_lattices(lattices)
    if max_atoms is not None:
        prototypes["max_atoms"] = max_atoms
    if aflow_max_atoms is not None:
        prototypes["aflow_max_atoms"] = aflow_max_atoms
    settings = from_tables(
        {
            "campaign": {"name": _campaign_name(directory, elements), "elements": elements},
            "prototypes": prototypes,
            "dft": _dft_table(engine, preset),
            "database": {"uri": database_uri or ""},
        },
        source="",
    )
    directory.mkdir(parents=True, exist_ok=True)
    ours = write_launchpad_file(directory, settings.database)
    # An address may hold a password.
    mode = 0o600 if "@" in settings.database.uri else 0o644
    write_atomically(settings_file, render(settings), mode=mode)

    click.echo(f"{settings_file} is written.")
    if not ours:
        click.echo(f"{directory / 'my_launchpad.yaml'} was there and stays as it is.")
    problem = _engine_problem(settings)
    if problem:
        what = "complete" if engine else "choose another engine under"
        click.echo(f"First {what} [dft] in {settings_file}: {problem}.")
    click.echo(
        f"Next: hullscreen run {directory}   (hullscreen forecast {directory} says what it costs)"
    )


def _campaign_name(directory: Path, elements: tuple[str, ...]) -> str:
    """Name of the directory, in the characters that a campaign's name may have."""
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", directory.resolve().name).lstrip("_.-")[:64]
    return name or "-".join(elements).lower()


def _dft_table(engine: str | None, preset: str | None) -> dict[str, Any]:
    """The ``[dft]`` table of an engine and one of its presets."""
    from hullscreen.dft_adapters.engine import ENGINES
    from hullscreen.dft_adapters.preset_files import preset_names
    from hullscreen.potentials.errors import InputError

    if engine is not None and engine not in ENGINES:
        raise InputError(f"there is no DFT engine {engine!r}; {_nearest_engine(engine, ENGINES)}")
    table: dict[str, Any] = {} if engine is None else {"engine": engine}
    if preset is None:
        return table
    if engine in (None, "ase"):
        raise InputError(
            f"--preset {preset} belongs to an engine that is a program; name it with --engine "
            "quantum_espresso or --engine vasp"
        )
    known = preset_names(vasp=engine == "vasp")
    if preset not in known:
        raise InputError(
            f"engine {engine} has no preset {preset!r}; its presets: {', '.join(known)}"
        )
    return {**table, str(engine): {"preset": preset}}


def _nearest_engine(given: str, known: Iterable[str]) -> str:
    import difflib

    names = {**{name: name for name in known}, **OTHER_NAMES}
    near = difflib.get_close_matches(given.lower(), names, n=1)
    return f"did you mean {names[near[0]]}?" if near else f"known are {', '.join(known)}"


def _known_lattices(lattices: tuple[str, ...]) -> tuple[str, ...]:
    import difflib

    from hullscreen.potentials.errors import InputError
    from hullscreen.workflows.settings_tree import Lattice

    known = get_args(Lattice)
    for lattice in lattices:
        if lattice not in known:
            near = difflib.get_close_matches(lattice, known, n=1)
            advice = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
            raise InputError(f"{lattice!r} is no parent lattice; {advice}")
    return lattices


def _engine_problem(settings: "Settings") -> str:
    """Why the engine of ``settings`` cannot compute their elements; empty if it can."""
    from hullscreen.dft_adapters.engine import load_engine
    from hullscreen.potentials.errors import DFTError, SettingsError

    try:
        load_engine(settings.dft.engine_table()).check(settings.campaign.elements)
    except (DFTError, SettingsError) as error:
        return str(error).rstrip(".")
    return ""
