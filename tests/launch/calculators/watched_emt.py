"""EMT that fails for some formulas and goes at the pace it is told: a campaign to look at."""

import os
import time
from pathlib import Path

from failing_emt import FailingEMT

SLOW_S = 0.2


class WatchedEMT(FailingEMT):
    """Fails as FailingEMT does; the file named by WATCHED_EMT_PACE holds quick, slow or hold.

    Where it holds, it first makes a file beside that one that ends in .holds.
    """

    def calculate(self, atoms, properties, system_changes):
        pace = Path(os.environ["WATCHED_EMT_PACE"])
        if pace.read_text() == "slow":
            time.sleep(SLOW_S)
        while pace.read_text() == "hold":
            pace.with_suffix(".holds").touch()
            time.sleep(0.02)
        super().calculate(atoms, properties, system_changes)
