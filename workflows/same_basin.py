"""Which relaxed structures are the same crystal, so that DFT is spent on one of them only.

Cheap keys find candidates: composition of the primitive cell, energy per atom, volume per atom,
lengths of the lattice and of the bonds between each two species and, where given, the mean of each
MTP basis function over the atoms. Inside, an exact comparison
decides: two crystals are one if a rotation or reflection, a translation and a small strain map the
primitive cell of one onto the other's, species by species. Keys can only keep apart, never
merge; and each member is compared with its group's representative itself, so that no chain of
small differences joins two crystals that differ.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hullscreen.potentials.errors import InputError
from hullscreen.potentials.structures import FloatArray, IndexArray, IntArray, Structures
from hullscreen.workflows.crystal_groups import distance_keys, group_crystals
from hullscreen.workflows.crystal_matching import crystals_match
from hullscreen.workflows.hull import BoolArray
from hullscreen.workflows.primitive_crystals import primitive_crystal, primitive_crystals


@dataclass(frozen=True, slots=True)
class BasinTolerances:
    """How near two relaxed structures must be to count as one; all must hold.

    Attributes
    ----------
    energy_per_atom
        Absolute, eV/atom. Two relaxations into one basin end within 1e-5 of each other at a force
        tolerance of 1e-2 eV/Å; phases that tie within 5e-4 are one phase to a hull's reader.
    volume
        Relative, per atom. Three times ``length`` would be implied by it.
    fingerprint
        Length of the difference relative to the longer vector. Basis functions change by up to
        ten times the relative change of a bond, so this is ten times ``length``.
    length
        Frobenius norm of the strain between two lattices. A residual stress of 0.1 GPa strains
        a soft metal (10 GPa) by 0.01; distinct phases of one energy differ by more, or in atoms.
    position
        In Å, of each atom after strain and translation are taken out. A fiftieth of a bond;
        relaxed positions repeat within 0.01.
    """

    energy_per_atom: float = 5e-4
    volume: float = 0.03
    fingerprint: float = 0.1
    length: float = 0.01
    position: float = 0.05

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            value = getattr(self, name)
            if not 0.0 < value < 0.5:
                raise InputError(
                    f"expected a tolerance {name} between 0 and 0.5, came {value}; "
                    f"the default is {self.__dataclass_fields__[name].default}"
                )


# Relaxations into one minimum end within this of each other, eV/atom.
EQUAL_ENERGY = 1e-4

DEFAULT_TOLERANCES = BasinTolerances()


def same_crystal(
    cell_a: FloatArray,
    positions_a: FloatArray,
    species_a: IntArray,
    cell_b: FloatArray,
    positions_b: FloatArray,
    species_b: IntArray,
    *,
    length_tolerance: float = DEFAULT_TOLERANCES.length,
    position_tolerance: float = DEFAULT_TOLERANCES.position,
) -> bool:
    """Whether two periodic structures are one crystal.

    Parameters
    ----------
    cell_a, positions_a, species_a, cell_b, positions_b, species_b
        Lattice vectors as rows (3, 3) and Cartesian positions (n_atoms, 3) in Å, species indices
        (n_atoms,). Cells may be any supercells, turned, mirrored, shifted, with atoms outside.
    length_tolerance
        Largest Frobenius norm of the strain between the two lattices.
    position_tolerance
        Largest distance of two atoms that coincide, in Å, the strain and the mean shift taken out.

    Raises
    ------
    InputError
        The arrays do not describe a structure.

    Notes
    -----
    Mirror images have the same energy and count as the same crystal.
    """
    crystals = []
    for cell, positions, species in (
        (cell_a, positions_a, species_a),
        (cell_b, positions_b, species_b),
    ):
        arrays = (
            np.ascontiguousarray(cell, dtype=np.float64),
            np.ascontiguousarray(positions, dtype=np.float64),
            np.ascontiguousarray(species, dtype=np.int32),
        )
        _check_structure(*arrays)
        crystals.append(primitive_crystal(*arrays, position_tolerance))
    return bool(crystals_match(*crystals[0], *crystals[1], length_tolerance, position_tolerance))


def group_by_basin(
    structures: Structures,
    energies_per_atom: FloatArray,
    fingerprints: FloatArray | None = None,
    tolerances: BasinTolerances = DEFAULT_TOLERANCES,
) -> IndexArray:
    """Representative of each structure's basin.

    Parameters
    ----------
    structures
        Relaxed structures.
    energies_per_atom
        In eV/atom, shape (n_structures,).
    fingerprints
        Means over the atoms of the scalar basis functions of an MTP,
        shape (n_structures, n_functions); without them the other keys do.
    tolerances
        What counts as the same.

    Returns
    -------
    Index of the representative, shape (n_structures,): the lowest energy in the group (the first
    on a tie), itself labelled with its own index. ``np.unique`` of it lists one of each crystal.

    Raises
    ------
    InputError
        Shapes do not agree, a number is not finite, or a cell has no volume.

    Examples
    --------
    >>> labels = group_by_basin(structures, energies)            # doctest: +SKIP
    >>> different = structures.take(np.unique(labels))           # doctest: +SKIP
    """
    n_structures = len(structures)
    if fingerprints is None:
        fingerprints = np.zeros((n_structures, 0))
    energies = np.ascontiguousarray(energies_per_atom, dtype=np.float64)
    vectors = np.ascontiguousarray(fingerprints, dtype=np.float64)
    _check_batch(structures, energies, vectors)
    if n_structures == 0:
        return np.zeros(0, dtype=np.int64)
    cells, fractions, species, sizes = primitive_crystals(
        structures.cells,
        structures.positions,
        structures.species,
        structures.offsets,
        tolerances.position,
    )
    composition = _compositions(species, structures.offsets, sizes)
    order = np.lexsort((energies, composition)).astype(np.int64)
    crystals = (cells, fractions, species, structures.offsets, sizes)
    keys = distance_keys(*crystals, int(species.max()) + 1)
    labels: IndexArray = group_crystals(
        order,
        composition,
        energies,
        structures.volumes / structures.n_atoms,
        vectors,
        *crystals,
        *keys,
        tolerances.energy_per_atom,
        tolerances.volume,
        tolerances.fingerprint,
        tolerances.length,
        tolerances.position,
    )
    return labels


def simplest_members(
    basins: IndexArray, energies_per_atom: FloatArray, left_out: BoolArray | None = None
) -> dict[int, int]:
    """The first member of each basin that is as low as its lowest one.

    Parameters
    ----------
    basins
        From `group_by_basin`, of structures sorted so that simple ones come first.
    energies_per_atom
        In eV/atom, shape (n_structures,).
    left_out
        Members not to name, shape (n_structures,); a basin may be left without any.

    Returns
    -------
    Member by basin.
    """
    members: dict[int, int] = {}
    for i, basin in enumerate(basins):
        if left_out is not None and left_out[i]:
            continue
        if energies_per_atom[i] <= energies_per_atom[basin] + EQUAL_ENERGY:
            members.setdefault(int(basin), i)
    return members


def _compositions(species: IntArray, offsets: IndexArray, sizes: IndexArray) -> IndexArray:
    """A number for each different count of atoms by species in the primitive cells."""
    owner = np.repeat(np.arange(len(sizes)), np.diff(offsets))
    inside = np.arange(len(species)) - offsets[owner] < sizes[owner]
    n_species = int(species.max()) + 1
    flat = np.bincount(
        owner[inside] * n_species + species[inside], minlength=len(sizes) * n_species
    )
    _, numbers = np.unique(flat.reshape(-1, n_species), axis=0, return_inverse=True)
    return numbers.reshape(-1).astype(np.int64)


def _check_structure(cell: FloatArray, positions: FloatArray, species: IntArray) -> None:
    shapes = (cell.shape, positions.shape, species.shape)
    if shapes != ((3, 3), (len(species), 3), (len(species),)) or not len(species):
        raise InputError(
            f"expected a cell (3, 3), positions (n, 3) and species (n,) of n > 0 atoms, "
            f"came shapes {shapes}"
        )
    finite = np.isfinite(cell).all() and np.isfinite(positions).all()
    if not finite or species.min() < 0 or np.linalg.det(cell) == 0.0:
        raise InputError(
            "expected finite positions, species from 0 and a cell with a volume, "
            f"came cell {cell.tolist()} with species {np.unique(species).tolist()}"
        )


def _check_batch(structures: Structures, energies: FloatArray, vectors: FloatArray) -> None:
    n_structures = len(structures)
    if energies.shape != (n_structures,) or vectors.ndim != 2 or len(vectors) != n_structures:
        raise InputError(
            f"expected an energy and a fingerprint for each of {n_structures} structures, "
            f"came shapes {energies.shape} and {vectors.shape}"
        )
    good = np.isfinite(energies) & np.isfinite(vectors).all(axis=1) & (structures.volumes > 0)
    good &= np.isfinite(structures.cells).all(axis=(1, 2)) & (structures.n_atoms > 0)
    if not good.all() or not np.isfinite(structures.positions).all():
        i_bad = int(np.argmin(good))
        raise InputError(
            f"structure {i_bad} or its atoms, energy or fingerprint are not finite numbers, "
            f"or its cell has no volume; leave out relaxations that failed"
        )
