"""How much energy a DFT relaxation may still gain, from one single point.

Harmonically, a structure with the gradient g gains ½ gᵀ H⁻¹ g. The gradient is DFT's; for the
stiffness H there is the potential that relaxed the structure. Where it says that a mode is soft, or
unstable, a softness that no metal's relaxation exceeds takes its place, so that the estimate never
lies above the one that needs no potential (`hullscreen.workflows.screening.possible_gain`).
"""

from __future__ import annotations

import numpy as np

from hullscreen.potentials.moment_tensor_potential import MomentTensorPotential
from hullscreen.potentials.structures import FloatArray, IntArray, Structures, join
from hullscreen.workflows.screening import GAIN_SAFETY, SOFT_ATOM, SOFT_LATTICE

# Differences of forces and stresses are taken over these, to both sides: Å, and a strain.
SHIFT = 0.01
STRAIN = 0.001
# A potential that has learnt the structure is trusted with its stiffness up to this factor.
STIFFNESS_SAFETY = 3.0
# Symmetric strains of unit length: three along the axes, three shears.
STRAINS = np.array(
    [
        [[1, 0, 0], [0, 0, 0], [0, 0, 0]],
        [[0, 0, 0], [0, 1, 0], [0, 0, 0]],
        [[0, 0, 0], [0, 0, 0], [0, 0, 1]],
        [[0, 0, 0], [0, 0, 0.5**0.5], [0, 0.5**0.5, 0]],
        [[0, 0, 0.5**0.5], [0, 0, 0], [0.5**0.5, 0, 0]],
        [[0, 0.5**0.5, 0], [0.5**0.5, 0, 0], [0, 0, 0]],
    ]
)


def relaxation_gain(
    potential: MomentTensorPotential,
    structure: tuple[FloatArray, FloatArray, IntArray],
    forces: FloatArray,
    stress: FloatArray,
) -> float:
    """Energy in eV that a relaxation may gain.

    Parameters
    ----------
    potential
        Gives the stiffness.
    structure
        Cell (3, 3) and positions (n_atoms, 3) in Å, species (n_atoms,).
    forces, stress
        DFT's at this geometry: (n_atoms, 3) in eV/Å in the order of the structure, and (3, 3) in
        eV/Å³ in ASE's sign.
    """
    cell = structure[0]
    volume = abs(float(np.linalg.det(cell)))
    scale = _soft_scale(len(structure[2]), volume)
    gradient = _gradient(forces, stress, volume) / scale
    stiffness = _stiffness(potential, structure, volume) / np.outer(scale, scale)
    values, modes = np.linalg.eigh(0.5 * (stiffness + stiffness.T))
    trusted = np.maximum(values / STIFFNESS_SAFETY, 1.0)
    return float(GAIN_SAFETY * 0.5 * ((modes.T @ gradient) ** 2 / trusted).sum())


def _soft_scale(n_atoms: int, volume: float) -> FloatArray:
    """Square roots of the softest stiffness, of strains and of atoms, shape (6 + 3 n_atoms,)."""
    lattice = np.full(6, SOFT_LATTICE * volume)
    scale: FloatArray = np.sqrt(np.concatenate([lattice, np.full(3 * n_atoms, SOFT_ATOM)]))
    return scale


def _gradient(forces: FloatArray, stress: FloatArray, volume: float) -> FloatArray:
    """Derivatives of the energy by `STRAINS` and by positions, shape (6 + 3 n_atoms,)."""
    by_strain = volume * np.einsum("kij,ij->k", STRAINS, stress)
    gradient: FloatArray = np.concatenate([by_strain, -forces.ravel()])
    return gradient


def _stiffness(
    potential: MomentTensorPotential,
    structure: tuple[FloatArray, FloatArray, IntArray],
    volume: float,
) -> FloatArray:
    """Second derivatives of the potential's energy, shape (6 + 3 n_atoms, 6 + 3 n_atoms)."""
    n = 6 + 3 * len(structure[2])
    moved = potential.evaluate(_displaced(structure))
    offsets = np.arange(2 * n + 1) * len(structure[2])
    gradients = np.array(
        [
            _gradient(moved.forces[offsets[i] : offsets[i + 1]], moved.stresses[i], volume)
            for i in range(2 * n)
        ]
    )
    steps = np.full(n, SHIFT)
    steps[:6] = STRAIN
    differences: FloatArray = (gradients[:n] - gradients[n:]) / (2.0 * steps[:, None])
    return differences


def _displaced(structure: tuple[FloatArray, FloatArray, IntArray]) -> Structures:
    """The structure strained and with one atom moved, first all forward, then all back."""
    cell, positions, species = structure
    displaced: list[tuple[FloatArray, FloatArray, IntArray]] = []
    for sign in (1.0, -1.0):
        for strain in STRAINS:
            deformation = np.eye(3) + sign * STRAIN * strain
            displaced.append((cell @ deformation, positions @ deformation, species))
        for place in range(positions.size):
            moved = positions.copy()
            moved.flat[place] += sign * SHIFT
            displaced.append((cell, moved, species))
    return join(displaced)
