"""The ASE calculator: ASE's differences agree, its optimisers work; labels from its results."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.fd import calculate_numerical_forces, calculate_numerical_stress
from ase.calculators.singlepoint import SinglePointCalculator
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS
from ase.units import GPa

from hullscreen.potentials.active_set import empty_active_set, select_active_set
from hullscreen.potentials.calculator import MTPCalculator, training_set_from_atoms
from hullscreen.potentials.errors import InputError
from hullscreen.potentials.example_data import copper_gold
from hullscreen.potentials.gradient_rows import energy_rows
from hullscreen.potentials.relaxation import RelaxationLimits, relax
from hullscreen.potentials.structures import from_atoms


@pytest.fixture(scope="module")
def potential(fitted):
    return fitted.potential


@pytest.fixture
def atoms(potential):
    alloy = bulk("Cu", cubic=True)
    alloy.symbols[0] = "Pd"
    alloy.rattle(0.05, seed=1)
    alloy.calc = MTPCalculator(potential)
    return alloy


def test_forces_and_stress_are_those_of_ase_differences(atoms):
    # Central differences with ASE's steps of 1e-3 Å and 1e-5: third derivatives of some 10 eV/Å³
    # leave 1e-5 eV/Å, rounding of 1e-13 eV less.
    np.testing.assert_allclose(
        atoms.get_forces(), calculate_numerical_forces(atoms, eps=1e-3), atol=1e-4
    )
    # Of strains of 1e-5 the third derivatives leave next to nothing; rounding of 1e-13 eV over the
    # step and a volume of 50 Å³ leaves 1e-10 eV/Å³.
    np.testing.assert_allclose(
        atoms.get_stress(voigt=True), calculate_numerical_stress(atoms, eps=1e-5), atol=1e-8
    )


def test_energies_of_atoms_add_up(atoms):
    # Four atoms of some eV: rounding.
    assert atoms.get_potential_energies().sum() == pytest.approx(
        atoms.get_potential_energy(), abs=1e-12
    )
    assert atoms.get_potential_energy(force_consistent=True) == atoms.get_potential_energy()


def test_results_follow_the_atoms(atoms):
    before = atoms.get_potential_energy()
    atoms.positions[0] += 0.3
    assert atoms.get_potential_energy() != before


def test_ase_relaxes_to_where_we_do(atoms, potential):
    start = from_atoms([atoms], potential.elements)
    BFGS(FrechetCellFilter(atoms), logfile=None).run(fmax=1e-3, steps=100)
    assert np.linalg.norm(atoms.get_forces(), axis=1).max() < 1e-3
    limits = RelaxationLimits(force_tolerance=1e-3, stress_tolerance_gpa=1e-2)
    ours = relax(potential, start, limits)
    assert ours.outcome_counts() == {"converged": 1}
    # Near the minimum E − E₀ ≈ F² / 2k: (1e-3)² / 10 eV per variable.
    assert ours.energies[0] == pytest.approx(atoms.get_potential_energy(), abs=1e-5)
    # A force of 1e-3 over a stiffness of some eV/Å² leaves 1e-3 Å.
    assert ours.structures.volumes[0] == pytest.approx(atoms.get_volume(), rel=1e-3)
    assert np.abs(atoms.get_stress()).max() < 0.1 * GPa


def test_grade_comes_with_an_active_set(atoms, potential):
    structures = from_atoms([atoms], potential.elements)
    active = select_active_set(energy_rows(potential, structures))
    atoms.calc = MTPCalculator(potential, active)
    atoms.get_potential_energy()
    # The cell is itself in the set; rows of 1e-6 that nothing has set yet make A nearly singular,
    # and rounding grows with its condition.
    assert atoms.calc.results["grade"] == pytest.approx(1.0, rel=1e-6)
    atoms.positions[0] += 0.2
    atoms.get_potential_energy()
    assert atoms.calc.results["grade"] > 1.0


def test_grades_of_neighbourhoods(atoms, potential):
    structures = from_atoms([atoms], potential.elements)
    active = select_active_set(potential.evaluate(structures, "sites").gradients)
    atoms.calc = MTPCalculator(potential, active, by_neighbourhood=True)
    atoms.get_potential_energy()
    assert atoms.calc.results["grades"].shape == (4,)
    assert atoms.calc.results["grade"] == atoms.calc.results["grades"].max()


def test_no_grade_without_an_active_set(atoms):
    atoms.get_potential_energy()
    assert "grade" not in atoms.calc.results


def test_structures_that_do_not_fit(potential):
    strange = Atoms("Al", cell=3.0 * np.eye(3), pbc=True, calculator=MTPCalculator(potential))
    with pytest.raises(InputError, match="holds Al; expected only Cu, Pd"):
        strange.get_potential_energy()
    free = Atoms("Cu", calculator=MTPCalculator(potential))
    with pytest.raises(InputError, match="three periodic lattice vectors"):
        free.get_potential_energy()


def test_an_active_set_of_another_potential(potential):
    n = potential.parameters.size
    with pytest.raises(InputError, match=f"potential of 3 parameters, this one has {n}; select"):
        MTPCalculator(potential, empty_active_set(3))


def test_a_calculator_serves_many_structures_in_turn(potential):
    calculator = MTPCalculator(potential)
    cells = [bulk("Cu"), bulk("Pd", cubic=True), bulk("Cu", "bcc", a=2.9)]
    expected = potential.evaluate(from_atoms(cells, potential.elements)).energies
    for atoms, energy in zip([*cells, *cells], [*expected, *expected], strict=True):
        atoms.calc = calculator
        # The same kernels; a batch may add in another order.
        assert atoms.get_potential_energy() == pytest.approx(energy, rel=1e-12)


# Labels


def test_labels_are_what_the_calculators_hold():
    frames = copper_gold(4)
    training = training_set_from_atoms(frames, ("Cu", "Au"))
    assert training.energies.tolist() == [atoms.get_potential_energy() for atoms in frames]
    np.testing.assert_array_equal(
        training.forces, np.concatenate([atoms.get_forces() for atoms in frames])
    )
    for stress, atoms in zip(training.stresses, frames, strict=True):
        np.testing.assert_array_equal(stress, atoms.get_stress(voigt=False))
    # Species are counted in the order that was asked for.
    other = training_set_from_atoms(frames, ("Au", "Cu"))
    np.testing.assert_array_equal(other.structures.species, 1 - training.structures.species)


def test_results_that_are_missing_are_unknown():
    atoms = bulk("Cu")
    atoms.calc = EMT()
    atoms.get_potential_energy()
    atoms.calc.results.pop("stress", None)
    atoms.calc.results.pop("forces", None)
    training = training_set_from_atoms([atoms], ("Cu",))
    assert np.isfinite(training.energies).all()
    assert np.isnan(training.forces).all()
    assert np.isnan(training.stresses).all()


@pytest.mark.parametrize("state", ["no calculator", "not calculated", "moved since"])
def test_nothing_is_calculated_in_passing(state):
    atoms = bulk("Cu")
    if state == "not calculated":
        atoms.calc = EMT()
    if state == "moved since":
        atoms.calc = SinglePointCalculator(atoms, energy=-1.0)
        atoms.set_cell(1.01 * atoms.cell, scale_atoms=True)
    with pytest.raises(InputError, match="structure 1 has no energy; calculate it first"):
        training_set_from_atoms([*copper_gold(1), atoms], ("Cu", "Au"))


def test_the_example_is_emt_and_the_same_every_time():
    frames, again = copper_gold(5, seed=3), copper_gold(5, seed=3)
    assert [str(atoms.symbols.formula.reduce()[0]) for atoms in frames][::4] == ["Cu", "Au"]
    for atoms, twin in zip(frames, again, strict=True):
        assert atoms.get_potential_energy() == twin.get_potential_energy()
        fresh = atoms.copy()
        fresh.calc = EMT()
        # Rounding: EMT may visit neighbours in another order.
        assert fresh.get_potential_energy() == pytest.approx(
            atoms.get_potential_energy(), rel=1e-12
        )
        np.testing.assert_allclose(fresh.get_stress(), atoms.get_stress(), atol=1e-12)
