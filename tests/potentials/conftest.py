"""Potentials and structures shared by the tests: compiling is what costs here."""

import os
from pathlib import Path

import numpy as np
import pytest

from hullscreen.potentials.fit import fit
from hullscreen.potentials.fit_kernels import fill_jacobian
from hullscreen.potentials.labels import TrainingSet
from hullscreen.potentials.moment_tensor_potential import untrained
from hullscreen.potentials.structures import from_atoms, join, to_atoms


@pytest.fixture(scope="session")
def reference():
    """Folder of stored potentials and the values another program computed with them."""
    folder = os.environ.get("HULLSCREEN_REFERENCE_DATA")
    if not folder:
        pytest.skip("HULLSCREEN_REFERENCE_DATA is not set")
    return Path(folder) / "mtp_reference"


@pytest.fixture(scope="session")
def make_potential():
    """Function (level, n_species, seed) → potential whose parameters are all random."""

    def make(level, n_species=2, seed=0, *, cutoff=4.5, min_distance=1.5, size=5):
        potential = untrained(
            level,
            ("Cu", "Pd", "Au")[:n_species],
            cutoff=cutoff,
            min_distance=min_distance,
            radial_basis_size=size,
            seed=seed,
        )
        rng = np.random.default_rng(seed + 1)
        parameters = potential.parameters
        linear = slice(potential.radial.size, None)
        # Energies of the cells below come out near 1 eV, forces near 1 eV/Å.
        parameters[linear] = 2.0 * rng.normal(size=parameters[linear].size)
        return potential.with_parameters(parameters)

    return make


@pytest.fixture(scope="session")
def make_structures():
    """Function (n_structures, n_species, seed) → random cells whose atoms keep 1.7 Å apart."""

    def make(n_structures, n_species=2, seed=0, *, max_atoms=5):
        rng = np.random.default_rng(seed)
        return join(_random_cell(rng, n_species, max_atoms) for _ in range(n_structures))

    return make


@pytest.fixture(scope="session")
def jacobian_of_cell():
    """Function (tables, cell, positions, species, linear_only) → energy and Jacobian of a cell."""

    def calculate(tables, cell, positions, species, linear_only):
        linear = np.concatenate([tables.shifts, tables.linear])
        n_columns = 7 + 3 * len(species)
        jacobian = np.empty((linear.size + (0 if linear_only else tables.radial.size), n_columns))
        offsets, factors, shortest = np.array([0, len(species)]), np.ones(n_columns), np.empty(1)
        batch = cell[None], positions, species, offsets
        fill_jacobian(tables, *batch, linear_only, factors, shortest, jacobian)
        return float(linear @ jacobian[-linear.size :, 0]), jacobian

    return calculate


@pytest.fixture(scope="session")
def label_with_emt():
    """Function (structures) → training set with energies, forces and stresses of ASE's EMT."""
    from ase.calculators.emt import EMT

    def label(structures, elements=("Cu", "Pd")):
        energies, forces, stresses = [], [], []
        for atoms in to_atoms(structures, elements):
            atoms.calc = EMT()
            energies.append(atoms.get_potential_energy())
            forces.append(atoms.get_forces())
            stresses.append(atoms.get_stress(voigt=False))
        return TrainingSet(
            structures, np.array(energies), np.concatenate(forces), np.array(stresses)
        )

    return label


@pytest.fixture(scope="session")
def alloys():
    """Forty strained and rattled fcc Cu-Pd cells of four atoms."""
    from ase.build import bulk

    rng = np.random.default_rng(7)
    frames = []
    for i in range(40):
        atoms = bulk("Cu", a=3.55 + 0.4 * rng.random(), cubic=True)
        atoms.symbols = rng.permutation(["Pd"] * (i % 5) + ["Cu"] * (4 - i % 5))
        atoms.set_cell(atoms.cell @ (np.eye(3) + 0.03 * rng.normal(size=(3, 3))), scale_atoms=True)
        atoms.positions += 0.08 * rng.normal(size=(4, 3))
        frames.append(atoms)
    return from_atoms(frames, ("Cu", "Pd"))


@pytest.fixture(scope="session")
def labelled(alloys, label_with_emt):
    """The alloys with EMT's energies, forces and stresses."""
    return label_with_emt(alloys)


@pytest.fixture(scope="session")
def fitted(labelled):
    """A small potential fitted to the alloys."""
    start = untrained(6, ("Cu", "Pd"), cutoff=4.5, min_distance=2.0, radial_basis_size=5)
    return fit(start, labelled, max_iterations=15)


def _random_cell(rng, n_species, max_atoms):
    n = int(rng.integers(1, max_atoms + 1))
    while True:
        cell = (16.0 * n) ** (1 / 3) * (np.eye(3) + 0.25 * rng.normal(size=(3, 3)))
        positions = rng.random((n, 3)) @ cell
        if abs(np.linalg.det(cell)) > 9.0 * n and _shortest(cell, positions) > 1.7:
            return cell, positions, rng.integers(n_species, size=n).astype(np.int32)


def _shortest(cell, positions):
    shifts = np.indices((5, 5, 5)).reshape(3, -1).T - 2
    vectors = positions[:, None, None] - positions[None, :, None] + shifts @ cell
    distances = np.linalg.norm(vectors, axis=-1)
    return distances[distances > 1e-9].min()
