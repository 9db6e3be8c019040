"""Extended XYZ: structures with symbols and labels, as ASE reads and writes them, without loss.

Numbers are written with the fewest digits that read back to the same double; ASE itself writes
eight decimals. Energies are in eV, forces in eV/Å, ``stress`` in eV/Å³ in ASE's sign and ``virial``
is −V·stress in eV; `write_extxyz` gives both, because dividing by the volume and multiplying again
changes the last digit. Site energies are the column ``energies``, other columns of numbers keep
their names, and features are the remaining pairs of a structure's second line.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hullscreen.potentials.cfg_files import Configuration
from hullscreen.potentials.errors import FileFormatError, InputError
from hullscreen.potentials.structures import FloatArray

if TYPE_CHECKING:
    from ase import Atoms

# A virial that differs by more from the stress given with it is of another sign or unit.
SAME_STRESS = 1e-6
_WORD = re.compile(r"[^\s\"'{}\[\],=\\]+")
_KEY = re.compile(r"[A-Za-z_][\w-]*")
_RESERVED = {"Lattice", "Properties", "pbc", "energy", "stress", "virial"}
_RESERVED_COLUMNS = {"species", "pos", "forces", "energies", "numbers", "positions"}


def read_extxyz(
    path: Path, elements: Sequence[str] | None = None
) -> tuple[list[Configuration], tuple[str, ...]]:
    """Every structure, and the symbols that its species index.

    Parameters
    ----------
    elements
        By default the symbols that occur, in alphabetical order.

    Raises
    ------
    FileFormatError
        The file cannot be read, or is no extended XYZ.
    InputError
        A structure holds other elements, is not periodic, or a number is not finite.
    """
    frames = _frames(path)
    names = tuple(elements or sorted({symbol for atoms in frames for symbol in atoms.symbols}))
    return [
        _configuration(atoms, names, f"{path}: structure {i}") for i, atoms in enumerate(frames)
    ], names


def write_extxyz(
    path: Path, configurations: Sequence[Configuration], elements: Sequence[str]
) -> None:
    """Write structures; the end of the name tells how they are compressed (``.gz`` for one).

    Of a feature with several values the first is written.

    Raises
    ------
    InputError
        The name of a feature or a column cannot be written.
    OSError
        The file cannot be written.
    """
    from ase.io.formats import open_with_compression

    with open_with_compression(str(path), "wt") as file:
        for one in configurations:
            file.writelines(f"{line}\n" for line in _lines(one, elements))


def _lines(one: Configuration, elements: Sequence[str]) -> Iterator[str]:
    columns = {"pos": one.positions}
    if one.forces is not None:
        columns["forces"] = one.forces
    if one.site_energies is not None:
        columns["energies"] = one.site_energies[:, None]
    for name, column in one.atom_columns.items():
        if _KEY.fullmatch(name) is None or name in _RESERVED_COLUMNS:
            raise InputError(
                f"a column of extended XYZ cannot be called {name!r}; rename it, or write .cfg"
            )
        columns[name] = column[:, None]
    widths = ":".join(f"{name}:R:{values.shape[1]}" for name, values in columns.items())
    pairs = {"Lattice": _row(one.cell.ravel()), "Properties": f"species:S:1:{widths}"}
    if one.energy is not None:
        pairs["energy"] = repr(float(one.energy))
    if one.plus_stress is not None and one.stress is not None:
        pairs["stress"] = _row(one.stress.ravel())
        pairs["virial"] = _row(one.plus_stress.ravel())
    for name, values in one.features.items():
        if _KEY.fullmatch(name) is None or name in _RESERVED:
            raise InputError(
                f"a feature in extended XYZ cannot be called {name!r}; rename it, or write .cfg"
            )
        if values:
            pairs[name] = values[0]
    pairs["pbc"] = "T T T"
    yield str(len(one.types))
    yield " ".join(f"{name}={_quoted(value)}" for name, value in pairs.items())
    table = np.hstack(list(columns.values()))
    for kind, numbers in zip(one.types.tolist(), table, strict=True):
        yield f"{elements[kind]} {_row(numbers)}"


def _row(numbers: FloatArray) -> str:
    return " ".join([repr(number) for number in numbers.tolist()])


def _quoted(value: str) -> str:
    if _WORD.fullmatch(value):
        return value
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _frames(path: Path) -> list[Atoms]:
    from ase.io import read
    from ase.io.extxyz import XYZError

    try:
        frames: list[Atoms] = read(path, index=":", format="extxyz")
    except (XYZError, ValueError, KeyError, IndexError, EOFError, zlib.error) as error:
        # What ASE raises depends on where the text departs from the format.
        reason = " ".join(str(error).split())
        raise FileFormatError(
            f"{path}: expected a .cfg file by its name or else extended XYZ, which it is not "
            f"({reason})"
        ) from error
    except OSError as error:
        raise FileFormatError(f"cannot read {path}: {error.strerror or error}") from error
    return frames


def _configuration(atoms: Atoms, elements: tuple[str, ...], where: str) -> Configuration:
    number = {symbol: i for i, symbol in enumerate(elements)}
    strangers = sorted(set(atoms.symbols) - set(number))
    if strangers:
        raise InputError(f"{where} holds {', '.join(strangers)}; expected {', '.join(elements)}")
    if not all(atoms.pbc) or atoms.cell.rank != 3:
        raise InputError(f"{where} needs three periodic lattice vectors")
    results: dict[str, Any] = atoms.calc.results if atoms.calc is not None else {}
    columns = {
        name: np.asarray(values, dtype=np.float64)
        for name, values in {**atoms.arrays, **results}.items()
        if name not in _RESERVED_COLUMNS and _is_column(values, len(atoms))
    }
    cell, positions = np.array(atoms.cell[:]), np.array(atoms.positions)
    named = {"cell": cell, "positions": positions, "virial": atoms.info.get("virial")}
    labels = {name: results.get(name) for name in ("energy", "forces", "stress", "energies")}
    for name, values in {**named, **labels, **columns}.items():
        if values is not None and not np.isfinite(values).all():
            strange = np.ravel(values)[~np.isfinite(np.ravel(values))][0]
            raise InputError(
                f"{where} has {strange} for its {name}; expected finite numbers: "
                f"calculate it again, or leave it out"
            )
    return Configuration(
        cell=cell,
        positions=positions,
        types=np.array([number[symbol] for symbol in atoms.symbols], dtype=np.int32),
        energy=None if labels["energy"] is None else float(labels["energy"]),
        forces=_floats(labels["forces"]),
        plus_stress=_plus_stress(atoms, labels["stress"]),
        site_energies=_floats(labels["energies"]),
        features=_features(atoms),
        atom_columns=columns,
    )


def _floats(values: Any) -> FloatArray | None:
    return None if values is None else np.array(values, dtype=np.float64)


def _is_column(values: Any, n_atoms: int) -> bool:
    array: NDArray[Any] = np.asarray(values)
    return array.shape == (n_atoms,) and array.dtype.kind == "f"


def _features(atoms: Atoms) -> dict[str, list[str]]:
    """What else is known about a structure, as lines of text."""
    texts = {
        name: " ".join(map(str, np.ravel(value).tolist()))
        for name, value in atoms.info.items()
        if name not in _RESERVED and name.split() == [name]
    }
    return {name: [text] for name, text in texts.items() if len(text.splitlines()) < 2}


def _plus_stress(atoms: Atoms, stress: Any) -> FloatArray | None:
    """−V·stress in eV, from ``stress`` (in ASE's order of six) or ``virial`` (3 × 3)."""
    from ase.stress import voigt_6_to_full_3x3_stress

    virial = _floats(atoms.info.get("virial"))
    if stress is None:
        return virial
    full = np.reshape(stress, (3, 3)) if np.size(stress) == 9 else None
    full = voigt_6_to_full_3x3_stress(stress) if full is None else full
    found: FloatArray = np.asarray(-atoms.get_volume() * full, dtype=np.float64)
    if virial is not None and virial.shape == (3, 3):
        allowed = SAME_STRESS * np.abs(found).max()
        if np.abs(virial - found).max() <= allowed:
            return virial
    return found
