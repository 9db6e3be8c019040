"""One run of the fake VASP."""

import time
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.emt import EMT
from fake_inputs import BadInputError, read_inputs
from fake_outputs import Outputs

from hullscreen.dft_adapters.relaxation import relax_structure

# EMT counts from the elements' crystals, VASP from atoms: a constant puts energies where VASP's
# are, and drops out of formation energies.
SHIFT_EV_PER_ATOM = -4.0
SCF_STEPS = 5


class EndError(Exception):
    """The run ends here, with this exit status."""

    def __init__(self, status):
        super().__init__(status)
        self.status = status


class FakeVasp:
    def __init__(self, failure):
        self.inputs = read_inputs()
        self.out = Outputs(self.inputs)
        self.failure = failure
        self.atoms = Atoms(
            self.inputs.symbols, cell=self.inputs.cell, scaled_positions=self.inputs.fractions,
            pbc=True,
        )  # fmt: skip
        self.atoms.calc = EMT()
        self.last = None
        self.stopping = False

    def fail(self, place):
        """Let the planned failure happen, if this is where it does."""
        if self.failure is not None:
            self.failure.happen(place, self)

    def evaluate(self, cell, positions):
        """An ionic step: self-consistency, then forces and stress."""
        self.atoms.set_cell(cell)
        self.atoms.set_positions(positions)
        energy = self.atoms.get_potential_energy() + SHIFT_EV_PER_ATOM * len(self.atoms)
        forces, stress = self.atoms.get_forces(), self.atoms.get_stress(voigt=False)
        fractions = np.linalg.solve(cell.T, positions.T).T
        energy, converged = self.scf(energy)
        self.out.ionic_step(cell, fractions, energy, forces, stress, converged=converged)
        self.last = (np.array(cell), fractions)
        self.fail("ionic")
        return energy, forces, stress

    def scf(self, energy):
        if self.failure is not None:
            energy = self.failure.energy(energy, self)
        n_steps = min(SCF_STEPS, self.inputs.tag("NELM"))
        if self.failure is not None and self.failure.never_converges(self):
            n_steps = self.inputs.tag("NELM")
        for number in range(1, n_steps + 1):
            change = 10.0 ** (2 - 2 * number)
            self.out.electronic_step(number, energy + change, change)
            self.fail("scf")
            if self.stopcar() == "LABORT":
                self.out.write("OUTCAR", " hard stop encountered!  aborting job ...")
                raise EndError(0)
        return energy, n_steps < self.inputs.tag("NELM")

    @staticmethod
    def stopcar():
        path = Path("STOPCAR")
        text = path.read_text().upper() if path.is_file() else ""
        for word in ("LABORT", "LSTOP"):
            if word in text and "T" in text.partition("=")[2]:
                return word
        return ""

    def watch(self, _step):
        if self.stopcar() == "LSTOP":
            self.out.write("OUTCAR", " soft stop encountered!  aborting job ...")
            self.stopping = True
        return not self.stopping

    def work(self):
        inputs = self.inputs
        self.out.header()
        self.fail("start")
        cell = inputs.cell
        positions = inputs.fractions @ cell
        if inputs.tag("NSW") > 0 and inputs.tag("IBRION") in (1, 2, 3):
            self.relax(cell, positions)
        else:
            self.evaluate(cell, positions)
        self.out.end(*self.last)
        if self.stopcar():
            Path("STOPCAR").unlink()
        self.fail("end")
        return 0

    def relax(self, cell, positions):
        inputs = self.inputs
        tolerance = -inputs.tag("EDIFFG")
        end = relax_structure(
            self.evaluate,
            cell,
            positions,
            force_tolerance=tolerance,
            stress_tolerance=tolerance * len(positions) / abs(np.linalg.det(cell)),
            max_steps=inputs.tag("NSW"),
            watch=self.watch,
        )
        fractions = np.linalg.solve(end.cell.T, end.positions.T).T
        if not np.allclose(self.last[0], end.cell) or not np.allclose(self.last[1], fractions):
            # A trial step led nowhere: VASP ends with a step at its minimum.
            self.evaluate(end.cell, end.positions)
        if not end.reason:
            text = " reached required accuracy - stopping structural energy minimisation"
            self.out.say(text)
            self.out.write("OUTCAR", text)


def run(failure):
    """Exit status of a run in the current folder."""
    try:
        vasp = FakeVasp(failure)
        return vasp.work()
    except BadInputError as error:
        print(error, flush=True)
        time.sleep(0.01)
        return 1
    except EndError as error:
        return error.status
