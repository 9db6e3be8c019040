"""The moment tensor potential: its parameters, and its evaluation on batches of cells."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from hullscreen.potentials import kernels
from hullscreen.potentials.basis import Basis, generate_basis
from hullscreen.potentials.errors import InputError
from hullscreen.potentials.structures import FloatArray, IndexArray, Structures


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
        lower = [
            [
                number.get((a - (axis == 0), b - (axis == 1), c - (axis == 2)), 0)
                for axis in range(3)
            ]
            for a, b, c in monomials
        ]
        basic = [(mu, number[a, b, c]) for mu, a, b, c in self.basis.basic.tolist()]
        left, right, factor, target = self.basis.products.T
        return kernels.Tables(
            radial=np.ascontiguousarray(self.radial, dtype=np.float64),
            shifts=np.ascontiguousarray(self.shifts, dtype=np.float64),
            linear=np.ascontiguousarray(self.linear, dtype=np.float64),
            basic=np.array(basic, dtype=np.int32),
            left=np.ascontiguousarray(left),
            right=np.ascontiguousarray(right),
            target=np.ascontiguousarray(target),
            factor=factor.astype(np.float64),
            scalars=self.basis.scalars,
            powers=np.array(monomials, dtype=np.int32),
            lower=np.array(lower, dtype=np.int32),
            n_moments=self.basis.n_moments,
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
            A species index has no element in this potential.
        """
        self.check(structures)
        n, n_atoms = len(structures), len(structures.species)
        n_rows = {"none": 0, "structures": n, "sites": n_atoms}[gradients]
        row_offsets: IndexArray = {
            "none": np.zeros(n + 1, dtype=np.int64),
            "structures": np.arange(n + 1, dtype=np.int64),
            "sites": structures.offsets,
        }[gradients]
        result = Evaluation(
            np.zeros(n),
            np.zeros((n_atoms, 3)),
            np.zeros((n, 3, 3)),
            np.zeros(n_atoms),
            np.zeros(n),
            np.zeros((n_rows, self.parameters.size)),
        )
        kernels.evaluate_batch(
            self.tables,
            structures.cells,
            structures.positions,
            structures.species,
            structures.offsets,
            result.energies,
            result.forces,
            result.stresses,
            result.site_energies,
            result.shortest_distances,
            result.gradients,
            row_offsets,
        )
        np.divide(result.stresses, structures.volumes[:, None, None], out=result.stresses)
        return result

    def check(self, structures: Structures) -> None:
        """Raise InputError unless the kernels can take these structures.

        Each needs atoms, finite coordinates, species with an element here, a cell with a volume.
        """
        kinds = structures.species
        strangers = kinds[(kinds < 0) | (kinds >= len(self.elements))]
        if strangers.size:
            raise InputError(
                f"species {strangers[0]} occurs, but the potential knows {len(self.elements)}: "
                f"{', '.join(self.elements)}"
            )
        empty = np.flatnonzero(structures.n_atoms < 1)
        if empty.size:
            raise InputError(f"structure {empty[0]} has no atoms")
        if not (np.isfinite(structures.cells).all() and np.isfinite(structures.positions).all()):
            raise InputError("cells and positions must be finite numbers")
        flat = np.flatnonzero(structures.volumes < 1e-6)
        if flat.size:
            raise InputError(f"structure {flat[0]} has a cell without volume")


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


def _monomials(max_degree: int) -> list[tuple[int, int, int]]:
    """Powers (a, b, c) by degree."""
    return [
        (a, b, degree - a - b)
        for degree in range(max_degree + 1)
        for a in range(degree, -1, -1)
        for b in range(degree - a, -1, -1)
    ]
