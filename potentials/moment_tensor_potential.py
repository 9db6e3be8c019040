"""The moment tensor potential: its parameters, and its evaluation on batches of cells."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hullscreen.potentials import kernels
from hullscreen.potentials.basis import Basis, generate_basis
from hullscreen.potentials.errors import InputError
from hullscreen.potentials.evaluation_kernels import FIRST_WIDTH, evaluate_batch, scratch
from hullscreen.potentials.lanes import WIDTH
from hullscreen.potentials.structures import FloatArray, IndexArray, IntArray, Structures

# Denser cells, whose nearest atoms are about half an Å apart, are flat or not in Å; their
# neighbours would fill the memory.
SMALLEST_VOLUME_PER_ATOM = 0.1
# Unit vectors between atoms closer than this, in Å, are rounding.
SAME_SITE = 1e-6


@dataclass(frozen=True)
class Evaluation:
    """Results for a batch of cells.

    Attributes
    ----------
    energies
        Total energies in eV, shape (n_structures,).
    forces
        eV/Å, shape (n_atoms_total, 3).
    stresses
        eV/Å³ in ASE's sign, shape (n_structures, 3, 3).
    site_energies
        eV, shape (n_atoms_total,).
    shortest_distances
        Shortest interatomic distance of each cell in Å, infinite beyond the cutoff;
        (n_structures,).
    gradients
        Derivatives of energies by all parameters, shape (n_structures, n_parameters), or of site
        energies, shape (n_atoms_total, n_parameters), or without rows if not asked for.
    """

    energies: FloatArray
    forces: FloatArray
    stresses: FloatArray
    site_energies: FloatArray
    shortest_distances: FloatArray
    gradients: FloatArray


@dataclass(frozen=True)
class MomentTensorPotential:
    """An MTP (Shapeev, Multiscale Model. Simul. 14, 1153 (2016)).

    Attributes
    ----------
    basis
        Scalar basis functions.
    elements
        Symbols of the species, in the order of species indices.
    min_distance, cutoff
        Interval of the Chebyshev polynomials in Å; the potential vanishes at the cutoff.
    radial
        c[z_i, z_j, μ, β], shape (n_species, n_species, n_radial, radial_basis_size).
    shifts
        Energy of each species in eV, shape (n_species,).
    linear
        Coefficients of the basis functions in eV, shape (n_scalars,).
    scaling
        Factor of the radial basis.
    """

    basis: Basis
    elements: tuple[str, ...]
    min_distance: float
    cutoff: float
    radial: FloatArray
    shifts: FloatArray
    linear: FloatArray
    scaling: float = 1.0

    def __post_init__(self) -> None:
        s, m = len(self.elements), self.basis.scalars.size
        if self.radial.shape[:3] != (s, s, self.basis.n_radial) or self.radial.ndim != 4:
            raise InputError(
                f"radial coefficients of shape {self.radial.shape} do not fit {s} species and "
                f"{self.basis.n_radial} radial functions"
            )
        if self.shifts.shape != (s,) or self.linear.shape != (m,):
            raise InputError(
                f"expected {s} species and {m} basis coefficients, "
                f"got {self.shifts.size} and {self.linear.size}"
            )
        if not 0.0 <= self.min_distance < self.cutoff:
            raise InputError(
                f"expected 0 <= min_distance < cutoff, got {self.min_distance} and {self.cutoff} Å"
            )

    @property
    def parameters(self) -> FloatArray:
        """All parameters: radial (z_i, z_j, μ, β), species, linear; shape (n_parameters,)."""
        return np.concatenate([self.radial.ravel(), self.shifts, self.linear])

    def with_parameters(self, parameters: FloatArray) -> MomentTensorPotential:
        """The potential of the same form with other parameters, shape (n_parameters,)."""
        n_radial, n_shifts = self.radial.size, self.shifts.size
        return replace(
            self,
            radial=parameters[:n_radial].reshape(self.radial.shape).copy(),
            shifts=parameters[n_radial : n_radial + n_shifts].copy(),
            linear=parameters[n_radial + n_shifts :].copy(),
        )

    @cached_property
    def tables(self) -> kernels.Tables:
        """The potential as the kernels take it."""
        monomials = _monomials(int(self.basis.basic[:, 1:].sum(axis=1).max()))
        number = {powers: k for k, powers in enumerate(monomials)}
        basic = [(mu, number[a, b, c]) for mu, a, b, c in self.basis.basic.tolist()]
        # Each radial function goes with the first monomials, as many as it needs.
        sizes = np.zeros(self.basis.n_radial, dtype=np.int64)
        for mu, k in basic:
            sizes[mu] = max(sizes[mu], k + 1)
        firsts = np.concatenate([[0], np.cumsum(sizes)])
        n_products = self.basis.n_moments - len(basic)
        slots = np.concatenate(
            [[firsts[mu] + k for mu, k in basic], firsts[-1] + np.arange(n_products)]
        )
        left, right, factor, target = self.basis.products.T
        ends = np.append(np.flatnonzero(np.diff(target)) + 1, len(target))[: len(target)]
        return kernels.Tables(
            radial=np.ascontiguousarray(self.radial, dtype=np.float64),
            shifts=np.ascontiguousarray(self.shifts, dtype=np.float64),
            linear=np.ascontiguousarray(self.linear, dtype=np.float64),
            firsts=_lanes(firsts),
            left=_lanes(slots[left]),
            right=_lanes(slots[right]),
            factor=factor.astype(np.float64),
            targets=_lanes(slots[target[ends - 1]]),
            ends=ends.astype(np.int32),
            scalars=_lanes(slots[self.basis.scalars]),
            degree=sum(monomials[-1]),
            n_moments=int(firsts[-1]) + n_products,
            min_distance=float(self.min_distance),
            cutoff=float(self.cutoff),
            scaling=float(self.scaling),
        )

    def evaluate(self, structures: Structures, gradients: str = "none") -> Evaluation:
        """Energies, forces and stresses of a batch.

        Parameters
        ----------
        structures
            Cells whose species index ``elements``.
        gradients
            ``"none"``, ``"structures"`` or ``"sites"``: which parameter gradients to add.

        Raises
        ------
        InputError
            What `check` refuses, or two atoms on one site.
        """
        structures = self.check(structures)
        n, n_atoms = len(structures), len(structures.species)
        cell_of = np.repeat(np.arange(n), structures.n_atoms)
        row_of: IndexArray = {
            "none": np.full(n_atoms, -1),
            "structures": cell_of,
            "sites": np.arange(n_atoms),
        }[gradients]
        n_rows = {"none": 0, "structures": n, "sites": n_atoms}[gradients]
        result = Evaluation(
            np.zeros(n),
            np.zeros((n_atoms, 3)),
            np.zeros((n, 3, 3)),
            np.zeros(n_atoms),
            np.zeros(n),
            np.zeros((n_rows, self.parameters.size)),
        )
        evaluate_batch(
            self.tables,
            scratch(self.tables, FIRST_WIDTH),
            structures.cells,
            structures.positions,
            structures.species,
            cell_of,
            structures.offsets,
            result.energies,
            result.forces,
            result.stresses,
            result.site_energies,
            result.shortest_distances,
            result.gradients,
            row_of,
        )
        np.divide(result.stresses, structures.volumes[:, None, None], out=result.stresses)
        return result

    def check(self, structures: Structures) -> Structures:
        """The batch as the kernels take it: contiguous arrays of float64, int32 and int64.

        Raises
        ------
        InputError
            Arrays do not fit together, a structure has no atoms or next to no volume, a coordinate
            is not finite, or a species has no element here.
        """
        batch = _contiguous(structures)
        strangers = np.flatnonzero((batch.species < 0) | (batch.species >= len(self.elements)))
        if strangers.size:
            where = np.searchsorted(batch.offsets, strangers[0], side="right") - 1
            raise InputError(
                f"structure {where} holds species {batch.species[strangers[0]]}, "
                f"but the potential knows {len(self.elements)}, counted from 0: "
                f"{', '.join(self.elements)}"
            )
        empty = np.flatnonzero(batch.n_atoms < 1)
        if empty.size:
            raise InputError(f"structure {empty[0]} has no atoms; leave it out")
        for name, array, starts in (
            ("cell", batch.cells, np.arange(len(batch))),
            ("positions", batch.positions, batch.offsets[:-1]),
        ):
            if not np.isfinite(array).all():
                row = np.flatnonzero(~np.isfinite(array.reshape(len(array), -1)).all(axis=1))[0]
                where = np.searchsorted(starts, row, side="right") - 1
                raise InputError(
                    f"the {name} of structure {where} must be finite numbers, got {array[row]}"
                )
        volumes = batch.volumes / batch.n_atoms
        flat = np.flatnonzero(volumes < SMALLEST_VOLUME_PER_ATOM)
        if flat.size:
            raise InputError(
                f"structure {flat[0]} has {volumes[flat[0]]:.3g} Å³ of volume an atom, expected at "
                f"least {SMALLEST_VOLUME_PER_ATOM}; is its cell flat, or not in Å?"
            )
        return batch


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


def _refuse_shared_sites(shortest_distances: FloatArray) -> None:
    """Raise InputError if atoms lie on one another, where forces have no direction."""
    shared = np.flatnonzero(shortest_distances < SAME_SITE)
    if shared.size:
        raise InputError(f"structure {shared[0]} has two atoms on one site; remove one of them")


def untrained(
    level: int,
    elements: tuple[str, ...],
    *,
    cutoff: float,
    min_distance: float,
    radial_basis_size: int = 8,
    seed: int = 0,
) -> MomentTensorPotential:
    """A potential of the given level whose radial functions differ, ready to be fitted.

    The radial functions start as smooth random combinations of the radial basis; linear
    coefficients are zero.

    Examples
    --------
    >>> untrained(8, ("Cu", "Pd"), cutoff=5.0, min_distance=2.0).parameters.size
    43
    """
    basis = generate_basis(level)
    n = len(elements)
    rng = np.random.default_rng(seed)
    shape = (n, n, basis.n_radial, radial_basis_size)
    decay = 1.0 / (1.0 + np.arange(radial_basis_size))
    radial = rng.normal(size=shape) * decay
    # Each radial function starts from a polynomial of its own, alike for all pairs of species.
    for mu in range(basis.n_radial):
        radial[:, :, mu, mu % radial_basis_size] += 2.0
    return MomentTensorPotential(
        basis,
        elements,
        min_distance,
        cutoff,
        radial,
        np.zeros(n),
        np.zeros(basis.scalars.size),
        # Sums over neighbours come out near one for metals at this scale.
        scaling=0.1 / (cutoff - min_distance) ** 2,
    )


def _lanes(moments: NDArray[np.integer[Any]]) -> IntArray:
    """Indices of moments as those of their first lane."""
    return np.ascontiguousarray(moments * WIDTH, dtype=np.int32)


def _monomials(max_degree: int) -> list[tuple[int, int, int]]:
    """Powers (a, b, c) by degree."""
    return [
        (a, b, degree - a - b)
        for degree in range(max_degree + 1)
        for a in range(degree, -1, -1)
        for b in range(degree - a, -1, -1)
    ]
