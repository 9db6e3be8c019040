"""EMT that writes down every evaluation, so that a test can see what was computed twice."""

import hashlib
import os
from pathlib import Path

from ase.calculators.emt import EMT


class CountingEMT(EMT):
    """Appends a hash of each structure it computes to the file named by COUNTING_EMT_LOG."""

    def calculate(self, atoms, properties, system_changes):
        super().calculate(atoms, properties, system_changes)
        content = atoms.numbers.tobytes() + atoms.cell[:].tobytes() + atoms.positions.tobytes()
        line = f"{hashlib.sha256(content).hexdigest()}\n".encode()
        log = os.open(os.environ["COUNTING_EMT_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(log, line)
        os.close(log)


def evaluations(log: Path) -> list[str]:
    """Hashes of all evaluations, in order."""
    return log.read_text().split() if log.exists() else []
