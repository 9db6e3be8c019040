"""EMT that takes its time as long as a file is there: DFT in the middle of a calculation."""

import os
import signal
import time
from pathlib import Path

from ase.calculators.calculator import all_changes
from ase.calculators.emt import EMT


class SlowEMT(EMT):
    """Waits while the file named by SLOW_EMT_WHILE exists, and writes a line into it first.

    A file beside it that ends in .deaf lets it wait as codes do that hang in a system call: nobody
    who asks it to end is heard.
    """

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        gate = Path(os.environ["SLOW_EMT_WHILE"])
        if gate.exists():
            if gate.with_suffix(".deaf").exists():
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
            with gate.open("a") as stream:
                stream.write(f"{os.getpid()}\n")
        while gate.exists():
            time.sleep(0.02)
        super().calculate(atoms, properties, system_changes)
