"""Many periodic cells as flat arrays: the common tongue of prototypes, relaxer and database."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hullscreen.potentials.errors import InputError

if TYPE_CHECKING:
    from ase import Atoms

FloatArray: TypeAlias = NDArray[np.float64]
IntArray: TypeAlias = NDArray[np.int32]
IndexArray: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Structures:
    """A batch of periodic cells.

    Attributes
    ----------
    cells
        Lattice vectors as rows in Å, shape (n_structures, 3, 3).
    positions
        Cartesian positions in Å, shape (n_atoms_total, 3).
    species
        Index of each atom's element in the campaign's element list, shape (n_atoms_total,).
    offsets
        Atoms of structure ``i`` are ``offsets[i]:offsets[i + 1]``, shape (n_structures + 1,).
    """

    cells: FloatArray
    positions: FloatArray
    species: IntArray
    offsets: IndexArray

    def __len__(self) -> int:
        return len(self.cells)

    def __repr__(self) -> str:
        return f"Structures({len(self)} structures, {len(self.species)} atoms)"

    @property
    def n_atoms(self) -> IndexArray:
        """Atoms of each structure, shape (n_structures,)."""
        return np.diff(self.offsets)

    @property
    def volumes(self) -> FloatArray:
        """Cell volumes in Å³, shape (n_structures,)."""
        volumes: FloatArray = np.abs(np.linalg.det(self.cells))
        return volumes

    def counts(self, n_species: int) -> IndexArray:
        """Atoms of each species in each structure, shape (n_structures, n_species)."""
        owner = np.repeat(np.arange(len(self)), self.n_atoms)
        flat = np.bincount(owner * n_species + self.species, minlength=len(self) * n_species)
        return flat.reshape(len(self), n_species)

    def one(self, index: int) -> tuple[FloatArray, FloatArray, IntArray]:
        """Cell, positions and species of one structure (views)."""
        atoms = slice(self.offsets[index], self.offsets[index + 1])
        return self.cells[index], self.positions[atoms], self.species[atoms]

    def take(self, indices: Sequence[int] | IndexArray) -> Structures:
        """The structures named by ``indices``, in that order."""
        return join(self.one(int(i)) for i in indices)


def join(parts: Iterable[tuple[FloatArray, FloatArray, IntArray]]) -> Structures:
    """One batch from (cell, positions, species) of single structures."""
    cells, positions, species = [], [], []
    for cell, xyz, kinds in parts:
        cells.append(cell)
        positions.append(xyz)
        species.append(kinds)
    offsets = np.zeros(len(cells) + 1, dtype=np.int64)
    np.cumsum([len(kinds) for kinds in species], out=offsets[1:])
    return Structures(
        np.ascontiguousarray(np.reshape(cells, (-1, 3, 3)), dtype=np.float64),
        np.ascontiguousarray(np.concatenate([*positions, np.zeros((0, 3))]), dtype=np.float64),
        np.concatenate([*species, np.zeros(0, dtype=np.int32)]).astype(np.int32),
        offsets,
    )


def concatenate(batches: Iterable[Structures]) -> Structures:
    """One batch from several."""
    return join(batch.one(i) for batch in batches for i in range(len(batch)))


def from_atoms(frames: Iterable[Atoms], elements: Sequence[str]) -> Structures:
    """Batch of ASE ``Atoms``; species are indices into ``elements``.

    Raises
    ------
    InputError
        An atom is none of ``elements``, or a cell is not periodic with three lattice vectors.
    """
    index = {symbol: i for i, symbol in enumerate(elements)}

    def parts() -> Iterable[tuple[FloatArray, FloatArray, IntArray]]:
        for i_frame, atoms in enumerate(frames):
            strangers = sorted(set(atoms.symbols) - set(index))
            if strangers:
                raise InputError(
                    f"structure {i_frame} holds {', '.join(strangers)}; "
                    f"expected only {', '.join(elements)}"
                )
            if not all(atoms.pbc) or atoms.cell.rank != 3:
                raise InputError(f"structure {i_frame} needs three periodic lattice vectors")
            kinds = np.array([index[symbol] for symbol in atoms.symbols], dtype=np.int32)
            yield np.array(atoms.cell[:]), np.array(atoms.positions), kinds

    return join(parts())


def to_atoms(structures: Structures, elements: Sequence[str]) -> list[Atoms]:
    """ASE ``Atoms`` of each structure."""
    from ase import Atoms

    return [
        Atoms([elements[k] for k in kinds], positions=xyz, cell=cell, pbc=True)
        for cell, xyz, kinds in (structures.one(i) for i in range(len(structures)))
    ]
