"""Labelled cells, and how far a potential is from their labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from hullscreen.potentials.moment_tensor_potential import MomentTensorPotential
from hullscreen.potentials.structures import FloatArray, IndexArray, Structures, concatenate

EV_PER_CUBIC_ANGSTROM_IN_GPA = 160.21766208


@dataclass(frozen=True)
class TrainingSet:
    """Labelled cells.

    Attributes
    ----------
    structures
        The cells.
    energies
        Total energies in eV, shape (n_structures,).
    forces
        eV/Å, shape (n_atoms_total, 3); NaN where unknown.
    stresses
        eV/Å³ in ASE's sign, shape (n_structures, 3, 3); NaN where unknown.
    """

    structures: Structures
    energies: FloatArray
    forces: FloatArray
    stresses: FloatArray

    def __len__(self) -> int:
        return len(self.structures)

    def __repr__(self) -> str:
        return f"TrainingSet({len(self)} structures, {len(self.structures.species)} atoms)"

    def take(self, indices: Sequence[int] | IndexArray) -> TrainingSet:
        """The labelled cells named by ``indices``."""
        offsets = self.structures.offsets
        return TrainingSet(
            self.structures.take(indices),
            self.energies[indices],
            np.concatenate(
                [self.forces[offsets[i] : offsets[i + 1]] for i in indices] or [np.zeros((0, 3))]
            ),
            self.stresses[indices],
        )


@dataclass(frozen=True)
class Errors:
    """Root mean square and largest errors of a potential on labelled cells."""

    energy_rmse_mev_per_atom: float
    force_rmse_mev_per_angstrom: float
    stress_rmse_gpa: float
    energy_max_mev_per_atom: float
    force_max_mev_per_angstrom: float
    stress_max_gpa: float

    def known(self) -> dict[str, float | None]:
        """The numbers by name, None where no label was there to compare with."""
        return {name: value if np.isfinite(value) else None for name, value in asdict(self).items()}


def join_training_sets(*sets: TrainingSet) -> TrainingSet:
    """One training set of several."""
    return TrainingSet(
        concatenate([part.structures for part in sets]),
        np.concatenate([part.energies for part in sets]),
        np.concatenate([part.forces for part in sets]),
        np.concatenate([part.stresses for part in sets]),
    )


def errors(potential: MomentTensorPotential, data: TrainingSet) -> Errors:
    """Errors of a potential on labelled cells; NaN for what carries no label."""
    everything = ["all"] * len(data)
    return errors_by_group(potential, data, everything).get("all", _errors_of(*[np.zeros(0)] * 3))


def errors_by_group(
    potential: MomentTensorPotential, data: TrainingSet, groups: Sequence[str]
) -> dict[str, Errors]:
    """Errors on each group of the labelled cells, in the order in which groups first occur.

    Parameters
    ----------
    groups
        The group of each structure, n_structures of them.
    """
    result = potential.evaluate(data.structures)
    n_atoms = data.structures.n_atoms
    energy = 1e3 * (result.energies - data.energies) / n_atoms
    force = 1e3 * np.linalg.norm(result.forces - data.forces, axis=1)
    stress = EV_PER_CUBIC_ANGSTROM_IN_GPA * (result.stresses - data.stresses)
    names = list(dict.fromkeys(groups))
    number = {name: i for i, name in enumerate(names)}
    member = np.array([number[group] for group in groups], dtype=np.int64)
    owner = np.repeat(member, n_atoms)
    return {
        name: _errors_of(energy[member == i], force[owner == i], stress[member == i])
        for i, name in enumerate(names)
    }


def _errors_of(energy: FloatArray, force: FloatArray, stress: FloatArray) -> Errors:
    """Errors from differences of energies per atom, lengths of forces' and stress components'."""
    return Errors(
        _rms(energy),
        _rms(force) / np.sqrt(3.0),
        _rms(stress),
        _largest(energy),
        _largest(force),
        _largest(stress),
    )


def _rms(values: FloatArray) -> float:
    known = values[np.isfinite(values)]
    return float(np.sqrt(np.mean(known**2))) if known.size else float("nan")


def _largest(values: FloatArray) -> float:
    known = values[np.isfinite(values)]
    return float(np.abs(known).max()) if known.size else float("nan")
