import tracemalloc

import numpy as np
import pytest

from hullscreen.potentials.errors import InputError
from hullscreen.potentials.structures import concatenate
from hullscreen.workflows.element_sizes import element_sizes
from hullscreen.workflows.prototypes import PrototypePool
from hullscreen.workflows.same_basin import same_crystal
from hullscreen.workflows.start_volumes import start_volumes

CU_PD = ("Cu", "Pd")
ALL_LATTICES = ("fcc", "bcc", "hcp", "dhcp", "9R", "sc")

# Elements, binaries and ternaries of fcc, bcc and hcp by the most atoms per cell.
TERNARY_POOLS = {
    4: (126, 57),
    6: (1081, 507),
    8: (9808, 6075),
    9: (23799, 6075),
    10: (79260, 36963),
}
BINARY_POOLS = {4: (29, 13), 6: (137, 63), 8: (631, 333), 10: (2346, 984), 12: (10850, 5777)}


@pytest.mark.parametrize(
    ("elements", "max_atoms", "cubic", "hexagonal"),
    [(CU_PD, n, *counts) for n, counts in BINARY_POOLS.items()]
    + [(("Cu", "Ni", "Pt"), n, *counts) for n, counts in TERNARY_POOLS.items()],
)
def test_counts_of_pools(elements, max_atoms, cubic, hexagonal):
    counts = PrototypePool(elements, max_atoms=max_atoms).count()
    assert counts == {
        "fcc": cubic,
        "bcc": cubic,
        "hcp": hexagonal,
        "total": 2 * cubic + hexagonal,
    }


@pytest.fixture(scope="module")
def everything():
    pool = PrototypePool(CU_PD, ALL_LATTICES, max_atoms=6, aflow=True)
    return pool, list(pool.batches(size=100))


def test_batches_hold_what_is_counted(everything):
    pool, batches = everything
    names = [name for batch in batches for name in batch.prototypes]
    counts = pool.count()
    assert len(set(names)) == len(names) == counts["total"]
    for source in (*ALL_LATTICES, "aflow"):
        assert sum(name.startswith(source + "-") for name in names) == counts[source]
    assert [len(batch.prototypes) for batch in batches[:-1]] == [100] * (len(batches) - 1)
    assert [batch.first_index for batch in batches] == list(range(0, len(names), 100))
    for batch in batches:
        assert len(batch.structures) == len(batch.prototypes)
        assert batch.structures.species.dtype == np.int32
        assert batch.structures.cells.flags.c_contiguous
        assert batch.structures.positions.flags.c_contiguous


def test_elements_come_first_then_small_cells(everything):
    _, batches = everything
    structures = concatenate(batch.structures for batch in batches)
    pure = (structures.counts(2) > 0).sum(axis=1) == 1
    n_pure = pure.sum()
    assert pure[:n_pure].all()
    assert (np.diff(structures.n_atoms[n_pure:]) >= 0).all()


def test_names_tell_atoms_and_species(everything):
    _, batches = everything
    for batch in batches:
        for i, name in enumerate(batch.prototypes):
            if name.startswith("aflow-"):
                continue
            _, n_atoms, _, digits = name.split("-")
            kinds = batch.structures.one(i)[2]
            assert len(kinds) == int(n_atoms)
            assert digits == "".join(map(str, kinds))


def test_names_stay_from_version_to_version():
    names = [
        name
        for batch in PrototypePool(CU_PD, ("fcc", "hcp"), max_atoms=4).batches()
        for name in batch.prototypes
    ]
    assert names[:12] == [
        *["fcc-1-1-0", "fcc-1-1-1", "hcp-2-1-00", "hcp-2-1-11", "fcc-2-1-01", "fcc-2-2-01"],
        *["hcp-2-1-01", "fcc-3-1-001", "fcc-3-1-011", "fcc-3-2-001", "fcc-3-2-011", "fcc-3-3-001"],
    ]


def test_the_order_of_lattices_and_the_size_of_batches_change_nothing(everything):
    _, batches = everything
    other = PrototypePool(CU_PD, ALL_LATTICES[::-1], max_atoms=6, aflow=True)
    names = [name for batch in batches for name in batch.prototypes]
    again = list(other.batches(size=37))
    assert [name for batch in again for name in batch.prototypes] == names
    assert list(other.count()) == [*ALL_LATTICES[::-1], "aflow", "total"]
    one = concatenate(batch.structures for batch in batches)
    two = concatenate(batch.structures for batch in again)
    np.testing.assert_allclose(one.cells, two.cells, rtol=1e-14, atol=1e-14)  # order of sums only
    np.testing.assert_array_equal(one.species, two.species)


def test_structures_have_their_start_volumes(everything):
    pool, batches = everything
    sizes = element_sizes(pool.elements)
    for batch in batches:
        wanted = start_volumes(batch.structures, sizes)
        # The rule depends on the shape only, so scaled cells ask for the volume they have.
        np.testing.assert_allclose(batch.structures.volumes, wanted, rtol=1e-10)


def test_own_elemental_volumes():
    pool = PrototypePool(CU_PD, ("fcc",), 1, elemental_volumes={"Cu": 12.5})
    volumes = next(pool.batches()).structures.volumes
    assert volumes[0] == pytest.approx(12.5, rel=1e-12)


def test_no_two_members_are_one_crystal():
    # hcp and dhcp hold no common crystal; sc, fcc and bcc share none with ideal cells either.
    pool = PrototypePool(CU_PD, ALL_LATTICES, max_atoms=4, aflow=True)
    structures = concatenate(batch.structures for batch in pool.batches())
    names = [name for batch in pool.batches() for name in batch.prototypes]
    counts = structures.counts(2)
    by_formula = {}
    for i, row in enumerate(counts):
        by_formula.setdefault(tuple(row // np.gcd(*row)), []).append(i)
    same = [
        (names[i], names[j])
        for members in by_formula.values()
        for k, i in enumerate(members)
        for j in members[:k]
        if same_crystal(
            *structures.one(i), *structures.one(j), length_tolerance=1e-3, position_tolerance=3e-3
        )
    ]
    assert same == []


def test_a_large_pool_is_never_held():
    pool = PrototypePool(("Cu", "Ni", "Pt"), max_atoms=9)
    next(pool.batches())  # compile first
    tracemalloc.start()
    n_structures = sum(len(batch.prototypes) for batch in pool.batches())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert n_structures == 53673
    # All of it would take 53673 x (8.5 atoms x 28 bytes + cell and name) = 20 MB.
    assert peak < 10e6


def test_the_pool_of_the_paper():
    pool = PrototypePool(("Al", "Ni", "Ti"), max_atoms=11)
    names, n_structures = set(), 0
    for batch in pool.batches():
        assert batch.first_index == n_structures
        assert np.isfinite(batch.structures.positions).all()
        names.update(batch.prototypes)
        n_structures += len(batch.structures)
    assert n_structures == len(names) == 380_613


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"elements": ("Cu",)}, "expected 2 to 4 elements, such as Cu Pd, got 1: Cu"),
        ({"elements": ()}, "got 0: none"),
        ({"elements": ("Cu", "Pd", "Ag", "Au", "Pt")}, "got 5: Cu Pd Ag Au Pt"),
        ({"elements": ("Cu", "Cu")}, "element Cu is named more than once"),
        ({"elements": ("Cu", "Pb1")}, "'Pb1' is not an element; the nearest symbol is 'Pb'"),
        ({"elements": ("cu", "Pd")}, "'cu' is not an element; the nearest symbol is 'Cu'"),
        ({"elements": ("Cu", "At")}, "volume of At is not known"),
        ({"lattices": ("fcc", "bbc")}, "'bbc' is unknown; the nearest known one is 'bcc'"),
        ({"lattices": ("fcc", "fcc")}, "lattice fcc is named more than once"),
        ({"lattices": ()}, "needs at least one lattice"),
        ({"max_atoms": 0}, "max_atoms must be at least 1, got 0"),
        ({"aflow_max_atoms": 0}, "aflow_max_atoms must be at least 1, got 0"),
        ({"elemental_volumes": {"Cu": -1.0}}, "volume of Cu must be positive"),
    ],
)
def test_wrong_pools(arguments, message):
    with pytest.raises(InputError, match=message):
        PrototypePool(**{"elements": CU_PD, **arguments})


def test_wrong_batch_size():
    with pytest.raises(InputError, match="size must be at least 1, got 0"):
        next(PrototypePool(CU_PD).batches(0))


def test_what_is_left_out_is_told():
    left_out = PrototypePool(CU_PD, max_atoms=8, aflow=True).left_out()
    assert left_out["AB3_cP4_221_a_c"] == "a derivative structure of fcc"
    assert left_out["AB_hP4_186_b_b-10"] == "the same crystal as AB_hP4_186_b_b-01"
    assert PrototypePool(CU_PD).left_out() == {}
