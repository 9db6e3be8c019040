import itertools

import numpy as np
import pytest

from hullscreen.potentials.errors import InputError
from hullscreen.workflows.derivative_structures import colourings, count_colourings
from hullscreen.workflows.parent_lattices import (
    LATTICES,
    lattice_rotations,
    parent_lattice,
    space_group,
)
from hullscreen.workflows.superlattices import hermite_matrices, reduced_cell, superlattices

# Derivative structures at exactly n primitive cells, superperiodic ones left out, colours
# distinguishable; each number was found by two or three of enumlib, icet and an independent
# enumerator. Binary n = 2-12 agrees with Table of Hart and Forcade (2008) once colours exchange.
HERMITE_MATRICES = [1, 7, 13, 35, 31, 91, 57, 155, 130, 217, 133, 455, 183, 399]
CUBIC_SUPERLATTICES = [1, 2, 3, 7, 5, 10, 7, 20, 14, 18, 11, 41, 15, 28]
HEXAGONAL_SUPERLATTICES = [1, 3, 5, 11, 7, 19, 11]
CUBIC = {
    2: [2, 2, 6, 19, 28, 80, 104, 390, 504, 1211, 1364, 7140, 5248, 18270],
    3: [3, 6, 21, 96, 165, 790, 1245, 7482, 13991, 55461, 92565, 734567],
}
HEXAGONAL = {
    2: [3, 10, 50, 270, 651, 4793, 10018],
    3: [6, 51, 450, 5568, 30888, 547568],
}
COUNTS = [
    (lattice, n_colours, n_cells, count)
    for lattice, table in (("fcc", CUBIC), ("bcc", CUBIC), ("hcp", HEXAGONAL))
    for n_colours, row in table.items()
    for n_cells, count in enumerate(row, start=1)
]
# (A, B, C) atoms -> number of structures of that composition.
CUBIC_COMPOSITIONS = {
    2: {(1, 1, 0): 2},
    3: {(2, 1, 0): 3, (1, 1, 1): 3},
    4: {(3, 1, 0): 7, (2, 2, 0): 5, (2, 1, 1): 13},
    5: {(4, 1, 0): 5, (3, 2, 0): 9, (3, 1, 1): 9, (2, 2, 1): 18},
    6: {(5, 1, 0): 10, (4, 2, 0): 20, (4, 1, 1): 30, (3, 3, 0): 20, (3, 2, 1): 60, (2, 2, 2): 100},
    7: {
        (6, 1, 0): 7,
        (5, 2, 0): 19,
        (5, 1, 1): 19,
        (4, 3, 0): 26,
        (4, 2, 1): 57,
        (3, 3, 1): 64,
        (3, 2, 2): 114,
    },
    8: {
        (7, 1, 0): 20,
        (6, 2, 0): 42,
        (6, 1, 1): 73,
        (5, 3, 0): 86,
        (5, 2, 1): 194,
        (4, 4, 0): 94,
        (4, 3, 1): 303,
        (4, 2, 2): 456,
        (3, 3, 2): 581,
    },
}
HEXAGONAL_COMPOSITIONS = {
    1: {(2, 0, 0): 1, (1, 1, 0): 1},
    2: {(3, 1, 0): 3, (2, 2, 0): 4, (2, 1, 1): 7},
    3: {(5, 1, 0): 5, (4, 2, 0): 15, (4, 1, 1): 17, (3, 3, 0): 10, (3, 2, 1): 32, (2, 2, 2): 57},
    4: {
        (7, 1, 0): 11,
        (6, 2, 0): 35,
        (6, 1, 1): 52,
        (5, 3, 0): 55,
        (5, 2, 1): 141,
        (4, 4, 0): 68,
        (4, 3, 1): 228,
        (4, 2, 2): 355,
        (3, 3, 2): 441,
    },
}
COMPOSITIONS = [
    (lattice, n_cells, compositions)
    for lattice, table in (
        ("fcc", CUBIC_COMPOSITIONS),
        ("bcc", CUBIC_COMPOSITIONS),
        ("hcp", HEXAGONAL_COMPOSITIONS),
    )
    for n_cells, compositions in table.items()
]


@pytest.mark.parametrize(("lattice", "n_colours", "n_cells", "count"), COUNTS)
def test_counts(lattice, n_colours, n_cells, count):
    assert count_colourings(lattice, n_cells, n_colours) == count


@pytest.mark.parametrize(("lattice", "n_cells", "compositions"), COMPOSITIONS)
def test_counts_by_composition(lattice, n_cells, compositions):
    found = {}
    for _, labels in colourings(lattice, n_cells, 3):
        atoms = (labels[:, :, None] == np.arange(3)).sum(axis=1)
        for row, count in zip(*np.unique(atoms, axis=0, return_counts=True), strict=True):
            found[tuple(row)] = found.get(tuple(row), 0) + int(count)
    for composition, count in compositions.items():
        for order in set(itertools.permutations(composition)):
            assert found[order] == count


@pytest.mark.parametrize(
    ("lattice", "superlattice_counts"),
    [
        ("fcc", CUBIC_SUPERLATTICES),
        ("bcc", CUBIC_SUPERLATTICES),
        ("hcp", HEXAGONAL_SUPERLATTICES),
    ],
)
def test_superlattice_counts(lattice, superlattice_counts):
    for n_cells, count in enumerate(superlattice_counts, start=1):
        assert len(hermite_matrices(n_cells)) == HERMITE_MATRICES[n_cells - 1]
        assert len(superlattices(lattice, n_cells)) == count


def test_ternary_pools_of_eleven_atoms():
    pools = {
        lattice: sum(
            count_colourings(lattice, n_cells, 3)
            for n_cells in range(1, 11 // parent_lattice(lattice).n_sites + 1)
        )
        for lattice in ("fcc", "bcc", "hcp", "dhcp", "9R")
    }
    assert sum(pools[lattice] for lattice in ("fcc", "bcc", "hcp")) == 380_613
    assert sum(pools.values()) == 399_618


def test_quaternaries_hold_all_ternaries_binaries_and_elements():
    # Strict counts s(m) with all m colours present: total(k) = sum over m of C(k, m) s(m).
    total = {k: count_colourings("hcp", 3, k) for k in (1, 2, 3, 4)}
    strict_2 = total[2] - 2 * total[1]
    strict_3 = total[3] - 3 * strict_2 - 3 * total[1]
    four_used = sum(
        (labels[:, :, None] == np.arange(4)).any(axis=1).all(axis=1).sum()
        for _, labels in colourings("hcp", 3, 4)
    )
    assert total[4] == four_used + 4 * strict_3 + 6 * strict_2 + 4 * total[1]


def torus(superlattice, labels, parent, n_cells):
    """Colours on n x n x n primitive cells, which every superlattice of index n repeats into.

    Only the emitted cell and positions are read, not the way in which they were made.
    """
    cells = np.stack(np.meshgrid(*[np.arange(n_cells)] * 3, indexing="ij"), -1).reshape(-1, 3)
    points = (cells[:, None, :] + parent.sites).reshape(-1, 3) @ parent.cell
    inverse = np.linalg.inv(superlattice.cell)
    difference = (points[:, None, :] - superlattice.positions[None, :, :]) @ inverse
    difference -= np.round(difference)
    same = np.abs(difference).max(axis=2) < 1e-6  # sites lie more than 0.05 cells apart
    assert (same.sum(axis=1) == 1).all()
    return labels[:, same.argmax(axis=1)]


def torus_operations(parent, n_cells):
    """Permutations of the torus by every space group operation times every translation."""
    cells = np.stack(np.meshgrid(*[np.arange(n_cells)] * 3, indexing="ij"), -1).reshape(-1, 3)
    rows = []
    for rotation, images, shifts in zip(
        parent.rotations, parent.site_images, parent.site_shifts, strict=True
    ):
        moved = cells @ rotation.T
        for translation in cells:
            target = (moved[:, None, :] + shifts[None, :, :] + translation) % n_cells
            index = (target[..., 0] * n_cells + target[..., 1]) * n_cells + target[..., 2]
            rows.append((index * parent.n_sites + images[None, :]).ravel())
    return np.array(rows)


@pytest.mark.parametrize(
    ("lattice", "n_cells", "n_colours"),
    [
        *[("fcc", 2, 4), ("fcc", 3, 3), ("fcc", 4, 2), ("bcc", 3, 3), ("sc", 3, 3), ("sc", 4, 2)],
        *[("hcp", 2, 3), ("hcp", 3, 2), ("dhcp", 1, 4), ("dhcp", 2, 2), ("9R", 2, 3), ("9R", 3, 2)],
    ],
)
def test_against_all_colourings_of_all_superlattices(lattice, n_cells, n_colours):
    parent = parent_lattice(lattice)
    operations = torus_operations(parent, n_cells)
    translations = operations[1 : n_cells**3]

    def canonical(colours):
        return min(map(bytes, colours[operations]))

    emitted = [
        canonical(row)
        for superlattice, labels in colourings(lattice, n_cells, n_colours)
        for row in torus(superlattice, labels, parent, n_cells)
    ]
    assert len(set(emitted)) == len(emitted)

    wanted, seen = set(), set()
    sites = np.arange(n_cells**3)
    points = np.stack([sites // n_cells**2, sites // n_cells % n_cells, sites % n_cells], axis=-1)
    for hermite in hermite_matrices(n_cells):
        # Points of one coset of the superlattice, numbered as they appear.
        residues = points @ np.linalg.inv(hermite).T
        residues = np.round((residues - np.floor(residues + 1e-9)) * n_cells).astype(int) % n_cells
        _, cosets = np.unique(residues, axis=0, return_inverse=True)
        for digits in itertools.product(range(n_colours), repeat=n_cells * parent.n_sites):
            colours = np.array(digits, dtype=np.uint8).reshape(n_cells, -1)[cosets.ravel()].ravel()
            if colours.tobytes() in seen:
                continue
            periods = 1 + (colours[translations] == colours).all(axis=1).sum()
            if periods == n_cells**2:  # n^3 cells / n: no smaller cell repeats
                images = set(map(bytes, colours[operations]))
                seen |= images
                wanted.add(min(images))
    assert set(emitted) == wanted


@pytest.mark.parametrize(
    ("lattice", "number", "order"),
    [
        ("fcc", 225, 48),
        ("bcc", 229, 48),
        ("sc", 221, 48),
        ("hcp", 194, 24),
        ("dhcp", 194, 24),
        ("9R", 166, 12),
    ],
)
def test_parents_have_their_space_group(lattice, number, order, monkeypatch):
    import spglib

    # spglib's coming behaviour: exceptions, and no warning about them.
    monkeypatch.setenv("SPGLIB_OLD_ERROR_HANDLING", "0")
    parent = parent_lattice(lattice)
    dataset = spglib.get_symmetry_dataset((parent.cell, parent.sites, [1] * parent.n_sites))
    assert dataset.number == number
    assert len(dataset.rotations) == len(parent.rotations) == order
    ours = {rotation.tobytes() for rotation in parent.rotations}
    assert ours == {rotation.astype(np.int64).tobytes() for rotation in dataset.rotations}
    assert abs(np.linalg.det(parent.cell)) == pytest.approx(parent.n_sites, rel=1e-12)


def test_nine_r_stacks_as_its_name_says():
    parent = parent_lattice("9R")
    layers = {}
    for k in range(3):
        for site in parent.sites @ parent.cell + k * parent.cell[2]:
            layers[round(site[2] / parent.cell[2, 2] * 3)] = site
    step = (parent.cell[0] + 2 * parent.cell[1]) / 3
    in_plane = np.linalg.inv(np.vstack([parent.cell[:2], [0, 0, 1]]))
    letters = ""
    for i in range(9):
        for letter, turns in zip("ABC", range(3), strict=True):
            offset = ((layers[i] - turns * step) @ in_plane)[:2]
            if np.abs(offset - np.round(offset)).max() < 1e-9:
                letters += letter
    assert letters == "ABABCBCAC"


def test_cells_are_compact_and_atoms_inside():
    for lattice, n_cells in (("fcc", 9), ("bcc", 7), ("hcp", 5), ("9R", 3)):
        parent = parent_lattice(lattice)
        for superlattice in superlattices(lattice, n_cells):
            cell = superlattice.cell
            assert np.linalg.det(cell) == pytest.approx(superlattice.n_atoms, rel=1e-10)
            multiples = cell @ np.linalg.inv(parent.cell)
            np.testing.assert_allclose(multiples, np.round(multiples), atol=1e-9)
            inside = superlattice.positions @ np.linalg.inv(cell)
            assert (inside > -1e-8).all()
            assert (inside < 1 - 1e-9 / 2).all()
            # Minkowski: no vector is shortened by the other two.
            lengths = np.linalg.norm(cell, axis=1)
            for factors in itertools.product((-1, 0, 1), repeat=3):
                if any(factors):
                    used = lengths[np.array(factors) != 0]
                    length = np.linalg.norm(np.array(factors) @ cell)
                    assert length > used.max() * (1 - 1e-9)


def test_reduced_cell_is_the_same_lattice_right_handed():
    random = np.random.default_rng(3)
    for _ in range(20):
        cell = random.normal(size=(3, 3))
        skew = np.array([[1, 0, 0], [7, 1, 0], [-5, 11, 1]])[random.permutation(3)]
        reduced = reduced_cell(skew @ cell)
        assert np.linalg.det(reduced) == pytest.approx(abs(np.linalg.det(cell)), rel=1e-9)
        multiples = reduced @ np.linalg.inv(cell)
        np.testing.assert_allclose(multiples, np.round(multiples), atol=1e-8)


@pytest.mark.parametrize("max_rows", [1, 7, 1000])
def test_blocks_of_any_size_give_the_same_structures(max_rows):
    def listed(rows):
        return [
            (superlattice.number, row.tobytes())
            for superlattice, labels in colourings("hcp", 3, 3, max_rows=rows)
            for row in labels
        ]

    blocks = [len(labels) for _, labels in colourings("hcp", 3, 3, max_rows=max_rows)]
    assert max(blocks) <= max_rows
    assert listed(max_rows) == listed(10**6)
    assert listed(max_rows) == sorted(listed(max_rows))


def test_a_cell_with_a_pure_translation_is_no_parent():
    with pytest.raises(InputError, match="must be primitive"):
        space_group(np.diag([1.0, 1.0, 2.0]), np.array([[0.0, 0, 0], [0, 0, 0.5]]))


def test_rotations_of_a_skewed_cell_are_those_of_its_lattice():
    skewed = np.array([[1, 0, 0], [2, 1, 0], [0, -3, 1]]) @ np.eye(3)
    assert len(lattice_rotations(skewed)) == 48


@pytest.mark.parametrize(
    ("name", "near"), [("FCC", "fcc"), ("9r", "9R"), ("hpc", "hcp"), ("dhpc", "dhcp"), ("", "")]
)
def test_unknown_lattice_names_the_nearest(name, near):
    with pytest.raises(InputError, match=f"unknown; the nearest known one is '{near}"):
        parent_lattice(name)


@pytest.mark.parametrize(
    ("lattice", "n_cells", "n_colours", "message"),
    [
        ("fcc", 0, 2, "n_cells must be at least 1, got 0"),
        ("fcc", 2, 0, "n_colours must be between 1 and 10, got 0"),
        ("fcc", 2, 11, "n_colours must be between 1 and 10, got 11"),
    ],
)
def test_wrong_numbers(lattice, n_cells, n_colours, message):
    with pytest.raises(InputError, match=message):
        count_colourings(lattice, n_cells, n_colours)
    with pytest.raises(InputError, match=message):
        list(colourings(lattice, n_cells, n_colours))


def test_known_lattices():
    assert LATTICES == ("fcc", "bcc", "hcp", "dhcp", "9R", "sc")
