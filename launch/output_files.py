"""Names of files that a command is to write, refused before the work if they cannot be written."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from hullscreen.potentials.data_files import CFG, check_writable
from hullscreen.potentials.errors import InputError

STRUCTURES = ".cfg, .xyz or .extxyz (the last two also with .gz, .bz2 or .xz)"
_STRUCTURES = re.compile(r"\.(cfg|(ext)?xyz(\.(gz|bz2|xz))?)$")


def check_ending(path: Path, endings: Sequence[str]) -> None:
    """Raise InputError unless the name ends in one of ``endings``, such as ".mtp"."""
    if not path.name.endswith(tuple(endings)):
        raise InputError(f"{path} cannot be written: its name must end in {' or '.join(endings)}")


def check_structures_file(path: Path, elements: Sequence[str] | None = None) -> None:
    """Check that structures can be written to ``path``.

    Parameters
    ----------
    elements
        What their species are called, once it is known.

    Raises
    ------
    InputError
        No format has this ending, or it needs the symbols of elements and there are none.
    OSError
        The file cannot be written there.
    """
    if not _STRUCTURES.search(path.name):
        raise InputError(f"{path} cannot be written: its name must end in {STRUCTURES}")
    from ase.data import chemical_symbols

    if path.suffix != CFG and not set(elements or ()) <= set(chemical_symbols[1:]):
        raise InputError(
            f"{path} cannot be written: extended XYZ needs element symbols, but the species are "
            f"called {' '.join(elements or ())}; name them with --species, such as --species "
            f"Cu Au, or let the name end in {CFG}"
        )
    check_writable(path)
