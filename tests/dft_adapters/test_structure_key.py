import numpy as np
import pytest
from ase.build import bulk
from hypothesis import given, settings
from hypothesis import strategies as st

from hullscreen.dft_adapters.structure_key import canonical_order, structure_key
from hullscreen.potentials.errors import InputError


def shuffled(atoms, random, noise=0.0):
    """Another order, another origin, other periodic images, and rounding errors."""
    order = random.permutation(len(atoms))
    other = atoms[order]
    other.positions += random.normal(size=3)
    other.positions += random.integers(-2, 3, size=(len(other), 3)) @ other.cell[:]
    other.positions += noise * random.normal(size=other.positions.shape)
    other.set_cell(other.cell[:] + noise * random.normal(size=(3, 3)))
    return other, order


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_translation_order_and_images_do_not_matter(random_cells, seed):
    random = np.random.default_rng(seed)
    atoms = random_cells(seed, 1)[0]
    # Rounding errors of a few thousand operations, far below the key's 1e-6 Å.
    other, _ = shuffled(atoms, random, noise=1e-13)
    assert structure_key(other) == structure_key(atoms)


def test_exact_fractions_survive_rounding():
    # Halves and thirds, the places where rounding would flip.
    random = np.random.default_rng(0)
    for atoms in (bulk("Cu", "hcp", a=2.55, c=4.1), bulk("Cu", "fcc", a=3.615).repeat(3)):
        for _ in range(30):
            other, _ = shuffled(atoms, random, noise=1e-12)
            assert structure_key(other) == structure_key(atoms)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), size=st.floats(1e-5, 0.1))
def test_different_structures_differ(random_cells, seed, size):
    random = np.random.default_rng(seed)
    atoms = random_cells(seed, 1)[0]
    keys = {structure_key(atoms)}
    strained = atoms.copy()
    strained.set_cell(atoms.cell[:] * (1 + size), scale_atoms=True)
    keys.add(structure_key(strained))
    rotated = atoms.copy()
    rotated.rotate(30, "z", rotate_cell=True)
    keys.add(structure_key(rotated))
    other = atoms.copy()
    other.symbols[random.integers(len(atoms))] = "Ag"
    keys.add(structure_key(other))
    expected = 4
    if len(atoms) > 1:
        moved = atoms.copy()
        moved.positions[0] += size * np.array([0.6, 0.0, 0.8])
        keys.add(structure_key(moved))
        expected += 1
    assert len(keys) == expected


def test_swapped_elements_differ():
    atoms = bulk("NiAl", "cesiumchloride", a=2.88)
    strange = atoms.copy()
    strange.symbols[:] = ["Ni", "Ni"]
    swapped = atoms.copy()
    swapped.symbols[:] = ["Al", "Ni"]
    assert structure_key(swapped) == structure_key(atoms)  # a translation of it
    assert structure_key(strange) != structure_key(atoms)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_forces_find_their_atoms_again(random_cells, seed):
    from ase.calculators.emt import EMT

    random = np.random.default_rng(seed)
    atoms = random_cells(seed, 1)[0]
    atoms.rattle(0.05, seed=seed)
    other, _ = shuffled(atoms, random)
    stored = EMT().get_forces(atoms)[canonical_order(atoms)]
    restored = np.empty_like(stored)
    restored[canonical_order(other)] = stored
    # Rounding of periodic images; EMT's cutoff steps are 1e-6 eV/Å.
    assert restored == pytest.approx(EMT().get_forces(other), abs=1e-5)


def test_a_molecule_has_no_key():
    atoms = bulk("Cu")
    atoms.pbc = [True, True, False]
    with pytest.raises(InputError, match=r"periodic \[True, True, False\]"):
        structure_key(atoms)
