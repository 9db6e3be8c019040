"""Rows for the active set, evaluated block by block from any number of structures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from hullscreen.potentials.active_set import NOT_SET
from hullscreen.potentials.errors import PotentialError
from hullscreen.potentials.moment_tensor_potential import MomentTensorPotential
from hullscreen.potentials.structures import FloatArray, IndexArray, Structures

BLOCK_BYTES = 32 * 2**20
# Rows of 100,000 structures by a potential of 222 parameters take 178 MB.
KEPT_BYTES = 256 * 2**20


def energy_rows(potential: MomentTensorPotential, structures: Structures) -> FloatArray:
    """Derivatives of energies per atom by all parameters: rows for the active set.

    Returns
    -------
    Shape (n_structures, n_parameters), in eV per atom and unit of each parameter.

    Raises
    ------
    InputError
        The structures do not fit the potential.

    Examples
    --------
    >>> from hullscreen.potentials import from_atoms, select_active_set, untrained
    >>> from hullscreen.potentials.example_data import copper_gold
    >>> potential = untrained(6, ("Cu", "Au"), cutoff=4.5, min_distance=2.0)
    >>> structures = from_atoms(copper_gold(20), potential.elements)
    >>> rows = energy_rows(potential, structures)
    >>> rows.shape == (20, potential.parameters.size)
    True
    >>> bool(select_active_set(rows).grades(rows).max() < 1.01)
    True
    """
    rows = potential.evaluate(structures, "structures").gradients
    rows /= structures.n_atoms[:, None]
    return rows


@dataclass(frozen=True)
class GradientRows:
    """Derivatives of energies by the parameters: an iterable of blocks of rows.

    Every turn gives the same blocks. Those that fit into ``kept_bytes`` are evaluated once.

    Attributes
    ----------
    potential, structures
        Whose energies, and of what.
    kind
        ``"structures"``: a row per structure, of its energy per atom; ``"sites"``: a row per atom,
        of its site energy.
    block_bytes
        Upper limit of a block, which holds at least one structure.
    kept_bytes
        What may be remembered from one turn to the next.

    Examples
    --------
    >>> from hullscreen.potentials import from_atoms, select_active_set, untrained
    >>> from hullscreen.potentials.example_data import copper_gold
    >>> potential = untrained(6, ("Cu", "Au"), cutoff=4.5, min_distance=2.0)
    >>> structures = from_atoms(copper_gold(20), potential.elements)
    >>> rows = GradientRows(potential, structures, "sites")
    >>> structure, atom = rows.locate(select_active_set(rows).sources)
    >>> bool((atom < structures.n_atoms[structure]).all())
    True
    """

    potential: MomentTensorPotential
    structures: Structures
    kind: Literal["structures", "sites"] = "structures"
    block_bytes: int = BLOCK_BYTES
    kept_bytes: int = KEPT_BYTES
    _kept: list[FloatArray] = field(default_factory=list, init=False, repr=False, compare=False)

    def __len__(self) -> int:
        """Number of rows over all blocks."""
        return int(self._row_offsets[-1])

    def __iter__(self) -> Iterator[FloatArray]:
        """Blocks of shape (n, n_parameters).

        Raises
        ------
        InputError
            The potential does not know a species, or a cell is none.
        PotentialError
            A derivative is not a finite number; the structure is named.
        """
        for number, (first, last) in enumerate(self._bounds()):
            if number < len(self._kept):
                yield self._kept[number]
                continue
            rows = self._evaluated(first, last)
            used = sum(block.nbytes for block in self._kept)
            if number == len(self._kept) and used + rows.nbytes <= self.kept_bytes:
                self._kept.append(rows)
            yield rows

    def locate(self, sources: IndexArray) -> tuple[IndexArray, IndexArray]:
        """Structure and atom within it that rows belong to.

        Parameters
        ----------
        sources
            Numbers of rows over all blocks, or ``NOT_SET``; shape (n,).

        Returns
        -------
        Structures and atoms, each shape (n,), ``NOT_SET`` where the source is, and for the atoms of
        rows that belong to a whole structure.
        """
        nowhere = sources == NOT_SET
        if self.kind == "structures":
            return sources.copy(), np.full(sources.shape, NOT_SET)
        offsets = self.structures.offsets
        owners = np.searchsorted(offsets, sources, side="right") - 1
        return np.where(nowhere, NOT_SET, owners), np.where(
            nowhere, NOT_SET, sources - offsets[owners]
        )

    @property
    def _row_offsets(self) -> IndexArray:
        """Rows of structure ``i`` are ``[i]:[i + 1]``."""
        if self.kind == "sites":
            return self.structures.offsets
        return np.arange(len(self.structures) + 1)

    def _bounds(self) -> Iterator[tuple[int, int]]:
        """First structure of each block and that of the next."""
        offsets = self._row_offsets
        row_bytes = np.dtype(np.float64).itemsize * self.potential.parameters.size
        rows_per_block = max(1, self.block_bytes // row_bytes)
        first = 0
        while first < len(self.structures):
            end = offsets[first] + rows_per_block
            last = int(np.searchsorted(offsets, end, side="right")) - 1
            last = max(first + 1, last)
            yield first, last
            first = last

    def _evaluated(self, first: int, last: int) -> FloatArray:
        part = _slice(self.structures, first, last)
        if self.kind == "structures":
            rows = energy_rows(self.potential, part)
        else:
            rows = self.potential.evaluate(part, self.kind).gradients
        strange = np.flatnonzero(~np.isfinite(rows).all(axis=1))
        if strange.size:
            structure, atom = self.locate(strange[:1] + self._row_offsets[first])
            owner = f"structure {structure[0]}"
            if atom[0] != NOT_SET:
                owner = f"atom {atom[0]} of {owner}"
            raise PotentialError(
                f"the energy of {owner} has derivatives by the parameters that are not finite "
                f"numbers; do two of its atoms share a site?"
            )
        return rows


def _slice(structures: Structures, first: int, last: int) -> Structures:
    """Structures ``first`` to ``last``, not included."""
    offsets = structures.offsets[first : last + 1]
    atoms = slice(offsets[0], offsets[-1])
    return Structures(
        structures.cells[first:last],
        structures.positions[atoms],
        structures.species[atoms],
        offsets - offsets[0],
    )
