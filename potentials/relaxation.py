"""Relaxation of whole batches with an MTP, with the extrapolation grade watched at every step."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from hullscreen.potentials import relaxation_kernels as kernels
from hullscreen.potentials import relaxation_walks as walks
from hullscreen.potentials.active_set import ActiveSet, checked_active_set
from hullscreen.potentials.errors import InputError
from hullscreen.potentials.labels import EV_PER_CUBIC_ANGSTROM_IN_GPA
from hullscreen.potentials.moment_tensor_potential import MomentTensorPotential
from hullscreen.potentials.structures import FloatArray, IntArray, Structures


class Outcome(IntEnum):
    """How a relaxation ended; every structure ends in exactly one of these.

    Attributes
    ----------
    CONVERGED
        Longest force and every component of the stress are below their tolerances.
    STEP_LIMIT
        All allowed evaluations are spent, and energies still fell; or it went back and forth.
    EXTRAPOLATING
        The extrapolation grade reached ``break_grade``: the potential must learn this first.
    TOO_CLOSE
        Atoms, or a lattice vector, are closer than ``shortest_distance``, or the cell is too dense
        for atoms to keep it: at the start, or wherever else it would have to go.
    VOLUME_LIMIT
        The volume would have to change by more than ``volume_ratio``: it collapses or flies apart.
    ENERGY_LIMIT
        The energy fell below ``lowest_energy_per_atom``, or energy, forces or grade are no numbers:
        a hole in the potential.
    STALLED
        No step along falling slopes lowers the energy, or steps change it by rounding only and
        bring no smaller force or stress: the tolerances are below what the potential can resolve.
    """

    CONVERGED = walks.CONVERGED
    STEP_LIMIT = walks.STEP_LIMIT
    EXTRAPOLATING = walks.EXTRAPOLATING
    TOO_CLOSE = walks.TOO_CLOSE
    VOLUME_LIMIT = walks.VOLUME_LIMIT
    ENERGY_LIMIT = walks.ENERGY_LIMIT
    STALLED = walks.STALLED


@dataclass(frozen=True)
class RelaxationLimits:
    """When relaxations end.

    Attributes
    ----------
    force_tolerance
        Converged when the longest force is below, eV/Å.
    stress_tolerance_gpa
        ... and each component of the stress, GPa.
    max_evaluations
        Evaluations of one structure at most.
    break_grade
        Extrapolation grade at which a relaxation stops; infinite without an active set.
    shortest_distance
        Atoms closer than this are a collapse, Å.
    volume_ratio
        Volumes may change by this factor.
    lowest_energy_per_atom
        Energies below are a hole in the potential, eV/atom.
    max_step
        Longest displacement of an atom in one step, Å.
    """

    force_tolerance: float = 0.01
    stress_tolerance_gpa: float = 0.1
    max_evaluations: int = 300
    break_grade: float = float("inf")
    shortest_distance: float = 1.0
    volume_ratio: float = 2.5
    lowest_energy_per_atom: float = float("-inf")
    max_step: float = 0.2

    def __post_init__(self) -> None:
        least = {
            "force_tolerance": 0.0,
            "stress_tolerance_gpa": 0.0,
            "max_evaluations": 1,
            "break_grade": 0.0,
            "shortest_distance": 0.0,
            "volume_ratio": 1.0,
            "lowest_energy_per_atom": float("-inf"),
            "max_step": 0.0,
        }
        for name, bound in least.items():
            value = getattr(self, name)
            # Written so that what is not a number is refused.
            if not value >= bound:
                raise InputError(f"{name} of a relaxation is at least {bound:g}, got {value}")


@dataclass(frozen=True)
class Relaxed:
    """What became of a batch; arrays have one entry a structure unless stated.

    Nothing here is infinite, and NaN are only the energies, forces and stresses of structures that
    have none.

    Attributes
    ----------
    structures
        Last accepted geometries: the start where not even that has a usable energy.
    energies
        Total energies there in eV; NaN without a usable one, which ends `TOO_CLOSE`,
        `ENERGY_LIMIT` or (for a volume ratio of one) `VOLUME_LIMIT`.
    outcomes
        Values of `Outcome`.
    evaluations
        Energy and force evaluations spent; none if atoms are too close from the start.
    grades, highest_grades
        Extrapolation grade at the end, and the highest on the way; zero without an active set, and
        without an energy.
    snapshots
        The geometries of the highest grade; the start without an energy.
    max_forces, max_stresses
        Longest force in eV/Å and largest stress component in eV/Å³ at the end; NaN without an
        energy.
    """

    structures: Structures
    energies: FloatArray
    outcomes: IntArray
    evaluations: IntArray
    grades: FloatArray
    highest_grades: FloatArray
    snapshots: Structures
    max_forces: FloatArray
    max_stresses: FloatArray

    def __repr__(self) -> str:
        return f"Relaxed({len(self.structures)} structures, {self.outcome_counts()})"

    def outcome_counts(self) -> dict[str, int]:
        """How many structures ended in which way."""
        return {
            outcome.name.lower(): int(count)
            for outcome in Outcome
            if (count := np.count_nonzero(self.outcomes == outcome))
        }


def relax(
    potential: MomentTensorPotential,
    structures: Structures,
    limits: RelaxationLimits | None = None,
    active_set: ActiveSet | None = None,
) -> Relaxed:
    """Relax cell and positions of every structure.

    What becomes of a structure depends neither on those beside it nor on their order, to the last
    bit.

    Parameters
    ----------
    active_set
        Gives the grades of structures, its rows being energies per atom; without one all grades
        are zero. Of an ``.almtp`` file it is ``selection.active_set``.

    Raises
    ------
    InputError
        Species without an element in the potential, a cell without volume, or an active set of
        another potential.

    Examples
    --------
    >>> from hullscreen.potentials import fit_potential, training_set_from_atoms, untrained
    >>> from hullscreen.potentials.example_data import copper_gold
    >>> start = untrained(6, ("Cu", "Au"), cutoff=4.5, min_distance=2.0)
    >>> training = training_set_from_atoms(copper_gold(30), start.elements)
    >>> potential = fit_potential(start, training).potential
    >>> relaxed = relax(potential, training.structures, RelaxationLimits(force_tolerance=1e-3))
    >>> relaxed.outcome_counts()
    {'converged': 30}
    >>> bool((relaxed.energies <= potential.evaluate(training.structures).energies).all())
    True
    """
    structures = potential.check(structures)
    inverse = np.zeros((0, 0))
    if active_set is not None:
        inverse = checked_active_set(active_set, potential).inverse
    # Columns of zeros give grades of zero.
    inverse = np.pad(inverse, ((0, 0), (0, -len(inverse) % kernels.COLUMNS)))
    limits = limits or RelaxationLimits()
    n = len(structures)
    result = Relaxed(
        _copy(structures),
        np.full(n, np.nan),
        np.zeros(n, dtype=np.int32),
        np.zeros(n, dtype=np.int32),
        np.zeros(n),
        np.zeros(n),
        _copy(structures),
        np.full(n, np.nan),
        np.full(n, np.nan),
    )
    kernels.relax_batch(
        potential.tables,
        inverse,
        walks.Limits(
            float(limits.force_tolerance),
            limits.stress_tolerance_gpa / EV_PER_CUBIC_ANGSTROM_IN_GPA,
            int(limits.max_evaluations),
            float(limits.break_grade),
            float(limits.shortest_distance),
            float(limits.volume_ratio),
            float(limits.lowest_energy_per_atom),
            float(limits.max_step),
        ),
        structures.species,
        structures.offsets,
        kernels.Outputs(
            result.structures.cells,
            result.structures.positions,
            result.energies,
            result.outcomes,
            result.evaluations,
            result.grades,
            result.highest_grades,
            result.snapshots.cells,
            result.snapshots.positions,
            result.max_forces,
            result.max_stresses,
        ),
    )
    return result


def _copy(structures: Structures) -> Structures:
    return Structures(
        structures.cells.copy(),
        structures.positions.copy(),
        structures.species,
        structures.offsets,
    )
