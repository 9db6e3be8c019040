"""Potentials and structures shared by the tests: compiling is what costs here."""

import os
from pathlib import Path

import numpy as np
import pytest

from hullscreen.potentials.moment_tensor_potential import untrained
from hullscreen.potentials.structures import join


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
