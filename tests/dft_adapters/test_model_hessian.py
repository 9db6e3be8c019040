import numpy as np
import pytest
from ase.build import bulk
from ase.neighborlist import neighbor_list

from hullscreen.dft_adapters.model_hessian import (
    model_hessian,
    neighbour_vectors,
    shortest_distance,
    strain_matrix,
    strain_vector,
)


def test_strain_vectors_keep_the_inner_product():
    random = np.random.default_rng(0)
    a, b = random.normal(size=(2, 6))
    # Exact up to rounding.
    assert np.sum(strain_matrix(a) * strain_matrix(b)) == pytest.approx(a @ b, rel=1e-14)
    assert strain_vector(strain_matrix(a)) == pytest.approx(a, rel=1e-14)


def test_neighbours_are_those_of_ase(random_cells):
    for atoms in random_cells(seed=5, n_cells=20):
        first, second, vectors = neighbour_vectors(atoms.cell[:], atoms.positions, 4.5)
        i, j, distances = neighbor_list("ijd", atoms, 4.5)
        assert np.sort(np.linalg.norm(vectors, axis=1)) == pytest.approx(np.sort(distances))
        assert sorted(zip(first, second, strict=True)) == sorted(zip(i, j, strict=True))


def test_shortest_distance_is_bounded_by_the_horizon():
    copper = bulk("Cu", a=3.6)
    assert shortest_distance(copper.cell[:], copper.positions, 4.0) == pytest.approx(3.6 / 2**0.5)
    assert shortest_distance(copper.cell[:], copper.positions, 1.0) == 1.0
    assert shortest_distance(copper.cell[:], np.zeros((2, 3)), 1.0) == 0.0


def test_the_model_is_stiff_like_a_metal_and_knows_translations(random_cells):
    for atoms in random_cells(seed=6, n_cells=20):
        hessian = model_hessian(atoms.cell[:], atoms.positions)
        n = len(atoms)
        assert hessian == pytest.approx(hessian.T)
        assert np.linalg.eigvalsh(hessian).min() > 0.1
        uniform = np.concatenate([np.tile([1.0, 0.0, 0.0], n), np.zeros(6)])
        # Only the floor (0.25 eV/Å² an atom) resists a translation.
        assert uniform @ hessian @ uniform == pytest.approx(0.25 * n)
        swell = np.concatenate([np.zeros(3 * n), [1, 1, 1, 0, 0, 0]]) / 3
        bulk_modulus_gpa = swell @ hessian @ swell / atoms.get_volume() * 160.2
        assert 60 < bulk_modulus_gpa < 400
