"""What structures and labels must be before compiled code, which checks nothing, gets them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from hullscreen.potentials.errors import InputError
from hullscreen.potentials.structures import FloatArray, IndexArray, Structures

if TYPE_CHECKING:
    from hullscreen.potentials.labels import TrainingSet

# Denser cells, whose nearest atoms are about half an Å apart, are flat or not in Å; their
# neighbours would fill the memory.
SMALLEST_VOLUME_PER_ATOM = 0.1
# Unit vectors between atoms closer than this, in Å, are rounding.
SAME_SITE = 1e-6
# Å; beyond it distances between neighbours lose their last digits to the coordinates' size.
LARGEST_COORDINATE = 1e8


def checked_structures(structures: Structures, elements: Sequence[str]) -> Structures:
    """The batch as the kernels take it: contiguous arrays of float64, int32 and int64.

    Parameters
    ----------
    elements
        Symbols that species index.

    Raises
    ------
    InputError
        Arrays do not fit together, a structure has no atoms or next to no volume, a coordinate
        is not finite, or a species has no element.
    """
    batch = _contiguous(structures)
    empty = np.flatnonzero(batch.n_atoms < 1)
    if empty.size:
        raise InputError(f"structure {empty[0]} has no atoms; leave it out")
    if len(batch.species) and not 0 <= batch.species.min() <= batch.species.max() < len(elements):
        stranger = np.flatnonzero((batch.species < 0) | (batch.species >= len(elements)))[0]
        raise InputError(
            f"structure {_owner(batch.offsets, stranger)} holds species {batch.species[stranger]}, "
            f"but the potential knows {len(elements)}, counted from 0: {', '.join(elements)}"
        )
    _refuse_infinite("cell", batch.cells, np.arange(len(batch) + 1))
    _refuse_infinite("positions", batch.positions, batch.offsets)
    far = max(np.abs(batch.cells).max(initial=0.0), np.abs(batch.positions).max(initial=0.0))
    if far > LARGEST_COORDINATE:
        raise InputError(
            f"a cell or position holds the number {far:.3g} Å, expected at most "
            f"{LARGEST_COORDINATE:.0e}; is it in Å?"
        )
    volumes = batch.volumes / batch.n_atoms
    flat = np.flatnonzero(volumes < SMALLEST_VOLUME_PER_ATOM)
    if flat.size:
        raise InputError(
            f"structure {flat[0]} has {volumes[flat[0]]:.3g} Å³ of volume an atom, expected at "
            f"least {SMALLEST_VOLUME_PER_ATOM}; is its cell flat, or not in Å?"
        )
    return batch


def refuse_shared_sites(shortest_distances: FloatArray) -> None:
    """Raise InputError if atoms lie on one another, where forces have no direction.

    Parameters
    ----------
    shortest_distances
        Of each structure in Å, shape (n_structures,).
    """
    shared = np.flatnonzero(shortest_distances < SAME_SITE)
    if shared.size:
        raise InputError(
            f"structure {shared[0]} has two atoms on one site, or a lattice vector below 0.1 Å; "
            f"remove one of the atoms, or mend the cell"
        )


def check_labels(training: TrainingSet) -> None:
    """Raise InputError unless there are labels to fit to.

    There must be a structure, each needs a finite energy, and forces and stresses are finite or,
    where unknown, NaN.
    """
    structures = training.structures
    if not len(structures):
        raise InputError("fitting needs at least one labelled structure, got none")
    n, n_atoms = len(structures), len(structures.species)
    shapes = training.energies.shape, training.forces.shape, training.stresses.shape
    if shapes != ((n,), (n_atoms, 3), (n, 3, 3)):
        raise InputError(
            f"expected energies ({n},), forces ({n_atoms}, 3) and stresses ({n}, 3, 3) of {n} "
            f"structures with {n_atoms} atoms, got {', '.join(map(str, shapes))}"
        )
    unlabelled = np.flatnonzero(~np.isfinite(training.energies))
    if unlabelled.size:
        raise InputError(
            f"the energy of structure {unlabelled[0]} is {training.energies[unlabelled[0]]} (of "
            f"{unlabelled.size} such); calculate it, or remove the structure"
        )
    _refuse_infinite("forces", training.forces, structures.offsets, nan_is_unknown=True)
    _refuse_infinite("stress", training.stresses, np.arange(n + 1), nan_is_unknown=True)


def checked_emphasis(emphasis: Sequence[float] | FloatArray, n_structures: int) -> FloatArray:
    """How much each structure counts, as an array.

    Raises
    ------
    InputError
        There is not one number for each structure, one is negative or not finite, or all are zero.
    """
    try:
        shares = np.asarray(emphasis, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"emphasis must be numbers, one for each structure: {error}") from error
    if shares.shape != (n_structures,):
        raise InputError(
            f"expected the emphasis of {n_structures} structures, shape ({n_structures},), "
            f"got {shares.shape}; give one number for each"
        )
    wrong = np.flatnonzero(~(np.isfinite(shares) & (shares >= 0.0)))
    if wrong.size:
        raise InputError(
            f"the emphasis of structure {wrong[0]} is {shares[wrong[0]]}; expected a finite number "
            f"that is not negative"
        )
    if not shares.any():
        raise InputError("the emphasis of every structure is zero; give one of them more")
    return shares


def _contiguous(structures: Structures) -> Structures:
    """The same numbers as contiguous arrays whose shapes fit together."""
    if not np.issubdtype(structures.species.dtype, np.integer):
        raise InputError(f"species must be whole numbers, got {structures.species.dtype}")
    batch = Structures(
        np.ascontiguousarray(structures.cells, dtype=np.float64),
        np.ascontiguousarray(structures.positions, dtype=np.float64),
        np.ascontiguousarray(structures.species, dtype=np.int32),
        np.ascontiguousarray(structures.offsets, dtype=np.int64),
    )
    n, n_atoms = len(batch.cells), len(batch.species)
    shapes = batch.cells.shape, batch.positions.shape, batch.offsets.shape
    if shapes != ((n, 3, 3), (n_atoms, 3), (n + 1,)):
        raise InputError(
            f"expected cells ({n}, 3, 3), positions ({n_atoms}, 3) and offsets ({n + 1},) of {n} "
            f"structures with {n_atoms} species, got {', '.join(map(str, shapes))}"
        )
    if batch.offsets[0] != 0 or batch.offsets[-1] != n_atoms or (batch.n_atoms < 0).any():
        raise InputError(f"offsets must rise from 0 to the number of atoms, {n_atoms}")
    return batch


def _refuse_infinite(
    name: str, values: FloatArray, offsets: IndexArray, *, nan_is_unknown: bool = False
) -> None:
    """Raise InputError if rows of ``values`` are not finite; names the structure they belong to."""
    wrong = np.isinf(values) if nan_is_unknown else ~np.isfinite(values)
    if wrong.any():
        row = int(np.argwhere(wrong)[0, 0])
        expected = "finite numbers, or NaN if unknown" if nan_is_unknown else "finite numbers"
        found = " ".join(str(value) for value in values[row].ravel())
        raise InputError(
            f"the {name} of structure {_owner(offsets, row)} must be {expected}, got {found}"
        )


def _owner(offsets: IndexArray, row: int) -> int:
    return int(np.searchsorted(offsets, row, side="right")) - 1
