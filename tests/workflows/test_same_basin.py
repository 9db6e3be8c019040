"""The same crystal is recognised however it is written down, and different ones never are."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from hullscreen.potentials.errors import InputError
from hullscreen.potentials.structures import Structures, join, to_atoms
from hullscreen.workflows.same_basin import (
    BasinTolerances,
    group_by_basin,
    same_crystal,
    simplest_members,
)

FCC = 2.0 * np.array([[0.0, 1.0, 1.0], [1.0, 0.0, 1.0], [1.0, 1.0, 0.0]])
BCC = 1.6 * np.array([[-1.0, 1.0, 1.0], [1.0, -1.0, 1.0], [1.0, 1.0, -1.0]])
HCP = 2.8 * np.array([[1.0, 0.0, 0.0], [-0.5, np.sqrt(0.75), 0.0], [0.0, 0.0, np.sqrt(8 / 3)]])
HCP_SITES = np.array([[0.0, 0.0, 0.0], [1 / 3, 2 / 3, 0.5]])
ONE_SITE = np.zeros((1, 3))


def supercell_matrices(index):
    """Every sublattice of the given index once, as upper triangular integer rows."""
    for a in range(1, index + 1):
        for b in range(1, index // a + 1):
            if index % (a * b):
                continue
            c = index // (a * b)
            for d, e, f in product(range(b), range(c), range(c)):
                yield np.array([[a, d, e], [0, b, f], [0, 0, c]])


def supercell(cell, positions, species, matrix):
    """The same crystal in the cell ``matrix @ cell``."""
    index = round(abs(np.linalg.det(matrix)))
    big = matrix @ cell
    reach = int(np.abs(matrix).sum())
    grid = np.array(list(product(range(-reach, reach + 1), repeat=3))) @ cell
    inside = grid @ np.linalg.inv(big)
    kept = grid[((inside > -1e-9) & (inside < 1 - 1e-9)).all(axis=1)]
    assert len(kept) == index
    xyz = (positions[None, :, :] + kept[:, None, :]).reshape(-1, 3)
    return big, xyz, np.tile(species, index).astype(np.int32)


def all_colourings(cell, sites, index, n_species):
    """Every colouring of every supercell of one index: each crystal many times."""
    for matrix in supercell_matrices(index):
        big, xyz, _ = supercell(cell, sites @ cell, np.zeros(len(sites)), matrix)
        for colours in product(range(n_species), repeat=len(xyz)):
            yield big, xyz, np.array(colours, dtype=np.int32)


@st.composite
def crystals(draw):
    """A random crystal of 1 to 5 atoms of up to 3 species, no two atoms within 1 Å."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n_atoms = draw(st.integers(1, 5))
    while True:
        cell = rng.uniform(-1, 1, (3, 3)) * 3.0 + np.diag(rng.uniform(2.5, 6, 3))
        if abs(np.linalg.det(cell)) > 10.0 * n_atoms:
            break
    shifts = np.array(list(product((-1, 0, 1), repeat=3)))
    fractions = []
    while len(fractions) < n_atoms:
        new = rng.random(3)
        gaps = [np.linalg.norm((new - old + shifts) @ cell, axis=1).min() for old in fractions]
        if all(gap > 1.0 for gap in gaps):
            fractions.append(new)
    return cell, np.array(fractions) @ cell, rng.integers(0, 3, n_atoms).astype(np.int32)


def disguised(crystal, rng, noise):
    """The crystal in another cell, turned (mirrored half the times), shifted, shuffled, noisy."""
    cell, xyz, kinds = crystal
    index = int(rng.integers(1, 5))
    matrices = list(supercell_matrices(index))
    matrix = matrices[rng.integers(len(matrices))]
    shear = np.eye(3, dtype=int)
    shear[0, 1], shear[1, 2], shear[0, 2] = rng.integers(-2, 3, 3)
    big, xyz, kinds = supercell(cell, xyz, kinds, shear @ matrix)
    turn = Rotation.random(random_state=rng).as_matrix()
    if rng.random() < 0.5:
        turn = -turn
    order = rng.permutation(len(kinds))
    away = rng.integers(-2, 3, (len(kinds), 3)) @ big
    xyz = (xyz + away + rng.normal(size=3)) @ turn + rng.uniform(-noise, noise, xyz.shape)
    strain = np.eye(3) + rng.uniform(-noise, noise, (3, 3)) / 10
    return big @ turn @ strain, xyz[order] @ strain, kinds[order]


@settings(max_examples=150, deadline=None)
@given(crystals(), st.integers(0, 2**32 - 1), st.sampled_from([0.0, 1e-6, 1e-2]))
def test_a_disguised_crystal_is_recognised(crystal, seed, noise):
    # Noise of 0.01 Å is a fifth of the tolerance; a strain of 0.001 a tenth.
    other = disguised(crystal, np.random.default_rng(seed), noise)
    assert same_crystal(*crystal, *other)
    assert same_crystal(*other, *crystal)


@settings(max_examples=100, deadline=None)
@given(crystals(), st.integers(0, 2**32 - 1))
def test_a_moved_atom_or_another_species_is_another_crystal(crystal, seed):
    cell, xyz, kinds = crystal
    rng = np.random.default_rng(seed)
    # A random crystal of 3 atoms or more has no translation or symmetry that could undo either
    # change; fewer atoms can be matched by an inversion.
    if len(kinds) < 3:
        return
    atom = rng.integers(len(kinds))
    direction = rng.normal(size=3)
    moved = xyz.copy()
    moved[atom] += 0.5 * direction / np.linalg.norm(direction)
    renamed = kinds.copy()
    renamed[atom] = 3
    assert not same_crystal(*crystal, *disguised((cell, xyz, renamed), rng, 0.0))
    from pymatgen.analysis.structure_matcher import ElementComparator, StructureMatcher
    from pymatgen.io.ase import AseAtomsAdaptor

    if same_crystal(*crystal, cell, moved, kinds):
        pair = [
            AseAtomsAdaptor.get_structure(frame)
            for frame in to_atoms(join([crystal, (cell, moved, kinds)]), ["Cu", "Pd", "Au"])
        ]
        assert StructureMatcher(scale=False, comparator=ElementComparator()).fit(*pair)


@pytest.mark.parametrize(
    ("cell", "sites", "indices", "n_species", "expected"),
    [
        (FCC, ONE_SITE, range(1, 7), 2, 137),
        (BCC, ONE_SITE, range(1, 7), 2, 137),
        (FCC, ONE_SITE, range(1, 5), 3, 126),
        (HCP, HCP_SITES, range(1, 4), 2, 63),
        (HCP * [1, 1, 1.03], HCP_SITES, range(1, 4), 2, 63),
    ],
)
def test_all_colourings_fall_into_the_known_number_of_crystals(
    cell, sites, indices, n_species, expected
):
    # Counts: Hart, Forcade, Phys. Rev. B 77, 224115 (2008), summed over cell sizes with labels
    # distinguishable. One number too low would be a false merge, one too high a missed one.
    batch = join(one for index in indices for one in all_colourings(cell, sites, index, n_species))
    labels = group_by_basin(batch, np.zeros(len(batch)))
    assert len(np.unique(labels)) == expected
    assert (labels[labels] == labels).all()


def test_distinct_relaxed_cells_stay_distinct_through_small_noise():
    rng = np.random.default_rng(5)
    batch = join(one for index in range(1, 7) for one in all_colourings(FCC, ONE_SITE, index, 2))
    distinct = batch.take(np.unique(group_by_basin(batch, np.zeros(len(batch)))))
    copies = join(
        disguised(distinct.one(i), rng, 0.01) for i in range(len(distinct)) for _ in range(3)
    )
    labels = group_by_basin(copies, np.zeros(len(copies)))
    assert len(np.unique(labels)) == len(distinct) == 137
    assert np.array_equal(labels, np.repeat(np.arange(0, len(copies), 3), 3))


def test_structure_matcher_agrees_on_small_cells():
    from pymatgen.analysis.structure_matcher import StructureMatcher
    from pymatgen.io.ase import AseAtomsAdaptor

    matcher = StructureMatcher(scale=False)
    batch = join(one for index in range(1, 5) for one in all_colourings(FCC, ONE_SITE, index, 2))
    rng = np.random.default_rng(1)
    chosen = rng.choice(len(batch), (40, 2))
    frames = [AseAtomsAdaptor.get_structure(frame) for frame in to_atoms(batch, ["Cu", "Pd"])]
    for i, j in chosen:
        assert same_crystal(*batch.one(i), *batch.one(j)) == matcher.fit(frames[i], frames[j])


def test_mirror_images_are_one_crystal():
    cell = np.diag([4.0, 5.0, 6.5])
    xyz = np.array([[0.0, 0.0, 0.0], [1.5, 0.3, 0.2], [0.4, 2.1, 0.7], [0.9, 0.5, 3.0]])
    kinds = np.array([0, 1, 2, 3], dtype=np.int32)
    mirror = np.diag([1.0, 1.0, -1.0])
    assert same_crystal(cell, xyz, kinds, cell, xyz @ mirror, kinds)


@pytest.mark.parametrize(("strain", "same"), [(0.008, True), (0.012, False)])
def test_the_strain_tolerance_is_where_it_says(strain, same):
    # An orthorhombic cell whose axes differ by far more than the tolerance of 0.01.
    cell = np.diag([4.0, 5.0, 6.5])
    kinds = np.zeros(1, dtype=np.int32)
    stretched = cell * [1 + strain, 1.0, 1.0]
    assert same_crystal(cell, ONE_SITE, kinds, stretched, ONE_SITE, kinds) == same


@pytest.mark.parametrize(("offset", "same"), [(0.09, True), (0.12, False)])
def test_the_position_tolerance_applies_after_the_mean_shift(offset, same):
    # Two atoms of different species: an offset of one is half an offset of each.
    cell = np.diag([4.0, 5.0, 6.5])
    kinds = np.array([0, 1], dtype=np.int32)
    xyz = np.array([[0.0, 0.0, 0.0], [1.0, 1.5, 2.0]])
    moved = xyz + np.array([[0.0, 0.0, 0.0], [offset, 0.0, 0.0]])
    assert same_crystal(cell, xyz, kinds, cell, moved, kinds) == same


def chain(n_links, step):
    """One crystal whose second atom moves on a little with each link."""
    cell = np.diag([4.0, 5.0, 6.5])
    kinds = np.array([0, 1], dtype=np.int32)
    return join(
        (cell, np.array([[0.0, 0.0, 0.0], [1.0 + i * step, 1.5, 2.0]]), kinds)
        for i in range(n_links)
    )


def test_a_chain_of_small_steps_is_not_one_group():
    # Steps of 0.04 Å: neighbours and next neighbours are the same (0.08 / 2 < 0.05), third
    # neighbours are not; compared with representatives, groups are runs of three.
    labels = group_by_basin(chain(9, 0.04), np.linspace(0.0, 1e-5, 9))
    assert labels.tolist() == [0, 0, 0, 3, 3, 3, 6, 6, 6]


def test_the_representative_is_the_lowest_and_the_first_on_a_tie():
    same = join([chain(1, 0.0).one(0)] * 4)
    energies = np.array([1e-4, -1e-4, 0.0, -1e-4])
    assert group_by_basin(same, energies).tolist() == [1, 1, 1, 1]


def test_energies_keep_apart_what_geometry_would_join():
    same = join([chain(1, 0.0).one(0)] * 3)
    assert group_by_basin(same, np.array([0.0, 4e-4, 6e-4])).tolist() == [0, 0, 2]


def test_fingerprints_keep_apart_and_are_never_reason_to_join():
    two = join([chain(1, 0.0).one(0)] * 2)
    far = np.array([[1.0, 2.0], [1.0, 2.5]])
    near = np.array([[1.0, 2.0], [1.0, 2.1]])
    assert group_by_basin(two, np.zeros(2), far).tolist() == [0, 1]
    assert group_by_basin(two, np.zeros(2), near).tolist() == [0, 0]
    different = join([chain(1, 0.0).one(0), chain(4, 0.2).one(3)])
    assert group_by_basin(different, np.zeros(2), np.ones((2, 3))).tolist() == [0, 1]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_grouping_does_not_depend_on_the_order(seed):
    rng = np.random.default_rng(seed)
    bases = [(FCC, ONE_SITE, np.array([k], dtype=np.int32)) for k in range(2)]
    bases += [(FCC * 2 ** (1 / 3), np.array([[0, 0, 0], [2.0, 0.2, 0]]), np.int32([0, 1]))]
    batch = join(disguised(bases[i % 3], rng, 1e-3) for i in range(12))
    energies = rng.uniform(0, 4e-4, 12)
    labels = group_by_basin(batch, energies)
    order = rng.permutation(12)
    shuffled = group_by_basin(batch.take(order), energies[order])
    assert np.array_equal(order[shuffled], labels[order])
    assert len(np.unique(labels)) == 3


def test_slabs_and_needles_are_compared_as_well():
    # Very uneven axes: the search must reach lattice vectors with large coefficients.
    rng = np.random.default_rng(3)
    cell = np.array([[2.5, 0, 0], [0.9, 2.6, 0], [7.1, -4.4, 33.0]])
    xyz = rng.random((9, 3)) @ cell
    kinds = np.array([0, 1, 2] * 3, dtype=np.int32)
    assert same_crystal(cell, xyz, kinds, *disguised((cell, xyz, kinds), rng, 1e-3))


def test_an_empty_batch_has_no_labels():
    assert group_by_basin(join([]), np.zeros(0)).tolist() == []


def test_bad_input_is_named():
    one = chain(2, 0.1)
    with pytest.raises(InputError, match="structure 1 or its atoms, energy"):
        group_by_basin(one, np.array([0.0, np.nan]))
    with pytest.raises(InputError, match="for each of 2 structures"):
        group_by_basin(one, np.zeros(3))
    with pytest.raises(InputError, match="cell with a volume"):
        same_crystal(np.zeros((3, 3)), ONE_SITE, np.int32([0]), FCC, ONE_SITE, np.int32([0]))
    with pytest.raises(InputError, match="tolerance length between"):
        BasinTolerances(length=0.7)
    flat = Structures(np.zeros((2, 3, 3)), one.positions, one.species, one.offsets)
    with pytest.raises(InputError, match="no volume"):
        group_by_basin(flat, np.zeros(2))


def test_the_simplest_member_stands_for_a_basin():
    basins = np.array([2, 1, 2, 1, 2])
    energies = np.array([-1.0 + 5e-5, -2.0 + 3e-4, -1.0, -2.0 + 2e-4, -1.0 + 1e-5])
    energies[1] = -2.0
    # The first one of basin 2 is as low as its lowest, within what relaxations repeat.
    assert simplest_members(basins, energies) == {2: 0, 1: 1}
    energies[0] = -1.0 + 1e-3
    assert simplest_members(basins, energies)[2] == 2
