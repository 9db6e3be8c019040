"""What a relaxation may gain: against real relaxations, and the estimate without a potential."""

import numpy as np
import pytest
from ase.calculators.emt import EMT

from hullscreen.potentials.fit import TrainingSet
from hullscreen.potentials.relaxation import Outcome, RelaxationLimits, relax
from hullscreen.potentials.structures import join
from hullscreen.workflows.dft_jobs import atoms_of
from hullscreen.workflows.learning import train
from hullscreen.workflows.prototypes import PrototypePool
from hullscreen.workflows.relaxation_gain import (
    STIFFNESS_SAFETY,
    STRAINS,
    _stiffness,
    relaxation_gain,
)
from hullscreen.workflows.screening import GAIN_SAFETY, possible_gain
from hullscreen.workflows.seed import strained_seed

ELEMENTS = ("Cu", "Pd")
TIGHT = RelaxationLimits(
    force_tolerance=1e-4, stress_tolerance_gpa=1e-3, max_evaluations=500, break_grade=np.inf
)


@pytest.fixture(scope="module")
def potential():
    """A small potential that has learnt EMT of strained Cu-Pd prototypes."""
    pool = PrototypePool(ELEMENTS, lattices=("fcc", "bcc"), max_atoms=3, aflow=False)
    prototypes = join(
        batch.structures.one(i) for batch in pool.batches(100) for i in range(len(batch.structures))
    )
    structures = strained_seed(prototypes, 1)[0]
    energies, forces, stresses = [], [], []
    for i in range(len(structures)):
        atoms = atoms_of(*structures.one(i), ELEMENTS)
        atoms.calc = EMT()
        energies.append(atoms.get_potential_energy())
        forces.append(atoms.get_forces())
        stresses.append(atoms.get_stress(voigt=False))
    labels = TrainingSet(structures, np.array(energies), np.concatenate(forces), np.array(stresses))
    return train(
        labels, elements=ELEMENTS, stage=1, level=8, cutoff=5.0, min_distance=1.9,
        radial_basis_size=6, seed=1, start=None,
    )[0].potential  # fmt: skip


@pytest.fixture(scope="module")
def at_rest(potential):
    """Layers of Cu2Pd and CuPd, relaxed with the potential: mechanically stable ones."""
    a = 3.75
    fcc = a / 2 * np.array([[0.0, 1, 1], [1, 0, 1], [1, 1, 0]])
    layers = np.diag([a, a, a])
    basis = a * np.array([[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]])
    starts = join(
        [
            (fcc, np.zeros((1, 3)), np.array([0])),
            (layers, basis, np.array([0, 0, 1, 1])),
            (layers, basis, np.array([1, 0, 0, 0])),
        ]
    )
    relaxed = relax(potential, starts, TIGHT)
    assert all(Outcome(outcome) is Outcome.CONVERGED for outcome in relaxed.outcomes)
    return relaxed.structures


def evaluated(potential, structure):
    """Energy, forces and stress of one structure."""
    found = potential.evaluate(join([structure]))
    return float(found.energies[0]), found.forces, found.stresses[0]


def moved(structure, rng, size):
    """The structure strained by a share of ``size``, its atoms moved by ``size`` Å."""
    cell, positions, species = structure
    deformation = np.eye(3) + 0.3 * size * np.einsum("k,kij->ij", rng.normal(size=6), STRAINS)
    shift = size * rng.normal(size=positions.shape)
    return cell @ deformation, positions @ deformation + shift - shift.mean(axis=0), species


def test_the_stiffness_is_the_curvature_of_the_energy(potential, at_rest):
    rng = np.random.default_rng(0)
    for i in range(len(at_rest)):
        cell, positions, species = at_rest.one(i)
        stiffness = _stiffness(potential, at_rest.one(i), abs(np.linalg.det(cell)))
        for _ in range(5):
            direction = rng.normal(size=len(stiffness))
            strain = np.einsum("k,kij->ij", direction[:6], STRAINS)
            shift = direction[6:].reshape(-1, 3)
            energies = []
            for step in (1e-3, 0.0, -1e-3):
                deformation = np.eye(3) + step * strain
                there = (cell @ deformation, (positions + step * shift) @ deformation, species)
                energies.append(evaluated(potential, there)[0])
            curvature = (energies[0] - 2 * energies[1] + energies[2]) / 1e-6
            # Differences of third order, and rounding of energies over the square of the step.
            assert direction @ stiffness @ direction == pytest.approx(curvature, rel=0.02, abs=1e-3)


@pytest.mark.parametrize("size", [0.005, 0.03])
def test_what_a_relaxation_gains_lies_between_nothing_and_the_estimate(potential, at_rest, size):
    rng = np.random.default_rng(1)
    for i in range(len(at_rest)):
        least = evaluated(potential, at_rest.one(i))[0]
        for _ in range(5):
            there = moved(at_rest.one(i), rng, size)
            energy, forces, stress = evaluated(potential, there)
            gained = energy - least
            volume = abs(np.linalg.det(there[0]))
            estimate = relaxation_gain(potential, there, forces, stress)
            assert 0.0 < gained < estimate < possible_gain(forces, stress, volume)
            # Harmonic, but for its safety: stiffness is trusted by a factor, the rest by another.
            assert estimate < 1.5 * GAIN_SAFETY * STIFFNESS_SAFETY * gained


def test_without_forces_and_stress_nothing_is_gained(potential, at_rest):
    _, positions, _ = at_rest.one(1)
    assert relaxation_gain(potential, at_rest.one(1), 0 * positions, np.zeros((3, 3))) == 0.0


def test_where_the_potential_is_unstable_the_softest_metal_takes_its_place(potential):
    # bcc Cu far too large: every mode is soft or unstable.
    a = 4.6
    cell = a / 2 * np.array([[-1.0, 1, 1], [1, -1, 1], [1, 1, -1]])
    structure = (cell, np.zeros((1, 3)), np.array([0]))
    values = np.linalg.eigvalsh(_stiffness(potential, structure, abs(np.linalg.det(cell))))
    assert values.min() < 0
    stress = np.diag([0.01, 0.02, -0.01])
    estimate = relaxation_gain(potential, structure, np.zeros((1, 3)), stress)
    bound = possible_gain(np.zeros((1, 3)), stress, abs(np.linalg.det(cell)))
    assert 0.3 * bound < estimate <= bound * (1 + 1e-12)
