"""The moment tensor potential: its parameters, and its evaluation on batches of cells."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from hullscreen.potentials.basis import Basis, generate_basis
from hullscreen.potentials.errors import InputError
from hullscreen.potentials.evaluation_kernels import Batch, Results, evaluate
from hullscreen.potentials.input_checks import checked_structures, refuse_shared_sites
from hullscreen.potentials.kernel_tables import kernel_tables
from hullscreen.potentials.kernels import Tables
from hullscreen.potentials.structures import FloatArray, IndexArray, Structures

# Å; twice as far costs eight times as much.
LARGEST_CUTOFF = 50.0
GRADIENTS = ("none", "structures", "sites")


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

    def __repr__(self) -> str:
        n_rows, n_parameters = self.gradients.shape
        gradients = f", gradients {n_rows} x {n_parameters}" if n_rows else ""
        return f"Evaluation({len(self.energies)} structures, {len(self.forces)} atoms{gradients})"


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

    Examples
    --------
    Two terms of the radial basis, one basis function: V_i = 2 Σ_j (R_cut − r_ij)².

    >>> from hullscreen.potentials import MomentTensorPotential, generate_basis, join
    >>> potential = MomentTensorPotential(
    ...     generate_basis(2), ("Cu",), min_distance=2.0, cutoff=3.0,
    ...     radial=np.array([[[[1.0, 0.0]]]]), shifts=np.zeros(1), linear=np.array([2.0]))
    >>> simple_cubic = join([(2.5 * np.eye(3), np.zeros((1, 3)), np.array([0]))])
    >>> found = potential.evaluate(simple_cubic)
    >>> found.energies  # six neighbours, 0.5 Å from the cutoff
    array([3.])
    >>> bool(found.stresses[0, 0, 0] < 0)  # pushes outwards: stress has ASE's sign
    True
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
        if not s or not self.radial.shape[3]:
            raise InputError("a potential needs a species and a radial basis function at least")
        if self.shifts.shape != (s,) or self.linear.shape != (m,):
            raise InputError(
                f"expected {s} species and {m} basis coefficients, "
                f"got {self.shifts.size} and {self.linear.size}"
            )
        _check_distances(self.min_distance, self.cutoff)

    def __repr__(self) -> str:
        return (
            f"MomentTensorPotential({'-'.join(self.elements)}, {self.linear.size} basis functions, "
            f"{self.parameters.size} parameters, cutoff {self.cutoff:g} Å)"
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
    def tables(self) -> Tables:
        """The potential as the kernels take it."""
        return kernel_tables(
            self.basis,
            self.radial,
            self.shifts,
            self.linear,
            min_distance=self.min_distance,
            cutoff=self.cutoff,
            scaling=self.scaling,
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
        if gradients not in GRADIENTS:
            raise InputError(f"gradients may be {', '.join(GRADIENTS)}, got {gradients!r}")
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
        evaluate(
            self.tables,
            Batch(
                structures.cells,
                structures.positions,
                structures.species,
                structures.offsets,
                cell_of,
            ),
            Results(
                result.energies,
                result.site_energies,
                result.forces,
                result.stresses,
                result.shortest_distances,
                result.gradients,
                row_of,
            ),
        )
        refuse_shared_sites(result.shortest_distances)
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
        return checked_structures(structures, self.elements)


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
    Radial coefficients of 2 × 2 pairs of species, 2 functions of 8 polynomials each; 2 species; 9
    basis functions.

    >>> untrained(8, ("Cu", "Pd"), cutoff=5.0, min_distance=2.0).parameters.size
    75
    """
    _check_distances(min_distance, cutoff)
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


def _check_distances(min_distance: float, cutoff: float) -> None:
    if not 0.0 <= min_distance < cutoff <= LARGEST_CUTOFF:
        raise InputError(
            f"expected 0 <= min_distance < cutoff <= {LARGEST_CUTOFF:.0f} Å, "
            f"got {min_distance} and {cutoff}"
        )
