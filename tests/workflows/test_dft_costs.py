"""What calculations cost: workloads of crystals, and the line through what was measured."""

import math

import numpy as np
import pytest
from ase import Atoms

from hullscreen.database.dft_documents import DFTDocument
from hullscreen.database.documents import Geometry
from hullscreen.dft_adapters.espresso_settings import settings_from_table as espresso_settings
from hullscreen.potentials.structures import join
from hullscreen.workflows.dft_costs import (
    FACTOR_OF_FEW,
    CostModel,
    Workloads,
    fit_costs,
    irreducible_points,
    model_of,
    valence_electrons,
)

A = 3.6
FCC = A / 2 * np.array([[0.0, 1, 1], [1, 0, 1], [1, 1, 0]])
ORIGIN = np.zeros((1, 3))
ONE = np.zeros(1, dtype=np.int32)
L12 = A * np.array([[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]])


def crystal(cell, positions, species):
    return join([(cell, positions, np.array(species, dtype=np.int32))])


def test_symmetry_saves_points():
    # 8 × 8 × 8 points around Γ in a cubic cell: n (n + 1) (n + 2) / 6 of n = 5, counted by hand.
    assert irreducible_points(A * np.eye(3), L12, np.array([0, 1, 1, 1]), 1 / (A * 8)) == 35
    assert irreducible_points(A * np.eye(3), L12, np.array([0, 1, 1, 1]), 1.0) == 1
    strained = FCC + np.random.default_rng(0).normal(scale=0.05, size=(3, 3))
    fcc = irreducible_points(FCC, ORIGIN, ONE, 0.04)
    # Time reversal alone leaves about half of the grid; fcc has 48 operations.
    assert irreducible_points(strained, ORIGIN, ONE, 0.04) > 10 * fcc


def test_without_symmetry_two_opposite_points_are_one():
    cell = np.array([[1.9, 1.9, 0.02], [1.95, -1.9, 0.05], [0.03, 0.1, 8.3]])
    positions = np.array([[0.1, 0.0, 0.0], [1.9, 0.1, 2.7], [0.0, 0.05, 5.6]])
    grid = np.ceil(np.linalg.norm(np.linalg.inv(cell), axis=0) / 0.04).astype(int)
    # Γ and, on even grids, points of the zone's border are opposite to themselves.
    alone = 2 ** np.count_nonzero(grid % 2 == 0)
    found = irreducible_points(cell, positions, np.array([0, 0, 1]), 0.04)
    assert found == (grid.prod() + alone) // 2


@pytest.mark.parametrize(("symbol", "n"), [("Al", 3), ("Ti", 4), ("Ni", 10), ("Zn", 12)])
def test_valence_electrons(symbol, n):
    assert valence_electrons(symbol) == n


def test_workload_of_a_program():
    work = Workloads.of_engine(
        {"engine": "quantum_espresso", "kpoint_spacing": 0.05, "spin": True}, ("Al", "Ni")
    )
    al, ni = (work.of(crystal(FCC, ORIGIN, [k]))[0] for k in (0, 1))
    points = irreducible_points(FCC, ORIGIN, ONE, 0.05)
    assert al == pytest.approx(points * 3 * A**3 / 4)
    # Ten electrons instead of three, in two spins.
    assert ni == pytest.approx(al * 10 / 3 * 2)
    table = {"engine": "vasp", "kpoint_spacing": 0.05, "spin": False}
    without = Workloads.of_engine(table, ("Ni",))
    assert without.of(crystal(FCC, ORIGIN, [0]))[0] == pytest.approx(ni / 2)


def test_workload_of_an_ase_calculator_is_atoms():
    work = Workloads.of_engine({"engine": "ase", "calculator": "a:B"}, ("Al", "Ni"))
    assert work.of(crystal(A * np.eye(3), L12, [0, 1, 1, 1])).tolist() == [4.0]


def test_the_line_is_found_in_spite_of_outliers():
    rng = np.random.default_rng(1)
    workloads = np.exp(rng.uniform(8, 13, size=60))
    seconds = 1e-3 * workloads**0.8 * np.exp(rng.normal(scale=0.1, size=60))
    # A tenth met a machine that was busy, or were begun again.
    seconds[::10] *= 20
    model = fit_costs(workloads, seconds)
    assert model.slope == pytest.approx(0.8, abs=0.05)
    assert model.n_measured == 60
    assert model.factor < 1.4
    # Typical ones are foretold within their spread.
    foretold = model.seconds(workloads)
    inside = np.abs(np.log(foretold / seconds)) < math.log(1.5)
    assert inside[np.arange(60) % 10 != 0].mean() > 0.95


def test_few_calculations_give_proportional_costs_and_a_wide_range():
    model = fit_costs(np.array([100.0, 400.0]), np.array([10.0, 44.0]))
    assert model.slope == 1.0
    assert model.seconds(np.array([200.0]))[0] == pytest.approx(21, rel=0.05)
    assert model.factor == FACTOR_OF_FEW
    # Many alike say no more about others; four that are not, something.
    assert fit_costs(np.full(30, 100.0), np.linspace(9, 11, 30)).slope == 1.0
    assert fit_costs(10.0 ** np.arange(4), 2.0 ** np.arange(4)).slope < 1
    assert fit_costs(np.empty(0), np.empty(0)) is None


def document(seconds, *, kind="single_point", species=(29, 46)):
    return DFTDocument(
        key="k", kind=kind, state="done", campaign="c", purpose="seed", structure_index=0,
        chemsys="Cu-Pd", engine="e", numbers=species,
        geometry=Geometry(A * np.eye(3), L12[: len(species)]), cpu_seconds=seconds,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("table", "polarised"),
    [
        ({}, ["NiAl", "NiAl3", "Ni"]),
        ({"spin": False}, []),
        ({"spin_from_fraction": 0.5}, ["NiAl", "Ni"]),
        ({"spin_from_fraction": 0.9}, ["Ni"]),
        ({"initial_moments": {"Ni": 0.0}}, []),
        ({"initial_moments": {"Al": 0.1}}, ["NiAl", "NiAl3", "Ni", "Al"]),
    ],
)
def test_structures_with_spin_weigh_twice_as_much(table, polarised):
    species = {"NiAl": (1, 0), "NiAl3": (1, 0, 0, 0), "Ni": (1,), "Al": (0,)}
    structures = join(
        (A * np.eye(3), L12[: len(kinds)], np.array(kinds, dtype=np.int32))
        for kinds in species.values()
    )
    settings = {"engine": "quantum_espresso", "kpoint_spacing": 0.1, **table}
    found = Workloads.of_engine(settings, ["Al", "Ni"]).of(structures)
    without = Workloads.of_engine({**settings, "spin": False}, ["Al", "Ni"]).of(structures)
    assert dict(zip(species, found / without, strict=True)) == {
        name: 2.0 if name in polarised else 1.0 for name in species
    }
    engine = espresso_settings(table)
    for name in species:
        symbols = Atoms(name).symbols
        assert engine.is_polarised(symbols) is (name in polarised)


def test_relaxations_are_measured_in_single_points():
    work = Workloads(("Cu", "Pd"), 0.0, frozenset())
    singles = [document(2.0), document(2.0), document(4.0, species=(29, 46, 46, 46))]
    assert model_of(singles, [], work).relaxation == 8.0
    model = model_of(singles, [document(10.0, kind="relaxation")] * 3, work)
    assert model.relaxation == pytest.approx(5.0)
    assert model.n_relaxations == 3
    assert model.relaxation_range[0] < 5 < model.relaxation_range[1]
    assert model_of([], [document(10.0, kind="relaxation")], work) is None
    # Nothing is known of a relaxation that was not measured.
    low, high = CostModel(1.0, 0.0, 0.1, 3).relaxation_range
    assert high / low > 4
