"""An MTP for people and programs that think in ASE's ``Atoms``: calculator and labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from ase.calculators.calculator import Calculator, all_changes
from ase.stress import full_3x3_to_voigt_6_stress, voigt_6_to_full_3x3_stress

from hullscreen.potentials.active_set import checked_active_set
from hullscreen.potentials.errors import InputError
from hullscreen.potentials.labels import TrainingSet
from hullscreen.potentials.structures import from_atoms

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ase import Atoms

    from hullscreen.potentials.active_set import ActiveSet
    from hullscreen.potentials.moment_tensor_potential import MomentTensorPotential


class MTPCalculator(Calculator):  # type: ignore[misc]  # ASE has no types
    """ASE calculator of a moment tensor potential.

    Parameters
    ----------
    potential
        Its ``elements`` say which symbol is which species.
    active_set
        If given, ``results["grade"]`` is the extrapolation grade of the cell. Of an ``.almtp`` file
        it is ``selection.active_set``, with ``selection.by_neighbourhood`` as the next argument.
    by_neighbourhood
        The active set holds site energies: the grade is the largest of the atoms', and
        ``results["grades"]`` has each, shape (n_atoms,).
    keywords
        What ASE's ``Calculator`` takes, such as ``atoms`` or ``label``.

    Raises
    ------
    InputError
        The active set belongs to another potential. On calculating: an element the potential does
        not know, a cell that is not periodic, or what `MomentTensorPotential.check` refuses.

    Examples
    --------
    >>> from hullscreen.potentials import (
    ...     MTPCalculator, fit_potential, training_set_from_atoms, untrained)
    >>> from hullscreen.potentials.example_data import copper_gold
    >>> frames = copper_gold(20)
    >>> start = untrained(6, ("Cu", "Au"), cutoff=4.5, min_distance=2.0)
    >>> training = training_set_from_atoms(frames, start.elements)
    >>> potential = fit_potential(start, training).potential
    >>> atoms = frames[0].copy()
    >>> atoms.calc = MTPCalculator(potential)
    >>> bool(abs(atoms.get_potential_energy() - frames[0].get_potential_energy()) < 0.1)
    True
    >>> atoms.get_forces().shape, atoms.get_stress().shape
    ((4, 3), (6,))
    """

    implemented_properties: ClassVar[list[str]] = [
        "energy",
        "free_energy",
        "energies",
        "forces",
        "stress",
    ]

    def __init__(
        self,
        potential: MomentTensorPotential,
        active_set: ActiveSet | None = None,
        *,
        by_neighbourhood: bool = False,
        **keywords: Any,
    ) -> None:
        super().__init__(**keywords)
        if active_set is not None:
            active_set = checked_active_set(active_set, potential)
        self.potential = potential
        self.active_set = active_set
        self.by_neighbourhood = by_neighbourhood

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Fill ``results`` with everything at once, in eV, eV/Å and eV/Å³."""
        super().calculate(atoms, list(properties), list(system_changes))
        structures = from_atoms([self.atoms], self.potential.elements)
        gradients = "none"
        if self.active_set is not None:
            gradients = "sites" if self.by_neighbourhood else "structures"
        found = self.potential.evaluate(structures, gradients)
        energy = float(found.energies[0])
        self.results = {
            "energy": energy,
            "free_energy": energy,
            "energies": found.site_energies,
            "forces": found.forces,
            "stress": full_3x3_to_voigt_6_stress(found.stresses[0]),
        }
        if self.active_set is not None:
            n_atoms = 1 if self.by_neighbourhood else len(structures.species)
            grades = self.active_set.grades(found.gradients / n_atoms)
            self.results["grade"] = float(np.max(grades))
            if self.by_neighbourhood:
                self.results["grades"] = grades


def training_set_from_atoms(frames: Sequence[Atoms], elements: Sequence[str]) -> TrainingSet:
    """What calculators have already found for ASE ``Atoms``, as labels to fit to.

    Nothing is calculated: only results that are there and still belong to the atoms' positions are
    taken. Frames without forces or stress are labelled with NaN there, which the fit skips.

    Parameters
    ----------
    frames
        Periodic cells, each with a calculator that holds an energy.
    elements
        Symbols in the order of the potential's species.

    Raises
    ------
    InputError
        A frame has no energy, holds another element, or is not periodic.

    Examples
    --------
    >>> from ase.build import bulk
    >>> from ase.calculators.singlepoint import SinglePointCalculator
    >>> atoms = bulk("Cu")
    >>> atoms.calc = SinglePointCalculator(atoms, energy=-3.7, forces=[[0.0, 0.0, 0.0]])
    >>> training = training_set_from_atoms([atoms], ("Cu", "Au"))
    >>> training.energies, training.stresses[0, 0]
    (array([-3.7]), array([nan, nan, nan]))
    """
    structures = from_atoms(frames, elements)
    energies = np.full(len(structures), np.nan)
    forces = np.full((len(structures.species), 3), np.nan)
    stresses = np.full((len(structures), 3, 3), np.nan)
    for i, atoms in enumerate(frames):
        energy, force, stress = (_known(atoms, name) for name in ("energy", "forces", "stress"))
        if energy is None:
            raise InputError(
                f"structure {i} has no energy; calculate it first, for example with "
                f"atoms.get_potential_energy()"
            )
        energies[i] = energy
        if force is not None:
            forces[structures.offsets[i] : structures.offsets[i + 1]] = force
        if stress is not None:
            stresses[i] = voigt_6_to_full_3x3_stress(stress)
    return TrainingSet(structures, energies, forces, stresses)


def _known(atoms: Atoms, name: str) -> Any:
    """A property that the atoms' calculator holds for them as they are now, or None."""
    if atoms.calc is None or atoms.calc.check_state(atoms):
        return None
    return atoms.calc.results.get(name)
