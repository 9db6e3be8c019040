"""Structures, training data and potentials by the suffix of their file.

``.cfg`` is MLIP's format, whose species are indices. Everything else is extended XYZ, whose species
are symbols, plain or compressed (``.xyz``, ``.extxyz``, ``.xyz.gz``): energies in eV, forces in
eV/Å, ``stress`` in eV/Å³ in ASE's sign, or ``virial``, which is −V·stress, in eV.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from hullscreen.potentials.almtp_files import Selection, read_almtp
from hullscreen.potentials.cfg_files import Configuration, format_cfg, read_cfg, to_structures
from hullscreen.potentials.errors import FileFormatError, InputError
from hullscreen.potentials.extxyz_files import read_extxyz, write_extxyz
from hullscreen.potentials.labels import TrainingSet
from hullscreen.potentials.moment_tensor_potential import MomentTensorPotential
from hullscreen.potentials.mtp_files import read_mtp
from hullscreen.potentials.structures import Structures

CFG = ".cfg"
ALMTP = ".almtp"
MTP = ".mtp"


@dataclass(frozen=True)
class Frames:
    """Structures of a file, with whatever was known about them.

    Attributes
    ----------
    structures
        Species are indices into ``elements``.
    elements
        Symbols; for ``.cfg`` files without names "X0", "X1", ...
    configurations
        The same structures, labels and features included.
    """

    structures: Structures
    elements: tuple[str, ...]
    configurations: list[Configuration]

    def training_set(self, source: str | Path) -> TrainingSet:
        """The labels, if every structure has an energy; NaN for unknown forces or stresses.

        Raises
        ------
        InputError
            A structure has no energy; ``source`` is named.
        """
        nothing = np.full((3, 3), np.nan)
        energies = np.array([one.energy for one in self.configurations], dtype=np.float64)
        missing = np.flatnonzero(~np.isfinite(energies))
        if missing.size:
            raise InputError(
                f"{source}: structure {missing[0]} has no energy (of {missing.size} such); "
                f"calculate it, or remove the structure"
            )
        return TrainingSet(
            self.structures,
            energies,
            np.concatenate(
                [
                    np.full((len(one.types), 3), np.nan) if one.forces is None else one.forces
                    for one in self.configurations
                ]
            ),
            np.array(
                [nothing if one.stress is None else one.stress for one in self.configurations]
            ),
        )


def read_potential(
    path: str | Path, elements: Sequence[str] | None = None
) -> tuple[MomentTensorPotential, Selection | None]:
    """Read a ``.mtp`` or ``.almtp`` file; the latter with its active set.

    Parameters
    ----------
    elements
        Symbols of the species; by default those that the file names.

    Raises
    ------
    InputError
        The number of elements is not that of the potential.
    FileFormatError
        The file cannot be read.
    """
    selection = None
    if Path(path).suffix == ALMTP:
        potential, selection = read_almtp(path)
    else:
        potential = read_mtp(path)
    if elements is None:
        return potential, selection
    if len(elements) != len(potential.elements):
        raise InputError(
            f"{path} has {len(potential.elements)} species, "
            f"but {len(elements)} symbols came: {' '.join(elements)}"
        )
    return replace(potential, elements=tuple(elements)), selection


def read_frames(path: str | Path, elements: Sequence[str] | None = None) -> Frames:
    """Read every structure of a ``.cfg`` or extended XYZ file.

    Parameters
    ----------
    elements
        Symbols in the order of the species; by default, for extended XYZ, those that occur in
        alphabetical order, and for ``.cfg`` "X0", "X1", ...

    Raises
    ------
    FileFormatError
        The file cannot be read, or holds no structure.
    InputError
        A structure holds an element or species that ``elements`` lacks, or is not periodic.
    """
    path = Path(path)
    if path.suffix == CFG:
        configurations = read_cfg(path)
        n_species = max((int(one.types.max()) + 1 for one in configurations), default=0)
        names = tuple(elements or (f"X{i}" for i in range(n_species)))
        if n_species > len(names):
            raise InputError(
                f"{path} holds species 0 to {n_species - 1}; "
                f"expected only {len(names)}: {' '.join(names)}"
            )
    else:
        configurations, names = read_extxyz(path, elements)
    if not configurations:
        raise FileFormatError(f"{path} holds no structure; expected at least one")
    return Frames(to_structures(configurations), names, configurations)


def read_frames_for(potential: MomentTensorPotential, path: str | Path) -> Frames:
    """Read structures whose species are those of a potential; errors as in `read_frames`.

    Raises
    ------
    InputError
        The file names elements, but the potential does not.
    """
    if Path(path).suffix != CFG:
        check_symbols(potential.elements, f"reading {path}")
    return read_frames(path, potential.elements)


def write_frames(
    path: str | Path, configurations: Sequence[Configuration], elements: Sequence[str]
) -> None:
    """Write a ``.cfg`` or extended XYZ file; it appears whole or not at all.

    Raises
    ------
    InputError
        Extended XYZ needs element symbols, and the species have none; or a name of a feature or
        column cannot be written.
    OSError
        The file cannot be written.
    """
    path = Path(path)
    if path.suffix != CFG:
        check_symbols(elements, f"writing {path}")
    with complete_or_absent(path) as temporary:
        if path.suffix == CFG:
            with temporary.open("w", encoding="utf-8") as file:
                file.writelines(format_cfg(one) + "\n" for one in configurations)
        elif configurations:
            write_extxyz(temporary, configurations, elements)


def check_symbols(elements: Sequence[str], purpose: str) -> None:
    """Raise InputError unless all are element symbols, which extended XYZ needs.

    Parameters
    ----------
    purpose
        Begins the sentence: "reading a.xyz", "writing b.xyz".
    """
    from ase.data import chemical_symbols

    strangers = [name for name in elements if name not in chemical_symbols[1:]]
    if strangers:
        raise InputError(
            f"{purpose} needs element symbols, but the species are called {' '.join(elements)}; "
            f"name them with --species, such as --species Cu Au"
        )


def check_writable(path: Path) -> None:
    """Raise OSError now if ``path`` could not be written later, after long work."""
    try:
        with tempfile.NamedTemporaryFile(prefix=".", dir=path.parent):
            pass
    except OSError as error:
        error.filename = str(path)
        raise


# Begins the name of what is on its way, so that nothing of the user's is taken for it.
UNFINISHED = ".unfinished-"


@contextmanager
def complete_or_absent(path: Path) -> Iterator[Path]:
    """Path of a temporary file of the same suffix that takes the place of ``path`` at the end.

    Raises
    ------
    OSError
        The file cannot be written; ``path`` is as it was, and nothing else remains.
    """
    path = path.resolve()
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "not a regular file; name a file, or use a pipe", str(path))
    temporary = None
    try:
        descriptor, name = tempfile.mkstemp(
            prefix=UNFINISHED, suffix=f".{path.name}", dir=path.parent
        )
        os.close(descriptor)
        temporary = Path(name)
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)
        temporary.replace(path)
    except OSError as error:
        # The user knows the file's own name, not the temporary one.
        error.filename, error.filename2 = str(path), None
        raise
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
