"""MLIP's ``.almtp`` files: a potential, its active set, and the structures the set was chosen from.

```
(text of the .mtp file)
#MVS_v1.1
energy_weight 1.0
force_weight 0.0
stress_weight 0.0
site_en_weight 0.0
weight_scaling 2
#(A, then the transposed A⁻¹, each n × n little-endian doubles)
#
9 0                     one line per row of A: number of the structure, equation
-1 -1                   a row that no structure has set
#
BEGIN_CFG ...           the structures, as in a .cfg file
```

Equation 0 is the energy of the cell; of a cell of N atoms, those of the N site energies come after
3 N forces and 9 components of the stress.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from hullscreen.potentials.active_set import NOT_SET, ActiveSet, checked_active_set
from hullscreen.potentials.cfg_files import Configuration, format_cfg, parse_cfg
from hullscreen.potentials.errors import FileFormatError, InputError
from hullscreen.potentials.gradient_rows import energy_rows
from hullscreen.potentials.moment_tensor_potential import MomentTensorPotential
from hullscreen.potentials.mtp_fields import CUT_OFF
from hullscreen.potentials.mtp_files import (
    ACTIVE_SET_MARK,
    mtp_text,
    parse_mtp,
    places_in_file,
)
from hullscreen.potentials.structures import FloatArray, IndexArray, Structures

WEIGHTS = ("energy_weight", "force_weight", "stress_weight", "site_en_weight")
SCALING = "weight_scaling"
# Energies count per atom, not per cell (0) or per square root of the number of atoms (1).
PER_ATOM = 2


@dataclass(frozen=True)
class Selection:
    """An active set with its structures.

    Attributes
    ----------
    active_set
        Its ``sources`` are indices into ``configurations``.
    equations
        Which equation of that structure each row is, ``NOT_SET`` for none, shape (n_parameters,).
    configurations
        The structures of the active set.
    by_neighbourhood
        Rows are derivatives of site energies; otherwise of energies per atom.
    """

    active_set: ActiveSet
    equations: IndexArray
    configurations: list[Configuration] = field(default_factory=list)
    by_neighbourhood: bool = False

    def __repr__(self) -> str:
        rows = "neighbourhoods" if self.by_neighbourhood else "structures"
        return f"Selection({self.active_set}, of {rows}, {len(self.configurations)} configurations)"

    def grades(self, potential: MomentTensorPotential, structures: Structures) -> FloatArray:
        """Extrapolation grade of each structure, the largest of its neighbourhoods' if by those.

        Returns
        -------
        Shape (n_structures,).

        Raises
        ------
        InputError
            The structures or the active set do not fit the potential.
        """
        checked_active_set(self.active_set, potential)
        if self.by_neighbourhood:
            sites = self.active_set.grades(potential.evaluate(structures, "sites").gradients)
            return np.maximum.reduceat(sites, structures.offsets[:-1]) if len(sites) else sites
        return self.active_set.grades(energy_rows(potential, structures))


def read_almtp(
    path: str | Path, elements: tuple[str, ...] | None = None
) -> tuple[MomentTensorPotential, Selection]:
    """Read a potential and its active set.

    Parameters
    ----------
    elements
        Symbols of the species, as in `read_mtp`.

    Returns
    -------
    The potential, and its active set with the structures that it was chosen from. Where an
    `ActiveSet` is expected, as by `relax` or `MTPCalculator`, give ``selection.active_set``.

    Raises
    ------
    FileFormatError
        The file cannot be read, has no active set, or one that does not fit its potential.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from hullscreen.potentials import (
    ...     energy_rows, from_atoms, relax, select_active_set, untrained)
    >>> from hullscreen.potentials.cfg_files import from_structures
    >>> from hullscreen.potentials.example_data import copper_gold
    >>> potential = untrained(6, ("Cu", "Au"), cutoff=4.5, min_distance=2.0)
    >>> structures = from_atoms(copper_gold(20), potential.elements)
    >>> active_set = select_active_set(energy_rows(potential, structures))
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder) / "CuAu.almtp"
    ...     chosen = selection_by_configuration(active_set, from_structures(structures))
    ...     write_almtp(path, potential, chosen)
    ...     potential, selection = read_almtp(path)
    >>> bool(selection.grades(potential, structures).max() < 1.01)
    True
    >>> relaxed = relax(potential, structures, active_set=selection.active_set)
    >>> relaxed.grades.shape
    (20,)
    """
    path = Path(path)
    try:
        text, mark, state = path.read_bytes().partition(ACTIVE_SET_MARK)
        potential = parse_mtp(text.decode(), str(path), elements)
    except (OSError, UnicodeDecodeError) as error:
        raise FileFormatError(f"cannot read the potential {path}: {error}") from error
    header, separator, numbers = state.partition(b"\n#")
    if not mark or not separator:
        raise FileFormatError(
            f"{path} holds no active set: expected a section {ACTIVE_SET_MARK.decode()}, "
            f"as in .almtp files; {CUT_OFF}, or it is a .mtp file"
        )
    n = potential.parameters.size
    size = 8 * n * n
    if len(numbers) < 2 * size:
        raise FileFormatError(
            f"{path}: the active set is shorter than 2 matrices of {n} x {n} numbers; {CUT_OFF}"
        )
    matrix = np.frombuffer(numbers, "<f8", n * n).reshape(n, n)
    transposed = np.frombuffer(numbers, "<f8", n * n, offset=size).reshape(n, n)
    if not (np.isfinite(matrix).all() and np.isfinite(transposed).all()):
        raise FileFormatError(f"{path}: the active set holds numbers that are not finite")
    first_line = (text + mark + header).count(b"\n") + 2
    sources, equations, configurations = _read_rows(path, numbers[2 * size :], n, first_line)
    # Columns stand in the order of the file's parameters.
    places = places_in_file(potential)
    rows, inverse = np.empty((n, n)), np.empty((n, n))
    rows[:, places] = matrix
    inverse[places] = transposed.T
    active = ActiveSet(rows, inverse, sources)
    weights = _read_weights(path, header.decode(errors="replace"))
    return potential, Selection(active, equations, configurations, weights["site_en_weight"] != 0.0)


def write_almtp(path: str | Path, potential: MomentTensorPotential, selection: Selection) -> None:
    """Write a potential with its active set, for `read_almtp` or MLIP-3.

    Raises
    ------
    InputError
        The active set belongs to a potential with another number of parameters, or names structures
        that are not there.
    """
    Path(path).write_bytes(almtp_bytes(potential, selection))


def almtp_bytes(potential: MomentTensorPotential, selection: Selection) -> bytes:
    """The content of an ``.almtp`` file; errors as in `write_almtp`."""
    active = checked_active_set(selection.active_set, potential)
    if active.sources.max() >= len(selection.configurations):
        raise InputError(
            f"the active set was chosen from {active.sources.max() + 1} structures or more, "
            f"but {len(selection.configurations)} came with it"
        )
    kind = "site_en_weight" if selection.by_neighbourhood else "energy_weight"
    header = [ACTIVE_SET_MARK.decode()]
    header += [f"{name} {float(name == kind):.16e}" for name in WEIGHTS]
    header += [f"{SCALING} {PER_ATOM}"]
    rows = zip(active.sources.tolist(), selection.equations.tolist(), strict=True)
    places = places_in_file(potential)
    return b"".join(
        [
            mtp_text(potential).encode(),
            "\n".join(header).encode(),
            b"\n#",
            np.ascontiguousarray(active.rows[:, places], dtype="<f8").tobytes(),
            np.ascontiguousarray(active.inverse[places].T, dtype="<f8").tobytes(),
            b"\n#\n",
            "".join(f"{source} {equation}\n" for source, equation in rows).encode(),
            b"#\n",
            "\n".join(format_cfg(one) for one in selection.configurations).encode(),
        ]
    )


def selection_by_configuration(active: ActiveSet, configurations: list[Configuration]) -> Selection:
    """The selection that `write_almtp` stores, with only those structures that the set holds.

    Parameters
    ----------
    active
        Its ``sources`` are indices into ``configurations``; each row is an energy per atom.
    """
    used = np.unique(active.sources[active.sources != NOT_SET])
    place = np.full(len(configurations) + 1, NOT_SET)
    place[used] = np.arange(used.size)
    sources = place[active.sources]
    return Selection(
        ActiveSet(active.rows, active.inverse, sources),
        np.where(sources == NOT_SET, NOT_SET, 0),
        [
            replace(one, features={**one.features, "selected_eqn_inds": ["0"]})
            for one in (configurations[i] for i in used)
        ],
    )


def _read_weights(path: Path, header: str) -> dict[str, float]:
    found = dict(re.findall(r"^(\w+)[ \t]+(\S+)[ \t]*$", header, flags=re.MULTILINE))
    try:
        weights = {name: float(found[name]) for name in (*WEIGHTS, SCALING)}
    except (KeyError, ValueError) as error:
        raise FileFormatError(
            f"{path}: expected {', '.join((*WEIGHTS, SCALING))} before the active set"
        ) from error
    kinds = [name for name in WEIGHTS if weights[name] != 0.0]
    by_energy = kinds == ["energy_weight"] and weights[SCALING] == PER_ATOM
    if not (by_energy or kinds == ["site_en_weight"]) or weights[kinds[0]] != 1.0:
        raise FileFormatError(
            f"{path}: expected an active set of energies per atom or of site energies, each with "
            f"weight 1; other sets are not supported"
        )
    return weights


def _read_rows(
    path: Path, tail: bytes, n: int, first_line: int
) -> tuple[IndexArray, IndexArray, list[Configuration]]:
    """Structure and equation of each row, and the structures."""
    parts = tail.split(b"#\n", 2)
    problem = f"{path}: expected {n} lines 'structure equation' after the active set's matrices"
    if len(parts) != 3:
        raise FileFormatError(f"{problem}, between two lines '#'; {CUT_OFF}")
    try:
        pairs = np.array([line.split() for line in parts[1].splitlines()], dtype=np.int64)
        pairs = pairs.reshape(n, 2)
        text = parts[2].decode()
    except ValueError as error:
        raise FileFormatError(f"{problem} ({error}); {CUT_OFF}") from error
    configurations = list(parse_cfg(text.splitlines(keepends=True), str(path), first_line + n + 2))
    if pairs.min() < NOT_SET or pairs[:, 0].max() >= len(configurations):
        raise FileFormatError(
            f"{path}: the active set names a structure beyond the {len(configurations)} stored; "
            f"{CUT_OFF}"
        )
    return pairs[:, 0].copy(), pairs[:, 1].copy(), configurations
