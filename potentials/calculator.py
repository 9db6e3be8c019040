"""An MTP as an ASE calculator, for people and programs that think in ``Atoms``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from ase.calculators.calculator import Calculator, all_changes
from ase.stress import full_3x3_to_voigt_6_stress

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
        If given, ``results["grade"]`` is the extrapolation grade of the cell.
    by_neighbourhood
        The active set holds site energies: the grade is the largest of the atoms', and
        ``results["grades"]`` has each, shape (n_atoms,).
    keywords
        What ASE's ``Calculator`` takes, such as ``atoms`` or ``label``.

    Raises
    ------
    InputError
        On calculating: an element the potential does not know, or a cell that is not periodic.

    Examples
    --------
    >>> atoms.calc = MTPCalculator(read_mtp("CuPd.mtp"))  # doctest: +SKIP
    >>> atoms.get_potential_energy()  # doctest: +SKIP
    -3.51
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
