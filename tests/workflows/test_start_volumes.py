import numpy as np
import pytest
from ase import Atoms
from hypothesis import given, settings
from hypothesis import strategies as st

from hullscreen.potentials.errors import InputError
from hullscreen.potentials.structures import Structures, concatenate, from_atoms
from hullscreen.workflows.element_sizes import CLOSEST_PACKING, element_sizes
from hullscreen.workflows.start_volumes import (
    LARGEST_DLS_RATIO,
    SHORTEST_BOND,
    additive_volumes,
    bond_length_volumes,
    scale_to_start_volumes,
    start_volumes,
)


def b2(a, first, second):
    return Atoms([first, second], scaled_positions=[[0, 0, 0], [0.5] * 3], cell=[a] * 3, pbc=True)


def l1_0(a, c, first, second):
    # a as usually given, for the cell of four atoms.
    cell = [a / np.sqrt(2), a / np.sqrt(2), c]
    return Atoms([first, second], scaled_positions=[[0, 0, 0], [0.5] * 3], cell=cell, pbc=True)


def l1_2(a, corner, faces):
    sites = [[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]
    return Atoms([corner, *[faces] * 3], scaled_positions=sites, cell=[a] * 3, pbc=True)


def d0_22(a, c, minority, majority):
    sites = [[0, 0, 0], [0, 0, 0.5], [0.5, 0, 0.25], [0, 0.5, 0.25]]
    both = sites + [[(x + 0.5) % 1, (y + 0.5) % 1, (z + 0.5) % 1] for x, y, z in sites]
    symbols = [minority, *[majority] * 3] * 2
    return Atoms(symbols, scaled_positions=both, cell=[a, a, c], pbc=True)


# Lattice parameters in Å at room temperature, from Pearson's Handbook of Crystallographic Data for
# Intermetallic Phases (Villars, Calvert 1991); sources differ by 1 % in volume.
MEASURED = {
    "NiAl": b2(2.887, "Ni", "Al"),
    "FeAl": b2(2.909, "Fe", "Al"),
    "CoAl": b2(2.862, "Co", "Al"),
    "RuAl": b2(2.990, "Ru", "Al"),
    "CuPd": b2(2.988, "Cu", "Pd"),
    "CuZn": b2(2.954, "Cu", "Zn"),
    "AgZn": b2(3.156, "Ag", "Zn"),
    "AuZn": b2(3.149, "Au", "Zn"),
    "AgMg": b2(3.314, "Ag", "Mg"),
    "CuBe": b2(2.700, "Cu", "Be"),
    "NiTi": b2(3.015, "Ni", "Ti"),
    "CoTi": b2(2.994, "Co", "Ti"),
    "FeTi": b2(2.976, "Fe", "Ti"),
    "HfRu": b2(3.225, "Hf", "Ru"),
    "FeCo": b2(2.857, "Fe", "Co"),
    "TiAl": l1_0(4.005, 4.070, "Ti", "Al"),
    "CuAu": l1_0(3.966, 3.673, "Cu", "Au"),
    "CoPt": l1_0(3.793, 3.675, "Co", "Pt"),
    "FePt": l1_0(3.852, 3.713, "Fe", "Pt"),
    "NiPt": l1_0(3.823, 3.589, "Ni", "Pt"),
    "Ni3Al": l1_2(3.572, "Al", "Ni"),
    "Cu3Au": l1_2(3.749, "Au", "Cu"),
    "Pt3Ti": l1_2(3.906, "Ti", "Pt"),
    "Ni3Fe": l1_2(3.552, "Fe", "Ni"),
    "Al3Sc": l1_2(4.103, "Sc", "Al"),
    "Ni3Pt": l1_2(3.645, "Pt", "Ni"),
    "Co3Ti": l1_2(3.614, "Ti", "Co"),
    "Fe3Pt": l1_2(3.730, "Pt", "Fe"),
    "Pt3Cr": l1_2(3.877, "Cr", "Pt"),
    "Al3Ti": d0_22(3.849, 8.610, "Ti", "Al"),
    "Al3Nb": d0_22(3.844, 8.605, "Nb", "Al"),
}
FERROMAGNETS = {"FeCo", "Ni3Fe", "Fe3Pt"}


def sized(atoms, elemental_volumes=None):
    elements = sorted(set(atoms.symbols))
    return from_atoms([atoms], elements), element_sizes(elements, elemental_volumes)


def relative_errors(rule):
    return {
        name: float(rule(*sized(atoms))[0] / atoms.get_volume() - 1.0)
        for name, atoms in MEASURED.items()
    }


# 7 %: what two-parameter rules leave on alloys; a bond is then off by 2.3 %.
@pytest.mark.parametrize("name", sorted(set(MEASURED) - FERROMAGNETS))
def test_measured_volumes_of_ordered_alloys(name):
    atoms = MEASURED[name]
    assert start_volumes(*sized(atoms))[0] == pytest.approx(atoms.get_volume(), rel=0.07)


def test_the_mean_is_better_than_either_estimate():
    rms = {
        rule: np.sqrt(np.mean(np.square(list(relative_errors(rule).values()))))
        for rule in (start_volumes, additive_volumes, bond_length_volumes)
    }
    print({rule.__name__: f"{100 * error:.1f} %" for rule, error in rms.items()})
    assert rms[start_volumes] < 0.055
    assert rms[start_volumes] < 0.75 * min(rms[additive_volumes], rms[bond_length_volumes])
    # Moments swell iron and cobalt, which neither estimate knows.
    assert max(map(abs, relative_errors(start_volumes).values())) < 0.15


@pytest.mark.parametrize(
    ("symbol", "lattice_parameter"),
    [("Al", 4.0496), ("Cu", 3.6149), ("Ni", 3.5240), ("Au", 4.0782)],
)
def test_close_packed_elements_start_at_their_own_volume(symbol, lattice_parameter):
    fcc = l1_2(3.0, symbol, symbol)
    # 0.5 %: between tables of molar volumes and lattice parameters.
    assert start_volumes(*sized(fcc))[0] == pytest.approx(lattice_parameter**3, rel=5e-3)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), n_pairs=st.integers(1, 3))
def test_equiatomic_alloys_have_the_bond_length_volume_of_pymatgen(seed, n_pairs):
    from pymatgen.analysis.structure_prediction.volume_predictor import DLSVolumePredictor
    from pymatgen.io.ase import AseAtomsAdaptor

    random = np.random.default_rng(seed)
    elements = list(random.choice(["Al", "Cu", "Ni", "Zr", "Pd", "Mg", "W"], 2, replace=False))
    cell = 3.0 * np.eye(3) * np.cbrt(n_pairs) + random.uniform(-1, 1, (3, 3))
    atoms = Atoms(
        elements * n_pairs, scaled_positions=random.random((2 * n_pairs, 3)), cell=cell, pbc=True
    )
    structure = AseAtomsAdaptor.get_structure(atoms)
    # pymatgen looks no farther than 4 Å and a radius, where every such cell has its tightest bond.
    expected = DLSVolumePredictor(min_scaling=None, max_scaling=None).predict(structure)
    found = bond_length_volumes(from_atoms([atoms], elements), element_sizes(elements))
    assert found[0] == pytest.approx(expected, rel=1e-10)  # rounding


def test_scaling_changes_the_volume_only_and_each_structure_by_itself():
    elements = ["Al", "Ni"]
    frames = [
        b2(3.0, "Ni", "Al"),
        l1_2(5.0, "Al", "Ni"),
        l1_2(5.0, "Ni", "Ni"),
        b2(2.0, "Al", "Al"),
    ]
    together = from_atoms(frames, elements)
    scaled = scale_to_start_volumes(together, elements)
    alone = concatenate(
        scale_to_start_volumes(from_atoms([frame], elements), elements) for frame in frames
    )
    np.testing.assert_allclose(scaled.cells, alone.cells, rtol=1e-14)  # the same operations
    np.testing.assert_allclose(scaled.positions, alone.positions, atol=1e-14)
    np.testing.assert_array_equal(scaled.species, together.species)
    for i in range(len(frames)):
        before, after = together.one(i), scaled.one(i)
        factor = after[0][0, 0] / before[0][0, 0]
        np.testing.assert_allclose(after[0], factor * before[0], atol=1e-12)
        np.testing.assert_allclose(after[1], factor * before[1], atol=1e-12)
    # A cell that has its start volume keeps it: the rule does not depend on the scale it gets.
    again = scale_to_start_volumes(scaled, elements)
    np.testing.assert_allclose(again.cells, scaled.cells, rtol=1e-12, atol=1e-12)


def test_own_elemental_volumes_move_alloys_along():
    elements = ["Al", "Ni"]
    pool = from_atoms([b2(3.0, "Ni", "Al"), l1_2(3.6, "Al", "Ni"), l1_2(3.6, "Ni", "Ni")], elements)
    sizes = element_sizes(elements)
    doubled = {"Al": 2.0 * sizes.volumes[0], "Ni": 2.0 * sizes.volumes[1]}
    plain = scale_to_start_volumes(pool, elements).volumes
    # Twice the volumes of all elements is a change of the unit of length.
    swollen = scale_to_start_volumes(pool, elements, doubled).volumes
    np.testing.assert_allclose(swollen, 2.0 * plain, rtol=1e-12)
    pure = scale_to_start_volumes(pool, elements, {"Ni": 10.0}).volumes[2]
    assert pure == pytest.approx(40.0, rel=1e-12)


def test_open_prototypes_start_neither_empty_nor_crushed():
    diamond = Atoms(
        "Cu8",
        scaled_positions=[
            [x + s, y + s, z + s]
            for x, y, z in [(0, 0, 0), (0, 0.5, 0.5), (0.5, 0, 0.5), (0.5, 0.5, 0)]
            for s in (0, 0.25)
        ],
        cell=[5.4] * 3,
        pbc=True,
    )
    dimers = Atoms("Cu2", positions=[[0, 0, 0], [1.0, 0, 0]], cell=[4.0] * 3, pbc=True)
    for atoms in (diamond, dimers):
        structures, sizes = sized(atoms)
        volume = start_volumes(structures, sizes)[0]
        mined = bond_length_volumes(structures, sizes)[0]
        additive = additive_volumes(structures, sizes)[0]
        shortest = np.cbrt(volume / mined)
        assert shortest >= SHORTEST_BOND * (1 - 1e-12)
        assert (
            volume <= max((1 + LARGEST_DLS_RATIO) / 2 * additive, SHORTEST_BOND**3 * mined) + 1e-9
        )
    # d = 2^(1/6) v^(1/3) in close packing is the length that pure bonds are given.
    expected = CLOSEST_PACKING * np.cbrt(sizes.volumes[0])
    assert bond_length_volumes(structures, sizes)[0] == pytest.approx(64.0 * expected**3, rel=1e-12)


def test_elements_without_data():
    with pytest.raises(InputError, match="volume of At is not known; give it in elemental_volumes"):
        element_sizes(["Cu", "At"])
    sizes = element_sizes(["Cu", "At"], {"At": 30.0})
    assert np.isfinite(sizes.radii).all()
    assert np.isfinite(sizes.electronegativities).all()


@pytest.mark.parametrize("volume", [0.0, -1.0, float("nan")])
def test_volumes_must_be_positive(volume):
    with pytest.raises(InputError, match="volume of Cu must be positive"):
        element_sizes(["Cu"], {"Cu": volume})


def test_no_structures_at_all():
    empty = Structures(
        np.zeros((0, 3, 3)), np.zeros((0, 3)), np.zeros(0, dtype=np.int32), np.zeros(1, dtype=int)
    )
    assert len(scale_to_start_volumes(empty, ["Cu", "Pd"])) == 0
