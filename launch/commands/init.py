"""``hullscreen init``: a campaign directory with a commented ``hullscreen.toml``."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from hullscreen.launch.options import ManyValues, database_option

if TYPE_CHECKING:
    from hullscreen.launch.settings import Settings


@click.command(epilog="Example: hullscreen init cu-ni-pt --elements Cu Ni Pt --max-atoms 5")
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
@database_option
def command(
    directory: Path,
    elements: tuple[str, ...],
    lattices: tuple[str, ...],
    max_atoms: int | None,
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
    settings = from_tables(
        {
            "campaign": {"name": _campaign_name(directory, elements), "elements": elements},
            "prototypes": prototypes,
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
        click.echo(f"First choose another engine under [dft] in {settings_file}: {problem}.")
    click.echo(f"Next: hullscreen run {directory}")


def _campaign_name(directory: Path, elements: tuple[str, ...]) -> str:
    """Name of the directory, in the characters that a campaign's name may have."""
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", directory.resolve().name).lstrip("_.-")[:64]
    return name or "-".join(elements).lower()


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
    from hullscreen.potentials.errors import DFTError

    try:
        load_engine(settings.dft.engine_table()).check(settings.campaign.elements)
    except DFTError as error:
        return str(error).rstrip(".")
    return ""
