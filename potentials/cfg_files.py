"""MLIP's text format for configurations, the ``.cfg`` file.

```
BEGIN_CFG
 Size
    1
 Supercell
    0.0 1.8 1.8
    1.8 0.0 1.8
    1.8 1.8 0.0
 AtomData:  id type cartes_x cartes_y cartes_z fx fy fz site_en
    1 0 0.0 0.0 0.0 0.0 0.0 0.0 -3.5
 Energy
    -3.5
 PlusStress:  xx yy zz yz xz xy
    0.1 0.1 0.1 0.0 0.0 0.0
 Feature   MV_grade	1.5
END_CFG
```

Lengths in Å, energies in eV, forces in eV/Å. ``PlusStress`` is −V·σ in eV with σ in ASE's sign.
Numbers are written with the fewest digits that read back to the same double.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from hullscreen.potentials.errors import FileFormatError, InputError
from hullscreen.potentials.structures import FloatArray, IntArray, Structures, join

CARTESIAN = ("cartes_x", "cartes_y", "cartes_z")
DIRECT = ("direct_x", "direct_y", "direct_z")
FORCES = ("fx", "fy", "fz")
SITE_ENERGY = "site_en"
# Row and column of each stress component in the 3×3 matrix.
STRESS_PLACES = {"xx": (0, 0), "yy": (1, 1), "zz": (2, 2), "yz": (1, 2), "xz": (0, 2), "xy": (0, 1)}


@dataclass(frozen=True, slots=True, eq=False)
class Configuration:
    """One periodic cell with what is known about it.

    Attributes
    ----------
    cell
        Lattice vectors as rows in Å, shape (3, 3).
    positions
        Cartesian positions in Å, shape (n_atoms, 3).
    types
        Species index of each atom, shape (n_atoms,).
    energy
        Total energy in eV.
    forces
        In eV/Å, shape (n_atoms, 3).
    plus_stress
        −V·σ in eV with σ in ASE's sign, symmetric, shape (3, 3).
    site_energies
        In eV, shape (n_atoms,).
    features
        Lines of text by name, in the file's order; ``features["MV_grade"] == ["1.5"]``.
    atom_columns
        Further columns of numbers by name (``nbh_grades``, ``charge``), each of shape (n_atoms,).
    """

    cell: FloatArray
    positions: FloatArray
    types: IntArray
    energy: float | None = None
    forces: FloatArray | None = None
    plus_stress: FloatArray | None = None
    site_energies: FloatArray | None = None
    features: dict[str, list[str]] = field(default_factory=dict)
    atom_columns: dict[str, FloatArray] = field(default_factory=dict)

    @property
    def stress(self) -> FloatArray | None:
        """Stress in eV/Å³ in ASE's sign, shape (3, 3)."""
        if self.plus_stress is None:
            return None
        stress: FloatArray = -self.plus_stress / abs(np.linalg.det(self.cell))
        return stress


class _Lines:
    """Lines of a text with their place, for sentences such as ``train.cfg:17``."""

    def __init__(self, lines: Iterable[str], source: str, first_line: int) -> None:
        self._lines = iter(lines)
        self._source = source
        self.number = first_line - 1

    def next_words(self, expected: str) -> list[str]:
        """Words of the next line that is not empty."""
        for line in self._lines:
            self.number += 1
            words = line.split()
            if words:
                self.text = line
                return words
        raise FileFormatError(
            f"{self._source}:{self.number}: expected {expected}, but the text ends; "
            f"it may have been cut off"
        )

    def find(self, word: str) -> bool:
        """Go to the next line that is ``word``; False at the end of the text."""
        for line in self._lines:
            self.number += 1
            text = line.strip()
            if text == word:
                return True
            if text:
                raise self.error(word, text)
        return False

    def floats(self, count: int, expected: str) -> list[float]:
        """The next line's numbers, ``count`` of them, all finite."""
        words = self.next_words(expected)
        try:
            numbers = [float(word) for word in words]
        except ValueError as error:
            raise self.error(expected, self.text.strip()) from error
        if len(numbers) != count or not all(map(math.isfinite, numbers)):
            raise self.error(expected, self.text.strip())
        return numbers

    def error(self, expected: str, came: str) -> FileFormatError:
        shown = came if len(came) <= 60 else came[:57] + "..."
        return FileFormatError(f"{self._source}:{self.number}: expected {expected}, came '{shown}'")


def read_cfg(path: str | Path) -> list[Configuration]:
    """Every configuration of a ``.cfg`` file.

    Raises
    ------
    FileFormatError
        The file cannot be read or breaks the format; the message names file and line.
    """
    return list(iterate_cfg(path))


def iterate_cfg(path: str | Path) -> Iterator[Configuration]:
    """Configurations of a ``.cfg`` file, one in memory at a time; errors as in ``read_cfg``."""
    try:
        with Path(path).open(encoding="utf-8") as file:
            yield from parse_cfg(file, str(path))
    except OSError as error:
        raise FileFormatError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise FileFormatError(
            f"{path}: expected a text file of configurations, came bytes that are no UTF-8 text"
        ) from error


def parse_cfg(
    lines: Iterable[str], source: str = "text", first_line: int = 1
) -> Iterator[Configuration]:
    """Configurations in lines of text, such as those at the end of an ``.almtp`` file.

    Parameters
    ----------
    lines
        Any iterable of lines, an open file for one.
    source
        Named in errors, with the line number counted from ``first_line``.

    Raises
    ------
    FileFormatError
        The text breaks the format.
    """
    text = _Lines(lines, source, first_line)
    while text.find("BEGIN_CFG"):
        yield _read_configuration(text)


def _read_configuration(text: _Lines) -> Configuration:
    begin = text.number
    size: int | None = None
    cell: FloatArray | None = None
    columns: dict[str, FloatArray] | None = None
    energy: float | None = None
    plus_stress: FloatArray | None = None
    features: dict[str, list[str]] = {}
    fields = "Size, Supercell, AtomData:, Energy, PlusStress:, Feature or END_CFG"
    while True:
        words = text.next_words(fields)
        match words[0]:
            case "Size":
                size = _read_size(text)
            case "Supercell" | "SuperCell":
                rows = [text.floats(3, "a lattice vector (3 numbers, 3 lines)") for _ in range(3)]
                cell = np.array(rows)
            case "AtomData:":
                if size is None:
                    raise text.error("Size before AtomData:", words[0])
                columns = _read_columns(text, words[1:], size)
            case "Energy":
                energy = text.floats(1, "an energy")[0]
            case "PlusStress:":
                plus_stress = _read_stress(text, words[1:])
            case "Feature" if len(words) > 1:
                value = text.text.split(maxsplit=2)[2:]
                features.setdefault(words[1], []).append(value[0].rstrip() if value else "")
            case "END_CFG":
                break
            case _:
                raise text.error(fields, words[0])
    if cell is None or columns is None:
        missing = "Supercell" if cell is None else "AtomData:"
        raise text.error(f"{missing} in the configuration that begins at line {begin}", "END_CFG")
    return _assemble(text, cell, columns, energy=energy, plus_stress=plus_stress, features=features)


def _read_size(text: _Lines) -> int:
    expected = "the number of atoms"
    words = text.next_words(expected)
    if len(words) != 1 or not words[0].isdecimal() or int(words[0]) < 1:
        raise text.error(expected, " ".join(words))
    return int(words[0])


def _read_columns(text: _Lines, names: Sequence[str], size: int) -> dict[str, FloatArray]:
    if len(set(names)) != len(names):
        raise text.error("different names of AtomData columns", " ".join(names))
    expected = f"an atom with {len(names)} numbers ({' '.join(names)}; Size is {size})"
    table = np.array([text.floats(len(names), expected) for _ in range(size)])
    columns = dict(zip(names, table.T, strict=True))
    ids = columns.pop("id", None)
    if ids is not None and not np.array_equal(ids, np.arange(1, size + 1)):
        raise text.error(f"atoms with id 1 to {size} in that order", "another order")
    return columns


def _read_stress(text: _Lines, names: Sequence[str]) -> FloatArray:
    if sorted(names) != sorted(STRESS_PLACES):
        raise text.error(f"stress components {' '.join(STRESS_PLACES)}", " ".join(names))
    stress = np.zeros((3, 3))
    for name, value in zip(names, text.floats(6, "six stress components"), strict=True):
        row, column = STRESS_PLACES[name]
        stress[row, column] = stress[column, row] = value
    return stress


def _assemble(
    text: _Lines,
    cell: FloatArray,
    columns: dict[str, FloatArray],
    *,
    energy: float | None,
    plus_stress: FloatArray | None,
    features: dict[str, list[str]],
) -> Configuration:
    positions = _three_columns(text, columns, CARTESIAN)
    direct = _three_columns(text, columns, DIRECT)
    if positions is None and direct is not None:
        positions = direct @ cell
    if positions is None:
        raise text.error("columns cartes_x cartes_y cartes_z (or direct_x ...)", " ".join(columns))
    kinds = columns.pop("type", np.zeros(len(positions)))
    if (kinds < 0).any() or (kinds != np.rint(kinds)).any():
        raise text.error("atom types 0, 1, 2, ...", str(kinds.tolist()))
    return Configuration(
        cell=cell,
        positions=positions,
        types=kinds.astype(np.int32),
        energy=energy,
        forces=_three_columns(text, columns, FORCES),
        plus_stress=plus_stress,
        site_energies=columns.pop(SITE_ENERGY, None),
        features=features,
        atom_columns={name: np.ascontiguousarray(column) for name, column in columns.items()},
    )


def _three_columns(
    text: _Lines, columns: dict[str, FloatArray], names: Sequence[str]
) -> FloatArray | None:
    found = [columns.pop(name) for name in names if name in columns]
    if not found:
        return None
    if len(found) != 3:
        raise text.error(f"all three columns {' '.join(names)}", f"{len(found)} of them")
    return np.stack(found, axis=1)


def format_cfg(configuration: Configuration) -> str:
    """Text of one configuration, from ``BEGIN_CFG`` to ``END_CFG``.

    Raises
    ------
    InputError
        A feature's name holds blanks, or its value a line break.
    """
    names = ["id", "type", *CARTESIAN]
    columns: list[FloatArray] = [*configuration.positions.T]
    if configuration.forces is not None:
        names += FORCES
        columns += [*configuration.forces.T]
    if configuration.site_energies is not None:
        names.append(SITE_ENERGY)
        columns.append(configuration.site_energies)
    names += configuration.atom_columns
    columns += configuration.atom_columns.values()
    table = np.stack(columns, axis=1).tolist()
    lines = ["BEGIN_CFG", " Size", f"    {len(configuration.types)}", " Supercell"]
    lines += ["    " + _numbers(row) for row in configuration.cell.tolist()]
    lines.append(" AtomData:  " + " ".join(names))
    lines += [
        f"    {i_atom} {kind} {_numbers(row)}"
        for i_atom, (kind, row) in enumerate(
            zip(configuration.types.tolist(), table, strict=True), start=1
        )
    ]
    if configuration.energy is not None:
        lines += [" Energy", "    " + _numbers([configuration.energy])]
    if configuration.plus_stress is not None:
        values = [float(configuration.plus_stress[place]) for place in STRESS_PLACES.values()]
        lines += [" PlusStress:  " + " ".join(STRESS_PLACES), "    " + _numbers(values)]
    for name, texts in configuration.features.items():
        lines += [_feature_line(name, text) for text in texts]
    return "\n".join([*lines, "END_CFG", ""])


def _numbers(values: Iterable[float]) -> str:
    """Every digit, and no exponents: motep does not read them."""
    return " ".join([np.format_float_positional(value, trim="0") for value in values])


def _feature_line(name: str, value: str) -> str:
    if name.split() != [name] or len(value.splitlines()) > 1:
        raise InputError(
            f"a feature's name has no blanks and its value is one line, came {name!r}: {value!r}; "
            f"give several lines as several values"
        )
    return f" Feature   {name}\t{value}".rstrip()


def write_cfg(path: str | Path, configurations: Iterable[Configuration]) -> None:
    """Write a ``.cfg`` file; it appears whole or not at all.

    Raises
    ------
    FileFormatError
        The file cannot be written.
    InputError
        A configuration has a feature that the format cannot hold.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.writelines(format_cfg(one) + "\n" for one in configurations)
        temporary.replace(target)
    except OSError as error:
        raise FileFormatError(f"cannot write {target}: {error.strerror}") from error
    finally:
        temporary.unlink(missing_ok=True)


def to_structures(configurations: Iterable[Configuration]) -> Structures:
    """The cells of configurations as one batch."""
    return join((one.cell, one.positions, one.types) for one in configurations)


def from_structures(structures: Structures) -> list[Configuration]:
    """Configurations with nothing known but their cells and atoms."""
    return [Configuration(*structures.one(i)) for i in range(len(structures))]
