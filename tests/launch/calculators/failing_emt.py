"""EMT that cannot compute some formulas, until someone mends it."""

import os
from pathlib import Path

from ase.calculators.emt import EMT


class FailingEMT(EMT):
    """Fails for the formulas in the file named by FAILING_EMT_FORMULAS.

    ``+CuPd2`` there ends the whole process, as a crash in compiled code does; ``-CuPd2`` leaves
    through SystemExit, as codes do that are commands at heart.
    """

    def calculate(self, atoms, properties, system_changes):
        formulas = Path(os.environ["FAILING_EMT_FORMULAS"]).read_text().split()
        if atoms.get_chemical_formula() in formulas:
            raise RuntimeError(f"the charge density of {atoms.get_chemical_formula()} diverged")
        if f"+{atoms.get_chemical_formula()}" in formulas:
            os._exit(7)
        if f"-{atoms.get_chemical_formula()}" in formulas:
            raise SystemExit(3)
        super().calculate(atoms, properties, system_changes)
