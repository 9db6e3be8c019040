"""EMT that tells the event log of every evaluation that it begins."""

import os
import time

import event_log
from ase.calculators.calculator import all_changes
from ase.calculators.emt import EMT

from hullscreen.dft_adapters.structure_key import structure_key

# By default long enough that most faults meet workers in the middle of a step.
TAKES_S = float(os.environ.get("WITNESSED_EMT_TAKES_S", "0.3"))


class WitnessedEMT(EMT):
    """EMT, in the place of DFT that costs something."""

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        event_log.write("evaluated", structure=structure_key(atoms or self.atoms))
        time.sleep(TAKES_S)
        super().calculate(atoms, properties, system_changes)
