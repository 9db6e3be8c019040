"""EMT that fails for some formulas and waits where it is told to: a campaign to look at."""

from failing_emt import FailingEMT
from slow_emt import SlowEMT


class WatchedEMT(FailingEMT, SlowEMT):
    """Reads FAILING_EMT_FORMULAS and SLOW_EMT_WHILE, as those two do."""
